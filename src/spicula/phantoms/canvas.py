"""The fine grid that a lesion is drawn on before it is brought to the image's pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.phantoms.types import Floats

#: Wanted distance between samples of the grid, so that the finest calcifications have their right brightness.
STEP_MM = 0.06
MOST_FINER = 4  # but no more than this much finer than the image

_SHIFT = 4  # fractional bits of cv2's drawing coordinates


@dataclass(frozen=True)
class Canvas:
    """A square grid around the middle of a lesion, with drawing in mm relative to that middle."""

    pixels: int  # side of the square, in pixels of the image
    centre_px: tuple[float, float]  # x, y of the lesion's middle from the square's corner, in pixels of the image
    spacing_mm: float  # between pixels of the image
    levels: NDArray[np.uint8]  # (side, side) of the fine grid: what was drawn

    @classmethod
    def blank(cls, pixels: int, centre_px: tuple[float, float], spacing_mm: float) -> "Canvas":
        """Return an empty canvas."""
        finer = min(max(round(spacing_mm / STEP_MM), 1), MOST_FINER)
        return cls(pixels, centre_px, spacing_mm, np.zeros((pixels * finer, pixels * finer), np.uint8))

    @property
    def finer(self) -> int:
        """How many samples of the grid lie along one pixel of the image."""
        return len(self.levels) // self.pixels

    @property
    def step_mm(self) -> float:
        """Distance between samples of the fine grid."""
        return self.spacing_mm / self.finer

    def axes_mm(self) -> tuple[Floats, Floats]:
        """Return x of every column, shape (1, side), and y of every row, shape (side, 1)."""
        middle = np.arange(len(self.levels), dtype=np.float32) + np.float32(0.5)
        x, y = ((middle - np.float32(c * self.finer)) * np.float32(self.step_mm) for c in self.centre_px)
        return x[None, :], y[:, None]

    def polygon(self, x_mm: ArrayLike, y_mm: ArrayLike, level: float) -> None:
        """Fill a polygon with `level`, 0 to 1."""
        cv2.fillPoly(self.levels, [self._points(x_mm, y_mm)], round(255 * level), cv2.LINE_AA, _SHIFT)

    def ellipse(
        self, centre_mm: tuple[float, float], radii_mm: tuple[float, float], degrees: float, level: float
    ) -> None:
        """Fill an ellipse with `level`, 0 to 1."""
        x, y = (int(value) for value in self._points(*centre_mm))
        radii = [max(round(radius / self.step_mm * 2**_SHIFT), 2 ** (_SHIFT - 1)) for radius in radii_mm]
        cv2.ellipse(self.levels, (x, y), radii, degrees, 0, 360, round(255 * level), -1, cv2.LINE_AA, _SHIFT)

    def blurred(self, sigma_mm: float) -> Floats:
        """Return what was drawn, 0 to 1, softened by a Gaussian."""
        return self.blur(self.levels.astype(np.float32) / np.float32(255), sigma_mm)

    def blur(self, image: Floats, sigma_mm: float) -> Floats:
        """Return an image on the fine grid softened by a Gaussian."""
        result: Floats = cv2.GaussianBlur(image, (0, 0), sigma_mm / self.step_mm)
        return result

    def _points(self, x_mm: ArrayLike, y_mm: ArrayLike) -> NDArray[np.int32]:
        x, y = (
            c * self.finer + np.asarray(v) / self.step_mm - 0.5
            for c, v in zip(self.centre_px, (x_mm, y_mm), strict=True)
        )
        points: NDArray[np.int32] = np.round(np.stack([x, y], axis=-1) * 2**_SHIFT).astype(np.int32)
        return points
