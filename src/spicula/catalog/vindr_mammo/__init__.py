"""VinDr-Mammo: 5,000 screening and diagnostic exams of four views, BI-RADS and density a breast, findings as boxes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import index
from spicula.catalog import birads, official_tables
from spicula.catalog.dicom_header import equipment, read_many, read_view, size_of
from spicula.catalog.official_tables import Line, converted, matching, one_of
from spicula.catalog.tree import Rejection, reject, rejected_table, walk, without_copies
from spicula.catalog.types import CatalogOptions, Dataset, Reading
from spicula.catalog.vindr_mammo.findings import Finding, read_findings
from spicula.errors import UsageError

if TYPE_CHECKING:
    import pydicom

BREASTS = "breast-level_annotations.csv"
FINDINGS = "finding_annotations.csv"
METADATA = "metadata.csv"

SPLITS = {"training": "train", "test": "test"}
VIEWS = ("CC", "MLO")

_COLUMNS = (
    *("study_id", "image_id", "laterality", "view_position", "height", "width"),
    *("breast_birads", "breast_density", "split"),
)
_ID = re.compile(r"[0-9a-f]{32}")
_IMAGE = re.compile(r"(?:.*/)?(?P<study>[^/]+)/(?P<image>[0-9a-f]{32})\.dicom", re.IGNORECASE)
_DENSITY = re.compile(r"DENSITY ([A-D])", re.IGNORECASE)
_PIXELS = re.compile(r"[1-9]\d{0,4}")


@dataclass(frozen=True)
class _Breast:
    """What the table says of one image: its exam, view and size, and how its breast was assessed."""

    study: str
    laterality: str
    view: str
    size: tuple[int, int]  # width, height
    birads: str
    density: str
    split: str


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read VinDr-Mammo: its tables, and the images in the folders of their exams.

    Raises:
        UsageError: a table is missing or is not the archive's, or the option `birads_3` is wrong.
    """
    of_3 = birads.target_of_3(DATASET.name, options)
    paths = list(walk(folder))
    table = _table(folder, paths, BREASTS)
    breasts, rejected = official_tables.collect(BREASTS, official_tables.read_csv(table, _COLUMNS), _parse)
    findings, of_findings = read_findings(_table(folder, paths, FINDINGS), breasts)
    ages, of_ages = _read_ages(official_tables.find(folder, paths, METADATA))
    images, of_files = _find_images(folder, paths, breasts)
    rejected += of_findings + of_ages + of_files
    rows = []
    for path, header in read_many(folder, list(images.values())):
        if isinstance(header, str):
            rejected.append(reject(path, header))
            continue
        image_id = path.rpartition("/")[2].lower().removesuffix(".dicom")
        breast = breasts[image_id]
        row = _row(path, image_id, breast, header, rejected)
        row["target"] = birads.target(breast.birads, of_3)
        row["age"] = row["age"] if row["age"] is not None else ages.get(image_id)
        row["lesions"] = _lesions(path, breast, header, findings.get(image_id, ()), rejected)
        rows.append(row)
    _check_sides(rows, rejected)
    rejected += _absent(paths, breasts)
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _table(folder: Path, paths: Iterable[str], name: str) -> Path:
    table = official_tables.find(folder, paths, name)
    if table is None:
        raise UsageError(f"no {name} in {folder}; expected {DATASET.layout}")
    return table


def _parse(line: Line) -> tuple[str, _Breast]:
    """Return the image that a line is about and what it says; what is wrong with it is a ValueError."""
    image_id = matching(line, "image_id", _ID, "32 hexadecimal digits")[0]
    width, height = (matching(line, column, _PIXELS, "a number of pixels")[0] for column in ("width", "height"))
    return image_id, _Breast(
        study=matching(line, "study_id", _ID, "32 hexadecimal digits")[0],
        laterality=one_of(line, "laterality", index.LATERALITIES),
        view=one_of(line, "view_position", VIEWS),
        size=(int(width), int(height)),
        birads=converted(line, "breast_birads", birads.parse),
        density=matching(line, "breast_density", _DENSITY, "DENSITY A to D")[1].upper(),
        split=SPLITS[one_of(line, "split", tuple(SPLITS))],
    )


def _read_ages(table: Path | None) -> tuple[dict[str, float], list[Rejection]]:
    """Return the ages of the table of DICOM tags, where it has them, for headers that have none."""
    ages: dict[str, float] = {}
    rejected = []
    for line in official_tables.read_csv(table, ("SOP Instance UID",)) if table else ():
        value = line.values.get("Patient's Age", "")
        found = re.fullmatch(r"0*(\d{1,3})(?:Y|\.0)?", value)
        if found:
            ages[line.values["SOP Instance UID"]] = float(found[1])
        elif value:
            rejected.append(reject(METADATA, f"line {line.number}: Patient's Age is not an age in years"))
    return ages, rejected


