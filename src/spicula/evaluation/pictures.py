"""Small pictures for the report: thumbnails, heatmaps over them, and lesion outlines, as text for `<img src>`."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from spicula.errors import SpiculaError
from spicula.imaging.geometry import map_lesions
from spicula.imaging.store import Store

#: Longest side of a picture: sharp at the 150 CSS pixels at which the page shows it, about 8 kB each.
SIDE_PX = 224
_QUALITY = 82
_OUTLINE = (233, 180, 86)  # sky blue of the Okabe-Ito palette, in OpenCV's order BGR: seen on grey and on pink
_HALO = (40, 40, 40)
_OPACITY = 0.62  # of the heat where it is strongest: tissue stays visible under it


def thumbnail(
    image: np.ndarray,
    heat: np.ndarray | None = None,
    lesions: Sequence[Mapping[str, Any]] = (),
    side_px: int = SIDE_PX,
) -> str:
    """Return one image as a data URI (JPEG).

    Args:
        image: (H, W, 1) or (H, W, 3), uint8 or uint16 over their whole range.
        heat: (h, w) in [0, 1] of any size; laid over the image, clear where it is 0.
        lesions: in pixels of `image`, as in the Index; boxes, circles and polygons are outlined.
        side_px: length of the longer side.

    Returns:
        `data:image/jpeg;base64,...`
    """
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(_bgr(image), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if heat is not None:
        picture = _lay_over(picture, heat)
    for lesion in lesions:
        _outline(picture, lesion, np.array([size[0] / width, size[1] / height]))
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise SpiculaError(f"cannot encode an image of shape {image.shape} as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def heat_scale() -> list[str]:
    """Return the colours of the heatmap from 0 to 1, as CSS colours over white."""
    steps = np.linspace(0, 1, 9)
    colors = _heat_colors(steps[None])[0].astype(float)
    alpha = (_OPACITY * steps)[:, None]
    mixed = (255 * (1 - alpha) + colors * alpha).round().astype(int)
    return [f"rgb({red}, {green}, {blue})" for blue, green, red in mixed]


def _bgr(image: np.ndarray) -> np.ndarray:
    """The image as (H, W, 3) uint8 in OpenCV's order of channels."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, ::-1])


def _heat_colors(heat: np.ndarray) -> np.ndarray:
    colors: np.ndarray = cv2.applyColorMap((np.clip(heat, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return colors


def _lay_over(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    size = (picture.shape[1], picture.shape[0])
    heat = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0, 1)
    alpha = (_OPACITY * heat)[:, :, None]
    mixed: np.ndarray = (picture * (1 - alpha) + _heat_colors(heat) * alpha).round().astype(np.uint8)
    return mixed


def _outline(picture: np.ndarray, lesion: Mapping[str, Any], scale: np.ndarray) -> None:
    """Draw a lesion's outline with a dark halo, so that it is seen on bright and on dark tissue."""
    points = _outline_points(lesion)
    if points is None:
        return
    drawn = [np.round(points * scale).astype(np.int32)]
    for color, thickness in ((_HALO, 4), (_OUTLINE, 2)):
        cv2.polylines(picture, drawn, True, color, thickness, cv2.LINE_AA)


def _outline_points(lesion: Mapping[str, Any]) -> np.ndarray | None:
    """(N, 2) corners x, y of a closed line around the lesion; None where it has none (a mask, or not located)."""
    numbers = list(lesion["coordinates"])
    if lesion["kind"] == "box":
        x0, y0, x1, y1 = numbers
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if lesion["kind"] == "circle":
        x, y, radius = numbers
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    if lesion["kind"] == "polygon":
        return np.array(numbers).reshape(-1, 2)
    return None


@dataclass(frozen=True)
class Picture:
    """One image as the page shows it.

    Attributes:
        image_id: which image.
        src: data URI.
        alt: what it shows, for those who cannot see it.
        caption: lines below it.
    """

    image_id: str
    src: str
    alt: str
    caption: tuple[str, ...] = ()


class Album:
    """The images of a Store as pictures, with the lesions that the Index knows."""

    def __init__(self, store: Store, index: pa.Table) -> None:
        self._store = store
        self._stored = set(store.table["image_id"].to_pylist())
        self._lesions = dict(zip(index["image_id"].to_pylist(), index["lesions"].to_pylist(), strict=True))

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._stored

    def show(
        self,
        image_id: str,
        alt: str,
        caption: Sequence[str] = (),
        heat: np.ndarray | None = None,
        outlined: bool = True,
    ) -> Picture:
        """Return one image as a picture; `heat` is laid over it, known lesions are outlined."""
        row = self._store.rows([image_id])
        lesions = self._lesions.get(image_id) or [] if outlined else []
        if lesions:
            lesions = map_lesions(lesions, self._store.geometry(int(row[0])))
        return Picture(image_id, thumbnail(self._store.read(row)[0], heat, lesions), alt, tuple(caption))
