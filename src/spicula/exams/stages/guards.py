"""What silently breaks the published crop, which takes every pixel above 0 for breast: found, and mended where safe.

The checks go from the outside inwards: a frame is cut off; the background is found along the border; an inverted image
is turned over; a background other than 0 becomes 0. An image without these defects passes unchanged. What cannot be
mended safely is refused. Marks beside the breast are dealt with later, by `marks`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from spicula.exams.stages.background import LARGEST_NOISE, Background, find_background
from spicula.exams.stages.frames import frame_of, without
from spicula.exams.stages.morphology import Mask, largest_component
from spicula.exams.types import Image, RefusedExamError

#: Standard deviations above a noisy background up to which a value belongs to it: one pixel in 3 million is beyond.
DEVIATIONS = 5
#: The same of the median of 5 x 5 pixels. Right beside an edge it is the third largest of 15 pixels of background: one
#: in 200 is beyond. Away from edges it varies by a quarter of the noise (sqrt(pi / 2 / 25), Cramér (1946), Mathematical
#: Methods of Statistics, on quantiles), and none is.
OF_MEDIAN = 2
#: At least this share of what is not background lies on one side of it: above it in an image, below it in an inverted
#: one. The rest is for specks and marks of the other sign.
ONE_SIDED = 0.95
#: Breast fades into the background: the median of its outermost pixels is at most this share of that deep inside. It is
#: 0.04 to 0.06 in a real exam and up to 0.6 in small phantoms. In an image that is not inverted, but has white painted
#: around its breast, it is above 1 once that is turned over.
FADES = 0.8
_EDGE = (2, 5)  # pixels from the background, city-block
#: A breast covers at least this share of its image, as in `imaging.breast`: smaller things are labels. A small breast
#: on a detector of 24 by 30 cm covers ten times as much.
LEAST_SHARE = 0.01
#: With no even background, this share of black along the border still makes one. Nothing is mended then.
BLACK = 0.05
#: A breast that meets more of a border than this share is reported where that is unusual; less is the end of a skin
#: fold.
MEETS = 0.05
#: What meets the side that it points to in more than this share of its own rows is not a breast alone: some of that is
#: background which is not black, or the image is a part of a mammogram. A round tip that is cut off meets it in less.
MEETS_BOTH = 1 / 3


@dataclass(frozen=True)
class Cleaned:
    """An image that the published crop can work on.

    Attributes:
        pixels: (h, w) uint16, background 0: the image itself, or without its frame.
        origin: row and column of its top left corner in the stored image.
        notes: what was found and done, one sentence each.
    """

    pixels: np.ndarray
    origin: tuple[int, int]
    notes: tuple[str, ...]


def clean(image: Image) -> Cleaned:
    """Return an image without a frame, not inverted, and with a background of 0.

    Raises:
        RefusedExamError: background and breast cannot be told apart.
    """
    pixels, origin, notes = _without_frame(image.pixels)
    try:
        background = find_background(pixels)
        if background is None:
            notes.append(_check_black(pixels))
            return Cleaned(pixels, origin, tuple(notes))
        if _is_inverted(pixels, background):
            pixels, background = _turned_over(pixels)
            notes.append("it was inverted (a white background, as of MONOCHROME1 left as it is): turned over")
        if background.level or background.noise:
            pixels, note = _blackened(pixels, background)
            notes.append(note)
    except RefusedExamError as error:
        raise RefusedExamError(f"{image.name} ({image.view}): {error}") from error
    return Cleaned(pixels, origin, tuple(notes))


def unusual_borders(breast: Mask, image: Image, left_facing: bool) -> list[str]:
    """Return at which borders of the image the breast is cut off although it should not be, one sentence each.

    Args:
        breast: (H, W), 0 or 1, not all 0.
        image: whose view counts: an MLO view shows the armpit, which goes on beyond the top.
        left_facing: the breast points to the left.

    Raises:
        RefusedExamError: it reaches from one side of the image to the other in most of its rows.
    """
    front = breast[:, 0] if left_facing else breast[:, -1]
    both = float(front.sum() / breast.any(axis=1).sum())
    if both > MEETS_BOTH:
        raise RefusedExamError(
            f"{image.name} ({image.view}): what is above 0 reaches from one side of the image to the other in"
            f" {100 * both:.0f} % of its rows; set what is not breast to 0, or give the whole mammogram"
        )
    borders = {"bottom": breast[-1], "left side" if left_facing else "right side": front}
    if not image.view.endswith("MLO"):
        borders["top"] = breast[0]
    return [
        f"the breast meets {100 * float(line.mean()):.0f} % of the {name} of the image: part of it may be missing"
        for name, line in borders.items()
        if line.mean() > MEETS
    ]


def _without_frame(pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, int], list[str]]:
    sides = frame_of(pixels)
    if not any(sides):
        return pixels, (0, 0), []
    top, bottom, left, right = sides
    note = f"a frame of one value was cut off: top {top}, bottom {bottom}, left {left}, right {right} pixels"
    return without(pixels, sides), (top, left), [note]


def _check_black(pixels: np.ndarray) -> str:
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    black = float(np.mean(np.concatenate([edge == 0 for edge in edges])))
    if black < BLACK:
        raise RefusedExamError(
            f"no background was found: no value, give or take noise of {100 * LARGEST_NOISE:.0f} % of the range, has a"
            f" quarter of its border, and only {100 * black:.0f} % of that is black; set what is not breast to 0"
        )
    return f"its background is not even ({100 * black:.0f} % of its border is black): left as it is"


def _is_inverted(pixels: np.ndarray, background: Background) -> bool:
    """Return whether the background is brighter than everything else.

    Raises:
        RefusedExamError: there is brighter and darker than it.
    """
    if background.level == 0:
        return False
    reach = DEVIATIONS * background.noise
    below = int(np.count_nonzero(pixels < background.level - reach))
    above = int(np.count_nonzero(pixels > background.level + reach))
    if above + below < LEAST_SHARE * pixels.size:
        share = 100 * (above + below) / pixels.size
        raise RefusedExamError(f"no breast: only {share:.1f} % of it stands out from its background")
    if above >= ONE_SIDED * (above + below):
        return False
    if below >= ONE_SIDED * (above + below):
        return True
    share = 100 * below / (above + below)
    raise RefusedExamError(
        f"its background ({background.level}) is neither dark nor bright: {share:.0f} % of what is not background is"
        " darker, the rest brighter; it shows no breast, or its background was changed: set what is not breast to 0"
    )


def _turned_over(pixels: np.ndarray) -> tuple[np.ndarray, Background]:
    """Return an inverted image the right way.

    Raises:
        RefusedExamError: it is not that, but has something bright painted around its breast.
    """
    turned = pixels.max() - pixels
    background = find_background(turned)
    assert background is not None  # it is the one that was found before
    black = _blackened(turned, background)[0] if background.level or background.noise else turned
    breast = largest_component(np.asarray(black > 0).view(np.uint8))
    assert breast is not None  # most of what is not background is darker than it
    depth = cv2.distanceTransform(breast, cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    edge, inner = black[(depth >= _EDGE[0]) & (depth <= _EDGE[1])], black[depth > depth.max() / 2]
    if edge.size == 0 or np.median(edge) > FADES * np.median(inner):
        raise RefusedExamError(
            "its background is white, but the breast does not fade into it as in an inverted image: whether the image"
            " is inverted cannot be told; set what is not breast to 0"
        )
    return turned, background


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
    # It leaves edges where they are.
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
