"""Heatmaps: what the patch classifier says all over a mammogram, and the maps that follow from it."""

import io
import random
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.errors import SpiculaError
from spicula.exams.stages.orientation import is_flipped, oriented
from spicula.exams.stages.patches import Patches
from spicula.exams.types import Cropped, PatchScores, RefusedExamError, Runner

#: Classes of the patch classifier that are kept: their places in its output.
MALIGNANT, BENIGN = 0, 1

#: Of the random layout of patches: every exam starts from it.
SEED = 0


def heatmaps(crops: Sequence[Cropped], network: Runner, settings: ScreeningSettings) -> list[PatchScores]:
    """Classify patches all over every image of an exam.

    Each image is turned so that the breast points to the right, standardised as a whole, and cut into overlapping
    patches. Patches are cut when the network takes them, so that few are in memory at a time. Those without any
    tissue are all the same; one of them is classified, and the others get its answer.

    Args:
        crops: in the order of VIEWS: the layout of an image's patches depends on how many were laid out before.
        network: patches (1, 1, patch, patch) -> probabilities (1, 4): malignant, benign and two others.
        settings: `patch` and `stride`.

    Returns:
        One an image, in the same order.

    Raises:
        RefusedExamError: an image is smaller than a patch.
    """
    draws = random.Random(SEED)
    laid_out = [_lay_out(cropped, settings, draws) for cropped in crops]
    answers = iter(network((patch,) for patches in laid_out for patch in patches.cut()))
    return [_collect(cropped, patches, answers) for cropped, patches in zip(crops, laid_out, strict=True)]


def _lay_out(cropped: Cropped, settings: ScreeningSettings, draws: random.Random) -> Patches:
    height, width = cropped.pixels.shape
    if min(height, width) < settings.patch:
        raise RefusedExamError(
            f"{cropped.name} ({cropped.view}): the breast takes {height} x {width} pixels (rows x columns), less than a"
            f" patch of the classifier, {settings.patch} x {settings.patch}; the image must have its full resolution"
        )
    return Patches.of(oriented(cropped.pixels, cropped.view, cropped.mirrored), settings.patch, settings.stride, draws)


def _collect(cropped: Cropped, patches: Patches, answers: Iterator[npt.NDArray[np.float32]]) -> PatchScores:
    height, width = cropped.pixels.shape
    scores = np.concatenate(list(islice(answers, patches.count)))
    return PatchScores(
        height,
        width,
        patches.patch,
        is_flipped(cropped.view, cropped.mirrored),
        patches.tops,
        patches.lefts,
        scores[patches.slots, MALIGNANT],
        scores[patches.slots, BENIGN],
    )


def maps(scores: PatchScores) -> npt.NDArray[np.float32]:
    """Return an image's two heatmaps: in every pixel the mean over the patches that cover it.

    Args:
        scores: of the image.

    Returns:
        (2, H, W), malignant and benign, 0 to 1, in the orientation of the cropped image.
    """
    found = oriented_maps(scores)
    return found[:, :, ::-1] if scores.flipped else found


def oriented_maps(scores: PatchScores) -> npt.NDArray[np.float32]:
    """Return an image's two heatmaps as `maps` does, but of the image as classifiers see it, pointing to the right."""
    # The patches that cover a pixel are a block of neighbouring rows and columns of the scores.
    first_row, last_row = _covering(scores.tops, scores.patch, scores.height)
    first_column, last_column = _covering(scores.lefts, scores.patch, scores.width)
    counts = np.outer(last_row - first_row, last_column - first_column)
    result = np.empty((2, scores.height, scores.width), np.float32)
    for one, values in zip(result, (scores.malignant, scores.benign), strict=True):
        down = _sums(values.astype(np.float64), first_row, last_row)
        np.divide(_sums(down.T, first_column, last_column).T, counts, out=one, casting="same_kind")
    return result


def _covering(starts: npt.NDArray[np.int32], patch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for every pixel of an axis the first patch that covers it, and the first after it that no longer does."""
    pixels = np.arange(length)
    return np.searchsorted(starts, pixels - patch, side="right"), np.searchsorted(starts, pixels, side="right")


def _sums(values: npt.NDArray[np.float64], first: np.ndarray, last: np.ndarray) -> npt.NDArray[np.float64]:
    """Return the sums over rows `first[i]` to `last[i]` - 1 of `values`, one row for every i."""
    before = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    found: npt.NDArray[np.float64] = before[last] - before[first]
    return found


def encode(scores: PatchScores) -> bytes:
    """Return the scores as the bytes of an .npz file: the same bytes for the same scores."""
    stream = io.BytesIO()
    fields: dict[str, Any] = dict(vars(scores))
    np.savez(stream, **fields)
    return stream.getvalue()


def decode(data: bytes) -> PatchScores:
    """Return what `encode` wrote.

    Raises:
        SpiculaError: the bytes are something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            values = {name: file[name] for name in PatchScores.__dataclass_fields__}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise SpiculaError("stored heatmaps cannot be read: they are damaged, or no heatmaps") from error
    height, width, patch = (int(values.pop(name)) for name in ("height", "width", "patch"))
    return PatchScores(height, width, patch, bool(values.pop("flipped")), **values)
