"""What silently breaks the published crop, which takes every pixel above 0 for breast: found, and mended where safe.

The checks go from the outside inwards: a frame is cut off; the background is found along the border; an inverted image
is turned over; a background other than 0 becomes 0. An image without these defects passes unchanged. What cannot be
mended safely is refused. Marks beside the breast are dealt with later, by `marks`.
"""

from dataclasses import dataclass

import numpy as np

from spicula.exams.stages.background import LARGEST_NOISE, Background, find_background
from spicula.exams.stages.frames import frame_of, without
from spicula.exams.stages.morphology import Mask
from spicula.exams.stages.polarity import black_background, sides_of
from spicula.exams.types import Image, RefusedExamError

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
        if background.level or background.noise:
            _check_contrast(pixels, background)
            pixels, of_background = black_background(pixels, background)
            notes += of_background
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


def _check_contrast(pixels: np.ndarray, background: Background) -> None:
    share = sum(sides_of(pixels, background))
    if share < LEAST_SHARE:
        raise RefusedExamError(f"no breast: only {100 * share:.1f} % of it stands out from its background")
