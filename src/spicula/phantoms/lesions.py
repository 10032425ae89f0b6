"""A lesion as it appears in one view: the attenuation it adds, where, and the box that holds it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from spicula.phantoms import calcifications, masses
from spicula.phantoms.canvas import Canvas
from spicula.phantoms.streams import stream
from spicula.phantoms.types import Floats, View
from spicula.phantoms.woman import Lesion, Speck, Woman

#: A lesion's box holds every pixel with at least this share of its highest attenuation. The thin ends of spicules may
#: stick out of it; among calcifications, the faintest still lie in it.
IN_BOX = {"mass": 0.2, "calcification": 0.05}


@dataclass(frozen=True)
class Stamp:
    """The attenuation that a lesion adds to one image."""

    attenuation: Floats  # (rows, columns), at least 0
    corner: tuple[int, int]  # row and column of its top-left pixel in the image; may lie outside


def draw_lesion(woman: Woman, lesion: Lesion, view: View, centre_mm: tuple[float, float], spacing_mm: float) -> Stamp:
    """Draw one lesion as it appears in one view.

    Args:
        woman: whose lesion it is.
        lesion: what to draw.
        view: CC or MLO.
        centre_mm: x and y of its middle in the image.
        spacing_mm: between pixels.
    """

    def draw(canvas: Canvas) -> Floats:
        result: Floats = _draw(woman, lesion, view, canvas) * np.float32(lesion.contrast)
        return result

    return _stamp(draw, 3.3 * lesion.radius_mm, centre_mm, spacing_mm)


def draw_speck(speck: Speck, centre_mm: tuple[float, float], spacing_mm: float) -> Stamp:
    """Draw a single calcification of no importance."""
    return _stamp(lambda canvas: calcifications.single(speck.radius_mm, canvas), 1.0, centre_mm, spacing_mm)


def fit(stamp: Stamp, thickness: Floats) -> Stamp:
    """Return what an image shows of a lesion: cut off at its edges, and fainter where the breast is thin.

    Args:
        stamp: the lesion.
        thickness: (rows, columns) of the image, 0 to 1: how much of the breast the beam crosses; 0 is air.
    """
    row, column = stamp.corner
    rows, columns = stamp.attenuation.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + rows, thickness.shape[0]), min(column + columns, thickness.shape[1])
    part = stamp.attenuation[top - row : bottom - row, left - column : right - column]
    return Stamp(part * thickness[top:bottom, left:right], (top, left))


def bounding_box(lesion: Lesion, stamp: Stamp, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 of the visible part of a lesion in an image of `size` (rows, columns), see `IN_BOX`.

    One pixel is added all around, for the blur of the detector.
    """
    visible = stamp.attenuation > IN_BOX[lesion.finding] * stamp.attenuation.max()
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    row, column = stamp.corner
    x0, x1 = column + int(columns[0]) - 1, column + int(columns[-1]) + 2
    y0, y1 = row + int(rows[0]) - 1, row + int(rows[-1]) + 2
    return max(x0, 0), max(y0, 0), min(x1, size[1]), min(y1, size[0])


def _stamp(
    draw: Callable[[Canvas], Floats], reach_mm: float, centre_mm: tuple[float, float], spacing_mm: float
) -> Stamp:
    """Draw on a fine grid that reaches `reach_mm` from the middle, and bring it to the image's pixels."""
    half = math.ceil((reach_mm + 3.0) / spacing_mm)
    centre_x, centre_y = (value / spacing_mm for value in centre_mm)
    column, row = math.floor(centre_x) - half, math.floor(centre_y) - half
    canvas = Canvas.blank(2 * half + 1, (centre_x - column, centre_y - row), spacing_mm)
    attenuation = cv2.resize(draw(canvas), (canvas.pixels, canvas.pixels), interpolation=cv2.INTER_AREA)
    return Stamp(attenuation, (row, column))


def _draw(woman: Woman, lesion: Lesion, view: View, canvas: Canvas) -> Floats:
    # calcifications are the same in both views, seen from two sides; a mass has another silhouette in each
    cluster = stream(*woman.key, "cluster", lesion.number)
    mass = stream(*woman.key, "mass", lesion.number, view)
    match lesion.kind:
        case "round mass":
            return masses.round_mass(lesion.radius_mm, mass, canvas)
        case "spiculated mass":
            return masses.spiculated_mass(lesion.radius_mm, mass, canvas)
        case "coarse calcifications":
            return calcifications.coarse(lesion.radius_mm, cluster, view, canvas)
        case "fine pleomorphic calcifications":
            specks = calcifications.fine_pleomorphic(lesion.radius_mm, cluster, view, canvas)
            return specks + masses.haze(lesion.radius_mm, mass, canvas)
