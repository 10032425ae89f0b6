"""Inputs made by a formula, and what a bundle answers to them: whether a model runs here as it did where it was made.

The images are of the size and type that the model takes, and resemble nothing: two slopes of brightness and two
textures, each as it is and inverted. Whole numbers alone make them, so that they are the same everywhere.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spicula.bundle.format import Golden

if TYPE_CHECKING:
    from spicula.bundle import Bundle
    from spicula.imaging.preprocess import Preprocess

#: Largest difference of a probability, in float32.
TOLERANCE = 1e-4
WORDS = "two slopes of brightness and two textures, made by the formula of spicula.bundle.golden"


def images(preprocess: "Preprocess") -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return the golden inputs, as preprocessing would have made them.

    Args:
        preprocess: of the model.

    Returns:
        (4, H, W, C), uint8 or uint16, over the whole range of the type.
    """
    height, width = preprocess.size
    top = 2**preprocess.bits - 1
    row, column, channel = np.mgrid[:height, :width, : preprocess.channels].astype(np.int64)
    slope = (row * top // (height - 1) + column * top // (width - 1)) // 2
    texture = (37 * row + 101 * column + 59 * channel + row * column) * (top // 255) % (top + 1)
    made = np.stack([slope, top - slope, texture, top - texture])
    return made.astype(np.uint8) if preprocess.bits == 8 else made.astype(np.uint16)


def record(bundle: "Bundle") -> Golden:
    """Return what `bundle.json` says: the probabilities that the bundle gives to its golden inputs."""
    return {
        "images": WORDS,
        "probabilities": bundle.probabilities(images(bundle.preprocess)).tolist(),
        "tolerance": TOLERANCE,
    }


def difference(bundle: "Bundle", found: npt.NDArray[np.float64]) -> float | None:
    """Return how far answers to the golden inputs are from those that the bundle records.

    Args:
        bundle: the model.
        found: (4, classes), what it says here.

    Returns:
        The largest difference of a probability; None where the bundle records none (spicula before golden inputs).
    """
    golden = bundle.info.get("golden")
    if golden is None:
        return None
    told = np.array(golden["probabilities"])
    return float(np.abs(found - told).max()) if found.shape == told.shape else float("inf")
