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


class StaleImageError(Exception):
    """A file is gone, or is not the one that was indexed.

    It fails a step, and refuses nothing: a refusal holds for good for images of this content, and these were not seen.
    """


def read_image(file: ImageFile) -> Image:
    """Read one image of an exam: the pixels as stored, scaled to 16 bits.

    DICOM: stored values, dark to bright (see `imaging.dicom.decode`: no window, no table, MONOCHROME1 turned over), and
    from b stored bits to 16 as round(v * 65535 / (2**b - 1)). Files of 16 bits stay as they are.

    Args:
        file: which; it is only read.

    Returns:
        (H, W) uint16.

    Raises:
        RefusedExamError: it cannot be read; it is in colour, or has too few bits.
        StaleImageError: see `check_same`.
        OSError: the disk or the network failed, so that another attempt may succeed.
    """
    path = Path(file.path)
    try:
        before = _stamp(path)
        check_same(file)
        found = read_pixels(path, file.frame)
        if _stamp(path) != before:
            raise StaleImageError(_about(file, "it changed while it was read; index the images again"))
    except FileNotFoundError:
        raise _gone(file) from None
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


def check_same(file: ImageFile) -> None:
    """Make sure that a file is there, and is the one that was indexed.

    Raises:
        StaleImageError: it is not.
        OSError: the disk or the network failed.
    """
    try:
        is_same = files.sha256_file(Path(file.path)) == file.sha256
    except FileNotFoundError:
        raise _gone(file) from None
    if not is_same:
        raise StaleImageError(_about(file, "it changed after it was indexed; index the images again"))


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


def _gone(file: ImageFile) -> StaleImageError:
    return StaleImageError(_about(file, "its file is gone; index the images again"))


def _refusal(file: ImageFile, reason: str) -> RefusedExamError:
    return RefusedExamError(_about(file, reason))


def _about(file: ImageFile, reason: str) -> str:
    return f"{file.name} ({file.view}): {reason}"
