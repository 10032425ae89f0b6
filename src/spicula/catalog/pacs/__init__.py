"""DICOM: any folder or DICOMDIR of mammograms, as a picture archive (PACS) exports them."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spicula import files, headers, index
from spicula.catalog import choices
from spicula.catalog.dicom_header import equipment, is_uid, read_many, read_view, text
from spicula.catalog.pacs import dicomdir, mammograms
from spicula.catalog.pacs import labels as given_labels
from spicula.catalog.tree import Rejection, is_document, is_text, reject, rejected_table, walk
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import RejectedImageError, UsageError

if TYPE_CHECKING:
    import pydicom

Ids = Literal["hashed", "as-is"]
IDS = ("hashed", "as-is")

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")


@dataclass
class _Export:
    """What was gathered so far."""

    ids: Ids
    labels: given_labels.Labels | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)  # SOP instance UID -> path
    issuers: dict[str, set[str]] = field(default_factory=dict)  # PatientID -> issuers of it
    patients: dict[str, str | None] = field(default_factory=dict)  # study -> patient_id of its first image


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read every mammogram below a folder from its DICOM header.

    Raises:
        UsageError: an option is wrong, or the table of labels cannot be used.
    """
    ids = options.get("ids", "hashed")
    if ids not in IDS:
        raise UsageError(f"dicom: ids is {ids!r}, not one of {', '.join(IDS)}")
    table, columns = options.get("labels"), choices.columns(DATASET.name, options.get("columns"))
    if table is None and (columns is not None or options.get("positive") is not None):
        raise UsageError("dicom: the options columns and positive need the option labels, the CSV file")
    export = _Export(ids, None if table is None else given_labels.read(table, columns))
    paths, export.rejected = _files(folder)
    for path, header in read_many(folder, paths):
        problem = header if isinstance(header, str) else _add(folder, path, header, export)
        if problem:
            export.rejected.append(reject(path, problem))
    _report_issuers(export)
    if export.labels:
        export.rejected += export.labels.rejected + export.labels.unused()
    is_positive = choices.positive_rule(DATASET.name, export.rows, options.get("positive"))
    for row in export.rows:
        row["target"] = None if row["label"] is None else int(is_positive(row["label"]))
    return Reading(index.from_rows(export.rows, folder), rejected_table(export.rejected))


def read_file(folder: Path, path: str, header: "pydicom.Dataset") -> tuple[list[dict[str, Any]], list[str]]:
    """Return what one file says by itself, for callers that read some files of a folder only; patients are hashed.

    Args:
        folder: the root.
        path: of the file, relative to it.
        header: of the file, as `headers.read_dicom` returns it.

    Returns:
        Its rows of the Index, one a frame, and reasons: why it has none, or what is odd about them.
    """
    export = _Export("hashed", None)
    problem = _add(folder, path, header, export)
    reasons = [rejection["reason"] for rejection in export.rejected]
    return export.rows, reasons + ([problem] if problem else [])


def _files(folder: Path) -> tuple[list[str], list[Rejection]]:
    """Return the files to read; archives and names that are no text are reported, documents passed over."""
    paths, rejected = [], []
    for path in walk(folder):
        if not is_text(path):
            rejected.append(reject(path, "the name is not in UTF-8"))
        elif path.lower().endswith(_ARCHIVES):
            rejected.append(reject(path, "an archive; name it with --from to index what it holds"))
        elif not is_document(path):
            paths.append(path)
    selected, problems = dicomdir.select(folder, paths)
    return selected, rejected + problems


def _add(folder: Path, path: str, header: "pydicom.Dataset", export: _Export) -> str | None:
    """Add the rows of one file, one a frame; return what is wrong with it, or None."""
    problem = mammograms.problem(header)
    if problem:
        return problem
    uid = text(header, "SOPInstanceUID") or ""
    if not is_uid(uid):
        return "has no valid SOPInstanceUID"
    if "Rows" not in header or "Columns" not in header:
        return "a DICOM file without an image (no Rows or Columns)"
    frames = _frames(header)
    if frames is None:
        return f"declares no number of frames from 1 to {headers.MAX_FRAMES}"
    known = export.paths.get(uid)
    if known is not None and not _gives_way(folder, known, export):
        same = files.sha256_file(folder / path) == files.sha256_file(folder / known)
        what = "a copy of" if same else "has the SOPInstanceUID but not the content of"
        return f"{what} {known}, which is indexed"
    export.paths[uid] = path
    row = _row(path, uid, header, export)
    ids = [uid] + [f"{uid}#{frame}" for frame in range(1, frames)]
    export.rows += [{**row, "image_id": image_id, "frame": frame} for frame, image_id in enumerate(ids)]
    return None


