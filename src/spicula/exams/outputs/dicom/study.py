"""The study that results are put beside: its images' headers, and who and what it is of.

Patient data are read here and written into the DICOM objects of the same study, and go nowhere else.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import headers
from spicula.catalog.dicom_header import is_uid, sequence, text, texts
from spicula.errors import RejectedImageError, SpiculaError, UsageError
from spicula.exams.outputs.dicom import codes
from spicula.exams.outputs.dicom.results import Place, Results
from spicula.exams.reading import StaleImageError, local_file
from spicula.exams.types import ImageFile
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

# What tells a patient and a study apart (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), type 2 attributes first: they are written
# empty where the source has none. The rest of these modules is not needed to find the study, and stays where it is.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_TYPE_3 = (
    "IssuerOfPatientID",
    "PatientAge",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "TimezoneOffsetFromUTC",
)
# Of values that must have a form (PS3.5 section 6.2, PS3.3 C.7.1.1); one that has another is left out.
_FORMS = {
    "PatientBirthDate": r"\d{8}",
    "PatientSex": r"[MFO]",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientIdentityRemoved": r"YES|NO",
    "TimezoneOffsetFromUTC": r"[+-](0\d|1[0-4])[0-5]\d",
}
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True)
class Source:
    """An image of the exam, in its study.

    Attributes:
        image: as the ledger has it.
        header: every element before the pixel data.
        rows, columns: of the image, in pixels.
        frames: images in its file.
        what: names it in messages. Without its path: folders at times carry names of persons.
        place: where its breast is; None where no stage has told.
    """

    image: ImageFile
    header: "pydicom.Dataset"
    rows: int
    columns: int
    frames: int
    what: str
    place: Place | None

    @property
    def side(self) -> str:
        """L or R."""
        return self.image.view[0]

    @property
    def projection(self) -> str:
        """CC or MLO."""
        return self.image.view[2:]

    def uid(self, keyword: str) -> str:
        """Return one of the four UIDs that every source has."""
        return str(text(self.header, keyword))


def read_sources(results: Results) -> list[Source]:
    """Read the headers of an exam's images.

    Raises:
        UsageError: an image is no DICOM file.
        SpiculaError: a file cannot be read or is not the one that the results are of; its header has not the UIDs that
            every DICOM file has; or the images are of several studies or patients.
    """
    sources = [_read(results.exam_id, image, results.places.get(image.name)) for image in results.images]
    for keyword, what in (("StudyInstanceUID", "studies"), ("PatientID", "patients")):
        if len({text(source.header, keyword) for source in sources}) > 1:
            raise SpiculaError(
                f"exam {results.exam_id}: its images are of several {what} by their headers;"
                " results are put beside one study: make it an exam for each"
            )
    return sources


def _read(exam_id: str, image: ImageFile, place: Place | None) -> Source:
    what = f"exam {exam_id}: its image {image.name} ({image.view})"
    with opened(image, what) as path:
        declared = headers.read_header(path)
        if declared.kind != "dicom":
            raise UsageError(
                f"{what} is no DICOM file, so that there is no study to put results beside;"
                " take the exam from DICOM files, or its results as a report or a table"
            )
        header = headers.read_dicom(path)
    missing = [keyword for keyword in _NEEDED if not is_uid(text(header, keyword) or "")]
    if missing:
        raise SpiculaError(f"{what} has no valid {', '.join(missing)} in its header, which results must refer to")
    if not 0 <= image.frame < declared.frames:
        raise SpiculaError(f"{what} has {declared.frames} frame(s), numbered from 0, and no frame {image.frame}")
    if place is not None and not _is_inside(place.window, declared.height, declared.width):
        raise SpiculaError(f"{what} has {declared.height} x {declared.width} pixels, and its crop lies outside of them")
    return Source(image, header, declared.height, declared.width, declared.frames, what, place)


@contextmanager
def opened(image: ImageFile, what: str) -> Iterator[Path]:
    """Yield a file of this machine with the content of an image, see `exams.reading.local_file`.

    Raises:
        SpiculaError: it is gone, has changed since, or cannot be read, also within the block.
    """
    try:
        with local_file(image) as path:
            yield path
    except RejectedImageError as error:
        raise SpiculaError(f"{what} cannot be read: {error}") from None
    except StaleImageError:
        raise SpiculaError(
            f"{what} cannot be read: it is gone, or has changed since its results were made; run the exam again"
        ) from None
    except OSError as error:
        raise SpiculaError(f"{what} cannot be read: {error.strerror or error}") from None


def _is_inside(window: tuple[int, int, int, int], height: int, width: int) -> bool:
    top, bottom, left, right = window
    return 0 <= top < bottom <= height and 0 <= left < right <= width


def stub(source: Source) -> "pydicom.Dataset":
    """Return what highdicom is told of an image: no patient data, so that none can come into its messages.

    It claims to be a mammogram of one frame without a frame of reference, which is what highdicom can derive from:
    mammograms are projections and have no place in space. `instance.finish` says what the image really is.
    """
    from pydicom import Dataset
    from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

    dataset = Dataset()
    for keyword in _TYPE_2:
        setattr(dataset, keyword, None)
    for keyword in _NEEDED:
        setattr(dataset, keyword, source.uid(keyword))
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = source.rows, source.columns
    if text(source.header, "LossyImageCompression") == "01":
        dataset.LossyImageCompression = "01"
    return dataset


def identity(source: Source) -> "pydicom.Dataset":
    """Return the elements that say whose study it is, as the source has them; text is written in UTF-8.

    What is missing, or has not the form that the standard asks for, is empty or left out; nothing is refused.
    """
    from pydicom import Dataset

    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = source.uid("StudyInstanceUID")
    with silence:  # pydicom warns of values that are too long, and quotes them
        for keyword in (*_TYPE_2, *_TYPE_3):
            value = _value(source.header, keyword)
            if value or keyword in _TYPE_2:
                setattr(dataset, keyword, value or None)
        removal = [_coded(item) for item in sequence(source.header, "DeidentificationMethodCodeSequence")]
    if any(removal):
        dataset.DeidentificationMethodCodeSequence = [item for item in removal if item]
    return dataset


def _value(header: "pydicom.Dataset", keyword: str) -> str:
    """Return a value as text, several ones with backslashes between them, without control characters."""
    values = texts(header, keyword)
    joined = "\\".join("".join(letter for letter in value if letter.isprintable()) for value in values)
    if keyword in _FORMS:
        return joined if re.fullmatch(_FORMS[keyword], joined, re.ASCII) else ""
    return joined.encode("utf-8", "replace").decode()


def _coded(item: "pydicom.Dataset") -> Any:
    """Return an item of a code sequence with its three elements alone; None where it has not all of them."""
    from pydicom import Dataset

    kept = Dataset()
    for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
        value = text(item, keyword)
        if not value:
            return None
        setattr(kept, keyword, value)
    return kept


def orientation(source: Source) -> list[str] | None:
    """Return towards which parts of the patient the rows and the columns run, or None where that is not known.

    A header that contradicts what was found in the pixels is not believed: rows run to the front of the patient (A)
    where the breast points to the right, and else to the back (P) (PS3.3 C.7.6.1.1.1).
    """
    given = [value.upper() for value in texts(source.header, "PatientOrientation")]
    if len(given) != 2 or not all(re.fullmatch(r"[APLRHF]{1,3}", value) for value in given):
        return None
    mirrored = source.place.mirrored if source.place else bool(source.image.mirrored)
    points_right = (source.side == "L") != mirrored
    expected = "A" if points_right else "P"
    return given if given[0].startswith(expected) else None


def anatomy(side: str) -> "pydicom.Dataset":
    """Return an item of AnatomicRegionSequence: the left or the right breast."""
    from highdicom.sr.coding import CodedConcept

    region = CodedConcept.from_code(codes.BREAST)
    region.AnatomicRegionModifierSequence = [CodedConcept.from_code(codes.SIDES[side])]
    return region