def _find_images(
    folder: Path, paths: Iterable[str], breasts: Mapping[str, _Breast]
) -> tuple[dict[str, str], list[Rejection]]:
    """Return the file of each image that the table names, and what does not fit together."""
    kept, rejected = without_copies(folder, (path for path in paths if path.lower().endswith((".dicom", ".dcm"))))
    images: dict[str, str] = {}
    for path in kept:
        found = _IMAGE.fullmatch(path)
        if not found:
            rejected.append(reject(path, "is not <study_id>/<image_id>.dicom"))
            continue
        breast = breasts.get(found["image"].lower())
        if breast is None:
            rejected.append(reject(path, f"has no valid line in {BREASTS}"))
        elif found["study"].lower() != breast.study:
            rejected.append(reject(path, f"lies in the folder of another exam than {BREASTS} says"))
        else:
            images[found["image"].lower()] = path
    return images, rejected


def _absent(paths: Iterable[str], breasts: Mapping[str, _Breast]) -> list[Rejection]:
    there = {path.rpartition("/")[2].rpartition(".")[0].lower() for path in paths}
    return [
        reject(f"images/{breast.study}/{image_id}.dicom", f"listed in {BREASTS} but not there")
        for image_id, breast in breasts.items()
        if image_id not in there
    ]


def _row(
    path: str, image_id: str, breast: _Breast, header: "pydicom.Dataset", rejected: list[Rejection]
) -> dict[str, Any]:
    view = read_view(header)
    if view.laterality not in (None, breast.laterality) or view.view not in (None, breast.view):
        told = f"{breast.laterality} {breast.view}"
        rejected.append(reject(path, f"kept as {told}, as {BREASTS} says; its header says otherwise"))
    return {
        **equipment(header),
        "dataset": DATASET.name,
        "image_id": image_id,
        "patient_id": breast.study,  # the archive names no patients: an exam is what can be kept whole
        "exam_id": breast.study,
        "path": path,
        "laterality": breast.laterality,
        "view": breast.view,
        "label": birads.label(breast.birads),
        "birads": breast.birads,
        "density": breast.density,
        "split": breast.split,
        "flags": view.flags,
        "source": DATASET.source,
    }


def _lesions(
    path: str, breast: _Breast, header: "pydicom.Dataset", findings: Iterable[Finding], rejected: list[Rejection]
) -> list[dict[str, Any]]:
    found = list(findings)
    size = size_of(header)
    if found and size != breast.size:
        reason = f"has {size[0]} x {size[1]} pixels, {BREASTS} says {breast.size[0]} x {breast.size[1]}"
        rejected.append(reject(path, f"{reason}: kept, but its findings have no place"))
        found = [finding.without_box() for finding in found]
    lesions = []
    for finding in found:
        lesion, problem = finding.lesion(*breast.size)
        lesions.append(lesion)
        if problem:
            rejected.append(reject(FINDINGS, f"line {finding.line}: {problem}"))
    return lesions


def _check_sides(rows: Iterable[dict[str, Any]], rejected: list[Rejection]) -> None:
    """Take the split from exams that the table puts on two sides: none of their images can test what others taught."""
    rows = list(rows)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["exam_id"], set()).add(row["split"])
    for row in rows:
        if len(sides[row["exam_id"]]) > 1:
            row["split"] = None
            rejected.append(reject(row["path"], f"kept without a split: {BREASTS} puts its exam on two sides"))


DATASET = Dataset(
    name="vindr-mammo",
    title="VinDr-Mammo: 5,000 four-view exams as DICOM, BI-RADS and density a breast, findings as boxes",
    source="https://physionet.org/content/vindr-mammo/1.0.0/",
    terms="PhysioNet Restricted Health Data License; sign the data use agreement first",
    citation="Nguyen HT, Nguyen HQ, Pham HH et al. (2023). VinDr-Mammo: A large-scale benchmark dataset for "
    "computer-aided diagnosis in full-field digital mammography. Scientific Data 10, 277, "
    "doi:10.1038/s41597-023-02100-7.",
    classes=birads.CLASSES,
    read=read,
    layout=f"{BREASTS}, {FINDINGS}, {METADATA} and images/<study_id>/<image_id>.dicom",
    archives=("vindr-mammo*.zip",),
    options={"birads_3": birads.OPTION},
    expected={"images": 20_000, "exams": 5_000},
)
