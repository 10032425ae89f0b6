"""Where a pixel went: crop, flip, scale and padding as one exact, invertible value that also moves lesions.

Coordinates are those of the Index: x to the right, y down, in pixels, origin at the outer corner of the top-left pixel,
so that pixel (row r, column c) covers [c, c + 1) by [r, r + 1). Image operations here follow the same convention, hence
a lesion's box lands on the pixels that show the lesion.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np

from spicula.imaging.polygons import clip_polygon, ellipse

#: Corners of the polygon that stands for an ellipse; it lies within 0.13 % of the radius of it.
ELLIPSE_CORNERS = 64
#: An ellipse whose radii differ by no more than this share is still called a circle (of the same area). Sizes are whole
#: pixels, so that even with the aspect kept both scales are hardly ever quite the same.
ROUND = 0.01


@dataclass(frozen=True)
class Geometry:
    """How an image was made from its source: a window of it, mirrored or not, scaled, and placed on a canvas.

    All in pixels. `crop_*` is the window in the source, `scaled_*` its size after resizing, `pad_*` its place on the
    output canvas of `height` x `width`. The mirroring is left to right, after the crop.
    """

    source_height: int
    source_width: int
    crop_top: int
    crop_left: int
    crop_height: int
    crop_width: int
    flipped: bool
    scaled_height: int
    scaled_width: int
    pad_top: int
    pad_left: int
    height: int
    width: int

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Geometry":
        """Return the Geometry whose fields stand in a table's row, among others."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    def to_row(self) -> dict[str, Any]:
        """Return the fields as plain values, for a table's row."""
        return asdict(self)

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels per source pixel, along x and y."""
        return self.scaled_width / self.crop_width, self.scaled_height / self.crop_height

    @property
    def window(self) -> tuple[float, float, float, float]:
        """The part of the output that shows the source: x0, y0, x1, y1. The rest is padding."""
        return (
            float(self.pad_left),
            float(self.pad_top),
            float(self.pad_left + self.scaled_width),
            float(self.pad_top + self.scaled_height),
        )

    def to_output(self, points: np.ndarray) -> np.ndarray:
        """Map points of the source, (N, 2) x and y, to the output, as float64. Exact, not clipped."""
        scale_x, scale_y = self.scale
        x, y = np.asarray(points, np.float64).reshape(-1, 2).T
        x, y = x - self.crop_left, y - self.crop_top
        if self.flipped:
            x = self.crop_width - x
        return np.column_stack([x * scale_x + self.pad_left, y * scale_y + self.pad_top])

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """Map points of the output, (N, 2) x and y, back to the source: the inverse of `to_output`."""
        scale_x, scale_y = self.scale
        x, y = np.asarray(points, np.float64).reshape(-1, 2).T
        x, y = (x - self.pad_left) / scale_x, (y - self.pad_top) / scale_y
        if self.flipped:
            x = self.crop_width - x
        return np.column_stack([x + self.crop_left, y + self.crop_top])

    def box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        """Map a box of the source to the output, its corners in order again. Not clipped."""
        corners = self.to_output(np.array([[x0, y0], [x1, y1]]))
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def circle(self, x: float, y: float, radius: float) -> tuple[float, float, float, float]:
        """Map a circle of the source to the output: centre x and y, and the radii of the ellipse along x and y."""
        (centre_x, centre_y), (scale_x, scale_y) = self.to_output(np.array([[x, y]]))[0], self.scale
        return float(centre_x), float(centre_y), radius * scale_x, radius * scale_y

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Rows and columns of the window after resizing."""
        return self.scaled_height, self.scaled_width

    def cropped(self, image: np.ndarray) -> np.ndarray:
        """Return the window of a source image, mirrored: a view, (crop_height, crop_width[, C])."""
        bottom, right = self.crop_top + self.crop_height, self.crop_left + self.crop_width
        part = image[self.crop_top : bottom, self.crop_left : right]
        return part[:, ::-1] if self.flipped else part

    def scaled(self, image: np.ndarray) -> np.ndarray:
        """Return the window of a source image, mirrored and resized, without padding.

        Args:
            image: (source_height, source_width) or with channels last; uint8, uint16 or float32.

        Returns:
            (scaled_height, scaled_width[, C]), same dtype.
        """
        return resize_area(self.cropped(image), self.scaled_size)

    def placed(self, scaled: np.ndarray) -> np.ndarray:
        """Return a scaled image on its canvas, padded with zeros: (height, width[, C]), same dtype."""
        if scaled.shape[:2] == (self.height, self.width):
            return scaled
        canvas = np.zeros((self.height, self.width, *scaled.shape[2:]), scaled.dtype)
        bottom, right = self.pad_top + self.scaled_height, self.pad_left + self.scaled_width
        canvas[self.pad_top : bottom, self.pad_left : right] = scaled
        return canvas

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Map a mask of the source to the output.

        An output pixel belongs to it when at least half of its area does. A mask with pixels inside the window never
        vanishes: where no pixel reaches half, those covered most stay.

        Args:
            mask: (source_height, source_width); any non-zero pixel counts.

        Returns:
            (height, width) bool.
        """
        cover = self.scaled((np.asarray(mask) != 0).astype(np.float32))
        return self.placed((cover >= min(0.5, float(cover.max()))) & (cover > 0))

    def to_source_image(self, image: np.ndarray) -> np.ndarray:
        """Lay an image of the output (a heatmap, say) back over the source; 0 outside the window.

        Args:
            image: (height, width) or with channels last; uint8, uint16 or float32.

        Returns:
            (source_height, source_width[, C]), same dtype.
        """
        bottom, right = self.pad_top + self.scaled_height, self.pad_left + self.scaled_width
        part = resize_area(image[self.pad_top : bottom, self.pad_left : right], (self.crop_height, self.crop_width))
        part = part[:, ::-1] if self.flipped else part
        source = np.zeros((self.source_height, self.source_width, *image.shape[2:]), image.dtype)
        bottom, right = self.crop_top + self.crop_height, self.crop_left + self.crop_width
        source[self.crop_top : bottom, self.crop_left : right] = part
        return source


def resize_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image: along a side that shrinks by area (every source pixel counts), else by linear interpolation.

    Args:
        image: (H, W) or (H, W, C); uint8, uint16 or float32.
        size: rows and columns of the result.

    Returns:
        (size[0], size[1][, C]), same dtype, whole numbers rounded.
    """
    rows, columns = size
    shrunk = min(rows, image.shape[0]), min(columns, image.shape[1])
    image = np.ascontiguousarray(image)
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA).reshape(*shrunk, *image.shape[2:])
    if shrunk != size:
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR).reshape(*size, *image.shape[2:])
    return image


