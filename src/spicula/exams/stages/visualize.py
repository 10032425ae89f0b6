"""Pictures of heatmaps: malignant red and benign green over the mammogram, beside the plain image."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from spicula.exams.stages.heatmaps import maps
from spicula.exams.types import Cropped, PatchScores
from spicula.imaging import contrast

RGB8 = npt.NDArray[np.uint8]

#: A mammogram is at most so high in a picture; larger ones are made smaller.
MOST_ROWS = 1200

#: Shares of the breast's pixels, in per cent, below which all is black, and above which all is white.
STRETCH = (1.0, 99.8)

#: Opacity of a colour where its score is 1: tissue stays visible under it.
OPACITY = 0.7

MALIGNANT_COLOR, BENIGN_COLOR = (255, 0, 0), (0, 255, 0)

NOTE = "red: malignant, green: benign - research use only, not a medical device"

_GAP_PX = 8
_STRIP_PX = 28
_NOTE_COLOR = (200, 200, 200)


def visualize(crops: Sequence[Cropped], scores: Sequence[PatchScores]) -> list[RGB8]:
    """Draw a picture of every image: the plain one on the left, the one with its heatmaps on the right.

    Args:
        crops: of an exam.
        scores: of patches, for each crop.

    Returns:
        (rows, columns, 3) RGB each, in the orientation of the crop. A strip at the bottom says what the colours mean.
    """
    return [_picture(cropped.pixels, maps(one)) for cropped, one in zip(crops, scores, strict=True)]


def _picture(pixels: np.ndarray, heat: npt.NDArray[np.float32]) -> RGB8:
    plain = grey_picture(pixels)
    both = [plain, np.zeros((len(plain), _GAP_PX, 3), np.uint8), lay_over(plain, heat, pixels > 0)]
    picture = np.hstack(both)
    return np.vstack([picture, _strip(picture.shape[1])])


def grey_picture(pixels: np.ndarray) -> RGB8:
    """Return a mammogram as a picture of at most MOST_ROWS rows, its contrast stretched to that of the breast.

    Args:
        pixels: (H, W), any real dtype; background is 0.
    """
    height, width = pixels.shape
    scale = min(1.0, MOST_ROWS / height)
    small = _resized(pixels.astype(np.float32), (round(height * scale), max(1, round(width * scale))))
    low, high = contrast.value_range(small, STRETCH, small > 0)
    return contrast.to_rgb(contrast.quantise(contrast.rescale(small, low, high), 8))


def lay_over(picture: RGB8, heat: npt.NDArray[np.float32], tissue: npt.NDArray[np.bool_]) -> RGB8:
    """Lay heatmaps over a picture: the higher a score, the more opaque its colour.

    Args:
        picture: (h, w, 3) RGB.
        heat: (2, H, W) malignant and benign, 0 to 1, together at most 1; of any size.
        tissue: (H, W) where colour belongs; elsewhere the picture stays as it is.
    """
    size = picture.shape[:2]
    seen = _resized(tissue.astype(np.float32), size)
    malignant, benign = (OPACITY * seen * _resized(one, size) for one in heat)
    mixed = picture * (1 - malignant - benign)[..., None]
    mixed = mixed + np.multiply.outer(malignant, MALIGNANT_COLOR) + np.multiply.outer(benign, BENIGN_COLOR)
    found: RGB8 = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
    return found


def _resized(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    resized: npt.NDArray[np.float32] = cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)
    return resized


def _strip(width: int) -> RGB8:
    """Return the strip that says what the picture shows, in letters as large as fit."""
    strip = np.zeros((_STRIP_PX, width, 3), np.uint8)
    (needed, height), _ = cv2.getTextSize(NOTE, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)
    scale = min(0.6, (width - 16) / needed)
    place = (8, (_STRIP_PX + round(height * scale)) // 2)
    cv2.putText(strip, NOTE, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _NOTE_COLOR, 1, cv2.LINE_AA)
    return strip
