"""INbreast: 410 digital mammograms of 115 cases, BI-RADS and density an image, lesions as outlines."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import index
from spicula.catalog import birads, official_tables
from spicula.catalog.dicom_header import equipment, read_many, read_view, size_of
from spicula.catalog.inbreast.outlines import read_outline
from spicula.catalog.official_tables import Line, converted, matching, one_of
from spicula.catalog.tree import Rejection, reject, rejected_table, walk, without_copies
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import UsageError

if TYPE_CHECKING:
    import pydicom

TABLE = "INbreast.csv"
OUTLINES = "AllXML"

#: Views of the file names; the archive writes ML for medio-lateral oblique, in its table MLO.
VIEWS = {"CC": "CC", "ML": "MLO", "MLO": "MLO", "FB": "FB"}
#: ACR density: four degrees from almost entirely fatty to extremely dense, as numbers and in today's letters.
DENSITIES = {"1": "A", "2": "B", "3": "C", "4": "D"}

_COLUMNS = ("Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads")
_NAME = re.compile(
    r"(?P<image>\d+)_(?P<patient>[0-9a-f]{16})_MG_(?P<side>[LR])_(?P<view>[A-Z]+)_ANON\.dcm", re.IGNORECASE
)
_DATE = re.compile(r"(?:19|20)\d{4}")  # 201001: whether 01 is a month or half a year, the archive does not say
_NUMBER = re.compile(r"\d{1,12}")


@dataclass(frozen=True)
class _Entry:
    """What the table says of one image."""

    laterality: str
    view: str
    date: str | None  # year and two digits
    density: str | None
    birads: str


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read INbreast: its table, the images with the patient in their names, and the outlines of lesions.

    Raises:
        UsageError: there is no table, it is not the archive's, or the option `birads_3` is wrong.
    """
    of_3 = birads.target_of_3(DATASET.name, options)
    paths = list(walk(folder))
    table = official_tables.find(folder, paths, TABLE, options.get("table"))
    if table is None:
        raise UsageError(
            f"no {TABLE} in {folder}; expected {DATASET.layout} (if there is only INbreast.xls, save it as a CSV file "
            "with semicolons; the table's path can be given as option table)"
        )
    entries, rejected = official_tables.collect(table.name, official_tables.read_csv(table, _COLUMNS, ";"), _parse)
    images, of_files = _find_images(folder, paths, entries, table.name)
    outlines, of_outlines = _find_outlines(folder, paths, entries)
    rejected += of_files + of_outlines
    rows = []
    for path, header in read_many(folder, list(images)):
        if isinstance(header, str):
            rejected.append(reject(path, header))
            continue
        row = _row(path, images[path], entries[images[path]["image"]], header)
        row["target"] = birads.target(row["birads"], of_3)
        outline = outlines.get(row["image_id"])
        width, height = size_of(header)
        if outline is not None and width and height:  # without them the image is refused later
            row["lesions"], problems = read_outline(folder / outline, width, height)
            rejected += [reject(outline, problem) for problem in problems]
        rows.append(row)
    rejected += _absent(paths, entries, table.name)
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _parse(line: Line) -> tuple[str, _Entry]:
    """Return the image that a line is about and what it says; what is wrong with it is a ValueError."""
    date = line.values["Acquisition date"]
    return matching(line, "File Name", _NUMBER, "the number of an image")[0], _Entry(
        laterality=one_of(line, "Laterality", index.LATERALITIES),
        view=VIEWS[one_of(line, "View", tuple(VIEWS))],
        date=date if _DATE.fullmatch(date) else None,
        density=DENSITIES[one_of(line, "ACR", tuple(DENSITIES))] if line.values["ACR"] else None,
        birads=converted(line, "Bi-Rads", birads.parse),
    )


