"""The background of an image: its level and noise, from its border."""

from dataclasses import dataclass

import numpy as np

#: Width of the border that is looked at, as a share of the image's shorter side.
BORDER = 0.005
#: The background makes up at least this share of the border: around a breast that fills three sides and more there is
#: no telling. It makes up half and more of the border in a real exam that was cropped closely.
LEAST_OF_BORDER = 0.25
#: Values so near to the background's, as a share of the range of the image, are taken for its noise.
VICINITY = 0.03
#: If this share of them has one value, it is constant, and the rest are specks or the edge of the breast.
CONSTANT = 0.9
#: Largest noise (standard deviation), as a share of the range: beyond it, the fat under the skin is lost in it.
LARGEST_NOISE = 0.01
_SAMPLING = 5  # every so many rows and columns tell the range of an image


@dataclass(frozen=True)
class Background:
    """The background of an image.

    Attributes:
        level: the value that it has, or, where it is noisy, its median.
        noise: standard deviation; 0 where it is constant.
        share: of the border.
    """

    level: int
    noise: float
    share: float


def find_background(pixels: np.ndarray) -> Background | None:
    """Return the background of an image, or None where nothing along its border is even enough to be one.

    The background is the narrowest range of values that a quarter (`LEAST_OF_BORDER`) of the border has.

    Args:
        pixels: (H, W).
    """
    border = np.sort(_border(pixels).astype(np.int64))
    low, high = np.percentile(pixels[::_SAMPLING, ::_SAMPLING], (1, 99))
    vicinity = VICINITY * float(high - low)
    number = int(np.ceil(LEAST_OF_BORDER * border.size))
    lengths = border[number - 1 :] - border[: border.size - number + 1]
    middle = border[_densest(pixels, border, lengths, number) + number // 2]
    near = border[np.abs(border - middle) <= vicinity]
    values, counts = np.unique(near, return_counts=True)
    share = near.size / border.size
    if counts.max() >= CONSTANT * near.size:
        return Background(int(values[counts.argmax()]), 0.0, share)
    noise = float(near.std())
    if noise > LARGEST_NOISE * float(high - low):
        return None
    return Background(int(np.median(near)), noise, share)


def _densest(pixels: np.ndarray, border: np.ndarray, lengths: np.ndarray, number: int) -> int:
    """Return where in the sorted border the shortest range begins; of several, that which most of the image has.

    Several there are where breast and background are both of one value along the border, each over a quarter of it.
    """
    starts = np.flatnonzero(lengths == lengths.min())
    middles = border[starts + number // 2]
    candidates = np.unique(middles)
    if candidates.size == 1:
        return int(starts[0])
    counts = np.bincount(pixels[::_SAMPLING, ::_SAMPLING].ravel(), minlength=int(border[-1]) + 1)
    frequent = candidates[np.argmax(counts[candidates])]
    return int(starts[np.argmax(middles == frequent)])


def _border(pixels: np.ndarray) -> np.ndarray:
    width = max(1, round(BORDER * min(pixels.shape)))
    sides = (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:])
    return np.concatenate([side.ravel() for side in sides])
