"""The pixels of PNG, JPEG, PGM, PPM and TIFF files, whole or not at all.

Pillow reads them, and imagecodecs what Pillow would read with 8 bits of the 16: colour, and grey with alpha.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np

from spicula.errors import RejectedImageError
from spicula.headers.limits import within_limits
from spicula.headers.raster import raster_header

_FORMATS = {"png": "PNG", "jpeg": "JPEG", "pgm": "PPM", "tiff": "TIFF"}
_SPACES = b" \t\r\n\v\f"
# TIFF 6.0: strip and tile offsets with their byte counts, and sizes in bytes of the two integer types they may have.
_EXTENTS = ((273, 279), (324, 325))
_BITS_PER_SAMPLE, _PLANAR = 258, 284


def decode(path: Path, kind: str, frame: int) -> tuple[np.ndarray, int]:
    """Return one image of a file and its bits a sample.

    Alpha is dropped, palettes become RGB, 1-bit images 0 and 255. PGM values are stretched so that its largest value
    becomes 255 (or 65535, when it is above 255). The EXIF orientation is ignored: an Index has its lesions in stored
    pixels.

    Args:
        path: the file, whose header passed `headers.read_header`.
        kind: `Header.kind`, not "dicom".
        frame: which page of a TIFF, from 0.

    Returns:
        (H, W) or (H, W, 3), uint8 or uint16, and the bits, 8 or 16.

    Raises:
        RejectedImageError: cut short, damaged, or of a pixel type that is not read.
    """
    from PIL import Image

    data = path.read_bytes()
    _refuse_truncated(data, kind)
    formats = [_FORMATS[kind]]
    if kind == "png":
        with Image.open(io.BytesIO(data), formats=formats) as image:
            image.verify()  # the checksum of every chunk, to the end of the file; the image is of no use afterwards
    with Image.open(io.BytesIO(data), formats=formats) as image:
        if frame:
            image.seek(frame)
        if kind == "tiff":
            _refuse_missing_strips(image, len(data))
            if _is_deep_colour(image):
                return _deep_tiff(data, frame, image)
        if kind == "png" and data[24] == 16 and data[25] in (2, 4, 6):  # W3C PNG 11.2.1: depth; colour, alpha or both
            return _deep_png(data)
        image.load()
        return _to_array(image)


def decode_png16(data: bytes) -> np.ndarray:
    """Return the pixels of a PNG of 16 bits in grey: (H, W) uint16.

    Raises:
        RejectedImageError: it is not that, exceeds a limit of `headers.limits`, or is cut short or damaged.
    """
    import imagecodecs

    header = raster_header(io.BytesIO(data), data[:4096], len(data))
    if header is None or (header.kind, header.channels, header.bits) != ("png", 1, 16):
        raise RejectedImageError("it is not a PNG of 16 bits in grey")
    within_limits(header)
    try:
        return np.asarray(imagecodecs.png_decode(data))
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise RejectedImageError(f"it is cut short or damaged ({type(error).__name__})") from error


def _deep_png(data: bytes) -> tuple[np.ndarray, int]:
    import imagecodecs

    return _without_alpha(imagecodecs.png_decode(data))


def _is_deep_colour(image: Any) -> bool:
    bits = tuple(image.tag_v2.get(_BITS_PER_SAMPLE, ()))
    return len(bits) > 1 and max(bits) > 8


def _deep_tiff(data: bytes, frame: int, image: Any) -> tuple[np.ndarray, int]:
    import imagecodecs

    array = imagecodecs.tiff_decode(data, index=frame)
    return _without_alpha(np.moveaxis(array, 0, -1) if image.tag_v2.get(_PLANAR) == 2 else array)


def _without_alpha(array: np.ndarray) -> tuple[np.ndarray, int]:
    if array.dtype != np.uint16 or array.ndim != 3:
        raise RejectedImageError(f"its pixel type ({array.dtype}) is not one we read: grey or RGB of 8 or 16 bits")
    return array[..., 0] if array.shape[2] == 2 else array[..., :3], 16


def _to_array(image: Any) -> tuple[np.ndarray, int]:
    mode = image.mode
    if mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        return np.asarray(image).astype(np.uint16), 16
    if mode == "I":  # of the formats read, only PGM (0 to 65535 after stretching) and 32-bit TIFF open like this
        array = np.asarray(image)
        if image.format != "PPM":
            raise RejectedImageError("its samples have 32 bits; 8 and 16 are read")
        return array.astype(np.uint16), 16
    if mode in ("1", "L", "LA"):
        return np.asarray(image.getchannel(0).convert("L")), 8
    if mode in ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        if mode in ("P", "PA"):
            image = image.convert("RGBA")  # at once to RGB, Pillow would warn about a palette's transparency
        return np.asarray(image if mode == "RGB" else image.convert("RGB")), 8
    raise RejectedImageError(f"its pixel type ({mode}) is not one we read: grey or RGB of 8 or 16 bits")


def _refuse_truncated(data: bytes, kind: str) -> None:
    """Refuse what Pillow would read although its end is missing."""
    if kind == "pgm" and data[:2] in (b"P2", b"P3") and data[-1:] not in _SPACES:
        raise RejectedImageError("it ends without white space, so that its last number may be cut short")
    if kind == "tiff":
        _refuse_missing_directory(data)


def _refuse_missing_directory(data: bytes) -> None:
    """Check that the first directory of a TIFF (6.0, section 2) lies within the file; BigTIFF is left to Pillow."""
    order = "<" if data[:2] == b"II" else ">"
    version, offset = struct.unpack_from(f"{order}HI", data, 2)
    if version != 42:
        return
    if offset + 2 > len(data):
        raise RejectedImageError("it is cut short: the TIFF directory is missing")
    entries = struct.unpack_from(f"{order}H", data, offset)[0]
    if offset + 2 + 12 * entries + 4 > len(data):
        raise RejectedImageError("it is cut short within the TIFF directory")


def _refuse_missing_strips(image: Any, size: int) -> None:
    for offsets, counts in _EXTENTS:
        starts, lengths = image.tag_v2.get(offsets, ()), image.tag_v2.get(counts, ())
        if any(start + length > size for start, length in zip(starts, lengths, strict=False)):
            raise RejectedImageError("it is cut short: pixels lie beyond its end")
