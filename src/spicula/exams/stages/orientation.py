"""Which way breasts point: by their view and the list, for the stages; and from the pixels, for the crop.

`mirrored` is the published `horizontal_flip`. Without it left breasts point to the right and right ones to the left.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from spicula.exams.stages.morphology import Mask
from spicula.exams.types import Cropped, Image, RefusedExamError
from spicula.imaging.breast import orientation_evidence

T = TypeVar("T", bound=np.generic)

#: So close to the side of the image, as a share of its width, the breast counts as entering there: detectors can have a
#: few black columns before the chest wall.
NEAR = 0.01
#: A breast enters where it meets the side in so many times the rows in which it meets the other one. At the chest wall
#: it is cut off over most of its height; where its tip is cut off as well, that is over a small part of it.
CLEARLY = 2.0
#: Where it meets neither side: least evidence of a straight edge (`imaging.breast.orientation_evidence`, -1 to 1) that
#: is the chest wall's. Moved away from the border, the breasts of a real exam have 0.93 and more.
STRAIGHT = 0.5


def faces_left(view: str, mirrored: bool) -> bool:
    """Return whether the breast points to the left in the stored image, that is, enters from its right side.

    Args:
        view: one of `types.VIEWS`.
        mirrored: the image is stored as its mirror image.
    """
    return view.startswith("R") != mirrored


def is_flipped(view: str, mirrored: bool) -> bool:
    """Return whether the classifiers see the image mirrored, so that every breast points to the right.

    Args:
        view: one of `types.VIEWS`.
        mirrored: the image is stored as its mirror image.
    """
    return faces_left(view, mirrored)


def oriented(array: npt.NDArray[T], view: str, mirrored: bool) -> npt.NDArray[T]:
    """Return an array as the classifiers see it: mirrored from left to right where `is_flipped`. A view, not a copy.

    Applied twice it gives the array back.

    Args:
        array: (..., H, W).
        view: one of `types.VIEWS`.
        mirrored: the image is stored as its mirror image.
    """
    return array[..., ::-1] if is_flipped(view, mirrored) else array


def side_of_entry(mask: Mask) -> Literal["left", "right"] | None:
    """Return the side of the image from which the breast enters, or None where the pixels do not tell.

    Args:
        mask: (H, W), 0 or 1: the breast, which is somewhere.
    """
    near = max(1, round(NEAR * mask.shape[1]))
    left, right = (int(np.count_nonzero(part.any(axis=1))) for part in (mask[:, :near], mask[:, -near:]))
    if left > CLEARLY * right:
        return "left"
    if right > CLEARLY * left:
        return "right"
    evidence = orientation_evidence(mask.view(bool)) if left == right == 0 else 0.0
    if abs(evidence) < STRAIGHT:
        return None
    return "left" if evidence > 0 else "right"


def is_mirrored(image: Image, mask: Mask) -> tuple[bool, list[str]]:
    """Return whether the image is stored mirrored, given its view, and what is odd about that.

    The pixels decide. Where they do not tell, the list or header does.

    Args:
        image: whose view is taken for right.
        mask: (H, W), 0 or 1: the breast.

    Raises:
        RefusedExamError: neither pixels nor list nor header tell.
    """
    side = side_of_entry(mask)
    if side is None:
        if image.mirrored is None:
            raise RefusedExamError(
                f"{image.name} ({image.view}): from which side the breast enters can neither be told from the pixels"
                " (it meets both sides of the image, or neither), nor does a list or header say so; give an exam list"
                " with horizontal_flip"
            )
        said = "is stored mirrored" if image.mirrored else "is not stored mirrored"
        return image.mirrored, [
            "from which side the breast enters cannot be told from the pixels: it meets both sides of the image, or"
            f" neither; the list or header says that it {said}, and was believed"
        ]
    mirrored = (side == "right") != image.view.startswith("R")
    if mirrored == bool(image.mirrored):
        return mirrored, []
    says = "nothing says so" if image.mirrored is None else "the list or header says otherwise"
    breast = "left" if image.view.startswith("L") else "right"
    found = "is" if mirrored else "is not"
    return mirrored, [
        f"the {breast} breast enters from the {side} side of the image, which therefore {found} stored mirrored"
        f" (horizontal_flip {'YES' if mirrored else 'NO'}); {says}, and the pixels were believed"
    ]


def check_agreement(crops: Sequence[Cropped]) -> None:
    """Refuse an exam of which some images are stored mirrored and others are not.

    Raises:
        RefusedExamError: one of them was flipped, or has the label of the other side, and nobody can tell which.
    """
    mirrored = [f"{one.name} ({one.view})" for one in crops if one.mirrored]
    others = [f"{one.name} ({one.view})" for one in crops if not one.mirrored]
    if mirrored and others:
        raise RefusedExamError(
            f"the images contradict one another: by the side from which the breast enters, {', '.join(mirrored)} would"
            f" be stored mirrored and {', '.join(others)} not; a side (L, R) may be wrong, or an image was flipped;"
            " correct that and index the images again"
        )
