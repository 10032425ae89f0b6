"""Images for tests of the exam's geometry, and the published procedure word for word, slow as it is."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.types import VIEWS, Crop, Image
from spicula.imaging.readers import read_pixels
from spicula.phantoms.parenchyma import gland_volume
from spicula.phantoms.render import render
from spicula.phantoms.woman import draw_woman

SIZE = (640, 520)
#: The published settings at a quarter of the resolution, which is that of the phantoms.
SMALL = ScreeningSettings(cc=(668, 484), mlo=(742, 436), erosions=24, buffer=12)


@functools.cache
def phantom(view: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """One view of a synthetic woman: 12 bits, background 0. Do not write into it."""
    woman = draw_woman(0, 2, 0.5, None)
    side, projection = view.split("-")
    pixels = render(woman, side, projection, size, gland_volume(woman, side)).pixels
    pixels.flags.writeable = False
    return pixels


def phantom_exam() -> list[Image]:
    return [Image(view, view, phantom(view), False) for view in VIEWS]


def golden(test_data: Path) -> dict:
    path = test_data.parent / "reference" / "exam-golden.json"
    if not path.is_file():
        pytest.skip("needs the golden values of the published classifier, which lie beside the real images")
    return json.loads(path.read_text())


def real_exam(test_data: Path, is_mirrored: bool = False) -> list[Image]:
    """The real exam, in order of views; or as it would lie there mirrored."""
    step = -1 if is_mirrored else 1
    paths = {view: test_data / "nyu-exam" / f"0_{view}.png" for view in VIEWS}
    return [Image(path.stem, view, read_pixels(path).array[:, ::step], is_mirrored) for view, path in paths.items()]


def literal_crop(pixels: np.ndarray, left_facing: bool, erosions: int, buffer: int) -> Crop | None:
    """Stage 1 of the published procedure, step by step; None where nothing is left."""
    mask = pixels > 0
    if erosions:
        mask = ndimage.binary_erosion(mask, iterations=erosions)
    labels, count = ndimage.label(mask)
    if not count:
        return None
    mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    if erosions:
        mask = ndimage.binary_dilation(mask, iterations=erosions)
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    y, x = bottom - 1, np.nonzero(mask[bottom - 1])[0]
    start = width - right if left_facing else left
    top, bottom = max(0, top - buffer), min(height, bottom + buffer)
    x = (right - x)[::-1] if left_facing else x - left
    if left_facing:
        left = max(0, left - buffer)
    else:
        right = min(width, right + buffer)
    window = mask[top:bottom, left:right]
    ignored = int(window.shape[0] / 3)
    rows, columns = np.nonzero(window[ignored:])
    if not rows.size:
        return None
    tip = columns.min() if left_facing else columns.max()
    of_tip = rows[columns == tip] + ignored
    return Crop(
        (top, bottom, left, right),
        ((of_tip.min(), of_tip.max()), window.shape[1] - tip if left_facing else tip),
        (y - top, (x[0], x[-1])),
        start,
    )