def map_lesions(lesions: list[dict[str, Any]], geometry: Geometry) -> list[dict[str, Any]]:
    """Map the lesions of an Index row to the output of a Geometry, clipped to the window.

    A box stays a box. A circle stays a circle where both scales are the same (to `ROUND`) and it lies inside, else it
    becomes a polygon (of the ellipse, clipped). What is left of a polygon is a polygon. A mask keeps its path: map its
    pixels with `Geometry.mask`.

    Args:
        lesions: as `spicula.index.LESION` has them.
        geometry: of the same image.

    Returns:
        As many lesions, each with one more key, `inside`: "whole", "part" (clipped) or "none" (of kind "unlocated",
        without coordinates, since nothing of it shows); None where the lesion has no outline to tell by.
    """
    return [{**lesion, **_map_lesion(lesion["kind"], lesion["coordinates"], geometry)} for lesion in lesions]


def _map_lesion(kind: str, coordinates: list[float], geometry: Geometry) -> dict[str, Any]:
    if kind in ("mask", "unlocated"):
        return {"inside": None}
    x0, y0, x1, y1 = geometry.window
    if kind == "box":
        box = geometry.box(*coordinates)
        clipped = [max(box[0], x0), max(box[1], y0), min(box[2], x1), min(box[3], y1)]
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            return _NOTHING
        return {"coordinates": clipped, "inside": "whole" if clipped == list(box) else "part"}
    if kind == "circle":
        x, y, radius_x, radius_y = geometry.circle(*coordinates)
        is_whole = x0 <= x - radius_x and x + radius_x <= x1 and y0 <= y - radius_y and y + radius_y <= y1
        if is_whole and abs(radius_x - radius_y) <= ROUND * max(radius_x, radius_y):
            return {"coordinates": [x, y, math.sqrt(radius_x * radius_y)], "inside": "whole"}
        points = ellipse(x, y, radius_x, radius_y, ELLIPSE_CORNERS)
    else:
        points = geometry.to_output(np.array(coordinates))
        low, high = points.min(axis=0), points.max(axis=0)
        is_whole = bool((low >= (x0, y0)).all() and (high <= (x1, y1)).all())
    if not is_whole:
        points = clip_polygon(points, geometry.window)
        if len(points) == 0:
            return _NOTHING
    return {"kind": "polygon", "coordinates": points.ravel().tolist(), "inside": "whole" if is_whole else "part"}


_NOTHING: dict[str, Any] = {"kind": "unlocated", "coordinates": [], "inside": "none"}
