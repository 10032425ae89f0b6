"""A look at the values of uncompressed DICOM pixel data, without decoding: only bytes are read, and only some of them.

What is compressed is not looked at: decoders of compressed data run where their death costs one image, not here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spicula.errors import RejectedImageError
from spicula.headers import read_header
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

#: Rows that a look takes, spread evenly from the first to the last.
ROWS = 64
#: Pixels that are read in one piece where the rows say too little.
_CHUNK_PIXELS = 2**22

# PS3.5 annex A: implicit and explicit little endian, explicit big endian -> byte order
_ORDERS = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
_TAGS = ["BitsAllocated", "PixelData"]
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True)
class Look:
    """What a look at the values of an image found.

    Attributes:
        values: the distinct values of the rows looked at, ascending, as unsigned numbers; where these rows hold one
            value only, also the first other value of the whole image.
        rows: the rows themselves, (n, width).
    """

    values: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class _Place:
    offset: int
    dtype: np.dtype
    height: int
    width: int


def look(path: Path) -> Look | None:
    """Look at the values of a grey DICOM image of one frame.

    Args:
        path: the file, which is only read.

    Returns:
        What was found; None where the pixel data is compressed, or not of 8 or 16 bits, one sample and one frame.

    Raises:
        RejectedImageError: the file is no DICOM image, cut short, or beyond the limits of `spicula.headers`.
    """
    place = _find(path)
    if place is None:
        return None
    try:
        with path.open("rb") as stream:
            chosen = np.unique(np.linspace(0, place.height - 1, min(ROWS, place.height)).round().astype(np.int64))
            rows = np.empty((len(chosen), place.width), place.dtype)
            for at, row in enumerate(chosen):
                stream.seek(place.offset + int(row) * place.width * place.dtype.itemsize)
                rows[at] = np.frombuffer(_exactly(stream.read(rows[at].nbytes), rows[at].nbytes), place.dtype)
    except OSError as error:
        raise RejectedImageError(f"cannot be read: {error.strerror}") from error
    values = np.unique(rows)
    if len(values) == 1:
        values = _with_another(path, place, values)
    return Look(values, rows)


def _with_another(path: Path, place: _Place, only: np.ndarray) -> np.ndarray:
    """Return the one value found so far, and the first other one of the image."""
    for chunk in _chunks(path, place):
        others = chunk[chunk != only[0]]
        if len(others):
            return np.unique(np.append(only, others[0]))
    return only


def _chunks(path: Path, place: _Place) -> Iterator[np.ndarray]:
    left = place.height * place.width
    try:
        with path.open("rb") as stream:
            stream.seek(place.offset)
            while left:
                count = min(left, _CHUNK_PIXELS)
                size = count * place.dtype.itemsize
                yield np.frombuffer(_exactly(stream.read(size), size), place.dtype)
                left -= count
    except OSError as error:
        raise RejectedImageError(f"cannot be read: {error.strerror}") from error


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise RejectedImageError("the file became shorter while it was read")
    return data


def _find(path: Path) -> _Place | None:
    """Return where the pixels lie; None where they cannot be read as they stand."""
    header = read_header(path)  # limits, and whether the file has as many bytes as it declares
    if header.kind != "dicom":
        raise RejectedImageError("not a DICOM file")
    dataset = _parse(path)
    order = _ORDERS.get(str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")))
    allocated = dataset.get("BitsAllocated")
    if order is None or allocated not in (8, 16) or header.channels != 1 or header.frames != 1:
        return None
    offset = next((element.value_tell for element in dataset.values() if element.tag == _PIXEL_DATA), None)
    if offset is None:
        raise RejectedImageError("DICOM without pixel data")
    return _Place(offset, np.dtype(f"{order}u{allocated // 8}"), header.height, header.width)


def _parse(path: Path) -> "pydicom.Dataset":
    """Parse a file whose header is known to be sound; its pixel data is passed over, only its place is kept."""
    import pydicom

    try:
        with silence:
            return pydicom.dcmread(path, defer_size=1024, specific_tags=_TAGS, force=True)
    except Exception as error:  # pydicom raises nearly anything, and its messages can quote values
        raise RejectedImageError(f"DICOM is malformed after its header ({type(error).__name__})") from error
