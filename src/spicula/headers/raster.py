"""The headers of PNG, JPEG, PGM, PPM and TIFF files."""

import math
import re
import struct
import zlib
from typing import Any, BinaryIO

from spicula.errors import RejectedImageError
from spicula.headers.limits import MAX_FRAMES, Header, within_limits
from spicula.headers.opening import parsed

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


def raster_header(stream: BinaryIO, head: bytes, size: int) -> Header | None:
    """Return what a file declares, or None if it is of none of these formats.

    Args:
        stream: the file.
        head: its first 4096 bytes.
        size: of the file, in bytes.

    Raises:
        RejectedImageError: cut short, malformed, or more than its bytes can hold.
    """
    if head.startswith(_PNG):
        return _png_header(head, size)
    if re.match(rb"P[2356][\s#]", head):
        return _pnm_header(head, size)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(stream)
    if head.startswith(_TIFF):
        return _tiff_header(stream)
    return None


def _png_header(head: bytes, size: int) -> Header:
    if len(head) < 33 or head[12:16] != b"IHDR" or head[8:12] != b"\0\0\0\r":
        raise RejectedImageError("PNG header is cut short or malformed")
    if zlib.crc32(head[12:29]) != struct.unpack(">I", head[29:33])[0]:
        raise RejectedImageError("PNG header is damaged (checksum)")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    channels, depths, photometric = _PNG_COLOURS.get(colour, (0, (), ""))
    if bits not in depths:
        raise RejectedImageError(f"PNG has colour type {colour} with {bits} bits, which the format does not know")
    header = within_limits(Header("png", width, height, bits, channels, 1, photometric))
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
    header = within_limits(Header("pgm", width, height, largest.bit_length(), channels, 1, photometric))
    samples = width * height * channels
    is_ascii = magic in (2, 3)  # then a sample takes a digit and a space; the last may lack the space
    _check_room(2 * samples - 1 if is_ascii else samples * (2 if largest > 255 else 1), size - found.end())
    return header


def _check_room(needed: int, available: int) -> None:
    if needed > available:
        raise RejectedImageError("declares more pixels than its bytes can hold: cut short, or made to exhaust memory")


def _jpeg_header(stream: BinaryIO) -> Header:
    from PIL.JpegImagePlugin import JpegImageFile

    # The plugin itself and not the opener of all formats: that one warns above its own, lower limit of pixels.
    image = parsed("JPEG", lambda: JpegImageFile(stream), stream)
    if image.mode not in ("L", "RGB"):
        raise RejectedImageError(f"JPEG with {len(image.getbands())} colour components; 1 and 3 are read")
    channels = len(image.getbands())
    photometric = "RGB" if channels == 3 else "MONOCHROME2"
    return Header("jpeg", image.width, image.height, 8, channels, 1, photometric)


def _tiff_header(stream: BinaryIO) -> Header:
    from PIL.TiffImagePlugin import TiffImageFile

    image = parsed("TIFF", lambda: TiffImageFile(stream), stream)
    tags = image.tag_v2
    bits = max(tags.get(258, (1,)))
    photometric = _TIFF_PHOTOMETRICS.get(tags.get(262, 0))
    if photometric is None or len(image.getbands()) > 4:
        raise RejectedImageError(f"TIFF with the photometric interpretation {tags.get(262)}; grey and RGB are read")
    channels = int(tags.get(277, 1))
    first = Header("tiff", image.width, image.height, bits, channels, 1, photometric)
    return parsed("TIFF", lambda: _count_frames(image, first), None)


def _count_frames(image: Any, first: Header) -> Header:
    for frame in range(1, MAX_FRAMES + 1):
        try:
            image.seek(frame)
        except EOFError:
            return Header(first.kind, first.width, first.height, first.bits, first.channels, frame, first.photometric)
        if image.size != (first.width, first.height):
            raise RejectedImageError(f"TIFF whose image {frame + 1} differs in size from its first")
    raise RejectedImageError(f"TIFF with more than {MAX_FRAMES} images")
