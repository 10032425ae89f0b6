"""Pictures of an exam's images for a page that lets its reader set window and level: 16 bits, and heatmaps beside them.

All are in the orientation of the stored image; of one that is stored mirrored the exam says so.
"""

import cv2
import numpy as np
import numpy.typing as npt

from spicula.convert import png
from spicula.exams.stages.visualize import BENIGN_COLOR, MALIGNANT_COLOR

#: Longest sides in pixels that pictures are made at.
SIZES = (256, 512, 1024, 2048, 4096)
COLORS = {"malignant": MALIGNANT_COLOR, "benign": BENIGN_COLOR}


def grey(pixels: npt.NDArray[np.uint16], size: int | None) -> bytes:
    """Return an image as a PNG of 16 bits.

    Args:
        pixels: (H, W), dark to bright.
        size: the longest side at most, in pixels; None: as it is.
    """
    return png.encode(_smaller(pixels, size))


def heat(probabilities: npt.NDArray[np.float32], size: int | None) -> bytes:
    """Return a heatmap as a grey PNG of 8 bits: 255 where the probability is 1.

    Args:
        probabilities: (H, W), 0 to 1.
        size: see `grey`.
    """
    return png.encode(_eight_bits(_smaller(probabilities, size)))


def layer(
    probabilities: npt.NDArray[np.float32], pixels: npt.NDArray[np.uint16], target: str, size: int | None
) -> bytes:
    """Return a heatmap as a layer to be laid over its image: an RGBA PNG of one colour, as opaque as it is probable.

    Args:
        probabilities: (H, W), 0 to 1.
        pixels: (H, W), the image: over its black background the layer is clear.
        target: "malignant" (red) or "benign" (green).
        size: see `grey`.
    """
    opacity = _eight_bits(_smaller(probabilities * (pixels > 0), size))
    picture = np.empty((*opacity.shape, 4), np.uint8)
    picture[..., :3] = COLORS[target][::-1]  # OpenCV's order is BGR
    picture[..., 3] = opacity
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert done, f"OpenCV cannot encode {picture.shape}"
    return data.tobytes()


def _smaller(array: np.ndarray, size: int | None) -> np.ndarray:
    height, width = array.shape
    if size is None or max(height, width) <= size:
        return np.ascontiguousarray(array)
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: np.ndarray = cv2.resize(np.ascontiguousarray(array), shape, interpolation=cv2.INTER_AREA)
    return small


def _eight_bits(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = np.rint(np.clip(probabilities, 0, 1) * 255).astype(np.uint8)
    return found
