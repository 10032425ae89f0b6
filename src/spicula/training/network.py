"""Training a network: one loop for every architecture."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch.nn import functional

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.models import registry
from spicula.models.classifier import Classifier
from spicula.models.settings import NetworkSettings
from spicula.progress import say
from spicula.training import augment, device, runs, sampling, state, tensorboard
from spicula.training.data import Part
from spicula.training.device import Setup
from spicula.training.feed import Feed
from spicula.training.runs import Job, Outcome
from spicula.training.ticks import by_image
from spicula.training.verdict import judge

#: Images that go through the network at once when nothing is learnt.
EVALUATION_BATCH = 128

Order = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Loop:
    """What stays the same from epoch to epoch."""

    settings: NetworkSettings
    setup: Setup
    seed: int
    module: Classifier
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    feed: Feed
    part: Part
    weights: torch.Tensor  # (classes,) of the loss


def fit(job: Job) -> Outcome:
    """Train a network, or go on where a killed training stopped, and score validation and test images.

    Raises:
        UsageError: the network, its weights file or the device is not there, or settings and images do not fit.
        SpiculaError: the loss stopped being a number.
    """
    settings = job.settings
    assert isinstance(settings, NetworkSettings)
    _check(job, settings)
    setup = device.choose(job.device, settings.precision)
    loop = _prepare(job, settings, setup)
    validation = Feed(job.store, job.parts["val"].rows, setup.device)
    epochs = state.read(job.run / runs.CHECKPOINT, loop.module, loop.optimizer, loop.scaler)
    if epochs:
        say(f"{settings.name}: going on after epoch {epochs[-1]['epoch']}")
    _train(job, loop, validation, epochs)
    best = judge(epochs, settings.patience, settings.plateau_patience).best_epoch
    loop.module.load_state_dict(state.best_weights(job.run / runs.CHECKPOINT))
    files.write_bytes(job.run / runs.WEIGHTS, state.encode(loop.module))
    scores = {split: _score(loop, job, split) for split in ("val", "test") if len(job.parts[split])}
    return Outcome(scores, _facts(loop, epochs, best))


def _check(job: Job, settings: NetworkSettings) -> None:
    if not len(job.parts["val"]):
        raise UsageError(f"{settings.name} stops by its validation images, and there are none; change the split")
    height, width, _ = job.store.shape
    if settings.expand == "rotate-flip" and height != width:
        raise UsageError(f"expand = rotate-flip turns by 90 degrees, and the images are {height}x{width}, not square")


def _prepare(job: Job, settings: NetworkSettings, setup: Setup) -> _Loop:
    height, width, channels = job.store.shape
    with _seeded([job.seed], setup):
        module = registry.create(settings, (height, width), channels, job.classes)
    for note in module.notes:
        say(f"{settings.name}: {note}")
    module = module.to(setup.device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # known to torch, not to its stubs
    head, backbone = module.parts()
    groups: list[dict[str, Any]] = [{"params": head, "lr": settings.learning_rate}]
    if backbone:
        groups.append({"params": backbone, "lr": settings.backbone_learning_rate or settings.learning_rate})
    # fused: one pass over the weights, instead of a dozen. Without weight decay, AdamW is Adam
    optimizer = torch.optim.AdamW(
        groups, weight_decay=settings.weight_decay, fused=setup.device.type in ("cpu", "cuda")
    )
    weights = torch.from_numpy(sampling.class_weights(job.parts["train"].targets, job.classes, settings.imbalance))
    return _Loop(
        settings=settings,
        setup=setup,
        seed=job.seed,
        module=module,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(setup.device.type, enabled=setup.precision == "float16"),
        feed=Feed(job.store, job.parts["train"].rows, setup.device),
        part=job.parts["train"],
        weights=weights.to(setup.device),
    )


def _train(job: Job, loop: _Loop, validation: Feed, epochs: state.Epochs) -> None:
    """Train until the epochs are done or none has been better for long; `epochs` grows by one line each."""
    settings = loop.settings
    rates = [group["lr"] for group in loop.optimizer.param_groups]
    one_class = len(np.unique(job.parts["val"].targets)) < 2
    if one_class:
        say(f"{settings.name}: validation images show one class, so training stops by their loss, not their AUC")
    with tensorboard.log(job.run / runs.TENSORBOARD, epochs) as record:
        while len(epochs) < settings.epochs:
            verdict = judge(epochs, settings.patience, settings.plateau_patience)
            if verdict.stop:
                break
            for group, rate in zip(loop.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * verdict.factor
            row = _epoch(loop, len(epochs)) | _validate(loop, validation, job.parts["val"])
            row["learning_rate"] = rates[0] * verdict.factor
            epochs.append(row)
            best = judge(epochs, settings.patience, settings.plateau_patience).best_epoch
            assert best is not None
            state.write(
                job.run / runs.CHECKPOINT,
                epochs,
                best,
                module=loop.module,
                optimizer=loop.optimizer,
                scaler=loop.scaler,
            )
            files.write_text(job.run / runs.EPOCHS, "".join(json.dumps(one) + "\n" for one in epochs))
            record(row)
            say(_sentence(settings, row))


def _epoch(loop: _Loop, number: int) -> dict[str, Any]:
    """Show the network every image of an epoch, numbered from 0, and return what is known of it."""
    settings, setup, count = loop.settings, loop.setup, len(loop.feed)
    copies = augment.VARIANTS if settings.expand == "rotate-flip" else 1
    order = sampling.epoch_order(loop.part.targets, copies, settings.imbalance, loop.seed, number)
    batches = sampling.split_batches(order, settings.batch)
    targets = torch.from_numpy(loop.part.targets).to(setup.device)
    total = torch.zeros((), device=setup.device)
    images = by_image(
        loop.feed.batches(positions % count for positions in batches),
        [len(positions) for positions in batches],
        f"{settings.name}: epoch {number + 1} of {settings.epochs}",
    )
    loop.module.train()
    start = time.perf_counter()
    with _seeded([loop.seed, number], setup):
        for step, (positions, batch) in enumerate(zip(batches, images, strict=True)):
            shown = _change(batch, positions // count, settings, _generator(loop.seed, number, step))
            wanted = targets[torch.from_numpy(positions % count).to(setup.device)]
            total += _step(loop, shown, wanted) * len(positions)
    mean = float(total) / len(order)  # also waits for the device
    seconds = time.perf_counter() - start
    if not np.isfinite(mean):
        raise SpiculaError(f"{settings.name}: the loss is no number in epoch {number + 1}; lower its learning_rate")
    return {
        "epoch": number + 1,
        "train_loss": mean,
        "images_per_second": len(order) / seconds,
        "seconds": seconds,
    }


def _change(
    images: torch.Tensor, variants: Order, settings: NetworkSettings, generator: torch.Generator
) -> torch.Tensor:
    if settings.expand == "rotate-flip":
        images = augment.rotate_flip(images, torch.from_numpy(variants))
    if settings.augment != "none":
        images = augment.augment(images, settings.augment, generator)
    return images.contiguous(memory_format=torch.channels_last)


def _step(loop: _Loop, images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Learn from one batch, and return its mean loss."""
    with loop.setup.autocast:
        logits = loop.module(images)
    loss = functional.cross_entropy(logits.float(), wanted, weight=loop.weights)
    loop.optimizer.zero_grad(set_to_none=True)
    loop.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    loop.scaler.step(loop.optimizer)
    loop.scaler.update()
    return loss.detach()


