"""A lesion as it appears in one view: added attenuation, where it goes, and the box that holds it."""

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

#: The box holds every pixel with at least this share of the lesion's highest attenuation.
IN_BOX = 0.08


@dataclass(frozen=True)
class Stamp:
    """The attenuation that a lesion adds to one image."""

    attenuation: Floats  # (rows, columns), at least 0
    corner: tuple[int, int]  # row and column of its top-left pixel in the image; may lie outside
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the visible part, in the image


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


def add(attenuation: Floats, stamp: Stamp, thickness: Floats) -> None:
    """Add a lesion to an image of attenuation, in place; what lies outside the image is cut off.

    Args:
        attenuation: (rows, columns), changed.
        stamp: the lesion.
        thickness: (rows, columns), 0 to 1: how much of the breast the beam crosses there.
    """
    row, column = stamp.corner
    rows, columns = stamp.attenuation.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + rows, attenuation.shape[0]), min(column + columns, attenuation.shape[1])
    part = stamp.attenuation[top - row : bottom - row, left - column : right - column]
    attenuation[top:bottom, left:right] += part * thickness[top:bottom, left:right]


def _stamp(
    draw: Callable[[Canvas], Floats], reach_mm: float, centre_mm: tuple[float, float], spacing_mm: float
) -> Stamp:
    """Draw on a fine grid that reaches `reach_mm` from the middle, and bring it to the image's pixels."""
    half = math.ceil((reach_mm + 3.0) / spacing_mm)
    centre_x, centre_y = (value / spacing_mm for value in centre_mm)
    column, row = math.floor(centre_x) - half, math.floor(centre_y) - half
    canvas = Canvas.blank(2 * half + 1, (centre_x - column, centre_y - row), spacing_mm)
    attenuation = cv2.resize(draw(canvas), (canvas.pixels, canvas.pixels), interpolation=cv2.INTER_AREA)
    visible = attenuation > IN_BOX * attenuation.max()
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    x0, x1 = column + int(columns[0]), column + int(columns[-1]) + 1
    y0, y1 = row + int(rows[0]), row + int(rows[-1]) + 1
    return Stamp(attenuation, (row, column), (x0, y0, x1, y1))


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
