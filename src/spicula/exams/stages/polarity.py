"""Making a background black that is not, which needs to know whether the image is inverted: white for black."""

import cv2
import numpy as np

from spicula.exams.stages.background import Background, find_background
from spicula.exams.stages.morphology import Mask, largest_component
from spicula.exams.types import RefusedExamError

#: Standard deviations above a noisy background up to which a value belongs to it: one pixel in 3 million is beyond.
DEVIATIONS = 5
#: The same of the median of 5 x 5 pixels. Right beside an edge it is the third largest of 15 pixels of background: one
#: in 200 is beyond. Away from edges it varies by a quarter of the noise (sqrt(pi / 2 / 25), Cramér (1946), Mathematical
#: Methods of Statistics, on quantiles), and none is.
OF_MEDIAN = 2
#: At least this share of what is not background is brighter than it in an image, and darker in an inverted one. The
#: rest is for specks and marks of the other sign.
ONE_SIDED = 0.95
#: Breast is thin at its edge, and dark there: the median of its outermost pixels is at most this share of that deep
#: inside. It is 0.04 to 0.06 in a real exam, up to 0.6 in small phantoms, and above 1 in inverted images.
FADES = 0.8
_EDGE = (2, 5)  # pixels from the background, city-block


def black_background(pixels: np.ndarray, background: Background) -> tuple[np.ndarray, list[str]]:
    """Return an image with a background of 0, not inverted, and what was done.

    Nearly everything is brighter than the background: it is set to 0 or subtracted. Nearly everything is darker, and in
    the image turned over the breast fades into the background: it is inverted. The breast is dark at its edge as it is:
    something was painted around it, which is set to 0.

    Args:
        pixels: (H, W) uint16.
        background: of it, not 0.

    Raises:
        RefusedExamError: it is none of these, so that nobody can tell whether it is inverted.
    """
    below, above = sides_of(pixels, background)
    if above >= ONE_SIDED * (above + below):
        black, note = _blackened(pixels, background)
        return black, [note]
    if below >= ONE_SIDED * (above + below):
        turned = pixels.max() - pixels
        left = find_background(turned) or Background(0, 0.0, background.share)
        black, notes = turned, ["it was inverted (a white background, as of MONOCHROME1 left as it is): turned over"]
        if left.level or left.noise:
            black, note = _blackened(turned, left)
            notes.append(note)
        if _fades(black):
            return black, notes
    if background.noise == 0:
        black, note = _blackened(pixels, background)
        if _fades(black):
            return black, [note]
    darker = 100 * below / (above + below)
    raise RefusedExamError(
        f"its background ({background.level}) is not dark: {darker:.0f} % of what is not background is darker; and"
        " whether the image is inverted cannot be told, for it does not become darker towards the edge of a breast"
        " either way; set what is not breast to 0"
    )


def sides_of(pixels: np.ndarray, background: Background) -> tuple[float, float]:
    """Return the shares of an image that are darker and brighter than its background, beyond its noise."""
    reach = DEVIATIONS * background.noise
    below = np.count_nonzero(pixels < background.level - reach) / pixels.size
    above = np.count_nonzero(pixels > background.level + reach) / pixels.size
    return below, above


def _fades(pixels: np.ndarray) -> bool:
    """Return whether the largest object of an image with a black background is darker at its edge than inside."""
    breast = largest_component(np.asarray(pixels > 0).view(np.uint8))
    if breast is None or breast.all():
        return False
    depth = cv2.distanceTransform(breast, cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    edge, inner = pixels[(depth >= _EDGE[0]) & (depth <= _EDGE[1])], pixels[depth > depth.max() / 2]
    return bool(edge.size and np.median(edge) <= FADES * np.median(inner))


def _blackened(pixels: np.ndarray, background: Background) -> tuple[np.ndarray, str]:
    """Return an image whose background is 0, and what was done."""
    level, noise = background.level, background.noise
    if noise == 0:
        darker = int(np.count_nonzero(pixels < level))
        if not darker:
            return pixels - pixels.dtype.type(level), f"its background was {level}: that was subtracted everywhere"
        outside = _outside(np.asarray(pixels == level).view(np.uint8))
        return (
            np.where(outside, pixels.dtype.type(0), pixels),
            f"its background was {level}, and {darker} pixels are darker: the background alone was set to 0",
        )
    # A median leaves edges where they are.
    smooth = cv2.medianBlur(np.ascontiguousarray(pixels), 5)
    outside = _outside(np.asarray(smooth <= level + OF_MEDIAN * noise + 0.5).view(np.uint8))
    # Within the breast nothing may become 0, or the erosion would tear holes there.
    risen = np.maximum(pixels.astype(np.int32) - level, 1).astype(pixels.dtype)
    return (
        np.where(outside, pixels.dtype.type(0), risen),
        f"its background was noise around {level} (standard deviation {noise:.1f}): it was set to 0"
        + (f", and {level} subtracted from the breast" if level else ""),
    )


def _outside(dark: Mask) -> np.ndarray:
    """Return which of the dark pixels are connected to the border of the image: (H, W) bool."""
    count, labels = cv2.connectedComponents(dark, connectivity=4)
    meets = np.zeros(count, bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        meets[np.unique(line)] = True
    meets[0] = False
    outside: np.ndarray = meets[labels]
    return outside
