"""CMMD, the Chinese Mammography Database: 5,202 images of 1,775 patients, benign or malignant by biopsy."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import index
from spicula.catalog import official_tables
from spicula.catalog.cmmd import clinical
from spicula.catalog.cmmd.clinical import PATIENT, Breast, BreastKey
from spicula.catalog.dicom_header import equipment, is_uid, read_many, read_view, text
from spicula.catalog.tree import Rejection, is_document, reject, rejected_table, walk
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import UsageError

if TYPE_CHECKING:
    import pydicom

TABLE = "CMMD_clinicaldata_revision.xlsx"

_UNKNOWN = "X"  # in the name of an image whose header does not tell its side or view


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read CMMD: the clinical spreadsheet, and the DICOM files below a folder, whatever their names and folders.

    Raises:
        UsageError: there is no spreadsheet, or it is not the archive's.
    """
    paths = list(walk(folder))
    table = official_tables.find(folder, paths, TABLE, options.get("clinical"))
    if table is None:
        raise UsageError(
            f"no {TABLE} in {folder}; expected {DATASET.layout} (its path can be given as option clinical)"
        )
    breasts, rejected = clinical.read(table)
    rejected += [reject(path, "is no DICOM file of the archive, by its name") for path in paths if _is_strange(path)]
    rows: list[dict[str, Any]] = []
    first_of: dict[str, str] = {}
    for path, header in read_many(folder, [path for path in paths if _is_dicom(path)]):
        if isinstance(header, str):
            rejected.append(reject(path, header))
            continue
        problem = _problem(header)
        if problem:
            rejected.append(reject(path, problem))
            continue
        uid = text(header, "SOPInstanceUID") or ""
        if first_of.setdefault(uid, path) != path:
            rejected.append(reject(path, f"is the same image as {first_of[uid]}, by its SOPInstanceUID"))
            continue
        rows.append(_row(path, header, breasts, rejected))
    _name(rows)
    rejected += _check_counts(table.name, rows, breasts)
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _is_dicom(path: str) -> bool:
    return path.lower().endswith(".dcm")


def _is_strange(path: str) -> bool:
    return not _is_dicom(path) and not is_document(path)


def _problem(header: "pydicom.Dataset") -> str | None:
    """Say why a DICOM file is none of the archive."""
    if not PATIENT.fullmatch(text(header, "PatientID") or ""):
        return "PatientID is none of the archive's (D1-0001, D2-0001, ...)"
    if not is_uid(text(header, "SOPInstanceUID") or ""):
        return "SOPInstanceUID is missing or no UID"
    return None


def _row(
    path: str, header: "pydicom.Dataset", breasts: Mapping[BreastKey, Breast], rejected: list[Rejection]
) -> dict[str, Any]:
    view = read_view(header)
    notes = list(view.notes)
    if view.laterality is None:
        notes.append("the header names no side, so the image has no label")
    rejected += [reject(path, f"kept, but {note}") for note in notes]
    patient = text(header, "PatientID") or ""
    study = text(header, "StudyInstanceUID") or ""
    row = {
        **equipment(header),
        "dataset": DATASET.name,
        "patient_id": patient,
        "exam_id": study if is_uid(study) else None,
        "path": path,
        "laterality": view.laterality,
        "view": view.view,
        "flags": view.flags,
        "source": DATASET.source,
    }
    breast = breasts.get((patient, view.laterality or ""))
    return row if breast is None else {**row, **_of_breast(breast)}


def _of_breast(breast: Breast) -> dict[str, Any]:
    """Return the columns that the clinical table fills: those of every image of the breast."""
    return {
        "label": breast.pathology,
        "target": int(breast.pathology == "malignant"),
        "subtype": breast.subtype,
        "age": breast.age,
        "lesions": [
            {"kind": "unlocated", "coordinates": [], "finding": finding, "pathology": breast.pathology}
            for finding in breast.findings
        ],
    }


def _name(rows: Iterable[dict[str, Any]]) -> None:
    """Give every image a name: patient, side and view, and a number where that is not enough."""
    seen: Counter[str] = Counter()
    for row in rows:
        name = "-".join((row["patient_id"], row["laterality"] or _UNKNOWN, row["view"] or _UNKNOWN))
        seen[name] += 1
        row["image_id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"


def _check_counts(
    table: str, rows: Iterable[Mapping[str, Any]], breasts: Mapping[BreastKey, Breast]
) -> list[Rejection]:
    """Compare the images there are with those that the table counts."""
    there = Counter((row["patient_id"], row["laterality"]) for row in rows)
    rejected = []
    for key, breast in breasts.items():
        if there[key] == 0:
            rejected.append(reject(table, f"line {breast.line}: no image of this breast is there"))
        elif there[key] != breast.images:
            rejected.append(
                reject(
                    table, f"line {breast.line}: counts {breast.images} images of this breast, {there[key]} are there"
                )
            )
    return rejected


DATASET = Dataset(
    name="cmmd",
    title="CMMD: 5,202 mammograms of 1,775 patients as DICOM, benign or malignant by biopsy, molecular subtypes",
    source="https://www.cancerimagingarchive.net/collection/cmmd/",
    terms="CC BY 4.0",
    citation="Cui C, Li L, Cai H, Fan Z, Zhang L, Dan T, Li J, Wang J (2021). The Chinese Mammography Database (CMMD): "
    "An online mammography database with biopsy confirmed types for machine diagnosis of breast. The Cancer Imaging "
    "Archive, doi:10.7937/tcia.eqde-4b16.",
    classes=("benign", "malignant"),
    read=read,
    layout=f"{TABLE} and the DICOM files as downloaded, in CMMD/<patient>/<study>/<series>/*.dcm or any other folders",
    options={
        "clinical": Option(f"The spreadsheet {TABLE}, where it does not lie with the images.", is_path=True),
    },
    expected={"images": 5_202, "patients": 1_775, "exams": 1_775},
)
