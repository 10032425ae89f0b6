"""Thin bright lines of a normal breast: ducts, Cooper's ligaments and vessels."""

import cv2
import numpy as np

from spicula.phantoms.outline import Outline
from spicula.phantoms.types import Floats

_SHIFT = 4  # fractional bits of cv2's drawing coordinates


def draw_strands(rng: np.random.Generator, outline: Outline, shape: tuple[int, int], spacing_mm: float) -> Floats:
    """Return the strands of one view as an image, 0 to 1.

    Ducts fan out from the nipple, ligaments run through the outer tissue towards the skin, a few vessels cross.
    """
    canvas = np.zeros(shape, np.uint8)
    nipple = np.array(outline.nipple_mm)
    _draw(canvas, _ducts(rng, nipple), 90 * rng.uniform(0.5, 1.0, 14), 0.5, spacing_mm)
    ligaments = int(rng.integers(60, 110))
    _draw(canvas, _ligaments(rng, outline, ligaments), 150 * rng.uniform(0.3, 1.0, ligaments), 0.45, spacing_mm)
    vessels = int(rng.integers(3, 7))
    _draw(canvas, _vessels(rng, outline, vessels), 110 * rng.uniform(0.5, 1.0, vessels), 1.2, spacing_mm)
    result: Floats = cv2.GaussianBlur(canvas, (0, 0), 0.25 / spacing_mm).astype(np.float32) / 255
    return result


def _ducts(rng: np.random.Generator, nipple: Floats) -> Floats:
    heading = np.pi + rng.uniform(-0.9, 0.9, 14)
    return _walk(rng, np.broadcast_to(nipple, (14, 2)), heading, rng.uniform(25, 60, 14), 0.08)


def _ligaments(rng: np.random.Generator, outline: Outline, count: int) -> Floats:
    away = rng.uniform(0.35, 0.95, count)  # from the middle of the gland (0) to the skin (1)
    angle = rng.uniform(-np.pi, np.pi, count)
    x = np.array(
        [outline.to_image(0.45 + 0.5 * r * np.cos(a), r * np.sin(a)) for r, a in zip(away, angle, strict=True)]
    )
    to_nipple = np.arctan2(outline.nipple_mm[1] - x[:, 1], outline.nipple_mm[0] - x[:, 0])
    return _walk(rng, x, to_nipple + rng.normal(0, 0.5, count), rng.uniform(10, 45, count), 0.022)


def _vessels(rng: np.random.Generator, outline: Outline, count: int) -> Floats:
    up = rng.uniform(-0.85, 0.85, count)
    start = np.array([outline.to_image(0.1 * u * u, u) for u in up])
    return _walk(rng, start, rng.normal(0, 0.35, count), rng.uniform(40, 80, count), 0.06)


def _walk(rng: np.random.Generator, start: Floats, heading: Floats, length_mm: Floats, bend: float) -> Floats:
    """Return curves as points, shape (curves, 24, 2), in mm: straight on, with a random bend at every step."""
    steps = 24
    turn = rng.normal(0, bend, (len(start), 1)) + rng.normal(0, bend, (len(start), steps))
    direction = np.asarray(heading)[:, None] + np.cumsum(turn, axis=1)
    step = np.stack([np.cos(direction), np.sin(direction)], axis=2) * (np.asarray(length_mm) / steps)[:, None, None]
    result: Floats = start[:, None, :] + np.cumsum(step, axis=1)
    return result


def _draw(canvas: np.ndarray, curves: Floats, strength: Floats, width_mm: float, spacing_mm: float) -> None:
    width_px = width_mm / spacing_mm
    points = np.round((curves / spacing_mm - 0.5) * 2**_SHIFT).astype(np.int32)
    for curve, level in zip(points, strength * min(width_px, 1.0), strict=True):
        cv2.polylines(canvas, [curve], False, int(level), max(round(width_px), 1), cv2.LINE_AA, _SHIFT)
