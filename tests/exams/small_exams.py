"""Small exams: four 16-bit PNG an exam, a bright half ellipse on black, so that thousands are made in seconds."""

from pathlib import Path

import numpy as np

from spicula.convert import png

SIZE = HEIGHT, WIDTH = 96, 64
NAMES = ("L_CC", "R_CC", "L_MLO", "R_MLO")


def small_exams(folder: Path, numbers: range, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Write exam folders `exam-0000`, ... and return the folder above them."""
    for number in numbers:
        small_exam(folder / f"exam-{number:04d}", seed * 1_000_000 + number, size=size)
    return folder


def small_exam(folder: Path, seed: int, names: tuple[str, ...] = NAMES, size: tuple[int, int] = SIZE) -> Path:
    """Write one exam folder; what is in it depends on the seed and the size alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.png").write_bytes(png.encode(breast(seed, name, size)))
    return folder


def breast(seed: int, name: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return `size` (height, width) uint16: a breast that enters from the left edge (L) or the right one (R)."""
    height, width = size
    rng = np.random.default_rng([seed, NAMES.index(name)])
    y, x = np.mgrid[:height, :width]
    middle, half = rng.uniform(0.45, 0.55) * height, rng.uniform(0.3, 0.36) * height
    depth = rng.uniform(0.55, 0.7) * width
    inside = ((y - middle) / half) ** 2 + (x / depth) ** 2 < 1
    texture = rng.normal(0.45, 0.08, size).clip(0.1, 0.9)
    pixels = np.where(inside, texture * 65535, 0).astype(np.uint16)
    return pixels if name.startswith("L") else np.ascontiguousarray(pixels[:, ::-1])
