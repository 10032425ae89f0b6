"""Reading an exam's images as the published classifier wants them, and crops as they lie among the artefacts."""

from pathlib import Path

import numpy as np

from spicula import files
from spicula.convert import png
from spicula.errors import RejectedImageError
from spicula.exams.types import Grey16, Image, ImageFile, RefusedExamError
from spicula.imaging.cells import look_up
from spicula.imaging.raster import decode_png16
from spicula.imaging.readers import read_pixels

#: Fewest stored bits. The classifier was made for 12 (its PNG files hold 12 bits in 16), and mammography systems store
#: 10 to 16. Files of 8 bits are pictures of mammograms: windowed, often compressed with loss.
LEAST_BITS = 10


def read_image(file: ImageFile) -> Image:
    """Read one image of an exam: the pixels as stored, scaled to 16 bits.

    DICOM: stored values, dark to bright (see `imaging.dicom.decode`: no window, no table, MONOCHROME1 turned over), and
    from b stored bits to 16 as round(v * 65535 / (2**b - 1)). Files of 16 bits stay as they are.

    Args:
        file: which; it is only read.

    Returns:
        (H, W) uint16.

    Raises:
        RefusedExamError: the file is gone, or has changed since it was indexed; it cannot be read; it is in colour, or
            has too few bits.
        OSError: the disk or the network failed, so that another attempt may succeed.
    """
    path = Path(file.path)
    try:
        before = _stamp(path)
        if files.sha256_file(path) != file.sha256:
            raise _refusal(file, "it changed after it was indexed; index the images again")
        found = read_pixels(path, file.frame)
        if _stamp(path) != before:
            raise _refusal(file, "it changed while it was read; index the images again")
    except FileNotFoundError as error:
        raise _refusal(file, "its file is gone; index the images again") from error
    except RejectedImageError as error:
        raise _refusal(file, str(error)) from error
    if found.array.ndim != 2:
        raise _refusal(file, "it is in colour; a mammogram is grey: give the original image")
    if found.bits < LEAST_BITS:
        raise _refusal(
            file,
            f"it has {found.bits} bits a pixel, the classifier needs {LEAST_BITS} or more: give the DICOM file, or a"
            " PNG of 16 bits",
        )
    return Image(file.name, file.view, to_16_bits(found.array, found.bits), file.mirrored)


def to_16_bits(values: Grey16, bits: int) -> Grey16:
    """Return round(v * 65535 / (2**bits - 1)) of every value, exactly; no value lies between two.

    Args:
        values: (H, W), 0 to 2**bits - 1. May be overwritten.
        bits: 9 to 16.
    """
    if bits == 16:
        return values
    top = 2**bits - 1
    table = np.zeros(2**16, np.uint16)
    table[: top + 1] = (np.arange(top + 1, dtype=np.int64) * 65535 * 2 + top) // (2 * top)
    return look_up(table, values, may_overwrite=True)


def encode_crop(pixels: Grey16) -> bytes:
    """Return a crop as a PNG of 16 bits: always the same bytes for the same pixels.

    Args:
        pixels: (h, w).
    """
    return png.encode(pixels)


def read_crop(data: bytes) -> Grey16:
    """Return the pixels that `encode_crop` wrote: (h, w).

    Raises:
        RejectedImageError: it is no PNG of 16 bits in grey, or it is damaged.
    """
    return decode_png16(data)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _refusal(file: ImageFile, reason: str) -> RefusedExamError:
    return RefusedExamError(f"{file.name} ({file.view}): {reason}")
