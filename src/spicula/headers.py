"""What a file is, from its first bytes and without decoding a pixel: format, size, depth. By content, never by name.

Every limit on an image is checked here, before anything of its declared size is allocated.
"""

import io
import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from spicula.errors import RejectedImageError
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

T = TypeVar("T")

#: Largest width and height, in pixels.
MAX_SIDE = 16_384
#: Largest width x height, in pixels.
MAX_PIXELS = 120_000_000
#: Most frames in one file.
MAX_FRAMES = 200
#: Largest decoded size of all frames, in bytes.
MAX_BYTES = 2**30
#: Largest size of a deflated DICOM data set once inflated, in bytes.
MAX_INFLATED_BYTES = 2**28
#: Most reads that parsing one DICOM header may take (about two an element).
MAX_HEADER_READS = 400_000

#: What Spicula opens, for messages.
FORMATS = "DICOM, PNG, JPEG, PGM, PPM or TIFF"

# DICOM PS3.3 C.7.6.3.1.2
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "XYB", *_YBR)

# First bytes of programs: Windows and DOS, ELF, Mach-O (both byte orders, 32 and 64 bits, universal), scripts. A DICOM
# preamble can hold one, so that the same file opens as an image and runs as a program (CVE-2019-11687).
_MACH_O = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_EXECUTABLES = (b"MZ", b"\x7fELF", b"#!", *_MACH_O)
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# W3C PNG 11.2.1: colour type -> channels, allowed bit depths, photometric interpretation.
_PNG_COLOURS = {
    0: (1, (1, 2, 4, 8, 16), "MONOCHROME2"),
    2: (3, (8, 16), "RGB"),
    3: (1, (1, 2, 4, 8), "PALETTE COLOR"),
    4: (2, (8, 16), "MONOCHROME2"),
    6: (4, (8, 16), "RGB"),
}
# The most that deflate can make of one byte (zlib's technical details: 1032:1).
_DEFLATE_RATIO = 1032
# Magic number, width, height and largest value, apart by white space and comments (Netpbm's pgm(5), ppm(5)).
_GAP = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P([2356])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})[ \t\r\n\v\f]")
# TIFF 6.0 PhotometricInterpretation; 6 (YCbCr) is RGB once decoded.
_TIFF_PHOTOMETRICS = {0: "MONOCHROME1", 1: "MONOCHROME2", 2: "RGB", 3: "PALETTE COLOR", 6: "RGB"}
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Header:
    """What an image file declares.

    Attributes:
        kind: "dicom", "png", "jpeg", "pgm" (PGM and PPM, binary and ascii) or "tiff".
        width: columns, in pixels.
        height: rows, in pixels.
        bits: stored bits a sample.
        channels: samples a pixel as stored: 1 grey or palette, 3 colour; 2 and 4 with an alpha channel.
        frames: images in the file.
        photometric: DICOM PS3.3 C.7.6.3.1.2 term; JPEG's YCbCr counts as the RGB that it decodes to.
    """

    kind: str
    width: int
    height: int
    bits: int
    channels: int
    frames: int
    photometric: str | None


def read_header(path: Path) -> Header:
    """Return what an image file declares, without decoding its pixels.

    Raises:
        RejectedImageError: it is none of the formats that Spicula reads, its header is cut short or malformed, or it
            exceeds a limit of this module. The message is the reason alone.
    """
    with _open(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_HEAD_BYTES)
        header = _parse(stream, head, size)
    return _within_limits(header)


