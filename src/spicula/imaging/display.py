"""The pixels of an image as a workstation shows them: `display`, where `readers.read_pixels` is `raw`.

The grayscale pipeline of DICOM PS3.4 N.2: stored values go through the modality LUT, the VOI LUT and the presentation
LUT to P-values, which a display calibrated to PS3.14 shows in steps that look even. docs/pixels.md says it in full.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spicula.errors import RejectedImageError
from spicula.headers import Header
from spicula.imaging.cells import Cells, cells_in_use, look_up
from spicula.imaging.luts import FUNCTIONS, Window, read_table
from spicula.imaging.readers import Pixels, read_with

if TYPE_CHECKING:
    import pydicom

_TAGS = [
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


def read_display(path: Path, frame: int = 0, bits: Literal[8, 16] = 16, window: int | Window = 0) -> Pixels:
    """Decode one image of a file to what a workstation shows.

    Grey DICOM images go through the pipeline: Modality LUT or rescale slope and intercept (PS3.3 C.11.1); VOI LUT or
    window (C.11.2), or, where the file has neither, a linear window from the smallest to the largest value in use;
    inversion for MONOCHROME1 or the presentation LUT shape INVERSE (C.11.6, C.8.11.3). Padding (C.7.5.1.1.2) is black.
    Overlays are not drawn. Colour and other formats are stretched to the range of `bits`.

    Args:
        path: the file, which is only read.
        frame: which image, in files that hold several, from 0.
        bits: of the result, whose values use the whole range.
        window: which of the alternatives of the file, from 0: first its VOI LUTs, then its windows; or another window
            in their place, over modality values.

    Returns:
        (H, W) grey, from black to white, or (H, W, 3) RGB; uint8 or uint16 as `bits` says.

    Raises:
        RejectedImageError: as for `readers.read_pixels`; there is no such window; or what the header says about the
            grey values is not a number, contradicts itself, or is not of the standard.
    """

    def decode(path: Path, header: Header) -> tuple[np.ndarray, int]:
        from spicula.imaging import dicom, raster

        if header.kind != "dicom":
            array, stored = raster.decode(path, header.kind, frame)
            return _stretch(array, stored, bits), bits
        found = dicom.read_frame(path, frame, _TAGS)
        if found.cells is None:
            assert found.colour is not None
            return _stretch(found.colour, found.bits, bits), bits
        table = _table(found.dataset, found.cells.checked(), found.photometric == "MONOCHROME1", frame, window)
        return look_up(_levels(table, bits), found.cells.array, may_overwrite=True), bits

    return read_with(Path(path), frame, decode)


def _levels(brightness: np.ndarray, bits: int) -> np.ndarray:
    """Return brightness from 0 to 1 as whole numbers over the range of `bits`, rounded half up."""
    levels = np.floor(brightness * (2**bits - 1) + 0.5)
    return np.asarray(levels, np.uint8 if bits <= 8 else np.uint16)


def _stretch(array: np.ndarray, stored: int, bits: int) -> np.ndarray:
    table = _levels(np.minimum(np.arange(256**array.dtype.itemsize) / (2**stored - 1), 1), bits)
    return look_up(table, array.reshape(len(array), -1)).reshape(array.shape)


def _table(
    dataset: "pydicom.Dataset", cells: Cells, is_monochrome1: bool, frame: int, window: int | Window
) -> np.ndarray:
    """Return the brightness, 0 to 1, that each possible cell is shown with."""
    is_padding = _padding(dataset, cells)
    values, is_signed = _modality(dataset, cells, frame)
    brightness = window if isinstance(window, Window) else _voi(dataset, frame, window, is_signed)
    if brightness is None:
        brightness = _whole_range(values, cells, is_padding)
    shown = brightness(values)
    if is_monochrome1 or _is_inverse(dataset):
        shown = 1 - shown
    shown[is_padding] = 0
    return shown


def _modality(dataset: "pydicom.Dataset", cells: Cells, frame: int) -> tuple[np.ndarray, bool]:
    """Return the modality value of each possible cell, float64, and whether stored ones can give values below 0."""
    stored = cells.values()
    group = _functional_group(dataset, frame, "PixelValueTransformationSequence")
    tables = _get(group, "ModalityLUTSequence") or []
    if len(tables):
        table = read_table(tables[0], "Modality LUT", cells.is_signed, _is_little_endian(dataset))
        return table(stored).astype(np.float64), False
    slope = _number(group, "RescaleSlope", 1.0)
    intercept = _number(group, "RescaleIntercept", 0.0)
    values = slope * stored + intercept
    if slope == 0 or not np.isfinite(values).all():
        raise RejectedImageError(f"its rescale slope {slope:g} and intercept {intercept:g} give no values to show")
    return values, min(slope * cells.lowest, slope * cells.highest) + intercept < 0


def _voi(
    dataset: "pydicom.Dataset", frame: int, number: int, is_signed: bool
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the chosen VOI transformation, from modality values to brightness; None where the file has none."""
    group = _functional_group(dataset, frame, "FrameVOILUTSequence")
    tables = _get(group, "VOILUTSequence") or []
    centers, widths = _numbers(group, "WindowCenter"), _numbers(group, "WindowWidth")
    if len(centers) != len(widths):
        raise RejectedImageError(f"it has {len(centers)} window centres and {len(widths)} widths")
    count = len(tables) + len(centers)
    if not 0 <= number < max(count, 1):
        raise RejectedImageError(f"it has {count} VOI LUTs and windows, numbered from 0; {number} was asked for")
    if count == 0:
        return None
    if number < len(tables):
        table = read_table(tables[number], "VOI LUT", is_signed, _is_little_endian(dataset))
        return lambda values: table(values) / (2**table.bits - 1)
    function = str(_get(group, "VOILUTFunction") or "LINEAR")
    if function not in FUNCTIONS:
        raise RejectedImageError(f"its VOI LUT function is none of {', '.join(FUNCTIONS)}")
    center, width = centers[number - len(tables)], widths[number - len(tables)]
    # PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2
    if not math.isfinite(center + width) or width <= 0 or (function == "LINEAR" and width < 1):
        raise RejectedImageError(f"its window has the centre {center:g} and the width {width:g}, which show nothing")
    return Window(center, width, function)


