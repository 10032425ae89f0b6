"""Invented mammography systems: how each turns attenuation into 12 bits for presentation.

The names are made up and say so. What differs between real systems differs here: polarity, pixel size, tone curve,
sharpening and noise. Nothing of it depends on what is in the image, so that no lesion can be told from the settings.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from spicula.phantoms.streams import stream
from spicula.phantoms.types import Floats
from spicula.phantoms.woman import Woman

#: Value of air, with dark shown as low (MONOCHROME2). Nothing else has it.
AIR = 0
HIGHEST = 4095  # 12 bits


@dataclass(frozen=True)
class Detector:
    """One invented system."""

    manufacturer: str
    model: str
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    height_mm: float  # of the field at 1024 x 832 pixels or the same proportions
    gamma: float  # of the tone curve, above 1: darker fat
    sharpening: float  # share of the unsharp mask
    noise: float  # standard deviation behind fat, as a share of the full scale
    window: tuple[int, int]  # centre and width


DETECTORS = (
    Detector("SYNTHETIC Aurelia Imaging", "Phantom Alba 1", "MONOCHROME2", 240.0, 1.0, 0.25, 0.008, (2000, 3900)),
    Detector("SYNTHETIC Borealis X-Ray", "Phantom Nova 300", "MONOCHROME1", 236.0, 1.15, 0.5, 0.010, (1900, 3700)),
    Detector("SYNTHETIC Cedar Medical", "Phantom Terra S", "MONOCHROME2", 246.0, 0.9, 0.1, 0.012, (1950, 3800)),
)


def detector_of(woman: Woman) -> Detector:
    """Return the system that a woman's exam was made with: all four views on one, each as likely."""
    return DETECTORS[stream(*woman.key, "detector").integers(len(DETECTORS))]


def present(
    detector: Detector, attenuation: Floats, breast: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return the 12-bit image for presentation, dark low, with exactly `AIR` wherever there is no breast.

    Args:
        detector: the system.
        attenuation: (rows, columns); 0 is air, 1 about the densest tissue, calcifications beyond.
        breast: where there is any.
        rng: of the noise. Fewer photons pass denser tissue: in the logarithmic signal the noise grows with it.
    """
    image = np.clip(attenuation, 0.0, 1.5)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(detector.noise) * (0.7 + 0.9 * image)
    image = cv2.GaussianBlur(image, (0, 0), 0.5) + noise
    image += np.float32(detector.sharpening) * (image - cv2.GaussianBlur(image, (0, 0), 2.0))
    np.clip(image, 0.0, None, out=image)
    # a shoulder instead of clipping: calcifications stay distinct above dense tissue
    image = np.where(image > 0.75, 1.0 - 0.25 * np.exp(-(image - 0.75) / 0.25), image)
    image **= np.float32(detector.gamma)
    values = np.rint(image * HIGHEST)
    values = np.where(breast, np.clip(values, AIR + 1, HIGHEST), AIR)
    return values.astype(np.uint16)