def _validate(loop: _Loop, feed: Feed, part: Part) -> dict[str, Any]:
    logits = _logits(loop, feed, f"{loop.settings.name}: validation")
    targets = torch.from_numpy(part.targets)
    scores = logits.softmax(dim=1)[:, 1].numpy()
    return {
        "val_loss": float(functional.cross_entropy(logits, targets)),
        "val_auc": _auc(scores, part.targets),
        "val_accuracy": float((logits.argmax(dim=1) == targets).double().mean()),
    }


def _score(loop: _Loop, job: Job, split: str) -> Probabilities:
    feed = Feed(job.store, job.parts[split].rows, loop.setup.device)
    logits = _logits(loop, feed, f"{loop.settings.name}: scoring {split}")
    scores: Probabilities = logits.softmax(dim=1)[:, 1].numpy()
    return scores


def _logits(loop: _Loop, feed: Feed, what: str) -> torch.Tensor:
    """(N, classes) float64, computed in float32 whatever the precision of training."""
    loop.module.eval()
    batches = sampling.split_batches(np.arange(len(feed)), EVALUATION_BATCH)
    images = by_image(feed.batches(batches), [len(positions) for positions in batches], what)
    with torch.inference_mode():
        found = [loop.module(batch.contiguous(memory_format=torch.channels_last)).cpu() for batch in images]
    return torch.cat(found).double()


def _auc(scores: Probabilities, targets: Order) -> float | None:
    """Area under the ROC curve, by ranks (Mann & Whitney 1947); None where only one class is there."""
    positive = int(targets.sum())
    negative = len(targets) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)[targets == 1].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def _facts(loop: _Loop, epochs: state.Epochs, best_epoch: int | None) -> dict[str, Any]:
    # the first epoch also warms up caches and kernels
    rates = [epoch["images_per_second"] for epoch in epochs[1:] or epochs]
    return {
        "parameters": sum(parameter.numel() for parameter in loop.module.parameters()),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "images_per_second": median(rates),
        "best_epoch": best_epoch,
        "device": str(loop.setup.device),
        "precision": loop.setup.precision,
        "images_from": loop.feed.place,
        "notes": loop.module.notes,
    }


def _sentence(settings: NetworkSettings, row: dict[str, Any]) -> str:
    auc = "not defined" if row["val_auc"] is None else f"{row['val_auc']:.3f}"
    return (
        f"{settings.name}: epoch {row['epoch']} of {settings.epochs}, loss {row['train_loss']:.4f}, "
        f"validation loss {row['val_loss']:.4f}, AUC {auc}, {row['images_per_second']:.0f} images a second"
    )


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mixed(numbers))


@contextmanager
def _seeded(numbers: list[int], setup: Setup) -> Iterator[None]:
    """Seed torch's own generators within, and leave them as they were."""
    with torch.random.fork_rng(devices=[setup.device] if setup.device.type == "cuda" else []):
        torch.manual_seed(_mixed(numbers))
        yield


def _mixed(numbers: list[int] | tuple[int, ...]) -> int:
    """One seed of several numbers, by numpy's mixing: near numbers give seeds with nothing in common."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))
