"""Which DICOM objects are mammograms, and why the others are not."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spicula.catalog import view_codes
from spicula.catalog.dicom_header import read_view, sequence, text

if TYPE_CHECKING:
    import pydicom

#: PS3.6, table A-1: the classes that are mammography whatever the modality says.
MAMMOGRAPHY_CLASSES = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.1.2",  # Digital Mammography X-Ray Image Storage - For Presentation
        "1.2.840.10008.5.1.4.1.1.1.2.1",  # Digital Mammography X-Ray Image Storage - For Processing
        "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis Image Storage
        "1.2.840.10008.5.1.4.1.1.13.1.4",  # Breast Projection X-Ray Image Storage - For Presentation
        "1.2.840.10008.5.1.4.1.1.13.1.5",  # Breast Projection X-Ray Image Storage - For Processing
    )
)
#: X-ray pictures, which may be of a breast: mammography, computed and digital radiography, film, other.
RADIOGRAPHS = ("MG", "CR", "DX", "RG", "OT")

_ROOT = "1.2.840.10008.5.1.4.1.1."
# what goes by class, the first that fits: the class below the root, and what it is
_NO_IMAGES: Mapping[str, str] = {
    r"88\.50": "a report of computer-aided detection, not an image",
    r"88\..*": "a structured report, not an image",
    r"11\..*": "a presentation state, not an image",
    r"66\.4": "a segmentation, not a mammogram",
    r"66(\..*)?": "raw data or a derived object, not an image",
    r"104\..*": "an encapsulated document, not an image",
    r"9\..*": "a waveform, not an image",
    r"481\..*": "an object of radiotherapy, not a mammogram",
}
_SECONDARY_CAPTURES = re.compile(r"7(\.[1-4])?")
# PS3.3 C.8.6.1: of conversion types, the one that keeps the picture that X-rays made
_DIGITISED_FILM = "DF"
# Views that only breasts have; CC and ML are codes of other regions as well (CID 4010).
_VIEWS_OF_BREASTS = frozenset(("MLO", "LMO", "SIO", "ISO", "XCCL", "XCCM", "XCC"))


def problem(header: "pydicom.Dataset") -> str | None:
    """Return why a DICOM object is no mammogram; None when it is one.

    A secondary capture is one only when it is a digitised film of a breast. Another radiograph (Modality CR, DX, RG or
    OT) is one when region, body part, positioner or view say breast.
    """
    of_class = text(header, "SOPClassUID") or ""
    reason = _no_image(of_class)
    if reason is None and text(header, "QualityControlImage") == "YES":
        reason = "a quality control image, of no person"
    if reason is None and of_class not in MAMMOGRAPHY_CLASSES:
        reason = _other_radiograph(of_class, header)
    return reason


def _no_image(of_class: str) -> str | None:
    if of_class == "1.2.840.10008.1.3.10":
        return "a DICOMDIR under another name"
    tail = of_class.removeprefix(_ROOT)
    return next((reason for pattern, reason in _NO_IMAGES.items() if re.fullmatch(pattern, tail)), None)


def _other_radiograph(of_class: str, header: "pydicom.Dataset") -> str | None:
    """Return why an image of another class is no mammogram."""
    modality = text(header, "Modality") or ""
    if modality not in RADIOGRAPHS:
        shown = modality if re.fullmatch(r"[A-Z0-9]{1,16}", modality) else "missing or odd"
        return f"not mammography: its Modality is {shown}"
    is_capture = _SECONDARY_CAPTURES.fullmatch(of_class.removeprefix(_ROOT))
    if is_capture and text(header, "ConversionType") != _DIGITISED_FILM:
        return "a secondary capture, not a picture taken with X-rays"
    if modality != "MG" and not _says_breast(header):
        return f"not mammography: its Modality is {modality}, and nothing says that it shows a breast"
    return None


def _says_breast(header: "pydicom.Dataset") -> bool:
    part = (text(header, "BodyPartExamined") or "").upper()
    regions = {text(item, "CodeValue") for item in sequence(header, "AnatomicRegionSequence")}
    return (
        part in ("BREAST", "MAMMA", "MAMMOGRAPHY")
        or bool(regions & view_codes.BREASTS)
        or text(header, "PositionerType") == "MAMMOGRAPHIC"
        or read_view(header).view in _VIEWS_OF_BREASTS
    )
