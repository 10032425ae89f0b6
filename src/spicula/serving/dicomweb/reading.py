"""What a DICOM file says of itself: its UIDs, what it can be found by, its header as DICOM JSON (PS3.18 annex F)."""

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import files
from spicula.errors import RejectedImageError
from spicula.headers.dicom import Source, parse_dicom
from spicula.headers.opening import opened
from spicula.serving.dicomweb import bulk
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom
    from pydicom.dataelem import RawDataElement

#: What instances can be searched by, with their tags; in a text, of which the longest have 64 characters a component.
KEYS: Mapping[str, str] = {
    "StudyInstanceUID": "0020000D",
    "StudyDate": "00080020",
    "StudyTime": "00080030",
    "StudyID": "00200010",
    "StudyDescription": "00081030",
    "AccessionNumber": "00080050",
    "ReferringPhysicianName": "00080090",
    "PatientName": "00100010",
    "PatientID": "00100020",
    "PatientBirthDate": "00100030",
    "PatientSex": "00100040",
    "SeriesInstanceUID": "0020000E",
    "SeriesNumber": "00200011",
    "SeriesDescription": "0008103E",
    "Modality": "00080060",
    "BodyPartExamined": "00180015",
    "PerformedProcedureStepStartDate": "00400244",
    "PerformedProcedureStepStartTime": "00400245",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "InstanceNumber": "00200013",
}
#: Values that are larger are not part of the header: it names the way to them (`bulk`). In bytes of base64.
_BULK_BYTES = 1024
_BULK = "bulk"
_UID_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MOST_UID = 64  # characters, PS3.5 section 9.1
_PIXELS = ((0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010))
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_HEAD = 132  # preamble and magic number (PS3.10 7.1)


@dataclass(frozen=True)
class Found:
    """A DICOM file that was read.

    Attributes:
        keys: value of each of `KEYS`; "" where there is none.
        header: the elements up to the pixel data, as DICOM JSON; large ones, and the pixels, with ways as in `bulk`.
        syntax: UID of its transfer syntax.
        content: SHA-256 over values and pixels: the same for a file that was only written anew on its way.
        view: "L-CC", "" where it is no mammogram, or its header names the view in another way.
    """

    keys: dict[str, str]
    header: dict[str, Any]
    syntax: str
    content: str
    view: str


def read(path: Path) -> Found:
    """Read the header of a DICOM file.

    Raises:
        RejectedImageError: it is none, malformed, cut short, without one of its UIDs, or begins as a program.
    """
    with opened(path) as stream:
        if stream.read(_HEAD)[-4:] != b"DICM":
            raise RejectedImageError("not a DICOM file with its file meta information")
        source = Source(stream, os.fstat(stream.fileno()).st_size)
        dataset, source = parse_dicom(source)
        meta = dataset.file_meta
        with silence:
            try:
                syntax = _uid(str(meta.get("TransferSyntaxUID", "")))
                header = _as_json(dataset)
            except RejectedImageError:
                raise
            except Exception as error:  # pydicom converts on access, and what it raises is not documented
                raise RejectedImageError("DICOM whose header cannot be read") from error
        pixels, pixels_vr = _pixels(source, dataset.original_encoding)
    if pixels_vr:
        header[bulk.PIXELS] = {"vr": pixels_vr, "BulkDataURI": bulk.PIXELS}
    keys = {keyword: _text(header.get(tag, {})) for keyword, tag in KEYS.items()}
    for keyword in _UID_KEYS:
        _uid(keys[keyword])
    content = files.sha256_json([_values(header), pixels])
    return Found(keys, header, syntax, content, _view(header))


def is_mammogram(keys: Mapping[str, str]) -> bool:
    """Whether an object is an image that may belong to an exam; what is made of exams is not (it is OT, SR, SEG)."""
    return keys["Modality"] == "MG"


def _as_json(dataset: "pydicom.Dataset") -> dict[str, Any]:
    from pydicom.dataelem import RawDataElement

    large = {}
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag, keep_deferred=True)  # else it is read now, and the stream moves
        if isinstance(raw, RawDataElement) and raw.value is None and raw.length:
            vr = _vr(raw)
            if vr != "SQ":
                large[f"{int(tag):08X}"] = {"vr": vr, "BulkDataURI": _BULK}
            del dataset[tag]  # too long to be read
    made = dataset.to_json_dict(
        bulk_data_threshold=_BULK_BYTES, bulk_data_element_handler=lambda _: _BULK, suppress_invalid_tags=True
    )
    cleaned: dict[str, Any] = bulk.with_ways(_clean(made) | large, _BULK)
    json.dumps(cleaned, allow_nan=False)
    return cleaned


