"""What an image file declares, and the limits on it: checked before anything of its declared size is allocated."""

import math
from dataclasses import dataclass

from spicula.errors import RejectedImageError

#: Largest width and height, in pixels.
MAX_SIDE = 16_384
#: Largest width x height, in pixels.
MAX_PIXELS = 120_000_000
#: Most frames in one file.
MAX_FRAMES = 200
#: Largest decoded size of all frames, in bytes.
MAX_BYTES = 2**30

# DICOM PS3.3 C.7.6.3.1.2
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "XYB", *_YBR)


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


def within_limits(header: Header) -> Header:
    """Return a header that keeps to the limits of this module.

    Raises:
        RejectedImageError: it exceeds one.
    """
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
