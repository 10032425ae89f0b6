"""The four tables of CBIS-DDSM: one row a lesion, with the series of its image, its mask and its crop.

The tables are read as they are: line breaks inside quoted fields, `breast density` and `breast_density`, N/A. What a
row says in one place is checked against what it says in others; a row that contradicts itself is reported.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from spicula.catalog import official_tables
from spicula.catalog.tree import Rejection, reject
from spicula.errors import UsageError

Pathology = Literal["MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"]

#: File name -> abnormality and side of the published split, as the archive's case names spell them.
TABLES: Mapping[str, tuple[str, str]] = {
    "mass_case_description_train_set.csv": ("Mass", "Training"),
    "mass_case_description_test_set.csv": ("Mass", "Test"),
    "calc_case_description_train_set.csv": ("Calc", "Training"),
    "calc_case_description_test_set.csv": ("Calc", "Test"),
}
PATHOLOGIES: tuple[Pathology, ...] = ("MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK")
#: The table's four degrees are those of BI-RADS, from almost entirely fatty to extremely dense; 0 is "not known".
DENSITIES = {"1": "A", "2": "B", "3": "C", "4": "D"}
ASSESSMENTS = ("0", "1", "2", "3", "4", "5", "6")

_ABNORMALITIES = {"Mass": "mass", "Calc": "calcification"}
_SIDES = {"LEFT": "L", "RIGHT": "R"}
_VIEWS = ("CC", "MLO")
_SPLITS = {"Training": "train", "Test": "test"}
_DESCRIPTIONS = {"Mass": ("mass shape", "mass margins"), "Calc": ("calc type", "calc distribution")}
_IMAGE, _CROP, _MASK = "image file path", "cropped image file path", "ROI mask file path"
_DENSITIES = ("breast_density", "breast density")  # in the tables of masses, and of calcifications
_COLUMNS = (
    "patient_id",
    "left or right breast",
    "image view",
    "abnormality id",
    "abnormality type",
    "assessment",
    "pathology",
    _IMAGE,
    _CROP,
    _MASK,
)
_UNKNOWN = ("", "N/A", "NA", "NAN")


class View(NamedTuple):
    """Which picture of whom: one side of a person in one direction. It can stand under both abnormalities."""

    person: str
    laterality: str
    view: str


class Series(NamedTuple):
    """Where a file of the tables belongs: the UIDs of its study and its series."""

    study: str
    series: str


@dataclass(frozen=True)
class Lesion:
    """One row of a table.

    Attributes:
        table: the name of its file.
        case: of its image, `Mass-Training_P_00001_LEFT_CC`: the archive's name of the case.
        number: which abnormality of its view, from 1; counted over both abnormalities.
        view: person, side and view.
        split: train or test, as published.
        abnormality: mass or calcification.
        finding: the abnormality and what the table says of it, in the table's words.
        pathology: the table's word.
        birads: the assessment, 0 to 6; None where it is none.
        density: A to D; None where it is not known.
        image: the series of the full mammogram.
        rois: the one or two series that hold the mask and the cropped image. The columns do not say which is which.
    """

    table: str
    case: str
    number: int
    view: View
    split: str
    abnormality: str
    finding: str
    pathology: Pathology
    birads: str | None
    density: str | None
    image: Series
    rois: tuple[Series, ...]

    @property
    def name(self) -> str:
        """The archive's name of the lesion: `Mass-Training_P_00001_LEFT_CC_1`."""
        return f"{self.case}_{self.number}"

    @property
    def is_malignant(self) -> bool:
        """Whether it is malignant; both other pathologies are benign."""
        return self.pathology == "MALIGNANT"


@dataclass
class Tables:
    """What the four tables say.

    Attributes:
        lesions: in the order of the tables.
        doubtful: views that a rejected row spoke of: their worst lesion may be that of the row.
        rejected: rows that contradict themselves or others, and values that make no sense.
    """

    lesions: list[Lesion] = field(default_factory=list)
    doubtful: set[View] = field(default_factory=set)
    rejected: list[Rejection] = field(default_factory=list)


def find(folder: Path, paths: Iterable[str], given: Path | None) -> tuple[dict[str, Path], list[Rejection]]:
    """Return the file of each table: in the folder given for them, else nearest to the root, else beside the folder.

    Args:
        folder: the archive.
        paths: the files below it.
        given: the folder of the tables, or None.

    Returns:
        Paths by the names of `TABLES`, and other files of these names with another content.

    Raises:
        UsageError: a table is missing; the message names which.
    """
    if given is not None:
        places = sorted(path for path in given.iterdir() if path.is_file()) if given.is_dir() else []
        return _choose(folder, places, f"in {given}")
    below = [folder / path for path in paths if path.rpartition("/")[2].lower() in TABLES]
    beside = [folder.absolute().parent / name for name in TABLES]
    return _choose(folder, [*below, *(path for path in beside if path.is_file())], f"in {folder} or beside it")


def _choose(folder: Path, places: list[Path], where: str) -> tuple[dict[str, Path], list[Rejection]]:
    found: dict[str, Path] = {}
    rejected = []
    root = folder.absolute()
    for path in sorted(places, key=lambda one: (root not in one.absolute().parents, len(one.parts), one)):
        name = path.name.lower()
        first = found.setdefault(name, path)
        if name in TABLES and first != path and not _is_same(first, path):
            rejected.append(
                reject(path.name, f"in {path.parent.name}: not read, {first} is another table of this name")
            )
    missing = [name for name in TABLES if name not in found]
    if missing:
        raise UsageError(
            f"cbis-ddsm: no {', '.join(missing)} {where}; the archive's page has the four tables as downloads of their"
            " own (their folder can be given as option tables)"
        )
    return {name: found[name] for name in TABLES}, rejected


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.read_bytes() == second.read_bytes()
    except OSError:
        return False


