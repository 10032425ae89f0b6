"""The pixels of a DICOM file, as they are stored, in one form: unsigned, MONOCHROME2 or RGB."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicula.errors import RejectedImageError
from spicula.imaging import codecs

if TYPE_CHECKING:
    import pydicom

# What decoding needs, and nothing else: names and dates of a person are never even converted.
_TAGS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
]
_PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_RLE = "1.2.840.10008.1.2.5"
# PS3.5 annex A: implicit and explicit little endian, explicit big endian, deflated.
_IMPLICIT_LITTLE, _EXPLICIT_LITTLE, _EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def decode(path: Path, frame: int) -> tuple[np.ndarray, int]:
    """Return one frame of a DICOM file and its bits a sample.

    The values are those stored: neither the rescale slope and intercept nor a VOI window or table is applied, for they
    differ between machines of one study (`Preprocess` rescales by the values themselves). Signed values are raised by
    half their range, MONOCHROME1 is inverted within the stored bits, colour becomes RGB, 1-bit values become 0 and 255.

    Args:
        path: a file whose header passed `headers.read_header`.
        frame: which image of the file, from 0; one that the header has.

    Returns:
        (H, W) or (H, W, 3), uint8 or uint16, and the bits: values are within 0 to 2**bits - 1.

    Raises:
        RejectedImageError: with the reason.
    """
    import pydicom

    # `force` also reads data sets without the preamble of PS3.10; the header was checked to be one or the other.
    dataset = pydicom.dcmread(path, force=True, specific_tags=_TAGS)
    if "PixelData" not in dataset or not dataset.PixelData:
        raise RejectedImageError("it has no pixel data, or ends within it")
    _check_description(dataset)
    array, photometric, bits = _decode_frame(dataset, frame)
    if photometric == "PALETTE COLOR":
        return _through_palette(array, dataset)
    return _unsigned(array, bits, photometric)


def _check_description(dataset: "pydicom.Dataset") -> None:
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in _PHOTOMETRICS:
        raise RejectedImageError(f"its photometric interpretation {photometric} is not one we read")
    if dataset.BitsAllocated not in (1, 8, 16):
        raise RejectedImageError(f"it allocates {dataset.BitsAllocated} bits a sample; 1, 8 and 16 are read")
    high = dataset.get("HighBit", dataset.BitsStored - 1)
    if high != dataset.BitsStored - 1:  # PS3.5 section 8.1.1
        raise RejectedImageError(f"its high bit is {high} with {dataset.BitsStored} bits stored, which DICOM forbids")


def _decode_frame(dataset: "pydicom.Dataset", frame: int) -> tuple[np.ndarray, str, int]:
    from pydicom.pixels import get_decoder

    codecs.register()
    uid = _transfer_syntax(dataset)
    try:
        decoder = get_decoder(uid)
    except NotImplementedError:
        raise RejectedImageError(f"its transfer syntax {uid} is not one we read") from None
    plugin = ""
    if decoder.is_encapsulated:
        plugin = "pydicom" if uid == _RLE else codecs.PLUGIN
        if plugin not in decoder.available_plugins:
            raise RejectedImageError(f"its transfer syntax {uid} is not one we read")
    if plugin == codecs.PLUGIN:
        shape = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
        codecs.check_frame(_codestream(dataset, frame), uid, shape, bool(dataset.PixelRepresentation))
    try:
        array, properties = decoder.as_array(dataset, index=frame, decoding_plugin=plugin)
    except (RuntimeError, ValueError) as error:
        raise RejectedImageError(f"its pixel data cannot be decoded: {_reason(error)}") from error
    return array, str(properties["photometric_interpretation"]), int(dataset.BitsStored)


def _transfer_syntax(dataset: "pydicom.Dataset") -> str:
    uid = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if uid:
        return str(uid)
    is_implicit, is_little = dataset.original_encoding
    return _IMPLICIT_LITTLE if is_implicit else _EXPLICIT_LITTLE if is_little else _EXPLICIT_BIG


def _codestream(dataset: "pydicom.Dataset", frame: int) -> bytes:
    from pydicom.encaps import get_frame

    offsets: Any = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return bytes(get_frame(dataset.PixelData, frame, number_of_frames=frames, extended_offsets=offsets))


def _through_palette(array: np.ndarray, dataset: "pydicom.Dataset") -> tuple[np.ndarray, int]:
    from pydicom.pixels import apply_color_lut

    coloured = apply_color_lut(array, dataset)
    return coloured, 8 * coloured.dtype.itemsize


def _unsigned(array: np.ndarray, bits: int, photometric: str) -> tuple[np.ndarray, int]:
    top = 2**bits - 1
    if array.dtype.kind == "i":
        array = array.astype(np.int32) + 2 ** (bits - 1)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > top:
        raise RejectedImageError(f"it declares {bits} bits stored but holds values beyond them")
    if photometric == "MONOCHROME1":  # PS3.3 C.7.6.3.1.2: the lowest value is white
        array = top - array
    if bits == 1:
        return array.astype(np.uint8) * np.uint8(255), 8
    return array.astype(np.uint8 if bits <= 8 else np.uint16), bits


def _reason(error: Exception) -> str:
    """Return what the decoder said, without pydicom's preface about plugins."""
    return str(error).replace("\n", " ").rsplit(f"{codecs.PLUGIN}: ", maxsplit=1)[-1].strip()
