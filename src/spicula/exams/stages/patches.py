"""Patches of a mammogram, as the published patch classifier takes them: where they lie, and what stands in them.

Source: Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer Screening. IEEE
Transactions on Medical Imaging 39(4), 1184-1194, and the behaviour of its published implementation.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spicula.exams.types import Grey16

#: Smallest standard deviation that an image is divided by.
SMALLEST_DEVIATION = 1e-5


def starts(length: int, patch: int, stride: int, draws: random.Random) -> list[int]:
    """Return where the patches along one axis start: the first at 0, the last ends with the image, all is covered.

    Where strides do not add up to the length there is one patch more, and all strides become shorter by about the
    same; which of them are the shorter ones is drawn at random.

    Args:
        length: of the axis, in pixels; at least `patch`.
        patch: length of a patch.
        stride: largest distance between two starts.
        draws: where the random choice comes from; it is drawn from only where strides do not add up.
    """
    count, left = divmod(length - patch, stride)
    if left == 0:
        return list(range(0, length - patch + 1, stride))
    steps = count + 1
    shorter, rest = divmod(stride - left, steps)
    shortest = set(draws.sample(range(steps), rest))
    lengths = [stride - shorter - (step in shortest) for step in range(steps)]
    return [0, *np.cumsum(lengths).tolist()]


def standardise(image: Grey16) -> npt.NDArray[np.float32]:
    """Return an image minus its mean, divided by its standard deviation; computed in float64.

    Args:
        image: (H, W), any values.

    Returns:
        (H, W). All 0 where the image is the same everywhere.
    """
    values = image.astype(np.float64)
    values -= values.mean()
    values /= max(values.std(), SMALLEST_DEVIATION)
    return values.astype(np.float32)


@dataclass(frozen=True)
class Patches:
    """The patches of one image, those that hold nothing but background taken together: they are all alike.

    Attributes:
        image: (H, W), as the classifier sees it.
        patch: side of a patch.
        tops: (R,) first rows, ascending.
        lefts: (C,) first columns, ascending.
        slots: (R, C) which of the distinct patches stands there, 0 to `count` - 1.
        firsts: (count,) place in the flattened (R, C) of each distinct patch.
    """

    image: Grey16
    patch: int
    tops: npt.NDArray[np.int32]
    lefts: npt.NDArray[np.int32]
    slots: npt.NDArray[np.intp]
    firsts: npt.NDArray[np.intp]

    @classmethod
    def of(cls, image: Grey16, patch: int, stride: int, draws: random.Random) -> "Patches":
        """Lay patches over an image: its rows are laid out first, then its columns.

        Args:
            image: (H, W), each at least `patch`; background is 0.
            patch: side of a patch.
            stride: largest distance between neighbours.
            draws: see `starts`.
        """
        height, width = image.shape
        tops = np.array(starts(height, patch, stride, draws), np.int32)
        lefts = np.array(starts(width, patch, stride, draws), np.int32)
        blank = np.array([[not image[y : y + patch, x : x + patch].any() for x in lefts] for y in tops])
        distinct = ~blank
        distinct.flat[blank.argmax()] = True  # one of the blank ones stands for all
        slots = distinct.cumsum().reshape(blank.shape) - 1
        slots[blank] = slots.flat[blank.argmax()]
        return cls(image, patch, tops, lefts, slots, np.flatnonzero(distinct))

    @property
    def count(self) -> int:
        """How many distinct patches there are."""
        return len(self.firsts)

    def cut(self) -> Iterator[npt.NDArray[np.float32]]:
        """Cut the distinct patches out of the standardised image, one after another.

        Returns:
            (1, 1, patch, patch) each, contiguous.
        """
        values = standardise(self.image)
        for place in self.firsts:
            row, column = divmod(int(place), len(self.lefts))
            y, x = int(self.tops[row]), int(self.lefts[column])
            yield values[None, None, y : y + self.patch, x : x + self.patch].copy()
