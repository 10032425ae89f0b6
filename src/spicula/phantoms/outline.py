"""The outline of a compressed breast: how far the skin is from the chest wall, row by row.

All of this room works with the chest wall at the left edge of the image; right breasts are mirrored at the very end.
In the CC view up is lateral, in the MLO view up is superior and lateral, for either side.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from spicula.phantoms.streams import stream
from spicula.phantoms.types import Floats, Side, View
from spicula.phantoms.woman import Woman

NIPPLE_RADIUS_MM = 5.0


@dataclass(frozen=True)
class Outline:
    """One breast in one view, in mm from the image's top-left corner."""

    edge_mm: Floats  # (rows,): distance of the skin from the chest wall, 0 where there is no breast
    nipple_mm: tuple[float, float]  # x, y of its base
    above_mm: float  # how far the breast reaches above the nipple
    below_mm: float  # and below
    muscle_mm: (
        Floats | None
    )  # (rows,): distance of the pectoral muscle's edge from the chest wall, below 0 where it has ended;
    # None: not in view

    def to_image(self, towards_nipple: float, up: float) -> tuple[float, float]:
        """Return x, y in mm of a place given as shares of the breast: 0..1 towards the nipple, -1..1 upwards."""
        x, y = self.nipple_mm
        return towards_nipple * x, y - up * (self.above_mm if up > 0 else self.below_mm)


def draw_outline(woman: Woman, side: Side, view: View, rows: int, spacing_mm: float) -> Outline:
    """Draw the outline of one breast in one view, for an image of `rows` rows that are `spacing_mm` apart."""
    # the two views of a side see the same breast; the sides of a woman differ by a few per cent
    body = stream(*woman.key, side, "body")
    depth = woman.depth_mm * body.normal(1.0, 0.03)
    half = woman.half_width_mm * body.normal(1.0, 0.03)
    rng = stream(*woman.key, side, view, "outline")
    y = (np.arange(rows) + 0.5) * spacing_mm
    posture = stream(*woman.key, view, "posture")  # how she is positioned is much the same for both sides
    draw = _craniocaudal if view == "CC" else _oblique
    return draw(rng, posture, y, depth=depth, half=half)


def _craniocaudal(
    rng: np.random.Generator, posture: np.random.Generator, y: Floats, *, depth: float, half: float
) -> Outline:
    height = y[-1] + y[0]
    nipple = height / 2 + posture.normal(0.0, 4.0) + rng.normal(0.0, 2.0)
    above, below = half * rng.normal(1.0, 0.04), half * rng.normal(1.0, 0.04)
    share = np.where(y < nipple, (nipple - y) / above, (y - nipple) / below)
    edge = depth * _superellipse(share, rng.uniform(1.9, 2.3), rng.uniform(1.75, 2.1))
    return Outline(_waver(rng, edge, y), (depth, nipple), above, below, None)


def _oblique(
    rng: np.random.Generator, posture: np.random.Generator, y: Floats, *, depth: float, half: float
) -> Outline:
    height = y[-1] + y[0]
    depth = depth * rng.uniform(1.0, 1.08)
    below = half * rng.uniform(0.82, 0.95)
    nipple = min(height * rng.uniform(0.92, 1.03) - below, 0.68 * height)
    above = half * rng.uniform(1.05, 1.2)
    axilla = depth * posture.uniform(0.5, 0.68) * rng.uniform(0.97, 1.03)  # the skin at the upper edge of the image
    upper = axilla + (depth - axilla) * np.sin(np.pi / 2 * np.clip(y / nipple, 0.0, 1.0) ** rng.uniform(1.15, 1.6))
    share = (y - nipple) / below
    lower = depth * _superellipse(share, rng.uniform(1.7, 2.1), rng.uniform(1.2, 1.7))
    edge = np.where(y < nipple, upper, lower)
    top = axilla * posture.uniform(0.62, 0.85) * rng.uniform(0.95, 1.05)
    end = height * posture.uniform(0.38, 0.58) * rng.uniform(0.93, 1.07)
    muscle = top * (1.0 - (y / end) ** posture.uniform(0.95, 1.35))
    return Outline(_waver(rng, edge, y), (depth, nipple), above, below, muscle.astype(np.float32))


def _superellipse(share: Floats, along: float, across: float) -> Floats:
    """Return 1 at share 0, falling to 0 at share 1 and beyond."""
    result: Floats = np.clip(1.0 - np.abs(share) ** along, 0.0, None) ** (1.0 / across)
    return result


def _waver(rng: np.random.Generator, edge: Floats, y: Floats) -> Floats:
    """Return the edge with slow waves of about 1 mm, and no corners; nothing grows where there was no breast."""
    waves = sum(rng.normal(0.0, 0.5) * np.sin(y / rng.uniform(12.0, 30.0) + rng.uniform(0, 6.3)) for _ in range(4))
    wavy = np.where(edge > 0, np.maximum(edge + waves * np.clip(edge / 20.0, 0.0, 1.0), 0.0), 0.0)
    sigma = 0.8 / float(y[1] - y[0])
    smooth = cv2.GaussianBlur(wavy.astype(np.float32)[:, None], (1, 2 * int(3 * sigma) + 1), 0.1, sigmaY=sigma)
    result: Floats = np.where(edge > 0, smooth[:, 0], 0.0).astype(np.float32)
    return result