def read(files: Mapping[str, Path]) -> Tables:
    """Read the four tables.

    Raises:
        UsageError: a file cannot be read, or is no such table.
    """
    tables = Tables()
    owners: dict[str, str] = {}
    for name, path in files.items():
        _read_table(name, path, tables, owners)
    return tables


def _read_table(name: str, path: Path, tables: Tables, owners: dict[str, str]) -> None:
    for line in official_tables.read_csv(path, [*_COLUMNS, *_DESCRIPTIONS[TABLES[name][0]]]):
        row = {column: _clean(column, value) for column, value in line.values.items()}
        if not set(_DENSITIES) & set(row):
            raise UsageError(f"cbis-ddsm: the table {path} has no column {' or '.join(_DENSITIES)}")
        problem = line.problem or _add(name, line.number, row, tables, owners)
        if problem:
            tables.rejected.append(reject(name, f"line {line.number}: {problem}"))


def _clean(column: str, value: str) -> str:
    """Return a field without stray white space: a path has none at all."""
    return ("" if column.endswith("file path") else " ").join(value.split())


def _add(name: str, line: int, row: dict[str, str], tables: Tables, owners: dict[str, str]) -> str:
    """Add a row's lesion; return what is wrong with the row, or nothing."""
    abnormality, side = TABLES[name]
    view = View(row["patient_id"], _SIDES.get(row["left or right breast"], ""), row["image view"])
    if not re.fullmatch(r"P_\d{1,8}", view.person) or not view.laterality or view.view not in _VIEWS:
        return "has no person (P_00001), side (LEFT or RIGHT) and view (CC or MLO)"
    case = f"{abnormality}-{side}_{view.person}_{row['left or right breast']}_{view.view}"
    lesion, problem = _lesion(name, case, view, row)
    if lesion is not None:
        problem = _claim(lesion, owners)
    if problem or lesion is None:
        tables.doubtful.add(view)
        return problem
    for what, value, found, unknown in (
        ("breast density", _density(row), lesion.density, (*_UNKNOWN, "0")),
        ("assessment", row["assessment"], lesion.birads, _UNKNOWN),
    ):
        if found is None and value.upper() not in unknown:
            tables.rejected.append(reject(name, f"line {line}: the {what} {official_tables.shown(value)} is left out"))
    tables.lesions.append(lesion)
    return ""


def _lesion(name: str, case: str, view: View, row: dict[str, str]) -> tuple[Lesion | None, str]:
    abnormality, side = TABLES[name]
    number = row["abnormality id"]
    if not re.fullmatch(r"[1-9]\d{0,2}", number):
        return None, f"has the abnormality id {official_tables.shown(number)}, not a number from 1"
    if row["abnormality type"] != _ABNORMALITIES[abnormality]:
        shown = official_tables.shown(row["abnormality type"])
        return None, f"has the abnormality type {shown}, not {_ABNORMALITIES[abnormality]}"
    pathology = next((known for known in PATHOLOGIES if known == row["pathology"]), None)
    if pathology is None:
        shown = official_tables.shown(row["pathology"])
        return None, f"has the pathology {shown}, not one of {', '.join(PATHOLOGIES)}"
    places = []
    for column, owner in ((_IMAGE, case), (_CROP, f"{case}_{number}"), (_MASK, f"{case}_{number}")):
        place = _place(row[column], owner)
        if place is None:
            return None, f"has the {column} {row[column][:200]!r}, which is not {owner}/<study>/<series>/<file>"
        places.append(place)
    birads = row["assessment"]
    return Lesion(
        table=name,
        case=case,
        number=int(number),
        view=view,
        split=_SPLITS[side],
        abnormality=_ABNORMALITIES[abnormality],
        finding=_finding(abnormality, row),
        pathology=pathology,
        birads=birads if birads in ASSESSMENTS else None,
        density=DENSITIES.get(_density(row)),
        image=places[0],
        rois=tuple(dict.fromkeys(places[1:])),
    ), ""


def _density(row: Mapping[str, str]) -> str:
    return next(row[column] for column in _DENSITIES if column in row)


def _place(path: str, owner: str) -> Series | None:
    """Read `<case>/<study UID>/<series UID>/<file>`; the case must be that of the row's other columns."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != owner:
        return None
    uids = [uid for uid in parts[1:3] if len(uid) <= 64 and re.fullmatch(r"\d+(\.\d+)+", uid)]  # PS3.5 section 9.1
    return Series(*uids) if len(uids) == 2 else None


def _finding(abnormality: str, row: dict[str, str]) -> str:
    said = ((column.partition(" ")[2], row[column]) for column in _DESCRIPTIONS[abnormality])
    return ", ".join([_ABNORMALITIES[abnormality], *(f"{what} {word}" for what, word in said if _is_known(word))])


def _is_known(word: str) -> bool:
    return word.upper() not in _UNKNOWN


def _claim(lesion: Lesion, owners: dict[str, str]) -> str:
    """Note whose each series is, and that the lesion was named; return what contradicts an earlier row, or nothing."""
    if lesion.name in owners:
        return f"names {lesion.name} a second time"
    claims = {lesion.image.series: lesion.case, lesion.case: lesion.image.series}
    claims |= {place.series: lesion.name for place in lesion.rois}
    for what, owner in claims.items():
        if owners.get(what, owner) != owner:
            return f"gives {lesion.name} a series that an earlier row gives to something else"
    owners.update(claims)
    owners[lesion.name] = lesion.table
    return ""
