"""The images of an exam as a page shows them: turned as on a workstation, small, with heatmaps as layers over them."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from spicula.exams.stages.visualize import BENIGN_COLOR, MALIGNANT_COLOR, grey_picture
from spicula.exams.types import HANGING

#: A heatmap is made of patches some 70 pixels apart: it loses nothing that the eye could see when it is this small.
HEAT_SIDE_PX = 400

_QUALITY = 85

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """What the page needs of one image, as stored: not turned yet.

    Attributes:
        pixels: (h, w) uint16, of the crop.
        malignant: (h, w) float32, its heatmap, 0 to 1; None: there is none.
        benign: the same.
    """

    pixels: npt.NDArray[np.uint16]
    malignant: Floats | None = None
    benign: Floats | None = None


@dataclass(frozen=True)
class Shown:
    """One image as the page shows it.

    Attributes:
        plain: data URI (JPEG).
        malignant: data URI (PNG) of the layer over it, or None.
        benign: the same.
        width, height: of the crop in pixels; all images of a page are shown at one scale.
    """

    plain: str
    malignant: str | None
    benign: str | None
    width: int
    height: int


def show(view: View, mirrored: bool) -> Shown:
    """Return an image as a page shows it.

    Args:
        view: as stored.
        mirrored: it is stored as its mirror image, and is turned back: a right breast points to the left.
    """
    height, width = view.pixels.shape
    # Patches of nothing but background have scores too; over black they would only hide where the breast ends.
    on_tissue = view.pixels > 0

    def turned(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[:, ::-1]) if mirrored else array

    return Shown(
        plain=plain(turned(view.pixels)),
        malignant=None if view.malignant is None else layer(turned(view.malignant * on_tissue), MALIGNANT_COLOR),
        benign=None if view.benign is None else layer(turned(view.benign * on_tissue), BENIGN_COLOR),
        width=width,
        height=height,
    )


def plain(pixels: npt.NDArray[np.uint16]) -> str:
    """Return a crop in 8 bits as a data URI (JPEG), with the size and the contrast of the stage `visualize`."""
    return _uri("jpeg", grey_picture(pixels)[..., 0], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def layer(heat: Floats, color: tuple[int, int, int], side_px: int = HEAT_SIDE_PX) -> str:
    """Return a heatmap as a data URI (PNG): one colour (RGB), clear where the probability is 0, full where it is 1."""
    small = np.clip(_resized(heat, side_px), 0, 1)
    picture = np.empty((*small.shape, 4), np.uint8)
    picture[..., :3] = color[::-1]  # OpenCV's order is BGR
    picture[..., 3] = (small * 255).round()
    return _uri("png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def hang(views: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of views that are hung together, right breast first, of those that there are any images of."""
    pairs = [(HANGING[0], HANGING[1]), (HANGING[2], HANGING[3])]
    return [pair for pair in pairs if set(pair) & set(views)]


def _resized(array: np.ndarray, side_px: int) -> np.ndarray:
    height, width = array.shape
    scale = min(1.0, side_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: np.ndarray = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    return small


def _uri(kind: str, picture: np.ndarray, options: list[int]) -> str:
    done, data = cv2.imencode(f".{kind}", picture, options)
    assert done, f"OpenCV cannot encode {picture.shape} as {kind}"
    return f"data:image/{kind};base64," + base64.b64encode(data.tobytes()).decode()