def _whole_range(values: np.ndarray, cells: Cells, is_padding: np.ndarray) -> Window:
    """Return the linear window from the smallest to the largest value in use (PS3.3 C.11.2.1.2.1, note 4)."""
    used = values[cells_in_use(cells.array) & ~is_padding]
    if not used.size:
        return Window(0.5, 1)
    return Window((used.min() + used.max() + 1) / 2, used.max() - used.min() + 1)


def _is_inverse(dataset: "pydicom.Dataset") -> bool:
    shape = str(_get(dataset, "PresentationLUTShape") or "IDENTITY")
    if shape not in ("IDENTITY", "INVERSE"):
        raise RejectedImageError("its presentation LUT shape is neither IDENTITY nor INVERSE")
    return shape == "INVERSE"


def _padding(dataset: "pydicom.Dataset", cells: Cells) -> np.ndarray:
    """Return which of the possible cells are padding: a stored value, or a range whose ends stand in any order."""
    values = cells.values()
    limits = [_stored_number(dataset, "PixelPaddingValue", cells)]
    limits.append(_stored_number(dataset, "PixelPaddingRangeLimit", cells))
    known = [limit for limit in limits if limit is not None]
    if limits[0] is None:
        return np.zeros(len(values), bool)
    is_padding = (values >= min(known)) & (values <= max(known))
    if cells.shift == 0:  # some machines mark padding by a bit above those stored
        is_padding[np.array(known) % len(values)] = True
    return is_padding


def _stored_number(dataset: "pydicom.Dataset", keyword: str, cells: Cells) -> int | None:
    """Return an element in units of stored values; one of the wrong sign (VR) is taken modulo the size of a cell."""
    value = _get(dataset, keyword)
    if value is None or value == "":
        return None
    if not isinstance(value, int):
        raise RejectedImageError(f"its {keyword} is not one whole number")
    size = 1 << (8 * cells.array.dtype.itemsize)
    if -size // 2 <= value < 0 and not cells.is_signed:
        return value + size
    if cells.is_signed and size // 2 <= value < size:
        return value - size
    return value


def _functional_group(dataset: "pydicom.Dataset", frame: int, keyword: str) -> "pydicom.Dataset":
    """Return the data set that describes a frame: of an enhanced multi-frame image a macro (PS3.3 C.7.6.16)."""
    per_frame = _get(dataset, "PerFrameFunctionalGroupsSequence") or []
    shared = _get(dataset, "SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[frame : frame + 1], *shared[:1]):
        macro = _get(group, keyword)
        if macro:
            return macro[0]
    return dataset


def _is_little_endian(dataset: "pydicom.Dataset") -> bool:
    return bool(dataset.original_encoding[1])


def _get(dataset: "pydicom.Dataset", keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except Exception:  # pydicom converts on access; what it raises is not documented, and can quote the value
        raise RejectedImageError(f"its {keyword} cannot be read") from None


def _numbers(dataset: "pydicom.Dataset", keyword: str) -> list[float]:
    value = _get(dataset, keyword)
    if value is None or value == "":
        return []
    try:
        return [float(number) for number in (value if _is_many(value) else [value])]
    except (TypeError, ValueError):
        raise RejectedImageError(f"its {keyword} is not a number") from None


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str)


def _number(dataset: "pydicom.Dataset", keyword: str, default: float) -> float:
    numbers = _numbers(dataset, keyword)
    if len(numbers) > 1:
        raise RejectedImageError(f"its {keyword} has {len(numbers)} values; one is needed")
    return numbers[0] if numbers else default
