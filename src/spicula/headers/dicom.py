"""The headers of DICOM files, parsed by pydicom within bounds: of reads, of memory, of what inflates."""

import io
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from spicula.errors import RejectedImageError
from spicula.headers.limits import PHOTOMETRICS, Header, within_limits
from spicula.headers.opening import opened, parsed
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

#: Largest size of a deflated DICOM data set once inflated, in bytes.
MAX_INFLATED_BYTES = 2**28
#: Most reads that parsing one DICOM header may take (about two an element).
MAX_HEADER_READS = 200_000

# First bytes of programs: Windows and DOS, ELF, Mach-O (both byte orders, 32 and 64 bits, universal), scripts. A DICOM
# preamble can hold one, so that the same file opens as an image and runs as a program (CVE-2019-11687).
_MACH_O = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_EXECUTABLES = (b"MZ", b"\x7fELF", b"#!", *_MACH_O)
# An empty stream of deflate (RFC 1951 3.2.6: a last block of fixed codes, with nothing but its end).
_NOTHING_DEFLATED = b"\x03\x00"


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data of a DICOM file are.

    Attributes:
        dataset: the elements asked for; their values are not yet converted, which can raise anything.
        stream: the file, or the content of a deflated one, at the first byte of the value.
        size: of the stream, in bytes.
        length: of the value, in bytes; None where it is undefined, for compressed pixel data.
        vr: value representation, OB, OW or UN.
    """

    dataset: "pydicom.Dataset"
    stream: BinaryIO
    size: int
    length: int | None
    vr: str


@contextmanager
def open_pixels(path: Path, tags: Sequence[str | int]) -> Iterator[PixelElement]:
    """Open a DICOM file at its pixel data, of which nothing is read yet.

    Args:
        path: a file whose header passed `read_header`.
        tags: keywords or tags of the elements wanted besides, none over 16 MiB.

    Raises:
        RejectedImageError: malformed, or without pixel data.
    """
    with opened(path) as stream:
        source = Source(stream, os.fstat(stream.fileno()).st_size)
        dataset, source = parse_dicom(source, tags, defer_size=2**24)
        vr, length = _pixel_element(dataset, source)
        yield PixelElement(dataset, source.stream, source.size, length, vr)


def is_dicom(head: bytes) -> bool:
    """Return whether a file begins as DICOM does."""
    # PS3.10 asks for a preamble and "DICM"; some programs write the elements alone, explicit VR little endian.
    return head[128:132] == b"DICM" or bool(re.match(rb"[\x02\x08]\0.\0(UI|CS|DA|TM|LO|SH|UL|OB)", head, re.DOTALL))


def dicom_header(source: "Source") -> Header:
    """Return what a DICOM file declares.

    Raises:
        RejectedImageError: malformed, without an image, or beyond a limit.
    """
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "NumberOfFrames")
    dataset, source = parse_dicom(source, [*keywords, "PhotometricInterpretation", "TransferSyntaxUID"])
    rows, columns, allocated, bits, channels, frames = (_number(dataset, keyword) for keyword in keywords)
    if not rows or not columns:
        raise RejectedImageError("a DICOM file without an image (no Rows or Columns)")
    allocated = allocated or 0
    bits, channels, frames = allocated if bits is None else bits, channels or 1, 1 if frames is None else frames
    if not 1 <= bits <= allocated <= 64 or channels not in (1, 3):
        raise RejectedImageError(f"DICOM with {bits} of {allocated} bits a sample and {channels} samples a pixel")
    header = Header("dicom", columns, rows, bits, channels, frames, _photometric(dataset))
    within_limits(header)
    _check_pixel_data(dataset, source, header, allocated)
    return header


def _number(dataset: "pydicom.Dataset", keyword: str) -> int | None:
    try:
        with silence:
            value = dataset.get(keyword)
            if value is None or value == "":
                return None
            if int(value) != value:
                raise ValueError("a fraction")
            return int(value)
    except Exception as error:  # pydicom converts on access, and what it raises is not documented
        raise RejectedImageError(f"DICOM whose {keyword} is not one whole number") from error


def _photometric(dataset: "pydicom.Dataset") -> str | None:
    try:
        with silence:
            value = dataset.get("PhotometricInterpretation")
    except Exception as error:
        raise RejectedImageError("DICOM whose PhotometricInterpretation cannot be read") from error
    if not value:
        return None
    if value not in PHOTOMETRICS:
        raise RejectedImageError("DICOM whose PhotometricInterpretation is none that DICOM PS3.3 C.7.6.3.1.2 names")
    return str(value)


def _check_pixel_data(dataset: "pydicom.Dataset", source: "Source", header: Header, allocated: int) -> None:
    """Compare the declared length of native pixel data with the bytes there and the bytes needed (PS3.5 section 8)."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    _, length = _pixel_element(dataset, source)
    if length is None:
        return  # encapsulated: a sequence of fragments, measured when decoded
    is_native = syntax is None or not syntax.is_transfer_syntax or not syntax.is_encapsulated
    subsampled = str(header.photometric).endswith(("_422", "_420"))
    needed = math.ceil(header.width * header.height * header.frames * header.channels * allocated / 8)
    if is_native and not subsampled and length < needed:
        raise RejectedImageError(f"DICOM pixel data has {length} bytes where the header declares {needed}")


