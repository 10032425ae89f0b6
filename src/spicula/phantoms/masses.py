"""Masses: round ones with a more or less sharp margin, and spiculated ones."""

import math

import numpy as np

from spicula.phantoms.canvas import Canvas
from spicula.phantoms.types import Floats

#: Attenuation at the middle of the clearest masses; 1 is a breast of the densest tissue from plate to plate.
ATTENUATION = 0.65


def round_mass(radius_mm: float, rng: np.random.Generator, canvas: Canvas) -> Floats:
    """Return the attenuation of a round or oval mass on the canvas' fine grid.

    Most are well circumscribed. A margin that other tissue obscures is what makes some hard to judge.
    """
    margin_mm = float(rng.choice([0.3, 0.5, 1.1]))
    body = _body(radius_mm, rng, canvas, rng.uniform(0.01, 0.06), margin_mm)
    result: Floats = np.float32(ATTENUATION) * body
    return result


def spiculated_mass(radius_mm: float, rng: np.random.Generator, canvas: Canvas) -> Floats:
    """Return the attenuation of an irregular mass with spicules: fine lines that radiate from it and thin out."""
    body = _body(radius_mm, rng, canvas, rng.uniform(0.08, 0.18), rng.uniform(0.6, 1.3))
    count, clarity = int(rng.integers(22, 46)), rng.uniform(0.6, 1.2)  # on some, spicules are hard to see
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal(0, 0.12, count)
    for angle, reach in zip(angles, np.clip(1.2 + rng.exponential(0.8, count), 0.0, 3.2), strict=True):
        _spicule(canvas, rng, angle, (0.5 * radius_mm, reach * radius_mm), clarity)
    result: Floats = np.float32(ATTENUATION) * np.maximum(body, canvas.blurred(0.15))
    return result


def haze(radius_mm: float, rng: np.random.Generator, canvas: Canvas) -> Floats:
    """Return the attenuation of a faint, ill-defined density, as often lies around malignant calcifications."""
    body = _body(radius_mm, rng, canvas, rng.uniform(0.08, 0.18), 2.0)
    result: Floats = np.float32(0.35 * ATTENUATION) * body
    return result


def _body(radius_mm: float, rng: np.random.Generator, canvas: Canvas, irregular: float, margin_mm: float) -> Floats:
    """Return a mass without spicules, about 1 at its middle: how far a beam runs through an uneven ball."""
    x, y = canvas.axes_mm()
    turn = rng.uniform(0, np.pi)
    along = x * np.float32(math.cos(turn)) + y * np.float32(math.sin(turn))
    across = (y * np.float32(math.cos(turn)) - x * np.float32(math.sin(turn))) / np.float32(rng.uniform(0.7, 1.0))
    angle = np.linspace(-np.pi, np.pi, 361)
    radius = np.ones_like(angle)
    for wave in range(2, 8):
        radius += irregular * rng.normal() / wave**0.5 * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = radius_mm * np.maximum(radius, 0.3)
    limit = np.interp(np.arctan2(across, along), angle, radius).astype(np.float32)
    ball = np.sqrt(np.clip(1 - (along**2 + across**2) / limit**2, 0, None))
    return canvas.blur(ball, margin_mm)


def _spicule(
    canvas: Canvas, rng: np.random.Generator, angle: float, reach_mm: tuple[float, float], clarity: float
) -> None:
    start_mm, end_mm = reach_mm
    along = np.linspace(0.0, 1.0, 7)
    angles = angle + rng.normal(0, 0.12) * along**2  # slightly bent
    reach = start_mm + (end_mm - start_mm) * along
    half_width = rng.uniform(0.3, 0.75) * (1.0 - along)
    x, y = reach * np.cos(angles), reach * np.sin(angles)
    dx, dy = -half_width * np.sin(angles), half_width * np.cos(angles)
    outline_x = np.concatenate([x + dx, (x - dx)[::-1]])
    outline_y = np.concatenate([y + dy, (y - dy)[::-1]])
    canvas.polygon(outline_x, outline_y, clarity * rng.uniform(0.3, 0.7))
