"""Explanations as PNG: the image as the model saw it, and Grad-CAM's heatmap to be laid over it."""

import base64

import cv2
import numpy as np
import numpy.typing as npt

from spicula.bundle.explanation import heat


def image_png(image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> str:
    """Return a prepared image as PNG of 8 bits, in base64.

    Args:
        image: (H, W, 1) or (H, W, 3), over the whole range of its type.
    """
    shown = (image >> 8 if image.dtype == np.uint16 else image).astype(np.uint8)
    return _png(shown if shown.shape[2] == 1 else shown[:, :, ::-1])


def heatmap_png(evidence: npt.NDArray[np.float32], size: tuple[int, int]) -> str:
    """Return a heatmap as PNG, in base64.

    Args:
        evidence: (h, w), positive for the class that is asked about; see `bundle.explanation`.
        size: (H, W) of the image in pixels.

    Returns:
        A picture of colours (inferno), whose alpha is the heat itself, 0 to 255: laid over the image it is clear where
        nothing spoke for the class.
    """
    values = np.rint(heat(evidence[np.newaxis], size)[0] * 255).astype(np.uint8)
    return _png(np.dstack([cv2.applyColorMap(values, cv2.COLORMAP_INFERNO), values]))


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    assert done
    return base64.b64encode(data.tobytes()).decode()