def _gives_way(folder: Path, known: str, export: _Export) -> bool:
    """Take back an image that cannot be used, such as the beginning of a file, now that there is another of its UID."""
    try:
        headers.read_header(folder / known)
    except RejectedImageError as error:
        export.rows = [row for row in export.rows if row["path"] != known]
        export.rejected.append(reject(known, str(error)))
        return True
    return False


def _frames(header: "pydicom.Dataset") -> int | None:
    value = text(header, "NumberOfFrames") or "1"
    frames = int(value) if re.fullmatch(r"\d{1,6}", value, re.ASCII) else 0
    return frames if 1 <= frames <= headers.MAX_FRAMES else None


def _row(path: str, uid: str, header: "pydicom.Dataset", export: _Export) -> dict[str, Any]:
    view = read_view(header)
    patient, issuer = text(header, "PatientID"), text(header, "IssuerOfPatientID") or ""
    patient_id = patient if export.ids == "as-is" else patient_hash(patient, issuer)
    study = text(header, "StudyInstanceUID") or ""
    notes = list(view.notes)
    if not is_uid(study):
        notes.append("it has no valid StudyInstanceUID and so belongs to no exam")
    elif export.patients.setdefault(study, patient_id) != patient_id:
        notes.append("its study has images of another patient")
    export.rejected += [reject(path, f"indexed, but {note}") for note in notes]
    if patient:
        export.issuers.setdefault(patient, set()).add(issuer)
    keys = {"image": uid, "exam": study, "patient": patient}
    return {
        "dataset": DATASET.name,
        "patient_id": patient_id,
        "exam_id": study if is_uid(study) else None,
        "path": path,
        "laterality": view.laterality,
        "view": view.view,
        "flags": view.flags,
        "label": None,
        **equipment(header),
        **(export.labels.of(keys, view.laterality) if export.labels else {}),
    }


def patient_hash(patient: str | None, issuer: str = "") -> str | None:
    """Return what stands for a patient in the Index: always the same, and not the id itself.

    Whoever can list the ids of a hospital can compute it for each and so find whom it stands for: it keeps ids out of
    sight, and is no anonymisation.

    Args:
        patient: PatientID (0010,0020); None and "" stay None.
        issuer: IssuerOfPatientID (0010,0021): two hospitals may give the same id.

    Returns:
        16 hexadecimal digits of a SHA-256.
    """
    if not patient:
        return None
    return hashlib.sha256(f"spicula patient\0{issuer}\0{patient}".encode()).hexdigest()[:16]


def _report_issuers(export: _Export) -> None:
    """Say when one PatientID occurs with and without its issuer: the Index then has one patient as two."""
    for path in _doubtful(export.rows, export.issuers, export.ids):
        export.rejected.append(
            reject(path, "indexed, but its PatientID also occurs with another issuer or none, as another patient")
        )


def _doubtful(rows: Iterable[Mapping[str, Any]], issuers: Mapping[str, set[str]], ids: Ids) -> list[str]:
    several = {patient: by for patient, by in issuers.items() if len(by) > 1 and "" in by}
    if ids == "as-is" or not several:
        return []
    without = {patient_hash(patient) for patient in several}
    return list(dict.fromkeys(row["path"] for row in rows if row["patient_id"] in without))


DATASET = Dataset(
    name="dicom",
    title="any folder or DICOMDIR of mammograms, as a picture archive exports them",
    source="",
    terms="yours",
    citation="",
    classes=("negative", "positive"),
    read=read,
    layout="DICOM files below one folder, under any names, with or without a DICOMDIR",
    options={
        "ids": Option(
            'What the Index has as patient_id: "hashed" (default), a number that stands for PatientID, or "as-is".'
        ),
        "labels": Option(
            "A CSV file with a label for each image, study or patient, named by UID or PatientID.", is_path=True
        ),
        "columns": Option(
            "Which column of the CSV file holds what: {patient = ..., exam = ..., laterality = ..., label = ...}."
        ),
        "positive": Option("The label, or list of labels, that is target 1; default malignant."),
    },
)
