"""The pixels of a DICOM file: one frame, decompressed; and `raw`, the stored values in one form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicula.errors import RejectedImageError
from spicula.headers import PixelElement, open_pixels
from spicula.imaging import codecs, overlays
from spicula.imaging.cells import Cells, as_unsigned
from spicula.imaging.fragments import read_frame as read_fragments

if TYPE_CHECKING:
    import pydicom

# What decoding needs, and nothing else: names and dates of a person are never even converted.
_TAGS: list[str | int] = [
    "TransferSyntaxUID",
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
    *overlays.TAGS,
]
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PHOTOMETRICS = (*_GREY, "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# PS3.5 annex A: implicit and explicit little endian, explicit big endian, deflated.
_IMPLICIT_LITTLE, _EXPLICIT_LITTLE, _EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_NATIVE = (_IMPLICIT_LITTLE, _EXPLICIT_LITTLE, _EXPLICIT_BIG, "1.2.840.10008.1.2.1.99")


@dataclass(frozen=True)
class Frame:
    """One decompressed frame.

    Attributes:
        dataset: the elements that were asked for; pydicom converts them on access, and may raise anything.
        photometric: Photometric Interpretation of the file.
        cells: the pixels of a grey frame, else None.
        colour: (H, W, 3) RGB, uint8 or uint16, of a colour or palette frame, else None.
        bits: stored bits a sample.
    """

    dataset: "pydicom.Dataset"
    photometric: str
    cells: Cells | None
    colour: np.ndarray | None
    bits: int


@dataclass(frozen=True)
class _Description:
    """The Image Pixel module (PS3.3 C.7.6.3) and the transfer syntax."""

    syntax: str
    rows: int
    columns: int
    samples: int
    allocated: int
    bits: int
    high: int
    is_signed: bool
    frames: int
    photometric: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows, self.columns, self.samples


def decode(path: Path, frame: int) -> tuple[np.ndarray, int]:
    """Return one frame of a DICOM file and its bits a sample.

    The values are those stored: neither the rescale slope and intercept nor a VOI window or table is applied
    (`imaging.display` does), and padding stays what it is. Signed values are raised by half their range, MONOCHROME1 is
    inverted within the stored bits, colour becomes RGB, 1-bit values become 0 and 255.

    Args:
        path: a file whose header passed `headers.read_header`.
        frame: which image of the file, from 0; one that the header has.

    Returns:
        (H, W) or (H, W, 3), uint8 or uint16, and the bits: values are within 0 to 2**bits - 1.

    Raises:
        RejectedImageError: with the reason.
    """
    found = read_frame(path, frame)
    if found.cells is not None:
        return as_unsigned(found.cells, found.photometric == "MONOCHROME1")
    assert found.colour is not None
    return found.colour, found.bits


def read_frame(path: Path, frame: int, tags: Sequence[str | int] = ()) -> Frame:
    """Return one frame, decompressed, and elements of the header.

    Args:
        path: a file whose header passed `headers.read_header`.
        frame: which image of the file, from 0; one that the header has.
        tags: keywords of the elements wanted besides those that decoding needs.

    Raises:
        RejectedImageError: with the reason.
    """
    with open_pixels(path, [*_TAGS, *tags]) as element:
        about = _describe(element.dataset)
        if element.length == 0:
            raise RejectedImageError("it has no pixel data")
        if (element.length is None) == (about.syntax in _NATIVE):
            raise RejectedImageError("its pixel data is compressed where its transfer syntax says native, or not so")
        if about.photometric in _GREY:
            cells = _native(element, about, frame) if about.syntax in _NATIVE else _decompressed(element, about, frame)
            return Frame(element.dataset, about.photometric, cells, None, about.bits)
        colour, bits = _colour(element, about, frame)
        return Frame(element.dataset, about.photometric, None, colour, bits)


def _describe(dataset: "pydicom.Dataset") -> _Description:
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in _PHOTOMETRICS:
        raise RejectedImageError("its photometric interpretation is not one we read")
    allocated = int(dataset.BitsAllocated)
    if allocated not in (1, 8, 16):
        raise RejectedImageError(f"it allocates {allocated} bits a sample; 1, 8 and 16 are read")
    bits = int(dataset.get("BitsStored") or allocated)
    high = dataset.get("HighBit")
    high = bits - 1 if high is None else int(high)
    if not bits - 1 <= high < allocated:  # PS3.5 section 8.1.1
        raise RejectedImageError(f"its high bit is {high} with {bits} of {allocated} bits stored, which cannot be")
    syntax = _transfer_syntax(dataset)
    if syntax not in _NATIVE and syntax != codecs.RLE:
        if not codecs.is_available(syntax):
            name = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else ""
            raise RejectedImageError(f"its transfer syntax {name} is not one we read")
        if high != bits - 1:
            raise RejectedImageError(f"its high bit is {high} with {bits} bits stored, which compression cannot keep")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != (1 if photometric in (*_GREY, "PALETTE COLOR") else 3):
        raise RejectedImageError(f"it is {photometric} with {samples} samples a pixel")
    return _Description(
        syntax=syntax,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=samples,
        allocated=allocated,
        bits=bits,
        high=high,
        is_signed=bool(dataset.get("PixelRepresentation")),
        frames=int(dataset.get("NumberOfFrames") or 1),
        photometric=str(photometric),
    )


def _transfer_syntax(dataset: "pydicom.Dataset") -> str:
    uid = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if uid:
        return str(uid)
    is_implicit, is_little = dataset.original_encoding
    return _IMPLICIT_LITTLE if is_implicit else _EXPLICIT_LITTLE if is_little else _EXPLICIT_BIG


def _native(element: PixelElement, about: _Description, frame: int) -> Cells:
    shift = about.high + 1 - about.bits
    if about.allocated == 1:
        array = _through_pydicom(element.dataset, _value(element), element.vr, about.syntax, frame)[0]
        return Cells(array, 1, 1)
    size = about.rows * about.columns * about.allocated // 8
    if about.syntax == _EXPLICIT_BIG and about.allocated == 8 and element.vr == "OW":
        data = _value(element)  # bytes of a word exchanged, also across the border of two frames (PS3.5 8.2)
        array = (
            np.frombuffer(data, ">u2", len(data) // 2).astype("<u2").view(np.uint8)[frame * size : (frame + 1) * size]
        )
        read = len(array)
    else:
        array = np.empty(about.rows * about.columns, "<u2" if about.allocated == 16 else np.uint8)
        element.stream.seek(frame * size, 1)
        read = element.stream.readinto(array.view(np.uint8).data)  # type: ignore[attr-defined]
    if read < size:
        raise RejectedImageError(f"frame {frame} of its pixel data has {read} of {size} bytes: cut short")
    if about.syntax == _EXPLICIT_BIG and about.allocated == 16:
        array.byteswap(inplace=True)
    return Cells(array.reshape(about.rows, about.columns), about.bits, about.bits, shift, about.is_signed)


def _decompressed(element: PixelElement, about: _Description, frame: int) -> Cells:
    if about.allocated == 1:
        raise RejectedImageError("it allocates 1 bit a sample and is compressed; 8 and 16 are read")
    data = read_fragments(element.stream, element.size, frame, about.frames)
    if about.syntax == codecs.RLE:
        array = codecs.decode_rle_grey(data, about.rows, about.columns, about.allocated // 8)
        return Cells(array, about.bits, about.bits, about.high + 1 - about.bits, about.is_signed)
    declared = codecs.check_frame(data, about.syntax, about.shape, about.is_signed)
    array = codecs.decode_grey(data, about.syntax)
    if array.shape != (about.rows, about.columns):
        raise RejectedImageError(f"its compressed frame decodes to {' x '.join(map(str, array.shape))} pixels")
    if overlays.are_embedded(element.dataset, about.bits, about.allocated):
        return Cells(array, about.bits, about.bits, 0, about.is_signed)
    width = _value_bits(about, declared, 8 * array.dtype.itemsize)
    return Cells(array, about.bits, width, 0, about.is_signed, others_ignored=False)


def _value_bits(about: _Description, declared: codecs.Declared, cell_bits: int) -> int:
    """Return how many bits of a decoded cell hold the value, and with it where the sign is.

    JPEG and JPEG-LS know no sign, and JPEG 2000 may not have been told of it: two's complement then has the bits
    stored. Where the codestream has fewer, `Cells.checked` lets only values pass that have no sign in either.
    """
    if declared.is_signed:  # the codec repeats the sign in the unused bits
        return cell_bits if about.is_signed else declared.precision
    return min(declared.precision, about.bits) if about.is_signed else cell_bits


def _colour(element: PixelElement, about: _Description, frame: int) -> tuple[np.ndarray, int]:
    dataset = element.dataset
    if about.high != about.bits - 1:
        raise RejectedImageError(
            f"its high bit is {about.high} with {about.bits} bits stored; in colour that is not read"
        )
    if about.syntax in _NATIVE:
        array, properties = _through_pydicom(dataset, _value(element), element.vr, about.syntax, frame)
    else:
        from pydicom.encaps import encapsulate

        data = read_fragments(element.stream, element.size, frame, about.frames)
        if about.syntax != codecs.RLE:
            codecs.check_frame(data, about.syntax, about.shape, about.is_signed)
        dataset.NumberOfFrames = 1
        array, properties = _through_pydicom(dataset, encapsulate([data]), "OB", about.syntax, 0)
    if properties["photometric_interpretation"] == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        array = apply_color_lut(array, dataset)
        return array, 8 * array.dtype.itemsize
    if array.dtype.kind == "i":
        raise RejectedImageError("it has signed colours, which DICOM forbids")
    if int(array.max()) > 2**about.bits - 1:
        raise RejectedImageError(f"it declares {about.bits} bits stored but holds values beyond them")
    return array.astype(np.uint8 if about.bits <= 8 else np.uint16, copy=False), about.bits


def _value(element: PixelElement) -> bytes:
    return element.stream.read(-1 if element.length is None else element.length)


def _through_pydicom(
    dataset: "pydicom.Dataset", data: bytes, vr: str, syntax: str, frame: int
) -> tuple[np.ndarray, dict[str, Any]]:
    from pydicom.pixels import get_decoder

    codecs.register()
    dataset.PixelData = data
    dataset["PixelData"].VR = vr
    plugin = "" if syntax in _NATIVE else "pydicom" if syntax == codecs.RLE else codecs.PLUGIN
    try:
        array, properties = get_decoder(syntax).as_array(dataset, index=frame, decoding_plugin=plugin)
    except (RuntimeError, ValueError) as error:
        raise RejectedImageError("its pixel data cannot be decoded: cut short or damaged") from error
    return array, dict(properties)
