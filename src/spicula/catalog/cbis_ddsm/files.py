"""The files of CBIS-DDSM, found by what their headers say: in every folder layout the same.

The study and series UIDs of the tables are those of the headers. Folder and file names differ between the tables, the
archive's own program and other sources, and numbers in names (`000000.dcm`, `1-1.dcm`) do not agree; none is relied on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spicula.catalog.cbis_ddsm.tables import Lesion, Series, View
from spicula.catalog.dicom_header import equipment, read_many, read_view, size_of, text
from spicula.catalog.tree import Rejection, reject

if TYPE_CHECKING:
    import pydicom

Kind = Literal["full", "crop", "mask"]

#: The archive's series descriptions.
KINDS: Mapping[str, Kind] = {"full mammogram images": "full", "cropped images": "crop", "ROI mask images": "mask"}

#: So many files below one folder may be rejected for the same reason in rows of their own; more become one row.
MOST_ALIKE = 20

# The patient id of a file is a case name, for part of the test set without its beginning and with a file's ending:
# "Mass-Training_P_00001_LEFT_CC_1", "P_00038_LEFT_CC_1.dcm".
_PATIENT_ID = re.compile(r"(?:\w+-\w+?_)?(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(?:_(\d+))?(?:\.dcm)?")


@dataclass(frozen=True)
class Wanted:
    """What the tables say of a series.

    Attributes:
        study: the UID of its study.
        view: whose picture it is.
        number: of the lesion; None for the full mammogram.
    """

    study: str
    view: View
    number: int | None


@dataclass(frozen=True)
class File:
    """What the header of a file of the archive says.

    Attributes:
        path: relative to the root.
        instance: its SOP Instance UID.
        kind: what its series description calls it; None where it has none of the archive's.
        width: columns, in pixels; None where it has none.
        height: rows, in pixels.
        laterality: L or R; None where the header names no side.
        view: CC or MLO; None where the header names neither.
        flags: of `spicula.index.FLAGS`.
        columns: of the Index: modality, photometric, pixel_spacing_mm, manufacturer, model, age.
    """

    path: str
    instance: str
    kind: Kind | None
    width: int | None
    height: int | None
    laterality: str | None
    view: str | None
    flags: tuple[str, ...]
    columns: Mapping[str, Any]

    def has_size_of(self, other: "File") -> bool:
        """Whether both have the same width and height."""
        return self.width is not None and (self.width, self.height) == (other.width, other.height)


def wanted(lesions: Iterable[Lesion]) -> dict[str, Wanted]:
    """Return what the tables say of each series, by its UID."""
    found: dict[str, Wanted] = {}
    for lesion in lesions:
        found[lesion.image.series] = Wanted(lesion.image.study, lesion.view, None)
        found |= {place.series: Wanted(place.study, lesion.view, lesion.number) for place in lesion.rois}
    return found


def gather(
    root: Path, paths: Iterable[str], series: Mapping[str, Wanted]
) -> tuple[dict[str, list[File]], list[Rejection]]:
    """Read the header of every file, and sort the files by series.

    Args:
        root: the archive.
        paths: of all files that could be images, relative to the root, sorted.
        series: what the tables name.

    Returns:
        For each series its files in order of their paths, one of each instance; and the files that no table names,
        copies, and what cannot be read.
    """
    found: dict[str, list[File]] = {}
    known: dict[str, str] = {}
    rejected: list[Rejection] = []
    for path, header in read_many(root, list(paths)):
        problem = header if isinstance(header, str) else ""
        if not isinstance(header, str):
            place = Series(text(header, "StudyInstanceUID") or "", text(header, "SeriesInstanceUID") or "")
            problem = _problem(header, place, series.get(place.series), known)
            if not problem:
                file = _file(path, header)
                known[file.instance] = path
                found.setdefault(place.series, []).append(file)
        if problem:
            rejected.append(reject(path, problem))
    return found, together(rejected)


def together(rejected: Iterable[Rejection]) -> list[Rejection]:
    """Put rows of the same reason below the same top folder together where they are more than `MOST_ALIKE`."""
    alike: dict[tuple[str, str], list[Rejection]] = {}
    for row in rejected:
        alike.setdefault((row["path"].partition("/")[0], row["reason"]), []).append(row)
    kept = []
    for (top, reason), rows in alike.items():
        if len(rows) <= MOST_ALIKE:
            kept += rows
        else:
            kept.append(reject(top, f"{len(rows)} files below: {reason}; the first is {rows[0]['path']}"))
    return kept


def _problem(header: "pydicom.Dataset", place: Series, says: Wanted | None, known: Mapping[str, str]) -> str:
    """Return why a file is none that the tables name, or nothing."""
    if says is None:
        return "DICOM of a series that no table names"
    if place.study != says.study:
        return "its series is one of the tables, but its study is not the one that they name for it"
    # Whose picture the header says it is. A patient id in another form says nothing: ids are replaced at times.
    name = _PATIENT_ID.fullmatch(text(header, "PatientID") or "")
    if name:
        view = View(name[1], name[2][0], name[3])
        if (view, int(name[4]) if name[4] else None) != (says.view, says.number):
            return "its patient id names another case than the tables do for its series"
    instance = text(header, "SOPInstanceUID")
    if not instance:
        return "has no SOPInstanceUID"
    if instance in known:
        return "a copy of an image that is there in another place"
    return ""


def _file(path: str, header: "pydicom.Dataset") -> File:
    view = read_view(header)
    width, height = size_of(header)
    # The archive writes the direction of the view where DICOM has the way in which the picture lies.
    direction = view.view or text(header, "PatientOrientation")
    return File(
        path=path,
        instance=text(header, "SOPInstanceUID") or "",
        kind=KINDS.get(text(header, "SeriesDescription") or ""),
        width=width,
        height=height,
        laterality=view.laterality,
        view=direction if direction in ("CC", "MLO") else None,
        flags=tuple(view.flags),
        columns=equipment(header),
    )