def read_dicom(path: Path) -> "pydicom.Dataset":
    """Return the header of a DICOM file: every element before the pixel data, none over 1 MiB.

    Values are not validated; sort out odd ones where they are used.

    Raises:
        RejectedImageError: not a DICOM file (PS3.10), malformed, or its preamble is an executable.
    """
    with _open(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if not _is_dicom(stream.read(_HEAD_BYTES)):
            raise RejectedImageError("not a DICOM file")
        dataset = _parse_dicom(_Source(stream, size))
    with silence:
        for tag in list(dataset.keys()):  # convert now, in silence: later, warnings would quote the values
            with suppress(Exception):
                dataset[tag]
    return dataset


def _parse(stream: BinaryIO, head: bytes, size: int) -> Header:
    if not head:
        raise RejectedImageError("the file is empty")
    if _is_dicom(head):
        return _dicom_header(_Source(stream, size))
    if head.startswith(_PNG):
        return _png_header(head, size)
    if re.match(rb"P[2356][\s#]", head):
        return _pnm_header(head, size)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(stream)
    if head.startswith(_TIFF):
        return _tiff_header(stream)
    raise RejectedImageError(f"not an image that Spicula reads ({FORMATS})")


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise RejectedImageError("not a regular file")
        stream = Path(path).open("rb")  # noqa: SIM115 - closed below; errors of opening and of reading differ
    except OSError as error:
        raise RejectedImageError(f"cannot be opened: {error.strerror}") from error
    with stream:
        try:
            yield stream
        except OSError as error:
            raise RejectedImageError(f"cannot be read: {error.strerror or 'broken file'}") from error


def _within_limits(header: Header) -> Header:
    width, height, frames = header.width, header.height, header.frames
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise RejectedImageError(f"declares {width} x {height} pixels; both sides must be within 1 to {MAX_SIDE}")
    if width * height > MAX_PIXELS:
        raise RejectedImageError(f"declares {width} x {height} pixels; at most {MAX_PIXELS} are read")
    if not 1 <= frames <= MAX_FRAMES:
        raise RejectedImageError(f"declares {frames} frames; 1 to {MAX_FRAMES} are read")
    decoded = width * height * frames * header.channels * math.ceil(header.bits / 8)
    if decoded > MAX_BYTES:
        raise RejectedImageError(f"would take {decoded} bytes decoded; at most {MAX_BYTES} are read")
    return header


def _png_header(head: bytes, size: int) -> Header:
    if len(head) < 33 or head[12:16] != b"IHDR" or head[8:12] != b"\0\0\0\r":
        raise RejectedImageError("PNG header is cut short or malformed")
    if zlib.crc32(head[12:29]) != struct.unpack(">I", head[29:33])[0]:
        raise RejectedImageError("PNG header is damaged (checksum)")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    channels, depths, photometric = _PNG_COLOURS.get(colour, (0, (), ""))
    if bits not in depths:
        raise RejectedImageError(f"PNG has colour type {colour} with {bits} bits, which the format does not know")
    header = _within_limits(Header("png", width, height, bits, channels, 1, photometric))
    _check_room(height * (1 + math.ceil(width * channels * bits / 8)), size * _DEFLATE_RATIO)
    return header


def _pnm_header(head: bytes, size: int) -> Header:
    found = _PNM.match(head)
    if not found:
        raise RejectedImageError("PGM header is cut short or malformed")
    magic, width, height, largest = (int(value) for value in found.groups())
    if not 1 <= largest <= 65_535:
        raise RejectedImageError(f"PGM has the largest value {largest}; it must be within 1 to 65535")
    channels = 3 if magic in (3, 6) else 1
    photometric = "RGB" if channels == 3 else "MONOCHROME2"
    header = _within_limits(Header("pgm", width, height, largest.bit_length(), channels, 1, photometric))
    samples = width * height * channels
    is_ascii = magic in (2, 3)  # then a sample takes a digit and a space; the last may lack the space
    _check_room(2 * samples - 1 if is_ascii else samples * (2 if largest > 255 else 1), size - found.end())
    return header


def _check_room(needed: int, available: int) -> None:
    if needed > available:
        raise RejectedImageError("declares more pixels than its bytes can hold: cut short, or made to exhaust memory")


def _jpeg_header(stream: BinaryIO) -> Header:
    from PIL.JpegImagePlugin import JpegImageFile

    # The plugin itself and not Image.open: that one warns above its own, lower limit of pixels.
    image = _parsed("JPEG", lambda: JpegImageFile(stream), stream)
    if image.mode not in ("L", "RGB"):
        raise RejectedImageError(f"JPEG with {len(image.getbands())} colour components; 1 and 3 are read")
    channels = len(image.getbands())
    photometric = "RGB" if channels == 3 else "MONOCHROME2"
    return Header("jpeg", image.width, image.height, 8, channels, 1, photometric)


def _tiff_header(stream: BinaryIO) -> Header:
    from PIL.TiffImagePlugin import TiffImageFile

    image = _parsed("TIFF", lambda: TiffImageFile(stream), stream)
    tags = image.tag_v2
    bits = max(tags.get(258, (1,)))
    photometric = _TIFF_PHOTOMETRICS.get(tags.get(262, 0))
    if photometric is None or len(image.getbands()) > 4:
        raise RejectedImageError(f"TIFF with the photometric interpretation {tags.get(262)}; grey and RGB are read")
    channels = int(tags.get(277, 1))
    first = Header("tiff", image.width, image.height, bits, channels, 1, photometric)
    return _parsed("TIFF", lambda: _count_frames(image, first), None)


def _count_frames(image: Any, first: Header) -> Header:
    for frame in range(1, MAX_FRAMES + 1):
        try:
            image.seek(frame)
        except EOFError:
            return Header(first.kind, first.width, first.height, first.bits, first.channels, frame, first.photometric)
        if image.size != (first.width, first.height):
            raise RejectedImageError(f"TIFF whose image {frame + 1} differs in size from its first")
    raise RejectedImageError(f"TIFF with more than {MAX_FRAMES} images")


def _is_dicom(head: bytes) -> bool:
    # PS3.10 asks for a preamble and "DICM"; some programs write the elements alone, explicit VR little endian.
    return head[128:132] == b"DICM" or bool(re.match(rb"[\x02\x08]\0.\0(UI|CS|DA|TM|LO|SH|UL|OB)", head, re.DOTALL))


def _dicom_header(source: "_Source") -> Header:
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "NumberOfFrames")
    dataset = _parse_dicom(source, [*keywords, "PhotometricInterpretation", "TransferSyntaxUID"])
    rows, columns, allocated, bits, channels, frames = (_number(dataset, keyword) for keyword in keywords)
    if not rows or not columns:
        raise RejectedImageError("a DICOM file without an image (no Rows or Columns)")
    allocated = allocated or 0
    bits, channels, frames = bits or allocated, channels or 1, 1 if frames is None else frames
    if not 1 <= bits <= allocated <= 64 or channels not in (1, 3):
        raise RejectedImageError(f"DICOM with {bits} of {allocated} bits a sample and {channels} samples a pixel")
    header = Header("dicom", columns, rows, bits, channels, frames, _photometric(dataset))
    _within_limits(header)
    _check_pixel_data(dataset, source, header, allocated)
    return header


