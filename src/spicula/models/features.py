"""Hand-crafted features of an image, for the linear line. Needs the core install only: prediction computes them too.

Groups, in this order, each switched on by its name in `FeatureSettings.groups`:
- `hog`: histograms of oriented gradients (Dalal & Triggs 2005, block normalisation L2-Hys over 2x2 cells);
- `lbp`: histograms of rotation-invariant uniform local binary patterns (Ojala, Pietikäinen & Mäenpää 2002);
- `glcm`: grey-level co-occurrence (Haralick, Shanmugam & Dinstein 1973): six properties at each distance, their mean
  and range over four directions;
- `intensity`: moments, percentiles and entropy of the grey values;
- `colour`: moments of red, green and blue, and of the stains haematoxylin, eosin and DAB (Ruifrok & Johnston 2001).
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from spicula.errors import UsageError
from spicula.models.settings import FeatureSettings

Images = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Grey = npt.NDArray[np.float64]

#: Raised whenever a value changes for the same image and settings, so that nothing cached is taken for it.
VERSION = 1

_PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
_MOMENTS = ("mean", "std", "skew", "kurtosis")
_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
_DIRECTIONS = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_ENTROPY_BINS = 64
_BLOCK_CELLS = 2
_COLOURS = ("red", "green", "blue", "haematoxylin", "eosin", "dab")


def extract(images: Images, settings: FeatureSettings, jobs: int | None = None) -> npt.NDArray[np.float32]:
    """Compute the features of a batch of images, in threads (scikit-image's loops free the interpreter).

    Args:
        images: (N, H, W, C) of uint8 or uint16, C being 1 or 3. Values count as parts of the type's full range.
        settings: which features.
        jobs: threads; None: one for each core.

    Returns:
        (N, F), in the order of `names`. The same for an image alone and in any batch.

    Raises:
        UsageError: the images are smaller than the cells of the histograms of gradients.
    """
    size = (int(images.shape[1]), int(images.shape[2]))
    count = len(names(settings, size, images.shape[3]))
    if not len(images):
        return np.empty((0, count), np.float32)
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        rows = list(pool.map(lambda image: _one(image, settings), images))
    return np.stack(rows)


def names(settings: FeatureSettings, size: tuple[int, int], channels: int) -> list[str]:
    """Return the name of each feature, in order, for images of `size` (rows, columns) and `channels`.

    Raises:
        UsageError: the images are smaller than the cells of the histograms of gradients.
    """
    groups = {
        "hog": [f"hog-{n}" for n in range(_hog_count(settings, size))] if "hog" in settings.groups else [],
        "lbp": [f"lbp-{radius:g}-{n}" for points, radius in settings.lbp_rings for n in range(points + 2)],
        "glcm": [
            f"glcm-{name.lower()}-{distance}-{kind}"
            for name in _PROPERTIES
            for kind in ("mean", "range")
            for distance in settings.glcm_distances_px
        ],
        "intensity": [*_MOMENTS, *(f"percentile-{p}" for p in _PERCENTILES), "entropy"],
        "colour": [f"{colour}-{moment}" for colour in _COLOURS for moment in _MOMENTS] if channels == 3 else [],
    }
    return [f for group, features in groups.items() if group in settings.groups for f in features]


def _one(image: Images, settings: FeatureSettings) -> npt.NDArray[np.float32]:
    from skimage.color import rgb2gray

    scale = float(np.iinfo(image.dtype).max)
    unit = image.astype(np.float64) / scale
    grey: Grey = unit[:, :, 0] if image.shape[2] == 1 else rgb2gray(unit)
    groups = settings.groups
    parts: list[Sequence[float] | Grey] = []
    if "hog" in groups:
        parts.append(_hog(grey, settings))
    if "lbp" in groups:
        parts += _lbp(grey, settings)
    if "glcm" in groups:
        parts.append(_glcm(grey, settings))
    if "intensity" in groups:
        parts.append([*_moments(grey), *np.percentile(grey, _PERCENTILES), _entropy(grey)])
    if "colour" in groups and image.shape[2] == 3:
        parts += _colour(unit)
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts]).astype(np.float32)


def _cell_px(settings: FeatureSettings, size: tuple[int, int]) -> tuple[int, int]:
    cell = (size[0] // settings.hog_cells, size[1] // settings.hog_cells)
    if min(cell) < 2:
        raise UsageError(
            f"images of {size[0]}x{size[1]} are too small for {settings.hog_cells} cells a side; lower hog_cells"
        )
    return cell


def _hog_count(settings: FeatureSettings, size: tuple[int, int]) -> int:
    blocks = [side // cell - _BLOCK_CELLS + 1 for side, cell in zip(size, _cell_px(settings, size), strict=True)]
    return blocks[0] * blocks[1] * _BLOCK_CELLS**2 * settings.hog_orientations


def _hog(grey: Grey, settings: FeatureSettings) -> Grey:
    from skimage.feature import hog

    size = (grey.shape[0], grey.shape[1])
    values: Grey = hog(
        grey,
        orientations=settings.hog_orientations,
        pixels_per_cell=_cell_px(settings, size),
        cells_per_block=(_BLOCK_CELLS, _BLOCK_CELLS),
        block_norm="L2-Hys",
    )
    return values


def _lbp(grey: Grey, settings: FeatureSettings) -> Iterator[Grey]:
    from skimage.feature import local_binary_pattern

    # whole numbers: with rounding noise, equal neighbours would compare at random
    levels = np.round(grey * 65535).astype(np.uint16)
    for points, radius in settings.lbp_rings:
        codes = local_binary_pattern(levels, points, radius, method="uniform")
        histogram = np.bincount(codes.astype(np.int64).ravel(), minlength=points + 2)
        yield histogram / codes.size


def _glcm(grey: Grey, settings: FeatureSettings) -> Grey:
    from skimage.feature import graycomatrix, graycoprops

    levels = settings.glcm_levels
    quantised = np.minimum(grey * levels, levels - 1).astype(np.uint8)
    matrix = graycomatrix(
        quantised, settings.glcm_distances_px, _DIRECTIONS, levels=levels, symmetric=True, normed=True
    )
    rows = []
    for name in _PROPERTIES:
        values = graycoprops(matrix, name)  # (distances, directions)
        rows += [values.mean(axis=1), np.ptp(values, axis=1)]
    return np.concatenate(rows)


def _colour(unit: Grey) -> Iterator[list[float]]:
    from skimage.color import rgb2hed

    for planes in (unit, rgb2hed(unit)):
        for channel in range(3):
            yield _moments(planes[:, :, channel])


def _moments(values: Grey) -> list[float]:
    """Mean, standard deviation, skewness and excess kurtosis; the last two are 0 where all values are equal."""
    mean = float(values.mean())
    centred = values - mean
    squared = centred * centred
    variance = float(squared.mean())
    if variance < 1e-12:
        return [mean, 0.0, 0.0, 0.0]
    skew = float((squared * centred).mean()) / variance**1.5
    return [mean, variance**0.5, skew, float((squared * squared).mean()) / variance**2 - 3]


def _entropy(grey: Grey) -> float:
    """Shannon's entropy of the histogram over 0 to 1, in bits."""
    counts, _ = np.histogram(grey, bins=_ENTROPY_BINS, range=(0, 1))
    share = counts[counts > 0] / grey.size
    return float((share * np.log2(1 / share)).sum())
