"""The one place that decodes pixels: any image file that Spicula reads, in one form, or a refusal with the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spicula.errors import RejectedImageError
from spicula.headers import Header, read_header
from spicula.silence import silence


@dataclass(frozen=True)
class Pixels:
    """One decoded image.

    Attributes:
        array: (H, W) grey, dark to bright, or (H, W, 3) RGB; uint8 or uint16; the values that the file stores.
        bits: stored bits a sample: values are within 0 to 2**bits - 1. A PNG or TIFF of 16 bits counts as 16 even when
            it holds 12-bit values, because nothing in the file says so.
    """

    array: np.ndarray
    bits: int


def read_pixels(path: Path, frame: int = 0) -> Pixels:
    """Decode one image of a file: DICOM, PNG, JPEG, PGM, PPM or TIFF, told apart by content, never by name.

    What is done to the values stands in `imaging.dicom.decode` and `imaging.raster.decode`.

    Args:
        path: the file, which is only read.
        frame: which image, in files that hold several, from 0.

    Raises:
        RejectedImageError: whatever is wrong with the file: its format, its size beyond the limits of
            `spicula.headers`, truncation, damage. The message is the reason alone, without the path.
    """

    def decode(path: Path, header: Header) -> tuple[np.ndarray, int]:
        from spicula.imaging import dicom, raster

        return dicom.decode(path, frame) if header.kind == "dicom" else raster.decode(path, header.kind, frame)

    return read_with(Path(path), frame, decode)


def read_with(path: Path, frame: int, decode: Callable[[Path, Header], tuple[np.ndarray, int]]) -> Pixels:
    """Decode one image in one of the ways there are, in silence; whatever goes wrong becomes a refusal.

    Args:
        path: the file.
        frame: which image of it, from 0.
        decode: takes the file and its header, and returns the pixels and their bits.

    Raises:
        RejectedImageError: as `read_pixels` says.
    """
    header = read_header(path)
    if not 0 <= frame < header.frames:
        raise RejectedImageError(f"it has {header.frames} frame(s), numbered from 0; frame {frame} was asked for")
    array, bits = _guarded(path, header, decode)
    if array.shape[:2] != (header.height, header.width):
        raise RejectedImageError(
            f"it decodes to {array.shape[1]} x {array.shape[0]} pixels, its header says"
            f" {header.width} x {header.height}"
        )
    return Pixels(np.ascontiguousarray(array), bits)


def _guarded(
    path: Path, header: Header, decode: Callable[[Path, Header], tuple[np.ndarray, int]]
) -> tuple[np.ndarray, int]:
    try:
        with silence:
            return decode(path, header)
    except RejectedImageError:
        raise
    except MemoryError as error:
        raise RejectedImageError("decoding it takes more memory than there is") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        if header.kind == "dicom":  # what pydicom says can quote the header
            raise RejectedImageError(f"it is cut short or damaged ({type(error).__name__})") from None
        lines = str(error).splitlines()
        raise RejectedImageError(
            f"it is cut short or damaged ({lines[0].strip() if lines else type(error).__name__})"
        ) from error
