"""Fibroglandular tissue: a small volume for each breast, projected to both views, and the finer structure of a view.

The volume stands for the breast in shares of its size: axis 0 from the chest wall (0) to the nipple (1), axis 1
lateral (-1 medial to 1 lateral) and axis 2 superior (-1 to 1). Left and right breasts use the same axes, so they mirror
each other.
"""

from functools import lru_cache

import cv2
import numpy as np
from scipy.special import expit

from spicula.phantoms.outline import Outline
from spicula.phantoms.streams import stream
from spicula.phantoms.texture import field
from spicula.phantoms.types import Density, Floats, Side, View
from spicula.phantoms.woman import Woman

DEPTH, ACROSS = 64, 96  # voxels, about 1.5 mm each
REACH = 1.1  # the volume spans -REACH to REACH across

#: How much of the random texture of a breast its other side shares (as variance).
SHARED = 0.75

#: Where tissue begins to be glandular, so that the densities A to D follow.
_LEVEL: dict[Density, float] = {"A": -2.1, "B": -1.1, "C": -0.1, "D": 1.1}


def gland_volume(woman: Woman, side: Side) -> Floats:
    """Return the glandular share (0 to 1) of every voxel of one breast, shape (DEPTH, ACROSS, ACROSS)."""
    across_mm = 2 * REACH * woman.half_width_mm / ACROSS
    # half the true distance along axis 0: texture is stretched towards the nipple, as ducts and lobes are
    stretched = (woman.depth_mm / DEPTH / 2, across_mm, across_mm)
    shape, band = (DEPTH, ACROSS, ACROSS), (0.006, 10.0)
    both = field(stream(*woman.key, "gland"), shape, stretched, band)
    own = field(stream(*woman.key, side, "gland"), shape, stretched, band)
    texture = np.float32(SHARED**0.5) * both + np.float32((1 - SHARED) ** 0.5) * own
    texture *= np.float32(1.4)
    texture += _cone() + np.float32(_LEVEL[woman.density])
    share: Floats = expit(6.0 * texture)
    share *= _ball()
    return share


def project(volume: Floats, view: View) -> Floats:
    """Return the mean glandular share along the beam, shape (ACROSS, DEPTH): rows downwards, columns to the nipple."""
    ball = _ball()
    if view == "CC":
        total, weight = volume.sum(axis=2), ball.sum(axis=2)
    else:
        turned = _turned()
        flat = volume.reshape(DEPTH, -1)
        total = flat[:, turned].reshape(DEPTH, ACROSS, ACROSS).sum(axis=2)
        weight = ball.reshape(DEPTH, -1)[:, turned].reshape(DEPTH, ACROSS, ACROSS).sum(axis=2)
    mean = total / np.maximum(weight, 20.0)
    result: Floats = np.ascontiguousarray(mean[:, ::-1].T)
    return result


def lesion_place(place: tuple[float, float, float], view: View, outline: Outline) -> tuple[float, float]:
    """Return x, y in mm, in the image, of a place in the volume."""
    towards_nipple, lateral, superior = place
    up = lateral if view == "CC" else (lateral + superior) / 2**0.5
    return outline.to_image(towards_nipple, up)


def gland_map(projection: Floats, outline: Outline, shape: tuple[int, int], spacing_mm: float) -> Floats:
    """Spread a projection over an image of `shape`: the glandular share at every pixel."""
    rows, columns = shape
    y = (np.arange(rows, dtype=np.float32) + 0.5) * spacing_mm - outline.nipple_mm[1]
    down = np.where(y < 0, y / outline.above_mm, y / outline.below_mm)
    row = (down / REACH + 1.0) * (ACROSS / 2) - 0.5
    column = (np.arange(columns, dtype=np.float32) + 0.5) * (spacing_mm / outline.nipple_mm[0] * DEPTH) - 0.5
    maps = np.meshgrid(column.astype(np.float32), row.astype(np.float32))
    result: Floats = cv2.remap(projection, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return result


def fine_texture(rng: np.random.Generator, shape: tuple[int, int], spacing_mm: float) -> Floats:
    """Return the texture of one view, with mean 0 and variance 1."""
    return field(rng, shape, (spacing_mm, spacing_mm), (0.04, 2.0))


def septa(rng: np.random.Generator, shape: tuple[int, int], spacing_mm: float) -> Floats:
    """Return the walls between fat lobules, 0 to 1: the zero lines of a random field are such a net of curves."""
    small = (shape[0] // 2 + 1, shape[1] // 2 + 1)
    net = np.zeros(small, np.float32)
    for low, high in ((0.015, 0.08), (0.03, 0.15)):
        lobules = field(rng, small, (2 * spacing_mm, 2 * spacing_mm), (low, high))
        net += np.exp(-((lobules / 0.16) ** 2)) * np.clip(0.3 + 0.6 * np.roll(lobules, small[0] // 3, 0), 0, 1)
    result: Floats = cv2.resize(net, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return result


@lru_cache(maxsize=1)
def _axes() -> tuple[Floats, Floats, Floats]:
    depth = ((np.arange(DEPTH) + 0.5) / DEPTH).astype(np.float32)
    across = (((np.arange(ACROSS) + 0.5) / ACROSS * 2 - 1) * REACH).astype(np.float32)
    return depth[:, None, None], across[None, :, None], across[None, None, :]


@lru_cache(maxsize=1)
def _ball() -> Floats:
    """Where in the volume there is breast: 1 inside, 0 outside, smooth between."""
    depth, lateral, superior = _axes()
    inside: Floats = np.clip(5.0 * (1.0 - depth**2 - lateral**2 - superior**2), 0.0, 1.0).astype(np.float32)
    return inside


@lru_cache(maxsize=1)
def _cone() -> Floats:
    """How likely tissue is glandular, by place: highest behind the nipple and in the upper outer quadrant."""
    depth, lateral, superior = _axes()
    ball = ((depth - 0.4) / 0.55) ** 2 + (lateral - 0.08) ** 2 / 0.42 + (superior - 0.08) ** 2 / 0.42
    wall = np.clip((0.16 - depth) / 0.16, 0.0, None)  # fat lies between gland and muscle
    cone: Floats = (1.0 - 2.0 * ball - 1.2 * wall).astype(np.float32)
    return cone


@lru_cache(maxsize=1)
def _turned() -> np.ndarray:
    """Return the flat index into (lateral, superior) of every (up, beam) sample of the 45 degree oblique view."""
    across = (np.arange(ACROSS) + 0.5) / ACROSS * 2 - 1
    up, beam = np.meshgrid(across, across, indexing="ij")
    lateral, superior = (up - beam) / 2**0.5, (up + beam) / 2**0.5
    index = [np.clip(((axis + 1) / 2 * ACROSS), 0, ACROSS - 1).astype(int) for axis in (lateral, superior)]
    result: np.ndarray = np.ravel_multi_index((index[0], index[1]), (ACROSS, ACROSS)).ravel()
    return result
