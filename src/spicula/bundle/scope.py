"""What a model may be asked about: input outside its scope is refused with a reason, and gets no score."""

from typing import Any

import numpy as np
import numpy.typing as npt

from spicula.bundle.format import Scope
from spicula.errors import RejectedImageError

#: Channels of a colour image differ by more than this share of the full range somewhere. Grey images are often stored
#: as RGB with three equal channels, or, after lossy compression, with nearly equal ones.
COLOUR_SHARE = 1 / 32

#: Reasons for a refusal.
GREY_FOR_COLOUR = "outside the model's scope: a grey image, the model knows colour images"
COLOUR_FOR_GREY = "outside the model's scope: a colour image, the model knows grey images"


def refuse_header(scope: Scope, dataset: Any) -> None:
    """Check what a DICOM header says that its image is.

    Args:
        scope: of the model.
        dataset: a pydicom dataset, as `headers.read_dicom` returns it.

    Raises:
        RejectedImageError: another modality, or a presentation intent that the model does not know.
    """
    modality = word(dataset, "Modality")
    if scope["modalities"] and modality not in scope["modalities"]:
        raise RejectedImageError(
            f"outside the model's scope: its modality is {modality or 'not given'}, "
            f"the model knows {' or '.join(scope['modalities'])}"
        )
    intent = word(dataset, "PresentationIntentType")
    if intent and scope["presentation_intents"] and intent not in scope["presentation_intents"]:
        raise RejectedImageError(
            f"outside the model's scope: its presentation intent is {intent}, "
            f"the model knows {' or '.join(scope['presentation_intents'])}"
        )


def shows_colour(pixels: npt.NDArray[Any]) -> bool:
    """Tell whether an image, or any of a batch, shows colour, whatever it is stored as.

    Args:
        pixels: (H, W), (H, W, C) or (N, H, W, C), uint8 or uint16, C being 1 or 3.
    """
    if pixels.ndim == 2 or pixels.shape[-1] == 1:
        return False
    spread = pixels.max(axis=-1) - pixels.min(axis=-1)
    return bool(spread.max(initial=0) > COLOUR_SHARE * np.iinfo(pixels.dtype).max)


def side(dataset: Any) -> str | None:
    """Return L or R where a DICOM header says so: of the image (PS3.3 C.8.11.7), else of the series (C.7.3.1)."""
    found = word(dataset, "ImageLaterality") or word(dataset, "Laterality")
    return found if found in ("L", "R") else None


def word(dataset: Any, name: str) -> str | None:
    """Return a code string of a header. It has 16 characters at most (PS3.5 6.2); a file may say anything."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom converts on access, and what it raises is not documented
        return None
    return str(value)[:16] if value else None
