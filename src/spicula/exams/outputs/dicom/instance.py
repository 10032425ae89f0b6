"""What makes an object one of its study, and the same object when it is made again: identity, time, UIDs, bytes."""

import copy
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import TYPE_CHECKING, Any

import spicula
from spicula.catalog.dicom_header import text
from spicula.errors import SpiculaError
from spicula.exams.outputs.dicom.study import Source, identity
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

_ROOT = uuid.UUID("7a3f2f0e-64b1-4b7c-9b0f-52d1f5f9c2a4")  # of all that is written here: names are hashed below it
#: Stands for the SOP instance UID until the content is known, which it follows from.
UNKNOWN_UID = "2.25.0"
#: What made the objects: General Equipment (PS3.3 C.7.5.1).
EQUIPMENT = {
    "manufacturer": "Spicula",
    "manufacturer_model_name": "Spicula",
    "software_versions": f"Spicula {spicula.__version__}",
}


def uid(*name: str) -> str:
    """Return the UID that belongs to a name: always the same, below 2.25 (UUID-derived, PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_ROOT, '/'.join(name)).int}"


def short(value: str) -> str:
    """Return a text as it fits into 64 characters (PS3.5 6.2, LO), and into as many bytes, which some count."""
    line = " ".join(value.replace("\\", "/").split())
    if len(line.encode()) <= 64:
        return line
    return line.encode()[:61].decode(errors="ignore") + "..."


def finish(instance: Any, sources: Sequence[Source], made: datetime) -> None:
    """Put an object into its study, and set every time and UID in it that highdicom took from the clock or by chance.

    Args:
        instance: made by highdicom from `study.stub`s; it is changed.
        sources: the images that it refers to; the study is that of the first.
        made: when the results were made, with its time zone.
    """
    for element in identity(sources[0]):
        instance[element.tag] = element
    when = made.astimezone(_zone(sources[0]))
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    for keyword in ("InstanceCreationDate", "ContentDate", "DateOfSecondaryCapture"):
        if keyword in instance:
            setattr(instance, keyword, date)
    for keyword in ("InstanceCreationTime", "ContentTime", "TimeOfSecondaryCapture"):
        if keyword in instance:
            setattr(instance, keyword, time)
    for item in instance.ContributingEquipmentSequence:
        item.ContributionDateTime = date + time
    _settle(instance, {source.uid("SOPInstanceUID"): source for source in sources}, str(instance.SeriesInstanceUID))


def _zone(source: Source) -> timezone:
    """Return the time zone of the study where its header says it (PS3.3 C.12.1.1.8), else UTC."""
    offset = identity(source).get("TimezoneOffsetFromUTC")
    if not offset:
        return UTC
    minutes = 60 * int(offset[1:3]) + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _settle(dataset: "pydicom.Dataset", sources: Mapping[str, Source], series: str) -> None:
    """Say of every reference what the image really is, and which of its frames is meant; name dimensions anew."""
    source = sources.get(str(dataset.get("ReferencedSOPInstanceUID", "")))
    if source is not None:
        dataset.ReferencedSOPClassUID = source.uid("SOPClassUID")
    if "DimensionOrganizationUID" in dataset:
        dataset.DimensionOrganizationUID = uid(series, "dimensions")
    for element in dataset:
        if element.VR != "SQ":
            continue
        if element.keyword == "SourceImageSequence":
            element.value = [_with_frame(item, sources) for item in element.value]
        for item in element.value:
            _settle(item, sources, series)


def _with_frame(reference: "pydicom.Dataset", sources: Mapping[str, Source]) -> "pydicom.Dataset":
    source = sources[str(reference.ReferencedSOPInstanceUID)]
    if source.frames == 1:
        return reference
    named = copy.deepcopy(reference)  # the same item stands in lists of whole instances
    named.ReferencedFrameNumber = source.image.frame + 1
    return named


def encode(instance: Any, what: str) -> bytes:
    """Return an object as the bytes of a file with an empty preamble, its SOP instance UID that of its content.

    Args:
        instance: finished; it gets its SOP instance UID.
        what: names it in the error.

    Raises:
        SpiculaError: something in it cannot be written.
    """
    content = hashlib.sha256(_bytes(instance, what)).hexdigest()
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = uid("instance", content)
    return _bytes(instance, what)


def _bytes(instance: Any, what: str) -> bytes:
    stream = BytesIO()
    with silence:
        try:
            instance.save_as(stream, enforce_file_format=True)
        except Exception as error:  # what pydicom raises is not documented, and its messages quote the header
            raise SpiculaError(f"{what} cannot be written as DICOM ({type(error).__name__})") from None
    return stream.getvalue()


def lossy(source: Source) -> str:
    """Return whether an image has lost anything to compression: "01" or "00"."""
    return "01" if text(source.header, "LossyImageCompression") == "01" else "00"