def _pixel_element(dataset: "pydicom.Dataset", source: "Source") -> tuple[str, int | None]:
    """Read the head of the element at which parsing stopped (PS3.5 section 7.1); return its VR and length."""
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    head = source.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        raise RejectedImageError("DICOM without pixel data, or cut short before it")
    if struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
        raise RejectedImageError("DICOM whose pixels are floating point numbers; whole numbers are read")
    vr = "OW" if implicit else head[4:6].decode("latin-1")
    if vr not in ("OB", "OW", "UN"):
        raise RejectedImageError("DICOM whose pixel data has a value representation other than OB, OW and UN")
    length = struct.unpack(f"{order}I", head[-4:])[0]
    if length == 0xFFFFFFFF:
        return vr, None
    if length > source.size - source.tell():
        raise RejectedImageError(f"DICOM pixel data is declared with {length} bytes, more than the file has: cut short")
    return vr, length


def parse_dicom(
    source: "Source", tags: Sequence[str | int] | None = None, defer_size: int = 2**20
) -> "tuple[pydicom.Dataset, Source]":
    """Parse the elements before the pixel data.

    Args:
        source: the file.
        tags: keywords or tags of the elements wanted; all when None.
        defer_size: values longer than this are left out, in bytes.

    Returns:
        The data set, and where it was read from: `source`, or its inflated content, at the first byte of the element at
        which parsing stopped.

    Raises:
        RejectedImageError: malformed, cut short, made to exhaust time or memory, or with a program as its preamble.
    """
    import pydicom
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    source.seek(0)
    if source.read(8).startswith(_EXECUTABLES):
        raise RejectedImageError("DICOM whose preamble is an executable program")
    source.seek(0)
    wanted = [Tag(tag) for tag in tags] if tags else None

    def parse() -> "pydicom.Dataset":
        return pydicom.dcmread(source, stop_before_pixels=True, defer_size=defer_size, specific_tags=wanted, force=True)

    def parse_inflated() -> "pydicom.Dataset":
        # PS3.5 A.5: what follows the file meta information is explicit VR little endian
        return read_dataset(source, False, True, stop_when=_at_pixels, defer_size=defer_size, specific_tags=wanted)

    dataset = parsed("DICOM", parse, None)
    if source.deflated is not None:
        meta = dataset.file_meta
        source = _inflated(source.deflated)
        dataset = parsed("DICOM", parse_inflated, None)
        dataset.file_meta = meta
    if source.is_short or source.tell() > source.size:
        raise RejectedImageError("DICOM header is cut short: an element is longer than the file")
    return dataset, source


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)


def _inflated(data: bytes) -> "Source":
    inflater, stream = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
    while data and not inflater.eof:
        try:
            stream.write(inflater.decompress(data, 2**20))
        except zlib.error:
            raise RejectedImageError("deflated DICOM is damaged") from None
        data = inflater.unconsumed_tail
        if stream.tell() > MAX_INFLATED_BYTES:
            raise RejectedImageError(f"deflated DICOM inflates to more than {MAX_INFLATED_BYTES} bytes")
    if not inflater.eof:
        raise RejectedImageError("deflated DICOM is cut short")
    size = stream.tell()
    stream.seek(0)
    return Source(stream, size)


class Source:
    """A file for pydicom to parse: no read allocates more than there is, and reads are counted.

    Attributes:
        stream: the file.
        size: of the file, in bytes.
        is_short: whether a value was longer than the file.
        deflated: the deflated data set, if pydicom came upon one; it is told that there is nothing in it.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        self.is_short = False
        self.deflated: bytes | None = None
        self._reads = 0

    def read(self, count: int = -1) -> bytes:
        """Read as many bytes, or as many as there are.

        Raises:
            RejectedImageError: too many reads.
        """
        self._reads += 1
        if self._reads > MAX_HEADER_READS:
            raise RejectedImageError(f"DICOM header takes more than {MAX_HEADER_READS} reads")
        if count < 0:  # only for a deflated data set, which pydicom would inflate whole and parse without limits
            self.deflated = self.stream.read(MAX_INFLATED_BYTES)
            return _NOTHING_DEFLATED
        data = self.stream.read(min(count, max(0, self.size - self.tell())))
        # At the end of the file pydicom asks for the 8 bytes of a next element, and when it looks for a delimiter for
        # blocks of 8192; anything else that comes back short is a value longer than the file.
        if len(data) < count and count != 8192 and (data or count != 8):
            self.is_short = True
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as in a file."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the file."""
        return self.stream.tell()
