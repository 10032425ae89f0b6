"""Reading an exam's images as the published classifier wants them, and crops as they lie among the artefacts."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from spicula import files, stores
from spicula.convert import png
from spicula.errors import RejectedImageError
from spicula.exams.types import Grey16, Image, ImageFile, RefusedExamError
from spicula.imaging.cells import look_up
from spicula.imaging.raster import decode_png16
from spicula.imaging.readers import read_pixels

#: Fewest stored bits. The classifier was made for 12 (its PNG files hold 12 bits in 16), and mammography systems store
#: 10 to 16. Files of 8 bits are pictures of mammograms: windowed, often compressed with loss.
LEAST_BITS = 10

#: Device, number, size and time of change of a file.
Stamp = tuple[int, int, int, int]


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
        StaleImageError: see `local_file`.
        OSError: the disk, the network or the object store failed, so that another attempt may succeed.
    """
    try:
        with local_file(file) as path:
            found = read_pixels(path, file.frame)
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


@contextmanager
def local_file(file: ImageFile) -> Iterator[Path]:
    """Yield a file of this machine with an image's content, which is what was indexed, as long as the block lasts.

    It is the image's own file, or a temporary copy of an object.

    Raises:
        StaleImageError: it is gone, or is not the one that was indexed; also when that happens within the block.
        OSError: the disk, the network or the object store failed, or an object may not be read.
        UsageError: the package that reaches the object store is missing.
    """
    opened = _fetched if stores.is_remote(file.path) else _opened
    with opened(file) as path:
        yield path


@contextmanager
def _fetched(file: ImageFile) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            path = stack.enter_context(stores.fetched(file.path))
        except FileNotFoundError:
            raise _gone(file) from None
        except OSError as error:
            raise type(error)(_about(file, str(error))) from None
        _check_same(file, path)
        yield path


@contextmanager
def _opened(file: ImageFile) -> Iterator[Path]:
    path = Path(file.path)
    try:
        before = _stamp(path)
        _check_same(file, path)
    except FileNotFoundError:
        raise _gone(file) from None
    try:
        yield path
    except RejectedImageError:  # of a file that is being replaced it says nothing
        _check_unchanged(file, before)
        raise
    _check_unchanged(file, before)


def _check_same(file: ImageFile, path: Path) -> None:
    if files.sha256_file(path) != file.sha256:
        raise StaleImageError(_about(file, "it changed after it was indexed; index the images again"))


def _check_unchanged(file: ImageFile, before: Stamp) -> None:
    try:
        is_same = _stamp(Path(file.path)) == before
    except FileNotFoundError:
        raise _gone(file) from None
    if not is_same:
        raise StaleImageError(_about(file, "it changed while it was read; index the images again"))


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


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _gone(file: ImageFile) -> StaleImageError:
    return StaleImageError(_about(file, "its file is gone; index the images again"))


def _refusal(file: ImageFile, reason: str) -> RefusedExamError:
    return RefusedExamError(_about(file, reason))


def _about(file: ImageFile, reason: str) -> str:
    return f"{file.name} ({file.view}): {reason}"