def _find_images(
    folder: Path, paths: Iterable[str], entries: dict[str, _Entry], table: str
) -> tuple[dict[str, re.Match[str]], list[Rejection]]:
    """Return the images that the table names, with what their names say, and what does not fit together."""
    kept, rejected = without_copies(folder, (path for path in paths if path.lower().endswith(".dcm")))
    images: dict[str, re.Match[str]] = {}
    seen: set[str] = set()
    for path in kept:
        name = _NAME.fullmatch(path.rpartition("/")[2])
        if not name or name["view"].upper() not in VIEWS:
            rejected.append(reject(path, "the name is not <number>_<patient>_MG_<L or R>_<CC or ML>_ANON.dcm"))
            continue
        entry = entries.get(name["image"])
        said = (name["side"].upper(), VIEWS[name["view"].upper()])
        if entry is None:
            rejected.append(reject(path, f"has no valid line in {table}"))
        elif said != (entry.laterality, entry.view):
            told = f"{entry.laterality} {entry.view}"
            rejected.append(reject(path, f"the name says {said[0]} {said[1]}, {table} says {told}"))
        elif name["image"] in seen:
            rejected.append(reject(path, f"another file has the number {name['image']}"))
        else:
            images[path] = name
            seen.add(name["image"])
    return images, rejected


def _absent(paths: Iterable[str], entries: Iterable[str], table: str) -> list[Rejection]:
    there = {path.rpartition("/")[2].partition("_")[0] for path in paths if path.lower().endswith(".dcm")}
    return [reject(f"AllDICOMs/{image}", f"listed in {table} but not there") for image in entries if image not in there]


def _find_outlines(
    folder: Path, paths: Iterable[str], entries: Iterable[str]
) -> tuple[dict[str, str], list[Rejection]]:
    """Return the file of outlines of each image that has one."""
    known = set(entries)
    files = [path for path in paths if path.lower().endswith(".xml") and path.split("/")[-2:-1] == [OUTLINES]]
    kept, rejected = without_copies(folder, files)
    if not files:
        rejected.append(reject(OUTLINES, "no outlines in the folder: no image has lesions in the Index"))
    outlines = {}
    for path in kept:
        image_id = path.rpartition("/")[2].rpartition(".")[0]
        if image_id in known:
            outlines[image_id] = path
        else:
            rejected.append(reject(path, "outlines of an image that the table does not have, or not validly"))
    return outlines, rejected


def _row(path: str, name: re.Match[str], entry: _Entry, header: "pydicom.Dataset") -> dict[str, Any]:
    return {
        **equipment(header),
        "dataset": DATASET.name,
        "image_id": name["image"],
        "patient_id": name["patient"].lower(),
        "exam_id": f"{name['patient'].lower()}-{entry.date}" if entry.date else None,
        "path": path,
        "laterality": entry.laterality,
        "view": entry.view,
        "label": birads.label(entry.birads),
        "birads": entry.birads,
        "density": entry.density,
        "flags": read_view(header).flags,
        "source": DATASET.source,
    }


DATASET = Dataset(
    name="inbreast",
    title="INbreast: 410 digital mammograms of 115 cases as DICOM, BI-RADS an image, lesions as outlines",
    source="https://doi.org/10.1016/j.acra.2011.09.014",
    terms="on request from its owners, for research",
    citation="Moreira IC, Amaral I, Domingues I, Cardoso A, Cardoso MJ, Cardoso JS (2012). INbreast: Toward a "
    "Full-field Digital Mammographic Database. Academic Radiology 19(2), 236-248, doi:10.1016/j.acra.2011.09.014.",
    classes=birads.CLASSES,
    read=read,
    layout=f"{TABLE}, AllDICOMs/<number>_<patient>_MG_<L or R>_<CC or ML>_ANON.dcm and {OUTLINES}/<number>.xml",
    archives=("INbreast*.zip", "INbreast*.tgz", "INbreast*.tar.gz", "inbreast*.zip", "inbreast*.tgz"),
    options={
        "birads_3": birads.OPTION,
        "table": Option(f"The table {TABLE}, where it does not lie with the images.", is_path=True, beside=TABLE),
    },
    expected={"images": 410},
)
