"""Masks of an image: erosion and dilation by many steps at once, and components. Masks are uint8, 0 or 1."""

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]

# A distance transform of 8 bits saturates at 255, and is three times as quick as one of 32.
_LONGEST_8_BITS = 254


def erode(mask: Mask, steps: int) -> Mask:
    """Return the mask after so many erosions with the cross of 4 neighbours; beyond the image there is nothing.

    A pixel is left after n erosions exactly when every pixel within a city-block distance of n belongs to the mask.

    Args:
        mask: (H, W), 0 or 1.
        steps: 0 to 1000.
    """
    if steps == 0:
        return mask
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.ascontiguousarray(_farther_than(padded, steps)[1:-1, 1:-1])


def dilate(mask: Mask, steps: int) -> Mask:
    """Return the mask after so many dilations with the cross of 4 neighbours.

    Args:
        mask: (H, W), 0 or 1, not all 0.
        steps: 0 to 1000.
    """
    if steps == 0:
        return mask
    return 1 - _farther_than(1 - mask, steps)


def _farther_than(mask: Mask, steps: int) -> Mask:
    """Return which pixels have a city-block distance of over `steps` to the nearest 0."""
    if mask.all():
        return mask
    depth = cv2.CV_8U if steps <= _LONGEST_8_BITS else cv2.CV_32F
    distance = cv2.distanceTransform(mask, cv2.DIST_L1, 3, dstType=depth)
    return np.asarray(distance > steps).view(np.uint8)


def largest_component(mask: Mask) -> Mask | None:
    """Return the largest component (4 neighbours) of a mask, the first from the top left of equal ones, or None."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        return None
    areas = statistics[1:, cv2.CC_STAT_AREA]
    best = 1 + np.flatnonzero(areas == areas.max())
    if best.size > 1:
        at = np.argmax(np.isin(labels, best))
        best = labels.ravel()[at : at + 1]
    return np.asarray(labels == best[0]).view(np.uint8)


def span(line: np.ndarray) -> tuple[int, int]:
    """Return the first and the last place in a line that is not all 0."""
    places = np.flatnonzero(line)
    return int(places[0]), int(places[-1])
