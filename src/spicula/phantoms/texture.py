"""Random fields with a power-law spectrum, the texture of breast tissue in a mammogram.

Burgess (Proc. SPIE 3661, 1999; Burgess, Jacobson and Judy, Med. Phys. 28:419, 2001) found the power spectrum of normal
mammographic backgrounds to follow P(f) = K / f^b with b between 1.5 and 3.5, about 3 on average.
"""

from functools import lru_cache

import numpy as np
from scipy import fft

from spicula.phantoms.types import Floats

#: Exponent of the power spectrum over spatial frequency. A field of any dimension and its projections share it
#: (the projection-slice theorem), so volume and image texture continue each other.
EXPONENT = 3.0


def field(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    band: tuple[float, float],
    exponent: float = EXPONENT,
) -> Floats:
    """Draw a periodic Gaussian random field with mean 0 and variance 1, float32.

    Args:
        rng: where the randomness comes from.
        shape: how many samples along each axis.
        spacing_mm: distance between samples along each axis.
        band: lowest and highest spatial frequency in cycles per mm; outside, the amplitude falls off smoothly.
        exponent: of the power spectrum, see `EXPONENT`.
    """
    gain = _gain(shape, spacing_mm, band, exponent)
    spectrum = np.empty(gain.shape, np.complex64)
    spectrum.real = rng.standard_normal(gain.shape, dtype=np.float32)
    spectrum.imag = rng.standard_normal(gain.shape, dtype=np.float32)
    spectrum *= gain
    result: Floats = fft.irfftn(spectrum, s=shape, overwrite_x=True)
    return result


@lru_cache(maxsize=16)
def _gain(shape: tuple[int, ...], spacing_mm: tuple[float, ...], band: tuple[float, float], exponent: float) -> Floats:
    """Return the amplitude for each term of the half spectrum, scaled so that the field has variance 1."""
    axes = [np.fft.fftfreq(n, step) for n, step in zip(shape[:-1], spacing_mm[:-1], strict=True)]
    axes.append(np.fft.rfftfreq(shape[-1], spacing_mm[-1]))
    squared = np.zeros(tuple(len(axis) for axis in axes))
    for axis in np.meshgrid(*axes, indexing="ij", sparse=True):
        squared = squared + axis**2
    frequency = np.sqrt(squared)
    frequency.flat[0] = np.inf  # the constant term: the field has mean 0
    low, high = band
    power = frequency**-exponent * np.exp(-((low / frequency) ** 4)) * np.exp(-((frequency / high) ** 2))
    power.flat[0] = 0.0
    # every term but those of the first (and last) column of the half spectrum stands for two of the full one
    total = 2.0 * (2.0 * power.sum() - power[..., 0].sum())
    gain = np.sqrt(power / total) * np.prod(shape)
    # the first and last column are their own mirror images: the transform keeps half of their variance
    gain[..., 0] *= np.sqrt(2)
    if shape[-1] % 2 == 0:
        gain[..., -1] *= np.sqrt(2)
    result: Floats = gain.astype(np.float32)
    return result
