"""Grad-CAM: which places of an image spoke for a class.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from spicula.errors import SpiculaError
from spicula.imaging.store import Store

_BATCH = 16


class NoFeatureMapError(SpiculaError):
    """The architecture has no layer whose output is a map of features: (N, channels, rows, columns)."""


def cam(module: Any, images: np.ndarray | torch.Tensor, class_index: int) -> np.ndarray:
    """Return where the network saw the class.

    Section 3 of the paper: the gradients of the class's score before softmax with respect to the feature map are
    averaged over its places (equation 1) and weight its channels; negative sums are cut off (equation 2). The map is
    enlarged to the image and scaled to its own maximum: it compares places within one image, never images.

    The score is the log-odds of the class, its logit minus the log-sum-exp of the others: softmax leaves free what all
    logits have in common, so that part of a single logit says nothing about the class.

    Args:
        module: a network of `spicula.models.registry`: takes (N, C, H, W) in [0, 1], returns (N, classes) logits, and
            its `gradcam_layer()` is the module whose output, (N, channels, rows, columns), is looked at.
        images: (N, C, H, W) float in [0, 1].
        class_index: of the class that is asked about.

    Returns:
        (N, H, W) float32 in [0, 1]; all 0 where nothing in the image speaks for the class.

    Raises:
        NoFeatureMapError: the architecture has no such map.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    batch = torch.as_tensor(images, dtype=torch.float32).to(device)
    with _inference(module):
        maps = [_one_batch(module, part, class_index) for part in torch.split(batch, _BATCH)]
    return torch.cat(maps).cpu().numpy() if maps else np.zeros((0, *batch.shape[2:]), np.float32)


def explain(
    runs: Sequence[Path],
    predictions: pa.Table,
    store: Store,
    image_ids: Sequence[str],
    load: Callable[[Path], Any],
    *,
    class_index: int = 1,
) -> dict[str, np.ndarray]:
    """Return the Grad-CAM maps of images, each from the fold's network that had never seen it.

    Args:
        runs: a model's run folders, one a fold (or one in all), in order of the folds.
        predictions: the model's Predictions; an image's `fold` among its test rows says which run to ask.
        store: holds the images.
        image_ids: which images.
        load: makes the trained network of a run folder: `spicula.models.registry.load`.
        class_index: of the class that is asked about.

    Returns:
        By image_id: (H, W) float32 in [0, 1]. Empty where the architecture has no map of features to ask.

    Raises:
        SpiculaError: an image is not among the test predictions, or a run cannot be loaded.
    """
    tests = predictions.filter(np.asarray([split == "test" for split in predictions["split"].to_pylist()]))
    fold_of = dict(zip(tests["id"].to_pylist(), tests["fold"].to_pylist(), strict=True))
    unknown = [image_id for image_id in image_ids if image_id not in fold_of]
    if unknown:
        raise SpiculaError(f"no test prediction of image {unknown[0]}, so no network can be asked about it")
    maps: dict[str, np.ndarray] = {}
    for number in sorted({fold_of[image_id] or 0 for image_id in image_ids}):
        wanted = [image_id for image_id in image_ids if (fold_of[image_id] or 0) == number]
        images = _as_input(store.read(store.rows(wanted)))
        network = load(runs[number])
        try:
            maps.update(zip(wanted, cam(network, images, class_index), strict=True))
        except NoFeatureMapError:
            return {}
    return maps


def _as_input(images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) of the Store as (N, C, H, W) float32 in [0, 1]."""
    scaled: np.ndarray = images.transpose(0, 3, 1, 2).astype(np.float32) / np.iinfo(images.dtype).max
    return scaled


def _one_batch(module: Any, images: torch.Tensor, class_index: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output.clone()  # a layer that works in place after it must not change what was kept

    layer = module.gradcam_layer()
    if layer is None:
        raise NoFeatureMapError("Grad-CAM needs a map of features, and this architecture has none")
    handle = layer.register_forward_hook(keep)
    try:
        # a frozen backbone has gradients only because the images ask for them
        logits = module(images.detach().clone().requires_grad_(True))
    finally:
        handle.remove()
    features = seen[-1]
    if features.ndim != 4:
        shape = tuple(features.shape)
        raise NoFeatureMapError(f"Grad-CAM needs a map of features, and this layer's output has the shape {shape}")
    (gradients,) = torch.autograd.grad(_log_odds(logits, class_index).sum(), features)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    heat = functional.relu((weights * features).sum(dim=1, keepdim=True))
    heat = functional.interpolate(heat, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    highest = heat.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, heat / highest.clamp_min(1e-30), torch.zeros_like(heat)).detach().float()


def _log_odds(logits: torch.Tensor, class_index: int) -> torch.Tensor:
    """(N,): log of the class's probability over that of all others together, from (N, classes) logits."""
    others = [index for index in range(logits.shape[1]) if index != class_index]
    return logits[:, class_index] - logits[:, others].logsumexp(dim=1)


@contextmanager
def _inference(module: Any) -> Iterator[None]:
    """The network as it predicts (no dropout, fixed batch statistics), with gradients; afterwards as it was before."""
    modes = {part: part.training for part in module.modules()}  # parts may differ: a frozen one stays as it is
    module.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training
