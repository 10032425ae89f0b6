"""Compressed DICOM frames: imagecodecs as a decoding plugin of pydicom, behind checks that native decoders leave out.

Every JPEG family member goes through this one plugin, so that the same file gives the same pixels on every machine,
whatever other decoders pydicom would find there. RLE and native pixel data are pydicom's own.
"""

import math
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from spicula.errors import RejectedImageError

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

PLUGIN = "imagecodecs"

#: Most tiles in one JPEG 2000 frame: a file of a few bytes can declare 65,535, each of which takes time.
MAX_TILES = 4096

# DICOM PS3.5 table 10-1 and annex A.4: transfer syntax UID -> codec.
_CODECS = {
    "1.2.840.10008.1.2.4.50": "jpeg",  # baseline, 8 bits
    "1.2.840.10008.1.2.4.51": "jpeg",  # extended, 8 and 12 bits
    "1.2.840.10008.1.2.4.57": "jpeg",  # lossless, any predictor
    "1.2.840.10008.1.2.4.70": "jpeg",  # lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",  # near-lossless
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "jpeg2k",  # high throughput
    "1.2.840.10008.1.2.4.202": "jpeg2k",
    "1.2.840.10008.1.2.4.203": "jpeg2k",
}
#: For pydicom, which asks a plugin what it needs when it is not available. This one always is.
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys(_CODECS, ("numpy", "imagecodecs"))

# ITU-T T.81 table B.1: start of frame (0xC4, 0xC8 and 0xCC are something else) and, in T.87, JPEG-LS.
_STARTS_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA

_register_lock = threading.Lock()


def register() -> None:
    """Make the plugin known to pydicom; calling it again does nothing."""
    from pydicom.pixels import get_decoder

    with _register_lock:
        for uid in _CODECS:
            decoder = get_decoder(uid)
            if PLUGIN not in decoder.available_plugins:
                decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Return whether the plugin decodes a transfer syntax (pydicom asks)."""
    return uid in _CODECS


def check_frame(frame: bytes, uid: str, shape: tuple[int, int, int], is_signed: bool) -> None:
    """Refuse a compressed frame that is cut short, larger than the header says, or not to be decoded reliably.

    Args:
        frame: the codestream of one frame.
        uid: its transfer syntax, one that `is_available`.
        shape: rows, columns and samples a pixel, from the DICOM header.
        is_signed: whether the header says that samples are signed.

    Raises:
        RejectedImageError: with the reason.
    """
    if not frame.rstrip(b"\x00\xff").endswith(b"\xd9"):  # end of image or codestream; padding may follow
        raise RejectedImageError("its compressed pixel data is cut short")
    if _CODECS[uid] == "jpeg2k":
        declared = _jpeg2k_shape(frame)
    else:
        declared, predictor = _jpeg_shape(frame)
        # T.81 table H.1: predictors 5 to 7 halve a difference or a sum. It means unsigned samples; encoders that halved
        # signed ones wrote frames that every decoder turns into stripes.
        if _CODECS[uid] == "jpeg" and predictor in (5, 6, 7) and is_signed:
            raise RejectedImageError(
                f"it is lossless JPEG with predictor {predictor} of signed samples, which encoders compute differently:"
                " its pixels cannot be trusted"
            )
    if declared != shape:
        raise RejectedImageError(
            f"its compressed frame is {' x '.join(map(str, declared))}, its header says {' x '.join(map(str, shape))}"
        )


def decode_frame(frame: bytes, runner: "DecodeRunner") -> bytes:
    """Decode one frame for pydicom: samples of a pixel side by side, colours as they are stored."""
    import imagecodecs

    codec = _CODECS[runner.transfer_syntax]
    options: dict[str, Any] = {}
    if codec == "jpeg":
        codec = "jpeg8"
        if runner.samples_per_pixel == 3:
            # The same space in and out: libjpeg converts nothing; pydicom does, going by the header and the markers.
            options = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
    array: np.ndarray = getattr(imagecodecs, f"{codec}_decode")(frame, **options)
    expected = (runner.rows, runner.columns, runner.samples_per_pixel)
    if (*array.shape, 1)[:3] != expected:
        raise ValueError(f"decoded to {array.shape}, expected {expected}")
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        raise ValueError(f"decoded to {array.dtype} samples; 8 and 16 bits are read")
    runner.set_option("bits_allocated", 8 * array.dtype.itemsize)
    if runner.samples_per_pixel == 3:
        runner.set_option("planar_configuration", 0)
        if codec == "jpeg2k" and runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")  # the codec undoes its own colour transform
    return array.tobytes()


def _jpeg_shape(frame: bytes) -> tuple[tuple[int, int, int], int]:
    """Return (rows, columns, samples) of a JPEG or JPEG-LS frame (T.81 B.2.2), and its scan's predictor (B.2.3)."""
    shape, offset = None, 2
    if not frame.startswith(b"\xff\xd8"):
        raise RejectedImageError("its compressed frame is not JPEG, as its transfer syntax says")
    while offset + 10 <= len(frame) and frame[offset] == 0xFF:
        marker = frame[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker in _STARTS_OF_FRAME:
            rows, columns, samples = struct.unpack_from(">HHB", frame, offset + 5)
            shape = (rows, columns, samples)
        elif marker == _START_OF_SCAN and shape:
            predictor = offset + 5 + 2 * frame[offset + 4]
            return shape, frame[predictor] if predictor < len(frame) else 0
        offset += 2 + struct.unpack_from(">H", frame, offset + 2)[0]
    raise RejectedImageError("its compressed frame has no JPEG header")


def _jpeg2k_shape(frame: bytes) -> tuple[int, int, int]:
    """Return (rows, columns, samples) of a JPEG 2000 codestream from its SIZ segment (ISO/IEC 15444-1 A.5.1)."""
    if not frame.startswith(b"\xff\x4f\xff\x51") or len(frame) < 42:  # PS3.5 A.4.4: the codestream alone, no JP2 boxes
        raise RejectedImageError("its compressed frame is not a JPEG 2000 codestream, as its transfer syntax says")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = struct.unpack_from(
        ">8IH", frame, 8
    )
    if not (tile_width and tile_height):
        raise RejectedImageError("its JPEG 2000 frame has empty tiles")
    tiles = math.ceil((right - tile_left) / tile_width) * math.ceil((bottom - tile_top) / tile_height)
    if tiles > MAX_TILES:
        raise RejectedImageError(f"its JPEG 2000 frame has {tiles} tiles; at most {MAX_TILES} are read")
    return bottom - top, right - left, samples
