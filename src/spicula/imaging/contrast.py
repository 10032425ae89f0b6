"""Intensities: grey and colour, stretching, local contrast, and the step to floating point."""

import cv2
import numpy as np

_TILES = 8
_BINS = 256


def to_grey(image: np.ndarray) -> np.ndarray:
    """Return an image in grey: (H, W), same dtype.

    Colour is weighted as luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601-7, section 2.5.1).

    Args:
        image: (H, W), or (H, W, 3) RGB; uint8, uint16 or float32.
    """
    if image.ndim == 2:
        return image
    grey: np.ndarray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image in colour: (H, W, 3), same dtype; grey is repeated.

    Args:
        image: (H, W), or (H, W, 3) RGB; uint8, uint16 or float32.
    """
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def rescale(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stretch intensities linearly so that `low` becomes 0 and `high` 1; what lies outside is clipped.

    Args:
        image: any shape, any real dtype.
        low: value that becomes 0.
        high: value that becomes 1; where it is not above `low` the result is 0 everywhere.

    Returns:
        float32 of the same shape, within 0 to 1.
    """
    if high <= low:
        return np.zeros(image.shape, np.float32)
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def value_range(image: np.ndarray, percentiles: tuple[float, float], mask: np.ndarray | None) -> tuple[float, float]:
    """Return two percentiles of an image's values; (0, 100) are the smallest and the largest.

    Args:
        image: (H, W) or (H, W, 3), any real dtype. Channels are taken together, so that colours keep their hue.
        percentiles: lower and upper, 0 to 100.
        mask: (H, W) bool, the pixels that count; None or an empty one: all.
    """
    values = image[mask] if mask is not None and mask.any() else image
    low, high = np.percentile(values, percentiles)
    return float(low), float(high)


def quantise(image: np.ndarray, bits: int) -> np.ndarray:
    """Return an image within 0 to 1 as whole numbers: uint8 for 8 bits, uint16 (0 to 65535) for 16, rounded.

    Args:
        image: any shape, float32, within 0 to 1.
        bits: 8 or 16.
    """
    top = np.float32(2**bits - 1)
    return np.rint(image * top).astype(np.uint8 if bits == 8 else np.uint16)


def normalise(image: np.ndarray) -> np.ndarray:
    """Return stored values as float32 within 0 to 1, what models take: divided by 255 (uint8) or 65535 (uint16).

    Args:
        image: any shape, uint8 or uint16.

    Returns:
        float32 of the same shape, contiguous in C's order, whatever that of the image is.
    """
    # in one pass: fresh memory for a copy between costs more than the arithmetic
    scale = np.float32(1 / np.iinfo(image.dtype).max)
    scaled: np.ndarray = np.multiply(image, scale, dtype=np.float32, order="C")
    return scaled


def clahe(image: np.ndarray, clip_limit: float) -> np.ndarray:
    """Equalise the contrast of each part of an image, limited so that noise is not blown up (CLAHE).

    K. Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994; 8 x 8 tiles. Of colour
    images the lightness (CIE L*a*b*) is equalised. OpenCV does the work for uint8; for uint16 its histograms of 65,536
    bins are too sparse for the limit to hold, so there 256-bin transfer functions are interpolated.

    Args:
        image: (H, W), or (H, W, 3) RGB; uint8 or uint16, using the whole range of its dtype.
        clip_limit: how many times its fair share a histogram bin may hold; 1 leaves hardly any effect, 2 to 4 is usual.

    Returns:
        Same shape and dtype.
    """
    if image.ndim == 3:
        top = np.iinfo(image.dtype).max
        lab = cv2.cvtColor(normalise(image), cv2.COLOR_RGB2LAB)  # lightness 0 to 100
        lightness = np.rint(np.clip(lab[..., 0] / 100, 0, 1) * top).astype(image.dtype)
        lab[..., 0] = clahe(lightness, clip_limit) * np.float32(100 / top)
        return quantise(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1), 8 * image.dtype.itemsize)
    if image.dtype == np.uint8:
        equalised: np.ndarray = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(_TILES, _TILES)).apply(image)
        return equalised
    return _clahe_16(image, clip_limit)


def _clahe_16(image: np.ndarray, clip_limit: float) -> np.ndarray:
    height, width = image.shape
    tile_height, tile_width = -(-height // _TILES), -(-width // _TILES)
    extra_height, extra_width = tile_height * _TILES - height, tile_width * _TILES - width
    padded = np.pad(image, ((0, extra_height), (0, extra_width)), mode="symmetric")
    tiles = padded.reshape(_TILES, tile_height, _TILES, tile_width).swapaxes(1, 2).reshape(_TILES**2, -1)
    transfer = np.stack([_transfer(tile, clip_limit) for tile in tiles]).reshape(_TILES, _TILES, _BINS)

    position = image.astype(np.float32) * np.float32((_BINS - 1) / 65535)  # in bins
    bin_below = np.minimum(position.astype(np.intp), _BINS - 2)
    between = position - bin_below
    result = np.zeros(image.shape, np.float32)
    for row, row_weight in _neighbours(height, tile_height):
        for column, column_weight in _neighbours(width, tile_width):
            lower = transfer[row[:, None], column[None, :], bin_below]
            upper = transfer[row[:, None], column[None, :], bin_below + 1]
            result += row_weight[:, None] * column_weight[None, :] * (lower + between * (upper - lower))
    return quantise(np.clip(result, 0, 1), 16)


def _transfer(tile: np.ndarray, clip_limit: float) -> np.ndarray:
    """Return the clipped, equalising transfer function of one tile: (256,) values within 0 to 1."""
    bins = np.rint(tile * np.float32((_BINS - 1) / 65535)).astype(np.intp)
    histogram = np.bincount(bins, minlength=_BINS).astype(np.float32)
    limit = max(clip_limit * tile.size / _BINS, 1)
    excess = np.maximum(histogram - limit, 0).sum()
    histogram = np.minimum(histogram, limit) + excess / _BINS
    return np.cumsum(histogram) / tile.size


def _neighbours(length: int, tile: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for the pixels along one side, the two tiles whose centres are nearest, and their weights."""
    position = (np.arange(length) + 0.5) / tile - 0.5
    below = np.floor(position).astype(np.intp)
    weight = (position - below).astype(np.float32)
    return [
        (np.clip(below, 0, _TILES - 1), 1 - weight),
        (np.clip(below + 1, 0, _TILES - 1), weight),
    ]
