"""Letters, markers, labels and specks in the picture: set to 0 where that is safe, reported always."""

from dataclasses import dataclass

import cv2
import numpy as np

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages.morphology import Mask, dilate

#: What covers a larger share of the breast's area is no mark: it may be a part of the breast that something cut off.
LARGEST_MARK = 0.1
#: Objects outside the crop are left out in any case, and mentioned from this area on, in pixels: dust is smaller.
LEAST_MARK = 100
#: An area of one value, in which a square of this side fits, and so many pixels beside which are black: that is written
#: over the picture. Tissue is nowhere that even beside the background: in a real exam not a single pixel is.
FLAT, BORDERS_ON_BLACK = 5, 10
#: Writing is at least this share of the brightest values (99th percentile). Darker even areas are what lossy
#: compression makes of the background beside the breast.
BRIGHT = 0.1


@dataclass(frozen=True)
class _Objects:
    """All connected objects (4 neighbours) of pixels above 0. `labels` 0 is the background."""

    labels: np.ndarray  # (H, W) int32
    boxes: np.ndarray  # (N, 4) left, top, width, height, by label
    areas: np.ndarray  # (N,) pixels, by label


def least_gap(settings: ScreeningSettings) -> int:
    """Return how far from the breast an object must be to be no part of it, in pixels; see `without_marks`.

    A quarter of the erosion, which is the measure of what counts as thin in images of this classifier: 25 pixels, or
    about 2 mm, for the published one. A nipple or a fold whose link to the breast is lost in black is nearer.
    """
    return max(2, settings.erosions // 4)


def without_marks(
    pixels: np.ndarray,
    breast: Mask,
    window: tuple[int, int, int, int],
    settings: ScreeningSettings,
    origin: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, list[str]]:
    """Set the marks within a crop to 0, where it is sure that they are marks.

    An object is set to 0 if it lies within the image, apart from its borders (what touches them goes on outside, and
    may be an arm or the abdomen, or a label that an earlier crop cut), is farther than `least_gap` from everything that
    is connected to the breast, and is small (`LARGEST_MARK`). Other objects stay as they are stored.

    Args:
        pixels: (H, W), background 0. Not changed.
        breast: (H, W), 0 or 1, not all 0; within the pixels above 0.
        window: top, bottom, left, right of the crop.
        settings: `erosions` counts.
        origin: row and column of the pixels' top left corner in the stored image, for the notes.

    Returns:
        The pixels, a copy where any was set to 0; and what was found and done, one sentence each.
    """
    objects = _find_objects(pixels)
    top, bottom, left, right = window
    within = np.bincount(objects.labels[top:bottom, left:right].ravel(), minlength=objects.areas.size)
    of_breast = objects.labels.ravel()[np.argmax(breast)]
    others = np.ones(within.size, bool)
    others[[0, of_breast]] = False
    notes = _attached(pixels, np.asarray(objects.labels == of_breast).view(np.uint8), window, origin)
    outside = others & (within == 0) & (objects.areas >= LEAST_MARK)
    if outside.any():
        notes.append(f"{_describe(objects, outside, origin)}: outside the crop, left out with the background")
    inside = others & (within > 0)
    if not inside.any():
        return pixels, notes
    reasons = _reasons_to_stay(objects, of_breast, inside, least_gap(settings))
    stays = np.zeros_like(inside)
    for reason, holds in reasons.items():
        concerned = holds & inside & ~stays
        stays |= concerned
        if concerned.any():
            notes.append(f"{_describe(objects, concerned, origin)}: left in the crop, {reason}")
    marks = inside & ~stays
    if marks.any():
        notes.append(f"{_describe(objects, marks, origin)}: set to 0, for they are marks and not tissue")
        pixels = np.where(marks[objects.labels], pixels.dtype.type(0), pixels)
    return pixels, notes


def _attached(
    pixels: np.ndarray, breast: Mask, window: tuple[int, int, int, int], origin: tuple[int, int]
) -> list[str]:
    """Report what is written over the edge of the breast. It stays, for nobody knows what lies behind it.

    Args:
        pixels: (H, W).
        breast: (H, W), 0 or 1: all that is connected to it.
        window: top, bottom, left, right of the crop.
        origin: see `without_marks`.
    """
    top, bottom, left, right = window
    values, inside = pixels[top:bottom, left:right], breast[top:bottom, left:right]
    square = np.ones((FLAT, FLAT), np.uint8)
    lowest = cv2.erode(values, square)
    is_bright = lowest > BRIGHT * np.percentile(values[inside > 0], 99)
    core = np.asarray(is_bright & (lowest == cv2.dilate(values, square))).view(np.uint8) & inside
    around = cv2.dilate(cv2.dilate(core, square), np.ones((3, 3), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(around, connectivity=4)
    borders = np.bincount(labels[values == 0], minlength=count)
    borders[0] = 0
    chosen = np.flatnonzero(borders >= BORDERS_ON_BLACK)
    if not chosen.size:
        return []
    first_column, first_row = boxes[chosen, 0].min(), boxes[chosen, 1].min()
    last_column, last_row = (boxes[chosen, axis] + boxes[chosen, axis + 2] for axis in (0, 1))
    row, column = top + origin[0], left + origin[1]
    place = (
        f"rows {row + first_row + 1} to {row + last_row.max() - 2},"
        f" columns {column + first_column + 1} to {column + last_column.max() - 2}"
    )
    return [
        f"something is written over the edge of the breast ({place}): left in the crop, which may be too large because"
        " of it"
    ]


def _find_objects(pixels: np.ndarray) -> _Objects:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(np.asarray(pixels > 0).view(np.uint8), connectivity=4)
    return _Objects(labels, statistics[:, :4], statistics[:, cv2.CC_STAT_AREA])


def _reasons_to_stay(objects: _Objects, of_breast: int, inside: np.ndarray, gap: int) -> dict[str, np.ndarray]:
    """Return for which objects (by label) which reason holds."""
    height, width = objects.labels.shape
    left, top, widths, heights = objects.boxes.T
    touches = (left == 0) | (top == 0) | (left + widths == width) | (top + heights == height)
    is_large = objects.areas > LARGEST_MARK * objects.areas[of_breast]
    is_near = np.zeros_like(inside)
    if (inside & ~touches & ~is_large).any():
        around = dilate(np.asarray(objects.labels == of_breast).view(np.uint8), gap)
        is_near[np.unique(objects.labels[around.view(bool)])] = True
    return {
        "for they touch the border of the image and may go on outside": touches,
        f"for they are larger than {100 * LARGEST_MARK:.0f} % of the breast and may be part of it": is_large,
        f"for they are within {gap} pixels of the breast and may be part of it": is_near,
    }


def _describe(objects: _Objects, chosen: np.ndarray, origin: tuple[int, int]) -> str:
    """Return how many objects there are, how large, and where the largest is in the stored image."""
    labels = np.flatnonzero(chosen)
    largest = labels[np.argmax(objects.areas[labels])]
    left, top, width, height = (int(value) for value in objects.boxes[largest])
    row, column = top + origin[0], left + origin[1]
    count, total = labels.size, int(objects.areas[labels].sum())
    return (
        f"objects beside the breast ({count}, of {total} pixels, the largest in rows {row} to"
        f" {row + height - 1}, columns {column} to {column + width - 1})"
    )
