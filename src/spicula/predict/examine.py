"""What one file is, whether the model knows such images, and its pixels as the model takes them.

The command line and the service both go this way, so that a file gets the same answer, or the same reason, from both.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spicula import headers
from spicula.bundle import scope
from spicula.bundle.format import Scope
from spicula.errors import RejectedImageError
from spicula.imaging import readers, worker_process
from spicula.imaging.preprocess import Prepared, Preprocess

#: What an image is reduced to when it matters whether it shows colour.
COLOUR_PROBE = Preprocess.model_validate({"size": (64, 64), "channels": 3, "bits": 8})


@dataclass(frozen=True)
class Examined:
    """What a file's header says.

    Attributes:
        kind: of file, as `headers.Header.kind`: "dicom", "png", ...
        side: L or R where its header says so.
        pixels: rows times columns.
        may_show_colour: its pixels must tell, since the model knows grey images alone; see `refuse_colour`.
    """

    kind: str
    side: str | None
    pixels: int
    may_show_colour: bool


def examine(path: Path, kinds: Scope) -> Examined:
    """Look at a file's header: what it is, and whether the model knows such images.

    Args:
        path: the file.
        kinds: the model's scope.

    Raises:
        RejectedImageError: it is no image that Spicula reads, holds several frames, or lies outside the model's scope.
    """
    try:
        return examine_header(path, headers.read_header(path), kinds)
    except OSError as error:
        raise RejectedImageError(f"cannot be read: {error.strerror or error}") from error


def examine_header(path: Path, header: headers.Header, kinds: Scope) -> Examined:
    """Do as `examine` does, of a file whose header was read."""
    if header.frames > 1:
        raise RejectedImageError(
            f"holds {header.frames} frames; the model reads single images: put each frame into a file of its own"
        )
    side = None
    if header.kind == "dicom":
        dataset = headers.read_dicom(path)
        scope.refuse_header(kinds, dataset)
        side = scope.side(dataset)
    is_grey = (header.photometric or "").startswith("MONOCHROME")
    if is_grey and kinds["colour"] is True:
        raise RejectedImageError(scope.GREY_FOR_COLOUR)
    may_show_colour = not is_grey and kinds["colour"] is False
    return Examined(header.kind, side, header.width * header.height, may_show_colour)


def refuse_colour(probe: np.ndarray) -> None:
    """Check that an image shows no colour.

    Args:
        probe: the image as `COLOUR_PROBE` prepares it.

    Raises:
        RejectedImageError: it does.
    """
    if scope.shows_colour(probe):
        raise RejectedImageError(scope.COLOUR_FOR_GREY)


def prepare(path: Path, examined: Examined, preprocess: Preprocess) -> Prepared:
    """Decode and prepare a file that was examined. To be called in a process that may die of it.

    Args:
        path: the file.
        examined: what `examine` found.
        preprocess: the model's preprocessing.

    Raises:
        RejectedImageError: it gets no score, and why.
    """
    return worker_process.guarded(partial(_decoded, path, examined, preprocess), "preparing")


def _decoded(path: Path, examined: Examined, preprocess: Preprocess) -> Prepared:
    pixels = readers.read_pixels(path)
    if examined.may_show_colour:
        refuse_colour(COLOUR_PROBE.apply(pixels, examined.side).array)
    return preprocess.apply(pixels, examined.side)
