"""Compressed DICOM frames through imagecodecs, behind checks that native decoders leave out.

Grey frames are decoded here at once. Colour goes through pydicom, which converts its spaces, with imagecodecs as the
one decoding plugin: the same file gives the same pixels on every machine, whatever other decoders there are.
"""

import math
import struct
import threading
from dataclasses import dataclass, replace
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

#: RLE Lossless (PS3.5 annex G), which pydicom decodes in colour.
RLE = "1.2.840.10008.1.2.5"
# PS3.5 G.5: an RLE frame begins with the number of segments and 15 offsets, 32 bits each.
_RLE_HEADER_BYTES = 64

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


@dataclass(frozen=True)
class Declared:
    """What a codestream says about itself.

    Attributes:
        shape: rows, columns and samples a pixel.
        precision: bits a sample.
        is_signed: whether its samples are signed; only JPEG 2000 can say so.
        predictor: of lossless JPEG (T.81 table H.1); of no meaning elsewhere.
    """

    shape: tuple[int, int, int]
    precision: int
    is_signed: bool = False
    predictor: int = 0


def check_frame(frame: bytes, uid: str, shape: tuple[int, int, int], is_signed: bool) -> Declared:
    """Refuse a compressed frame that is cut short, larger than the header says, or not to be decoded reliably.

    Args:
        frame: the codestream of one frame.
        uid: its transfer syntax, one that `is_available`.
        shape: rows, columns and samples a pixel, from the DICOM header.
        is_signed: whether the header says that samples are signed.

    Returns:
        What the codestream declares.

    Raises:
        RejectedImageError: with the reason.
    """
    if not _ends_whole(frame):
        raise RejectedImageError("its compressed pixel data is cut short")
    declared = _jpeg2k(frame) if _CODECS[uid] == "jpeg2k" else _jpeg(frame)
    # T.81 table H.1: predictors 5 to 7 halve a difference or a sum. It means unsigned samples; encoders that halved
    # signed ones wrote frames that every decoder turns into stripes.
    if _CODECS[uid] == "jpeg" and declared.predictor in (5, 6, 7) and is_signed:
        raise RejectedImageError(
            f"it is lossless JPEG with predictor {declared.predictor} of signed samples, which encoders compute"
            " differently: its pixels cannot be trusted"
        )
    if declared.shape != shape:
        raise RejectedImageError(
            f"its compressed frame is {' x '.join(map(str, declared.shape))}, its header says"
            f" {' x '.join(map(str, shape))}"
        )
    if declared.precision > 16:
        raise RejectedImageError(f"its compressed frame has {declared.precision} bits a sample; up to 16 are read")
    return declared


def decode_grey(frame: bytes, uid: str) -> np.ndarray:
    """Return the samples of a grey frame that passed `check_frame`: (H, W), uint8 or uint16 cells.

    Signed samples of JPEG 2000 come as two's complement over the whole cell.

    Raises:
        RejectedImageError: damaged; the reason is the decoder's.
    """
    array = _decode(frame, _CODECS[uid])
    return array.view(f"u{array.dtype.itemsize}")


def decode_rle_grey(frame: bytes, rows: int, columns: int, item_bytes: int) -> np.ndarray:
    """Return the cells of a grey RLE frame (PS3.5 annex G): (H, W), uint8 or uint16.

    Args:
        frame: the bytes of one frame.
        rows: height, in pixels.
        columns: width, in pixels.
        item_bytes: bytes a cell, 1 or 2; as many segments there must be, the most significant byte first.

    Raises:
        RejectedImageError: cut short, damaged, or of another number of segments.
    """
    import imagecodecs

    if len(frame) < _RLE_HEADER_BYTES:
        raise RejectedImageError("its RLE frame is cut short")
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != item_bytes:
        raise RejectedImageError(f"its RLE frame has {count} segments where its header says {item_bytes}")
    bounds = [*offsets[:count], len(frame)]
    if bounds[0] < _RLE_HEADER_BYTES or bounds != sorted(bounds):
        raise RejectedImageError("its RLE frame has segments outside it")
    unpack: Any = imagecodecs.packbits_decode
    pixels = rows * columns
    array = np.empty((pixels, item_bytes), np.uint8)
    plane = np.empty(pixels + 256, np.uint8)  # room for the padding that some encoders add, two runs at most
    for number in range(count):
        segment = frame[bounds[number] : bounds[number + 1]]
        try:
            decoded = unpack(segment, out=plane)
        except Exception as error:
            raise RejectedImageError("its RLE frame is damaged") from error
        if len(decoded) < pixels:
            raise RejectedImageError(f"an RLE segment decodes to {len(decoded)} of {pixels} bytes: cut short")
        array[:, item_bytes - 1 - number] = decoded[:pixels]
    return array.view(f"<u{item_bytes}").reshape(rows, columns)