def _number(dataset: "pydicom.Dataset", keyword: str) -> int | None:
    try:
        with silence:
            value = dataset.get(keyword)
            return None if value is None or value == "" else int(value)
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


def _check_pixel_data(dataset: "pydicom.Dataset", source: "_Source", header: Header, allocated: int) -> None:
    """Compare the declared length of native pixel data with the bytes there and the bytes needed (PS3.5 section 8)."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if source.was_inflated:
        return  # the position in the file says nothing; decoding finds out
    implicit, little = dataset.original_encoding
    element = source.read(8 if implicit else 12)
    if len(element) < (8 if implicit else 12):
        raise RejectedImageError("DICOM without pixel data, or cut short before it")
    length = struct.unpack("<I" if little else ">I", element[-4:])[0]
    if length == 0xFFFFFFFF:
        return  # encapsulated: a sequence of fragments, measured when decoded
    if length > source.size - source.tell():
        raise RejectedImageError(f"DICOM pixel data is declared with {length} bytes, more than the file has: cut short")
    is_native = syntax is None or not syntax.is_transfer_syntax or not syntax.is_encapsulated
    subsampled = str(header.photometric).endswith(("_422", "_420"))
    needed = math.ceil(header.width * header.height * header.frames * header.channels * allocated / 8)
    if is_native and not subsampled and length < needed:
        raise RejectedImageError(f"DICOM pixel data has {length} bytes where the header declares {needed}")


def _parse_dicom(source: "_Source", keywords: Sequence[str] | None = None) -> "pydicom.Dataset":
    import pydicom

    source.seek(0)
    if source.read(8).startswith(_EXECUTABLES):
        raise RejectedImageError("DICOM whose preamble is an executable program")
    source.seek(0)

    def parse() -> "pydicom.Dataset":
        tags = list(keywords) if keywords else None
        return pydicom.dcmread(source, stop_before_pixels=True, defer_size=2**20, specific_tags=tags, force=True)

    dataset = _parsed("DICOM", parse, None)
    if source.is_short or source.tell() > source.size:
        raise RejectedImageError("DICOM header is cut short: an element is longer than the file")
    return dataset


def _parsed(kind: str, parse: Callable[[], T], stream: BinaryIO | None) -> T:
    """Call `parse` in silence; whatever it raises becomes a refusal.

    Parsers of hostile bytes raise nearly anything, and their messages and warnings can quote patient data.
    """
    if stream is not None:
        stream.seek(0)
    try:
        with silence:
            return parse()
    except RejectedImageError:
        raise
    except Exception as error:
        raise RejectedImageError(f"{kind} header is cut short or malformed ({type(error).__name__})") from error


class _Source:
    """A file for pydicom to parse: no read allocates more than there is, and reads are counted."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._reads = 0
        self.size = size
        self.is_short = False
        self.was_inflated = False

    def read(self, count: int = -1) -> bytes:
        self._reads += 1
        if self._reads > MAX_HEADER_READS:
            raise RejectedImageError(f"DICOM header takes more than {MAX_HEADER_READS} reads")
        if count < 0:  # only for a deflated data set, which pydicom then inflates whole
            return self._deflated()
        data = self._stream.read(min(count, max(0, self.size - self.tell())))
        # At the end of the file pydicom asks for the 8 bytes of a next element, and when it looks for a delimiter for
        # blocks of 8192; anything else that comes back short is a value longer than the file.
        if len(data) < count and count != 8192 and (data or count != 8):
            self.is_short = True
        return data

    def _deflated(self) -> bytes:
        self.was_inflated = True
        data = self._stream.read(MAX_INFLATED_BYTES + 1)
        inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        pending = data
        while pending and not inflater.eof and total <= MAX_INFLATED_BYTES:
            total += len(inflater.decompress(pending, 2**20))
            pending = inflater.unconsumed_tail
        if max(total, len(data)) > MAX_INFLATED_BYTES:
            raise RejectedImageError(f"deflated DICOM inflates to more than {MAX_INFLATED_BYTES} bytes")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
