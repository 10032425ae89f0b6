"""Near-duplicates: images on two sides of a split that are nearly the same picture, found by a perceptual hash."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dct

Hashes = npt.NDArray[np.uint64]

#: The hash of an image that shows too little to be recognised by: a blank patch, plain background.
NO_TEXTURE = np.uint64(0)

#: The picture is reduced to SIDE x SIDE, and BAND x BAND of its lowest frequencies (without the mean) give the bits.
SIDE, BAND = 32, 8
#: Below this root mean square of those frequencies, as a share of the full range of intensities, noise and
#: compression decide the bits: blank slide or background, at most crossed by an even gradient.
LEAST_TEXTURE = 0.007
#: Bits of 64 that may differ in two pictures of the same thing. Copies that were resized and compressed differ by 0 to
#: 4 in 92 to 100 of 100; mammograms of different women, which all look a little alike, come as near as 8.
MAX_DISTANCE = 4

_COSINES = dct(np.eye(SIDE), axis=0, norm="ortho")[1 : BAND + 1].astype(np.float32)
_BLOCK = 256


class Pair(NamedTuple):
    """Two images on different sides that look alike: their positions, and how many of 64 bits differ."""

    first: int
    second: int
    distance: int


def perceptual_hashes(images: npt.NDArray[Any] | Iterable[npt.NDArray[Any]]) -> Hashes:
    """Return a 64-bit hash for each image, which small changes of size, contrast and compression leave nearly alone.

    The hash is the sign pattern of the discrete cosine transform's low frequencies against their median
    (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, section 3.2.1).

    An image of so little texture that noise would decide the bits (see LEAST_TEXTURE) gets NO_TEXTURE, which is
    never near anything. A blank slide patch looks like every other blank patch, so listing those says nothing.

    Args:
        images: shape (N, H, W, C), C 1 or 3, or batches of that shape. Intensities span the range of the data type
            (0 to 255, 0 to 65,535, or 0 to 1 for floats), as they do in the Store.

    Returns:
        Shape (N,).
    """
    batches = [images] if isinstance(images, np.ndarray) else images
    hashed = [_hash_batch(batch) for batch in batches if len(batch)]
    return np.concatenate(hashed) if hashed else np.empty(0, dtype=np.uint64)


def near_duplicates(hashes: Hashes, split: Sequence[Any], max_distance: int = MAX_DISTANCE) -> list[Pair]:
    """List, for every image, the most similar one on another side, when no more than `max_distance` bits differ.

    One image is listed with its nearest counterpart alone (the first, where several are as near), so that a cluster
    of look-alikes gives as many pairs as it has images, and not their square.

    Args:
        hashes: from `perceptual_hashes`, shape (N,).
        split: each image's side, length N; an image without a side (None) takes no part.
        max_distance: bits of 64.

    Returns:
        Pairs without repetition, nearest first; `first` is the lower position.
    """
    sides = np.array([side if side is None else str(side) for side in split], dtype=object)
    usable = np.array([side is not None for side in sides], dtype=np.bool_) & (hashes != NO_TEXTURE)
    names = sorted(set(sides[usable]))
    groups = [np.flatnonzero(usable & (sides == name)) for name in names]
    pairs: set[Pair] = set()
    for at, here in enumerate(groups):
        others = np.sort(np.concatenate([group for k, group in enumerate(groups) if k != at] or [here[:0]]))
        pairs.update(_nearest(hashes, here, others, max_distance))
    return sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second))


def _hash_batch(images: npt.NDArray[Any]) -> Hashes:
    scale = float(np.iinfo(images.dtype).max) if np.issubdtype(images.dtype, np.integer) else 1.0
    small = np.stack([_reduced(image) for image in images]) / np.float32(scale)
    bands = (_COSINES @ small @ _COSINES.T).reshape(len(images), -1)
    bits = bands > np.median(bands, axis=1, keepdims=True)
    packed = np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()
    packed[np.sqrt((bands**2).sum(axis=1)) / SIDE < LEAST_TEXTURE] = NO_TEXTURE
    return packed


def _reduced(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return (H, W, C) as grey, SIDE x SIDE; enlarged pictures are interpolated, reduced ones averaged."""
    grey = image.astype(np.float32).mean(axis=2) if image.shape[2] > 1 else image[:, :, 0].astype(np.float32)
    method = cv2.INTER_AREA if min(grey.shape) >= SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=method), dtype=np.float32)


def _nearest(
    hashes: Hashes, here: npt.NDArray[np.int64], others: npt.NDArray[np.int64], max_distance: int
) -> Iterable[Pair]:
    """Yield the nearest of `others` for each of `here`, comparing each distinct hash once."""
    if not here.size or not others.size:
        return
    distinct, first = np.unique(hashes[others], return_index=True)
    in_order = np.argsort(first)  # so that argmin finds the first of several that are as near
    distinct, first = distinct[in_order], first[in_order]
    for start in range(0, len(here), _BLOCK):
        block = here[start : start + _BLOCK]
        distances = np.bitwise_count(hashes[block][:, None] ^ distinct[None, :])
        nearest = distances.argmin(axis=1)
        smallest = distances[np.arange(len(block)), nearest]
        for row in np.flatnonzero(smallest <= max_distance):
            one, other = int(block[row]), int(others[first[nearest[row]]])
            yield Pair(min(one, other), max(one, other), int(smallest[row]))
