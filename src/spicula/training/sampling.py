"""Which images an epoch shows, in which order, under each way of treating unequal classes."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Imbalance = Literal["none", "sampler", "loss", "undersample"]


def epoch_order(
    targets: npt.NDArray[np.int64], copies: int, imbalance: Imbalance, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """Return the epoch's images, in order.

    Args:
        targets: (N,) class of each image.
        copies: variants of each image; position p stands for variant p // N of image p % N.
        imbalance: `sampler` draws copies x N with replacement, each class as often as any other; `undersample` takes
            as many of each class as the smallest has, others each epoch; `none` and `loss` take every image once.
        seed: of the run.
        epoch: from 0. The same seed and epoch give the same order, whatever came before.

    Returns:
        (M,) positions from 0 to copies x N - 1.
    """
    generator = np.random.default_rng([seed, epoch])
    classes = np.tile(targets, copies)
    if imbalance == "sampler":
        share = 1 / np.bincount(classes)[classes]
        return generator.choice(len(classes), size=len(classes), replace=True, p=share / share.sum())
    if imbalance == "undersample":
        present, counts = np.unique(classes, return_counts=True)
        chosen = [generator.choice(np.flatnonzero(classes == one), size=counts.min(), replace=False) for one in present]
        return generator.permutation(np.concatenate(chosen))
    return generator.permutation(len(classes))


def split_batches(order: npt.NDArray[np.int64], batch: int) -> list[npt.NDArray[np.int64]]:
    """Cut an epoch into batches; a single image left over joins the last, since batch statistics need two."""
    batches = [order[at : at + batch] for at in range(0, len(order), batch)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = np.concatenate([batches[-1], last])
    return batches


def class_weights(targets: npt.NDArray[np.int64], classes: int, imbalance: Imbalance) -> npt.NDArray[np.float32]:
    """Return (classes,) weights of the loss: with `loss`, N / (classes x count), whose mean over all images is 1."""
    if imbalance != "loss":
        return np.ones(classes, np.float32)
    counts = np.maximum(np.bincount(targets, minlength=classes), 1)
    return (len(targets) / (classes * counts)).astype(np.float32)