def _vr(raw: "RawDataElement") -> str:
    """Return the value representation of an element that was not read; UN where only its content would tell."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    vr = raw.VR or (dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) else "UN")
    return vr if len(vr) == 2 else "UN"


def _values(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a header stays the same when it is written anew, in another encoding as well (PS3.5 annex A).

    With implicit VR, private elements have lost their types; others are unsigned or signed by what stands elsewhere.
    """
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    found = {}
    for tag, element in header.items():
        number = int(tag, 16)
        is_private_or_length = bool(number >> 16 & 1) or not number & 0xFFFF
        if is_private_or_length or not dictionary_has_tag(number) or " or " in dictionary_VR(number):
            continue
        if "Value" in element:
            found[tag] = [_values(one) if element["vr"] == "SQ" else one for one in element["Value"]]
    return found


def _clean(value: Any) -> Any:
    """Return a JSON value with null for what is no number, and text that can be encoded."""
    if isinstance(value, dict):
        return {key: _clean(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return value


def _pixels(source: Source, encoding: tuple[bool | None, bool | None]) -> tuple[str, str]:
    """Return the SHA-256 of the pixel data, and their value representation; see that all of it is there.

    The latter is "" where there are none, or floating point numbers, which are not given out by themselves.
    """
    implicit, little = encoding
    order = "<" if little else ">"
    head = source.stream.read(8 if implicit else 12)
    digest = hashlib.sha256()
    if not head:
        return digest.hexdigest(), ""
    if len(head) < (8 if implicit else 12) or struct.unpack(f"{order}HH", head[:4]) not in _PIXELS:
        raise RejectedImageError("DICOM with odd bytes after its header")
    begin, length = source.tell(), struct.unpack(f"{order}I", head[-4:])[0]
    if length == _UNDEFINED:
        _check_fragments(source)
        length = source.tell() - begin
    elif begin + length > source.size:
        raise RejectedImageError("DICOM whose pixel data is cut short")
    source.seek(begin)
    while length > 0 and (piece := source.stream.read(min(length, 2**20))):
        digest.update(piece)
        length -= len(piece)
    is_whole = struct.unpack(f"{order}HH", head[:4]) == _PIXELS[-1]
    vr = "OW" if implicit else head[4:6].decode("latin-1")
    return digest.hexdigest(), vr if is_whole and vr in ("OB", "OW", "UN") else ""


def _check_fragments(source: Source) -> None:
    """See that compressed pixel data has its end (PS3.5 A.4)."""
    while True:
        head = source.stream.read(8)
        if len(head) < 8:
            raise RejectedImageError("DICOM whose compressed pixel data is cut short")
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == _END:
            return
        if (group, element) != _ITEM or source.tell() + length > source.size:
            raise RejectedImageError("DICOM whose compressed pixel data is damaged or cut short")
        source.seek(length, os.SEEK_CUR)


def _text(element: Mapping[str, Any]) -> str:
    """Return the first value of an element of DICOM JSON as text."""
    values = element.get("Value") or [""]
    first = values[0]
    if isinstance(first, dict):  # a person's name
        first = first.get("Alphabetic", "")
    return "" if first is None else str(first)


def _uid(value: str) -> str:
    if not value or len(value) > _MOST_UID or not value.isascii() or not value.replace(".", "").isdigit():
        raise RejectedImageError("DICOM without its UIDs, or with odd ones")
    return value


def _view(header: Mapping[str, Any]) -> str:
    side = _text(header.get("00200062", {})) or _text(header.get("00200060", {}))
    angle = _text(header.get("00185101", {}))
    is_processed = _text(header.get("00080068", {})) != "FOR PROCESSING"
    is_standard = is_processed and side in ("L", "R") and angle in ("CC", "MLO")
    return f"{side}-{angle}" if is_standard and _text(header.get("00080060", {})) == "MG" else ""
