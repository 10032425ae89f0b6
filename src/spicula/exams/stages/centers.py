"""Stage 2: the best centre of a classifier's window. Source: Wu N et al. (2020), IEEE Trans. Medical Imaging 39(4)."""

from collections.abc import Sequence

import numpy as np

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages.orientation import oriented
from spicula.exams.types import Crop, Cropped

Point = tuple[int, int]


def centers(crops: Sequence[Cropped], settings: ScreeningSettings) -> list[Point]:
    """Return where the window of every image is best put: in front of the nipple or the lower end, with most breast.

    Args:
        crops: of an exam.
        settings: `cc` and `mlo` count.

    Returns:
        (y, x) of each, in pixels of the crop as the classifiers see it (`orientation.oriented`). It may lie outside.
    """
    return [
        best_center(oriented(one.pixels, one.view, one.mirrored), one.crop, one.view, settings.size(one.view))
        for one in crops
    ]


def best_center(pixels: np.ndarray, found: Crop, view: str, size: tuple[int, int]) -> Point:
    """Return the best centre (y, x) of a window in one image.

    CC: the window ends at the tip of the breast; its height is that at which it holds most pixels above 0, and of equal
    ones that nearest to the middle. MLO: it ends at the tip and at the lowest row.

    Args:
        pixels: (H, W), the crop, of a breast that points to the right.
        found: tip and lowest row.
        view: one of `types.VIEWS`.
        size: height and width of the window.
    """
    half_height, half_width = size[0] // 2, size[1] // 2
    x = found.rightmost_points[1] - half_width - 1
    if not view.endswith("CC"):
        lowest = min(found.bottommost_points[0], _last_row(pixels[:, -size[1] :]))
        return lowest - half_height - 1, x
    middle = pixels.shape[0] // 2
    first, last = half_height, pixels.shape[0] - (size[0] - half_height)
    if first >= last:
        return middle, x
    rows = np.arange(first, last + 1)
    counts = count_pixels(pixels, rows, x, size)
    best = rows[counts == counts.max()]
    return int(best[np.argmin((best - middle) ** 2)]), x


def count_pixels(pixels: np.ndarray, rows: np.ndarray, x: int, size: tuple[int, int]) -> np.ndarray:
    """Return how many pixels above 0 there are in windows one below the other.

    What a window has beyond the top or the left border of the image is added at its other end; what it has beyond the
    bottom or the right one is cut off.

    Args:
        pixels: (H, W).
        rows: (N,) of the windows' centres.
        x: column of all centres.
        size: height and width of the windows.

    Returns:
        (N,) int64.
    """
    (top, bottom), (left, right) = (
        _ends(centre, length, limit)
        for centre, length, limit in ((rows, size[0], pixels.shape[0]), (np.array([x]), size[1], pixels.shape[1]))
    )
    of_row = np.count_nonzero(pixels[:, left[0] : right[0]], axis=1)
    above = np.concatenate([[0], np.cumsum(of_row, dtype=np.int64)])  # the integral image, of one column
    counts: np.ndarray = above[np.maximum(top, bottom)] - above[top]
    return counts


def _ends(centre: np.ndarray, length: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    half = length // 2
    beyond = np.maximum(0, half - centre)
    return np.minimum(np.maximum(0, centre - half), limit), np.clip(centre + (length - half) + beyond, 0, limit)


def _last_row(pixels: np.ndarray) -> int:
    """Return the last row that is not all 0; there is one, for the tip of the breast lies in these columns."""
    return int(np.flatnonzero(pixels.any(axis=1))[-1])
