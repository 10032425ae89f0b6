"""One DICOM file without what says who it is of: header by the basic profile, pixel data byte for byte."""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import __version__, files, headers
from spicula.deidentify.profile import EDITION, action_of
from spicula.deidentify.pseudonyms import Pseudonyms
from spicula.errors import RejectedImageError, SpiculaError
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom
    from pydicom.dataelem import DataElement

_PIXEL_GROUP = 0x7FE0
_PIXELS = (0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010)  # PS3.3 section C.7.6.3: where frames lie, and pixel data

# A value that says nothing, for each value representation (PS3.5 section 6.2) that the profile gives one.
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "ANONYMIZED"),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "urn:anonymized",
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
}
# PS3.16 CID 7050
_METHOD = ("113100", "DCM", "Basic Application Confidentiality Profile")


def deidentify_file(source: Path, target: Path, pseudonyms: Pseudonyms, patient: str | None = None) -> None:
    """Write a DICOM file again without what identifies a person: PS3.15, basic profile, no option.

    Names, ids, dates, times, descriptions, private attributes, and everything else that table E.1-1 lists go, at any
    depth, and with them overlays, curves, images inside of sequences, and any attribute of a name, a date or unknown
    bytes that the table does not list. UIDs are replaced by pseudonyms, the patient id too. The pixel data stay as they
    are, byte for byte and in their transfer syntax; the preamble is empty.

    Args:
        source: the file, which is only read.
        target: where to write, atomically.
        pseudonyms: of UIDs, and of the patient id.
        patient: what becomes the patient id; None: the pseudonym of the one in the header.

    Raises:
        RejectedImageError: it is not a DICOM image that can be read, or its header says that text is burned into its
            pixels or an overlay stored in their unused bits, which this profile does not clean.
        SpiculaError: the target or the key file cannot be written.
    """
    import pydicom

    headers.read_header(source)
    with silence:
        try:
            dataset = pydicom.dcmread(source, force=True)
            _refuse_nameless(dataset)
            _refuse_marked_pixels(dataset)
            syntax = _transfer_syntax(dataset)
            clean = _clean(dataset, pseudonyms)
            clean.update({tag: dataset[tag] for tag in _PIXELS if tag in dataset})
            _add_identity(clean, dataset, pseudonyms, patient)
            encoded = BytesIO()
            pydicom.dcmwrite(encoded, _with_meta(clean, syntax), enforce_file_format=True)
        except SpiculaError:
            raise
        except Exception as error:  # what pydicom raises is not documented, and its messages quote the header
            raise RejectedImageError(f"its header cannot be de-identified ({type(error).__name__})") from None
    files.write_bytes(target, encoded.getvalue())


def _refuse_nameless(dataset: "pydicom.Dataset") -> None:
    missing = [name for name in ("SOPClassUID", "SOPInstanceUID") if not dataset.get(name)]
    if missing:
        raise RejectedImageError(f"its header has no {' and no '.join(missing)}, which every DICOM file must have")


def _refuse_marked_pixels(dataset: "pydicom.Dataset") -> None:
    if "YES" in str(dataset.get("BurnedInAnnotation", "")).upper():  # of several values, any
        raise RejectedImageError(
            "its header says that text is burned into its pixels (Burned In Annotation), which may name the person"
        )
    for group in range(0x6000, 0x6100, 2):
        # an overlay without data of its own, at a bit of the pixels (PS3.3 section C.9.2, allowed until 2004)
        is_embedded = (group, 0x3000) not in dataset and (group, 0x0102) in dataset and dataset[group, 0x0102].value
        if is_embedded:
            raise RejectedImageError("an overlay lies in the bits of its pixels, which may name the person")


def _transfer_syntax(dataset: "pydicom.Dataset") -> str:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    given = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if given:
        return str(given)
    is_implicit, is_little = dataset.original_encoding
    return str(ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian)


def _clean(dataset: "pydicom.Dataset", pseudonyms: Pseudonyms) -> "pydicom.Dataset":
    """Return a copy of a data set (or an item of a sequence) that the profile was applied to."""
    import pydicom

    clean = pydicom.Dataset()
    for element in _elements(dataset):
        action = action_of(element.tag, element.VR)
        if action is None:
            clean[element.tag] = element
        elif action == "inside" and element.VR == "SQ":
            clean.add_new(element.tag, "SQ", [_clean(item, pseudonyms) for item in element.value or []])
        elif action == "empty":
            clean.add_new(element.tag, element.VR, [] if element.VR == "SQ" else None)
        elif action == "dummy" and element.VR in _DUMMIES:
            clean.add_new(element.tag, element.VR, _DUMMIES[element.VR] if not element.is_empty else None)
        elif action == "uid" and element.VR == "UI":
            clean.add_new(element.tag, "UI", _replaced(element, pseudonyms))
        # All else goes: "remove"; and sequences and bytes with a dummy (no attribute of an image has one).
    return clean


def _elements(dataset: "pydicom.Dataset") -> Iterator["DataElement"]:
    """Yield the elements that can be read, but pixel data; one that cannot might say anything, and goes."""
    for tag in sorted(dataset.keys()):
        if tag.group < 8 or tag.group == _PIXEL_GROUP:  # below 8: of messages, files and media (PS3.5 section 7.1)
            continue
        with suppress(Exception):  # pydicom converts on access, and what it raises is not documented
            yield dataset[tag]


def _replaced(element: "DataElement", pseudonyms: Pseudonyms) -> str | list[str]:
    """Return the pseudonyms of an element's UIDs; those that the standard itself defines are nobody's and stay."""
    from pydicom.multival import MultiValue
    from pydicom.uid import UID_dictionary

    if element.is_empty:
        return ""
    values = [str(value) for value in element.value] if isinstance(element.value, MultiValue) else [str(element.value)]
    made = [value if value in UID_dictionary else pseudonyms.of("uid", value) for value in values]
    return made if len(made) > 1 else made[0]


def _add_identity(
    clean: "pydicom.Dataset", dataset: "pydicom.Dataset", pseudonyms: Pseudonyms, patient: str | None
) -> None:
    """Give the file its pseudonyms, and say what was done (PS3.15 E.1.1)."""
    from pydicom import Dataset

    original = str(dataset.get("PatientID") or "")
    clean.PatientID = patient or (pseudonyms.of("patient", original) if original else "ANONYMIZED")
    clean.PatientName = clean.PatientID
    clean.PatientIdentityRemoved = "YES"
    clean.LongitudinalTemporalInformationModified = "REMOVED"  # PS3.15 E.2: no option keeps dates
    clean.DeidentificationMethod = f"DICOM PS3.15 {EDITION} basic profile, Spicula {__version__}"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _METHOD
    clean.DeidentificationMethodCodeSequence = [code]


def _with_meta(clean: "pydicom.Dataset", syntax: str) -> "pydicom.FileDataset":
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()  # nothing of the old one, which says where the file came from (PS3.10 section 7.1)
    meta.MediaStorageSOPClassUID = clean.SOPClassUID
    meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    return FileDataset("", clean, file_meta=meta, preamble=b"\0" * 128)
