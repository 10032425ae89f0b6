"""One view of one breast, from the woman to the 12-bit image and its truth."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spicula.phantoms import parenchyma
from spicula.phantoms.detectors import AIR, detector_of, present
from spicula.phantoms.lesions import Stamp, bounding_box, draw_lesion, draw_speck, fit
from spicula.phantoms.outline import NIPPLE_RADIUS_MM, Outline, draw_outline
from spicula.phantoms.strands import draw_strands
from spicula.phantoms.streams import stream
from spicula.phantoms.types import Floats, Side, View
from spicula.phantoms.woman import Lesion, Woman


@dataclass(frozen=True)
class Picture:
    """One rendered view, as it lies on the detector: left breasts enter from the left, right ones from the right."""

    pixels: NDArray[np.uint16]  # (rows, columns), 12 bits, dark low, air is 0
    spacing_mm: float
    boxes: dict[int, tuple[int, int, int, int]]  # by lesion number: x0, y0, x1, y1
    glandular_share: float  # of the breast's volume, 0 to 1


def render(
    woman: Woman, side: Side, view: View, size: tuple[int, int], volume: Floats, *, lesions: bool = True
) -> Picture:
    """Render one view.

    Args:
        woman: whom.
        side: which breast.
        view: CC or MLO.
        size: rows and columns of the image.
        volume: the breast's `parenchyma.gland_volume`; both views share it.
        lesions: False leaves them out and changes nothing else.
    """
    rows, columns = size
    detector = detector_of(woman)
    # the breast always fits, whatever the proportions of the image
    spacing = max(detector.height_mm / rows, detector.height_mm * 832 / 1024 / columns)
    outline = draw_outline(woman, side, view, rows, spacing)
    used = min(columns, int((outline.edge_mm.max() + 2 * NIPPLE_RADIUS_MM) / spacing) + 1)
    shape = (rows, used)
    breast = _breast(outline, shape, spacing)
    depth_mm = cv2.distanceTransform(breast.astype(np.uint8), cv2.DIST_L2, 5) * np.float32(spacing)
    thickness = _thickness(depth_mm, woman.thickness_mm)
    attenuation, share = _tissue(
        woman, side, view, outline=outline, depth_mm=depth_mm, thickness=thickness, volume=volume, spacing=spacing
    )
    stamps = [(lesion, fit(stamp, thickness)) for lesion, stamp in _lesions(woman, side, view, outline, spacing)]
    specks = [fit(stamp, thickness) for stamp in _specks(woman, side, view, outline, spacing)]
    for stamp in [*specks, *(stamp for _, stamp in stamps if lesions)]:
        row, column = stamp.corner
        rows_seen, columns_seen = stamp.attenuation.shape
        attenuation[row : row + rows_seen, column : column + columns_seen] += stamp.attenuation
    pixels = np.full(size, AIR, np.uint16)
    pixels[:, :used] = present(detector, attenuation, breast, stream(*woman.key, side, view, "noise"))
    boxes = {lesion.number: bounding_box(lesion, stamp, size) for lesion, stamp in stamps}
    if side == "R":
        pixels = np.ascontiguousarray(pixels[:, ::-1])
        boxes = {number: (columns - x1, y0, columns - x0, y1) for number, (x0, y0, x1, y1) in boxes.items()}
    return Picture(pixels, spacing, boxes, share)


def _breast(outline: Outline, shape: tuple[int, int], spacing: float) -> NDArray[np.bool_]:
    x = (np.arange(shape[1], dtype=np.float32) + 0.5) * spacing
    canvas = (x[None, :] < outline.edge_mm[:, None]).astype(np.uint8)
    nipple_x, nipple_y = (value / spacing for value in outline.nipple_mm)
    axes = (round(1.1 * NIPPLE_RADIUS_MM / spacing), round(NIPPLE_RADIUS_MM / spacing))
    cv2.ellipse(canvas, (round(nipple_x - 2.0 / spacing), round(nipple_y)), axes, 0, 0, 360, 1, -1)
    return canvas.astype(bool)


def _thickness(depth_mm: Floats, thickness_mm: float) -> Floats:
    """Return how much of the compressed thickness the beam crosses, after the systems' peripheral equalisation, 0 to 1.

    The free edge of a compressed breast is round; processing for presentation lifts it, but not all the way.
    """
    inward = np.clip(1.0 - depth_mm / np.float32(0.45 * thickness_mm), 0.0, 1.0)
    result: Floats = (1.0 - inward**2) ** np.float32(0.35)
    return result


def _tissue(
    woman: Woman,
    side: Side,
    view: View,
    *,
    outline: Outline,
    depth_mm: Floats,
    thickness: Floats,
    volume: Floats,
    spacing: float,
) -> tuple[Floats, float]:
    """Return the attenuation of the breast without lesions, and its glandular share."""
    rng = stream(*woman.key, side, view, "tissue")
    shape = (depth_mm.shape[0], depth_mm.shape[1])
    gland = parenchyma.gland_map(parenchyma.project(volume, view), outline, shape, spacing)
    np.clip(gland, 0.0, 1.0, out=gland)
    gland *= _smoothstep(depth_mm, 3.0, 13.0)  # fat lies under the skin
    share = float((gland * thickness).sum() / thickness.sum())
    fine = parenchyma.fine_texture(rng, shape, spacing)
    gland += fine * (0.03 + 0.25 * gland * (1.0 - gland) + 0.05 * gland)
    tissue = gland * 0.44
    under_skin = _smoothstep(depth_mm, 1.5, 5.0)
    tissue += (
        (0.06 * parenchyma.septa(rng, shape, spacing) + 0.12 * draw_strands(rng, outline, shape, spacing))
        * under_skin
        * (1.2 - gland)
    )
    if outline.muscle_mm is not None:
        _add_muscle(tissue, rng, outline.muscle_mm, spacing)
    tissue += 0.26
    tissue *= thickness
    tissue += 0.16 * np.exp(-(((depth_mm - 1.0) / 0.7) ** 2))  # the skin, seen along its surface
    return tissue, share


def _add_muscle(tissue: Floats, rng: np.random.Generator, muscle_mm: Floats, spacing: float) -> None:
    """Add the pectoral muscle behind the breast: a smooth wedge with faint fibres along its edge."""
    x = (np.arange(tissue.shape[1], dtype=np.float32) + 0.5) * spacing
    inside = muscle_mm[:, None] - x[None, :]
    behind = 1.0 / (1.0 + np.exp(-np.clip(inside / 0.9, -30, 30)))
    fibres = np.interp(inside, np.arange(-10, 100, 1.5), rng.normal(0, 0.006, 74)).astype(np.float32)
    tissue *= 1.0 - 0.5 * behind  # less of the breast lies before it
    tissue += behind * (np.float32(rng.uniform(0.2, 0.32)) + np.clip(inside, 0, 40) * np.float32(0.003) + fibres)


def _lesions(woman: Woman, side: Side, view: View, outline: Outline, spacing: float) -> Iterator[tuple[Lesion, Stamp]]:
    for lesion in woman.lesions:
        if lesion.side == side:
            centre = parenchyma.lesion_place(lesion.place, view, outline)
            yield lesion, draw_lesion(woman, lesion, view, centre, spacing)


def _specks(woman: Woman, side: Side, view: View, outline: Outline, spacing: float) -> list[Stamp]:
    return [
        draw_speck(speck, parenchyma.lesion_place(speck.place, view, outline), spacing)
        for speck in woman.specks
        if speck.side == side
    ]


def _smoothstep(value: Floats, low: float, high: float) -> Floats:
    """Return 0 below `low`, 1 above `high`, and a smooth rise between."""
    share = np.clip((value - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    result: Floats = share * share * (3.0 - 2.0 * share)
    return result
