"""The one place that decodes pixels: any image file that Spicula reads, in one form, or a refusal with the reason."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spicula.errors import RejectedImageError
from spicula.headers import read_header
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
    path = Path(path)
    header = read_header(path)
    if not 0 <= frame < header.frames:
        raise RejectedImageError(f"it has {header.frames} frame(s), numbered from 0; frame {frame} was asked for")
    array, bits = _decode(path, header.kind, frame)
    if array.shape[:2] != (header.height, header.width):
        raise RejectedImageError(
            f"it decodes to {array.shape[1]} x {array.shape[0]} pixels, its header says"
            f" {header.width} x {header.height}"
        )
    return Pixels(np.ascontiguousarray(array), bits)


def _decode(path: Path, kind: str, frame: int) -> tuple[np.ndarray, int]:
    from spicula.imaging import dicom, raster

    try:
        with silence:
            return dicom.decode(path, frame) if kind == "dicom" else raster.decode(path, kind, frame)
    except RejectedImageError:
        raise
    except MemoryError as error:
        raise RejectedImageError("decoding it takes more memory than there is") from error
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        lines = str(error).splitlines()
        raise RejectedImageError(
            f"it is cut short or damaged ({lines[0].strip() if lines else type(error).__name__})"
        ) from error