def decode_frame(frame: bytes, runner: "DecodeRunner") -> bytes:
    """Decode one frame for pydicom: samples of a pixel side by side, colours as they are stored."""
    codec = _CODECS[runner.transfer_syntax]
    array = _decode(frame, codec, is_colour=runner.samples_per_pixel == 3)
    runner.set_option("bits_allocated", 8 * array.dtype.itemsize)
    if runner.samples_per_pixel == 3:
        runner.set_option("planar_configuration", 0)
        if codec == "jpeg2k" and runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")  # the codec undoes its own colour transform
    return array.tobytes()


def _decode(frame: bytes, codec: str, is_colour: bool = False) -> np.ndarray:
    import imagecodecs

    options: dict[str, Any] = {}
    if codec == "jpeg":
        codec = "jpeg8"
        if is_colour:
            # The same space in and out: libjpeg converts nothing; pydicom does, going by the header and the markers.
            options = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
    try:
        array: np.ndarray = getattr(imagecodecs, f"{codec}_decode")(frame, **options)
    except MemoryError:
        raise
    except Exception as error:  # each codec has errors of its own
        raise RejectedImageError(f"its compressed frame cannot be decoded: {_reason(error)}") from error
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        raise RejectedImageError(f"its compressed frame has {array.dtype} samples; 8 and 16 bits are read")
    return array


def _reason(error: Exception) -> str:
    """Return what a codec said, in one line: it knows the codestream alone, and nothing of the person."""
    return " ".join(str(error).split()) or type(error).__name__


def _ends_whole(frame: bytes) -> bool:
    """Whether a frame ends with the marker for end of image or codestream; padding may follow."""
    return frame[-1024:].rstrip(b"\x00\xff").endswith(b"\xd9") or frame.rstrip(b"\x00\xff").endswith(b"\xd9")


def _jpeg(frame: bytes) -> Declared:
    """Read the headers of a JPEG or JPEG-LS frame (T.81 B.2.2) and of its first scan (B.2.3)."""
    declared, offset = None, 2
    if not frame.startswith(b"\xff\xd8"):
        raise RejectedImageError("its compressed frame is not JPEG, as its transfer syntax says")
    while offset + 10 <= len(frame) and frame[offset] == 0xFF:
        marker = frame[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker in _STARTS_OF_FRAME:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, offset + 4)
            declared = Declared((rows, columns, samples), precision)
        elif marker == _START_OF_SCAN and declared:
            predictor = offset + 5 + 2 * frame[offset + 4]
            return replace(declared, predictor=frame[predictor] if predictor < len(frame) else 0)
        offset += 2 + struct.unpack_from(">H", frame, offset + 2)[0]
    raise RejectedImageError("its compressed frame has no JPEG header")


def _jpeg2k(frame: bytes) -> Declared:
    """Read the SIZ segment of a JPEG 2000 codestream (ISO/IEC 15444-1 A.5.1)."""
    # PS3.5 A.4.4: the codestream alone, no JP2 boxes
    if not frame.startswith(b"\xff\x4f\xff\x51") or len(frame) < 43:
        raise RejectedImageError("its compressed frame is not a JPEG 2000 codestream, as its transfer syntax says")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = struct.unpack_from(
        ">8IH", frame, 8
    )
    if not (tile_width and tile_height):
        raise RejectedImageError("its JPEG 2000 frame has empty tiles")
    tiles = math.ceil((right - tile_left) / tile_width) * math.ceil((bottom - tile_top) / tile_height)
    if tiles > MAX_TILES:
        raise RejectedImageError(f"its JPEG 2000 frame has {tiles} tiles; at most {MAX_TILES} are read")
    depth = frame[42]  # Ssiz of the first component: the sign, and one less than the bits
    return Declared((bottom - top, right - left, samples), (depth & 0x7F) + 1, bool(depth & 0x80))
