"""Random windows of a mammogram, as the published four-view classifier takes them: where they lie, what stands in them.

Source: Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer Screening. IEEE
Transactions on Medical Imaging 39(4), 1184-1194, and the behaviour of its published implementation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from spicula.bundle.screening.settings import ScreeningSettings

#: Of the random windows: every exam starts from it.
SEED = 0

#: Smallest standard deviation that a window is divided by.
SMALLEST_DEVIATION = 1e-5


@dataclass(frozen=True)
class Draw:
    """The random part of one window of a view.

    Attributes:
        image: which of the view's images.
        shift: y, x: by how much of the possible shift the window moves, -1 to 1.
        borders: top, bottom, left, right: by how much of the possible change each border moves, -1 to 1.
    """

    image: int
    shift: tuple[float, float]
    borders: tuple[float, float, float, float]


def draw(counts: Sequence[int], windows: int) -> list[list[Draw]]:
    """Draw the windows of an exam, in the published order: window by window, and in each view by view.

    Args:
        counts: number of images of each view.
        windows: how many windows there are.

    Returns:
        For each window, one a view.
    """
    random = np.random.RandomState(SEED)  # the published classifier's own stream
    return [[_draw_one(random, count) for count in counts] for _ in range(windows)]


def _draw_one(random: np.random.RandomState, count: int) -> Draw:
    image = int(random.randint(0, count))
    y, x = random.uniform(-1, 1, 2).tolist()
    top, bottom, left, right = random.uniform(-1, 1, 4).tolist()
    return Draw(image, (y, x), (top, bottom, left, right))


@dataclass(frozen=True)
class Window:
    """A window over an image, in pixels of it: bottom and right are exclusive, and it may reach beyond the image."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass
class _Span:
    """A window along one axis of an image that was padded with zeros: where it starts and ends there."""

    start: int
    end: int
    length: int  # of the padded axis
    front: int = 0  # of the zeros, those before the image

    def shift(self, multiplier: float, limit: int) -> None:
        """Move by `multiplier` of what is possible, and at a border always away from it."""
        self._move(max(0, -self.start))
        self._move(min(0, self.length - self.end))
        if self.start == 0:
            multiplier = abs(multiplier)
        elif self.end == self.length:
            multiplier = -abs(multiplier)
        room = self.start if multiplier < 0 else self.length - self.end
        self._move(round(min(limit, room) * multiplier))

    def _move(self, by: int) -> None:
        self.start += by
        self.end += by

    def room(self) -> int:
        return min(self.start, self.length - self.end)


def place(
    shape: tuple[int, int], center: tuple[int, int], view: str, settings: ScreeningSettings, noise: Draw
) -> Window:
    """Place a random window over an image.

    Args:
        shape: rows and columns of the cropped image.
        center: y, x of the best window's centre, in the image as the classifier sees it.
        view: one of VIEWS.
        settings: `cc` or `mlo`, `shift` and `resize`.
        noise: the random part.
    """
    size = settings.size(view)
    margin = settings.shift + settings.resize
    rows = _span(shape[0], center[0], size[0], margin, both_ends=view.endswith("CC"))
    columns = _span(shape[1], center[1], size[1], margin, both_ends=False)
    rows.shift(noise.shift[0], settings.shift)
    columns.shift(noise.shift[1], settings.shift)
    most = min(settings.resize, rows.room(), columns.room())
    longer = max(size)
    changes = [round(most * length / longer) for length in size]
    top, bottom, left, right = noise.borders
    return Window(
        rows.start + round(changes[0] * top) - rows.front,
        rows.end + round(changes[0] * bottom) - rows.front,
        columns.start + round(changes[1] * left) - columns.front,
        columns.end + round(changes[1] * right) - columns.front,
    )


def _span(length: int, center: int, size: int, margin: int, both_ends: bool) -> _Span:
    """Put the window around the centre along one axis, or, where the image is too small for it, pad the image.

    Args:
        length: of the image.
        center: of the window.
        size: of the window.
        margin: what there has to be besides the window.
        both_ends: at both ends of the image; else at the end alone.
    """
    zeros = size - length + (2 * margin if both_ends else margin)
    if zeros > 0:
        start, front = (margin, zeros // 2) if both_ends else (0, 0)
        return _Span(start, start + size, length + zeros, front)
    start = center - size // 2
    return _Span(start, start + size, length)


def cut(image: np.ndarray, window: Window, to: npt.NDArray[np.float32]) -> None:
    """Cut a window out of an image, with zeros around the image, and bring it to size by bicubic interpolation.

    Args:
        image: (H, W), any real dtype.
        window: over it.
        to: (h, w), contiguous, of the size that is wanted; it is filled.
    """
    height, width = image.shape
    top, bottom = max(0, window.top), min(height, window.bottom)
    left, right = max(0, window.left), min(width, window.right)
    size = window.bottom - window.top, window.right - window.left
    found = np.zeros(size, np.float32)
    if top < bottom and left < right:
        rows, columns = slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left)
        found[rows, columns] = image[top:bottom, left:right]
    if size == to.shape:
        to[:] = found
    else:
        cv2.resize(found, to.shape[::-1], dst=to, interpolation=cv2.INTER_CUBIC)


def standardise(window: npt.NDArray[np.float32]) -> None:
    """Subtract a window's mean and divide it by its standard deviation, in place.

    Args:
        window: (H, W).
    """
    mean, deviation = cv2.meanStdDev(window)
    window -= np.float32(mean[0, 0])
    window /= np.float32(max(deviation[0, 0], SMALLEST_DEVIATION))
