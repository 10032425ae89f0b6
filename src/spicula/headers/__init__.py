"""What a file is, from its first bytes and without decoding a pixel: format, size, depth. By content, never by name."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from spicula.errors import RejectedImageError
from spicula.headers import dicom, raster
from spicula.headers.dicom import PixelElement, open_pixels
from spicula.headers.limits import MAX_BYTES, MAX_FRAMES, MAX_PIXELS, MAX_SIDE, PHOTOMETRICS, Header, within_limits
from spicula.headers.opening import opened
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "PHOTOMETRICS",
    "Header",
    "PixelElement",
    "open_pixels",
    "read_dicom",
    "read_header",
]

#: What Spicula opens, for messages.
FORMATS = "DICOM, PNG, JPEG, PGM, PPM or TIFF"
_HEAD_BYTES = 4096


def read_header(path: Path) -> Header:
    """Return what an image file declares, without decoding its pixels.

    Raises:
        RejectedImageError: it is none of the formats that Spicula reads, its header is cut short or malformed, or it
            exceeds a limit of `headers.limits`. The message is the reason alone.
    """
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_HEAD_BYTES)
        if not head:
            raise RejectedImageError("the file is empty")
        is_dicom = dicom.is_dicom(head)
        header = (
            dicom.dicom_header(dicom.Source(stream, size)) if is_dicom else raster.raster_header(stream, head, size)
        )
    if header is None:
        raise RejectedImageError(f"not an image that Spicula reads ({FORMATS})")
    return within_limits(header)


def read_dicom(path: Path, longest: int = 2**20) -> "pydicom.Dataset":
    """Return the header of a DICOM file: every element before the pixel data, none over 1 MiB.

    Values are not validated; sort out odd ones where they are used.

    Args:
        path: the file.
        longest: of the values, in bytes, where 1 MiB is too little.

    Raises:
        RejectedImageError: not a DICOM file (PS3.10), malformed, or its preamble is an executable.
    """
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if not dicom.is_dicom(stream.read(_HEAD_BYTES)):
            raise RejectedImageError("not a DICOM file")
        dataset, _ = dicom.parse_dicom(dicom.Source(stream, size), defer_size=longest)
    with silence:
        for tag in list(dataset.keys()):  # convert now, in silence: later, warnings would quote the values
            with suppress(Exception):
                dataset[tag]
    return dataset
