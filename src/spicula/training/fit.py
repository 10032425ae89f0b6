"""Train one model on one split: the same call for every line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spicula import files, predictions
from spicula import index as indexes
from spicula.errors import UsageError
from spicula.imaging.store import Store
from spicula.models.settings import LinearSettings, NetworkSettings
from spicula.progress import say
from spicula.training import data, runs
from spicula.training.data import Part
from spicula.training.runs import Job, Outcome

SPLITS = ("train", "val", "test")

#: Columns of the Index that decide, with the files themselves, what training sees.
_MATTERS = ("image_id", "frame", "laterality", "patient_id", "target")


def fit(
    settings: LinearSettings | NetworkSettings,
    index: pa.Table,
    store: Store,
    run: Path,
    *,
    seed: int,
    target_name: str,
    classes: tuple[str, str],
    fold: int | None,
    device: str = "auto",
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Train a model, score the images of validation and test, and leave the run's folder.

    A run that is complete and of the same data, settings, seed and versions is left as it is; one that was killed
    goes on after its last epoch, and on the same processor ends with the same predictions; any other is replaced.

    Args:
        settings: of the model.
        index: with the column `split` filled; rows without a split or a target are not used.
        store: its images.
        run: the folder, which holds `run.json`, `weights.safetensors`, `predictions.parquet`, and for networks
            `epochs.jsonl` and `tensorboard/`.
        seed: of everything random.
        target_name: what the scores are for, as Predictions name it: the second of the classes.
        classes: names of target 0 and of target 1.
        fold: which of k models this is; None where there is one.
        device: for networks: auto, cpu, cuda or another that torch knows.
        recipe: what the study was, kept in `run.json` for the reader.

    Raises:
        UsageError: the split, the settings or the device cannot work; the message says what to change.
        SpiculaError: training failed.
    """
    run = Path(run)
    parts = {split: data.part(index, store, split) for split in SPLITS}
    _check_training_side(settings, parts["train"], classes)
    card = _card(settings, index, parts, store, seed=seed, target_name=target_name, classes=classes, fold=fold)
    done = runs.status(run, card["key"])
    if done == "complete":
        say(f"{settings.name}: trained already, in {run}")
        return
    if done == "absent":
        runs.clear(run)
        files.write_json(run / runs.CARD, {**card, "status": "started", "recipe": recipe})
    job = Job(settings, parts, store, run, seed, len(classes), device)
    outcome = _train(job)
    digest = files.sha256_file(run / runs.WEIGHTS)
    rows = _rows(parts, outcome, card, digest)
    predictions.write(run / runs.PREDICTIONS, predictions.from_rows(rows))
    facts = {"chosen": {}, **outcome.facts, "model_digest": digest, "recipe": recipe}
    files.write_json(run / runs.CARD, {**card, "status": "complete", **facts})
    runs.clear_checkpoint(run)


def _train(job: Job) -> Outcome:
    if isinstance(job.settings, LinearSettings):
        from spicula.training import linear

        return linear.fit(job)
    from spicula.training import network

    return network.fit(job)


def _check_training_side(settings: LinearSettings | NetworkSettings, train: Part, classes: tuple[str, str]) -> None:
    counts = np.bincount(train.targets, minlength=2)
    if counts.min() == 0:
        raise UsageError(
            f"{settings.name} cannot learn from {counts[0]} {classes[0]} and {counts[1]} {classes[1]} images on the "
            "training side; change the split"
        )


def _card(
    settings: LinearSettings | NetworkSettings,
    index: pa.Table,
    parts: Mapping[str, Part],
    store: Store,
    *,
    seed: int,
    target_name: str,
    classes: tuple[str, str],
    fold: int | None,
) -> dict[str, Any]:
    """What is known before training, with the `key` over all of it that decides the result."""
    height, width, channels = store.shape
    known: dict[str, Any] = {
        "name": settings.name,
        "line": settings.line,
        "fold": fold,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "preprocess": store.preprocess.model_dump(mode="json"),
        "target": target_name,
        "classes": list(classes),
        "size": [height, width],
        "channels": channels,
        "split_digest": files.sha256_json({split: part.image_ids for split, part in parts.items()}),
        "versions": runs.versions(),
    }
    decisive = known | {
        # the file's content counts, not where it lies
        "settings": {**known["settings"], "weights": _weights_digest(settings)},
        "preprocess": store.preprocess.digest(),
        "data": {split: [part.digests, part.table.select(list(_MATTERS)).to_pylist()] for split, part in parts.items()},
    }
    counts = {split: [int((part.targets == one).sum()) for one in (0, 1)] for split, part in parts.items()}
    return {
        "status": "started",
        "key": files.sha256_json(decisive),
        **known,
        "index_digest": indexes.digest(index),
        "images": counts,  # by split: negative, positive
    }


def _weights_digest(settings: LinearSettings | NetworkSettings) -> str | None:
    weights = getattr(settings, "weights", None)
    if not isinstance(weights, Path):
        return weights
    if not weights.is_file():
        raise UsageError(
            f"no weights file at {weights}, which {settings.name} is to start from; "
            "give the path of a .safetensors or .pth file"
        )
    return files.sha256_file(weights)


def _rows(parts: Mapping[str, Part], outcome: Outcome, card: Mapping[str, Any], digest: str) -> list[dict[str, Any]]:
    return [
        {
            "id": row["image_id"],
            "patient_id": row["patient_id"],
            "exam_id": row["exam_id"],
            "side": row["laterality"],
            "target": card["target"],
            "label": row["target"],
            "score": float(score),
            "split": split,
            "fold": card["fold"],
            "model": card["name"],
            "model_digest": digest,
        }
        for split, scores in outcome.scores.items()
        for row, score in zip(parts[split].table.to_pylist(), scores, strict=True)
    ]
