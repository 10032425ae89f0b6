"""Stage 1: where the breast is in every image. Source: Wu N et al. (2020), IEEE Transactions on Medical Imaging 39(4).

The published procedure, as the behaviour of its implementation defines it, after what would silently break it has been
dealt with (`guards`).
"""

from collections.abc import Sequence

import numpy as np

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages import guards, marks
from spicula.exams.stages.morphology import Mask, dilate, erode, largest_component, span
from spicula.exams.stages.orientation import check_agreement, faces_left, is_mirrored
from spicula.exams.types import Crop, Cropped, Image, RefusedExamError

Box = tuple[int, int, int, int]


def crop(images: Sequence[Image], settings: ScreeningSettings) -> list[Cropped]:
    """Cut the breast out of every image of an exam.

    Args:
        images: of one exam, (H, W) uint16 each.
        settings: `erosions` and `buffer` count.

    Returns:
        One for each image, in order.

    Raises:
        RefusedExamError: an image shows no breast, or has a defect that nobody can safely mend; images contradict
            one another about which way breasts point.
    """
    crops = [crop_image(image, settings) for image in images]
    check_agreement(crops)
    return crops


def crop_image(image: Image, settings: ScreeningSettings) -> Cropped:
    """Cut the breast out of one image; see `crop`."""
    cleaned = guards.clean(image)
    breast = find_breast(cleaned.pixels, settings.erosions)
    if breast is None or breast.mean() < guards.LEAST_SHARE:
        raise RefusedExamError(_no_breast(image, breast, settings.erosions))
    mirrored, notes = is_mirrored(image, breast)
    left_facing = faces_left(image.view, mirrored)
    found = measure(breast, left_facing, settings.buffer)
    if found is None:
        raise RefusedExamError(
            f"{image.name} ({image.view}): the breast is lower than a third of its crop; the image is too small for"
            f" this classifier, which adds {settings.buffer} rows on either side"
        )
    pixels, of_marks = marks.without_marks(cleaned.pixels, breast, found.window_location, settings, cleaned.origin)
    notes += guards.unusual_borders(breast, image, left_facing) + of_marks
    top, bottom, left, right = found.window_location
    cut = np.array(pixels[top:bottom, left:right], order="C")  # a copy, so that the whole image can be forgotten
    row, column = cleaned.origin
    window = (top + row, bottom + row, left + column, right + column)
    return Cropped(
        image.name,
        image.view,
        mirrored,
        Crop(window, found.rightmost_points, found.bottommost_points, found.distance_from_starting_side),
        cut,
        (*cleaned.notes, *notes),
    )


def find_breast(pixels: np.ndarray, erosions: int) -> Mask | None:
    """Return the mask of the breast: the largest of what is left of the pixels above 0 after erosion, dilated again.

    Args:
        pixels: (H, W), background 0.
        erosions: steps with the cross of 4 neighbours.

    Returns:
        (H, W), 0 or 1; None when the erosion leaves nothing.
    """
    core = largest_component(erode(np.asarray(pixels > 0).view(np.uint8), erosions))
    if core is None:
        return None
    # Only around the core can the dilation add anything.
    top, bottom, left, right = _bounds(core)
    rows = slice(max(0, top - erosions), bottom + erosions)
    columns = slice(max(0, left - erosions), right + erosions)
    core[rows, columns] = dilate(np.ascontiguousarray(core[rows, columns]), erosions)
    return core


def measure(breast: Mask, left_facing: bool, buffer: int) -> Crop | None:
    """Return the window of a breast, and its tip and its lowest row within it.

    Args:
        breast: (H, W), 0 or 1, not all 0.
        left_facing: it points to the left.
        buffer: how far the window goes beyond the breast upwards, downwards and to where it points, in pixels.

    Returns:
        See `Crop`; None when the breast ends above a third of its window, where its tip is not looked for.
    """
    height, width = breast.shape
    top, bottom, left, right = _bounds(breast)
    first, last = span(breast[bottom - 1])
    start = width - right if left_facing else left
    lowest_row, right_without_buffer = bottom - 1, right
    top, bottom = max(0, top - buffer), min(height, bottom + buffer)
    if left_facing:
        left = max(0, left - buffer)
        lowest = (right_without_buffer - last, right_without_buffer - first)
    else:
        right = min(width, right + buffer)
        lowest = (first - left, last - left)
    window = breast[top:bottom, left:right]
    ignored = int(window.shape[0] / 3)
    columns = np.flatnonzero(window[ignored:].any(axis=0))
    if columns.size == 0:
        return None
    tip = int(columns[0] if left_facing else columns[-1])
    first_row, last_row = span(window[ignored:, tip])
    distance = window.shape[1] - tip if left_facing else tip
    return Crop(
        window_location=(top, bottom, left, right),
        rightmost_points=((ignored + first_row, ignored + last_row), distance),
        bottommost_points=(lowest_row - top, lowest),
        distance_from_starting_side=start,
    )


def _bounds(mask: Mask) -> Box:
    """Return top, bottom, left, right of a mask; bottom and right are exclusive."""
    (top, last_row), (left, last_column) = (span(np.asarray(mask.any(axis=axis))) for axis in (1, 0))
    return top, last_row + 1, left, last_column + 1


def _no_breast(image: Image, breast: Mask | None, erosions: int) -> str:
    height, width = image.pixels.shape
    found = (
        f"nothing in its {width} x {height} pixels is above 0 and wider than {2 * erosions} pixels"
        if breast is None
        else f"the largest object covers {100 * breast.mean():.1f} % of it"
    )
    resolution = "is it a mammogram in full resolution, of 0.1 mm a pixel or less?"
    return f"{image.name} ({image.view}): no breast: {found}; {resolution}"
