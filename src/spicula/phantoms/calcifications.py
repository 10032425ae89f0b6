"""Calcification clusters: a few coarse round ones, or many fine ones of different size, form and brightness."""

import numpy as np

from spicula.phantoms.canvas import Canvas
from spicula.phantoms.types import Floats, View

#: Attenuation of the densest calcifications; 1 is a breast of the densest tissue from plate to plate.
ATTENUATION = 0.85


def coarse(radius_mm: float, rng: np.random.Generator, view: View, canvas: Canvas) -> Floats:
    """Return the attenuation of 3 to 7 coarse, lobed calcifications on the canvas' fine grid."""
    count = int(rng.integers(3, 8))
    for x, y in _places(rng, count, 0.8 * radius_mm, view):
        size = rng.uniform(0.3, 0.75)
        for dx, dy in rng.normal(0, 0.35 * size, (3, 2)):  # overlapping discs, like popcorn
            canvas.ellipse((x + dx, y + dy), (size, size), 0.0, 0.85)
    return _attenuation(canvas, 0.1)


def fine_pleomorphic(radius_mm: float, rng: np.random.Generator, view: View, canvas: Canvas) -> Floats:
    """Return the attenuation of 18 to 45 fine calcifications of mixed size, form and brightness."""
    count = int(rng.integers(18, 46))
    for x, y in _places(rng, count, radius_mm, view):
        size = rng.uniform(0.15, 0.35)
        radii = (size * rng.uniform(1.0, 2.5), size)
        canvas.ellipse((x, y), radii, rng.uniform(0, 180), rng.uniform(0.45, 1.0))
    return _attenuation(canvas, 0.06)


def single(radius_mm: float, canvas: Canvas) -> Floats:
    """Return the attenuation of one round calcification of no importance, as many healthy breasts have."""
    canvas.ellipse((0.0, 0.0), (radius_mm, radius_mm), 0.0, 0.85)
    return _attenuation(canvas, 0.1)


def _attenuation(canvas: Canvas, blur_mm: float) -> Floats:
    result: Floats = np.float32(ATTENUATION) * canvas.blurred(blur_mm)
    return result


def _places(rng: np.random.Generator, count: int, radius_mm: float, view: View) -> Floats:
    """Return x, y in mm of calcifications around the cluster's middle, shape (count, 2).

    They lie in an ellipsoid and each view projects it, so that both views show the same cluster.
    """
    toward_nipple, lateral, superior = (rng.normal(size=(count, 3)) * rng.uniform(0.6, 1.0, 3)).T
    up = lateral if view == "CC" else (lateral + superior) / 2**0.5
    places = np.stack([toward_nipple, -up], axis=1)
    away = np.linalg.norm(places, axis=1, keepdims=True)
    result: Floats = radius_mm * places / np.maximum(1.6, away)
    return result
