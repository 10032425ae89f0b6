"""Phantoms: synthetic four-view screening exams, as `spicula phantom` writes them. They show no person."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spicula import headers, index
from spicula.catalog.tree import Rejection, is_document, reject, rejected_table, walk
from spicula.catalog.types import CatalogOptions, Dataset, Reading
from spicula.errors import RejectedImageError

if TYPE_CHECKING:
    import pydicom

#: The truth of an exam, beside its images. It is written last: an exam without one is not whole.
TRUTH = "exam.json"

Pathology = Literal["benign", "malignant"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Lesion(_Part):
    box: tuple[int, int, int, int] = Field(strict=False)  # x0, y0, x1, y1 in pixels, as the Index has it
    finding: str
    kind: str
    pathology: Pathology


class _Image(_Part):
    file: str = Field(pattern=r"^[A-Za-z0-9-]+\.dcm$")
    sop_instance_uid: str
    laterality: Literal["L", "R"]
    view: str
    birads: str
    lesions: list[_Lesion]


class _Exam(_Part):
    format: Literal["spicula-phantom-exam-1"]
    exam_id: str
    patient_id: str
    age: int
    density: Literal["A", "B", "C", "D"]
    images: list[_Image]


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read synthetic exams: below a folder, every `exam.json` and the DICOM files that it names.

    Args:
        folder: what was given to `spicula phantom --to`, or one exam's folder.
        options: none are known.
    """
    paths = list(walk(folder))
    rows: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    explained: set[str] = set()
    for path in paths:
        parent, _, name = path.rpartition("/")
        if name == TRUTH:
            prefix = f"{parent}/" if parent else ""
            explained |= {path} | _read_exam(folder, prefix, rows, rejected)
    lost = f"no {TRUTH} beside it names it: the exam is not whole, make it again with spicula phantom"
    rejected += [reject(path, lost) for path in paths if path not in explained and not is_document(path)]
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _read_exam(folder: Path, prefix: str, rows: list[dict[str, Any]], rejected: list[Rejection]) -> set[str]:
    """Add the rows of one exam; return the paths of the images that were dealt with."""
    try:
        exam = _Exam.model_validate_json((folder / prefix / TRUTH).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        rejected.append(reject(prefix + TRUTH, f"is not the truth of a phantom exam: {place} {first['msg']}".rstrip()))
        return set()
    except OSError as error:
        rejected.append(reject(prefix + TRUTH, f"cannot be read: {error.strerror}"))
        return set()
    for image in exam.images:
        path = prefix + image.file
        try:
            rows.append(_row(folder, path, exam, image))
        except RejectedImageError as error:
            rejected.append(reject(path, str(error)))
    return {prefix + image.file for image in exam.images}


def _row(folder: Path, path: str, exam: _Exam, image: _Image) -> dict[str, Any]:
    if not (folder / path).is_file():
        raise RejectedImageError(f"named in {TRUTH} but not there")
    header = headers.read_dicom(folder / path)
    _check(header, exam, image)
    pathologies = {lesion.pathology for lesion in image.lesions}
    label = "malignant" if "malignant" in pathologies else "benign" if pathologies else "normal"
    kinds = [lesion.kind for lesion in image.lesions if lesion.pathology == label]
    spacing = header.get("ImagerPixelSpacing")
    return {
        "dataset": DATASET.name,
        "image_id": f"{exam.exam_id}-{image.laterality}-{image.view}",
        "patient_id": exam.patient_id,
        "exam_id": exam.exam_id,
        "path": path,
        "modality": str(header.Modality),
        "laterality": image.laterality,
        "view": image.view,
        "label": label,
        "target": int(label == "malignant"),
        "birads": image.birads,
        "density": exam.density,
        "subtype": kinds[0] if kinds else None,
        "age": float(exam.age),
        "lesions": [_lesion(lesion) for lesion in image.lesions],
        "photometric": str(header.PhotometricInterpretation),
        "pixel_spacing_mm": float(spacing[0]) if spacing else None,
        "manufacturer": str(header.Manufacturer),
        "model": str(header.ManufacturerModelName),
        "source": DATASET.source,
    }


def _check(header: "pydicom.Dataset", exam: _Exam, image: _Image) -> None:
    """Refuse a file that is not the one that the truth speaks of: another exam's, or swapped views."""
    truth = {
        "SOPInstanceUID": image.sop_instance_uid,
        "PatientID": exam.patient_id,
        "ImageLaterality": image.laterality,
        "ViewPosition": image.view,
        "Modality": "MG",
    }
    for name, wanted in truth.items():
        if str(header.get(name, "")) != wanted:  # and may be of a person: it is not repeated
            raise RejectedImageError(f"its {name} is not {wanted}, as {TRUTH} says")
    for name in ("PhotometricInterpretation", "Manufacturer", "ManufacturerModelName"):
        if name not in header:
            raise RejectedImageError(f"has no {name}")


def _lesion(lesion: _Lesion) -> dict[str, Any]:
    return {
        "kind": "box",
        "coordinates": [float(value) for value in lesion.box],
        "finding": lesion.finding,
        "pathology": lesion.pathology,
    }


DATASET = Dataset(
    name="phantom",
    title="synthetic four-view screening exams as DICOM, with known lesions; they show no person",
    source="synthetic: computed by spicula phantom",
    terms="Apache-2.0, as Spicula",
    citation="Texture after Burgess AE, Jacobson FL, Judy PF (2001). Human observer detection experiments with "
    "mammograms and power-law noise. Medical Physics 28(4), 419-437.",
    classes=("non-malignant", "malignant"),
    read=read,
    layout="a folder that `spicula phantom` wrote: one folder an exam, with four DICOM files and exam.json",
)
