"""The box around a lesion, relative to its image, as object detection wants it."""

from collections.abc import Mapping
from typing import Any


def box_of(lesion: Mapping[str, Any], width: int, height: int) -> tuple[float, float, float, float] | None:
    """Return the part of a lesion's bounding box that lies in the image.

    Args:
        lesion: as `spicula.index.LESION` has it.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        top, left, bottom and right, each from 0 (first row or column) to 1 (end of the last); None where the lesion has
        no outline in numbers (a mask, or not located), or lies outside the image.
    """
    kind, numbers = lesion["kind"], lesion["coordinates"]
    if kind == "circle":
        x, y, radius = numbers
        corners = [x - radius, y - radius, x + radius, y + radius]
    elif kind in ("box", "polygon"):
        corners = [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]
    else:
        return None
    left, right = (min(1.0, max(0.0, x / width)) for x in corners[::2])
    top, bottom = (min(1.0, max(0.0, y / height)) for y in corners[1::2])
    return (top, left, bottom, right) if top < bottom and left < right else None
