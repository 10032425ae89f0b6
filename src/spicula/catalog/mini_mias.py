"""mini-MIAS: 322 digitised screening films of 161 women, and the table `Info.txt`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from spicula import headers, index
from spicula.catalog.tree import Rejection, reject, rejected_table, walk, without_copies
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import RejectedImageError, UsageError

#: Info.txt: "reduced to 200 micron pixel edge".
PIXEL_SPACING_MM = 0.2

DENSITIES = ("F", "G", "D")
FINDINGS = ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM")
NORMAL = "NORM"
PATHOLOGIES = {"B": "benign", "M": "malignant"}

_TABLE = "Info.txt"
_IMAGE = re.compile(r"(mdb\d{3})\.pgm", re.IGNORECASE)
# "*NOTE 3*" stands in place of the coordinates where calcifications are spread over the whole image.
_NOTE = re.compile(r"\*\s*NOTE\s*\d\s*\*", re.IGNORECASE)


@dataclass
class _Film:
    """What the table says of one image, gathered over its lines."""

    density: str | None = None
    is_normal: bool = False
    has_bad_line: bool = False
    lesions: list["_Lesion"] = field(default_factory=list)


@dataclass(frozen=True)
class _Lesion:
    """A lesion as the table has it: x and y in pixels, from the bottom left corner."""

    line: int
    finding: str
    pathology: str
    circle: tuple[float, float, float] | None


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read mini-MIAS: the PGM files below a folder and their lines of Info.txt.

    Raises:
        UsageError: there is no Info.txt.
    """
    paths = list(walk(folder))
    table = _find_table(folder, paths, options.get("info"))
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    films, rejected = _parse_table(lines, table.name)
    images, copies = without_copies(folder, (path for path in paths if _IMAGE.fullmatch(PurePosixPath(path).name)))
    rejected += copies
    rows = []
    for path in images:
        image_id = PurePosixPath(path).stem.lower()
        film = films.pop(image_id, None)
        if film is None:
            rejected.append(reject(path, f"has no valid line in {table.name}"))
            continue
        try:
            rows.append(_row(folder, path, image_id, film, rejected))
        except RejectedImageError as error:
            rejected.append(reject(path, str(error)))
    rejected += [reject(f"{image_id}.pgm", f"listed in {table.name} but not there") for image_id in films]
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _find_table(folder: Path, paths: Iterable[str], given: Path | None) -> Path:
    if given is not None:
        return given
    found = [path for path in paths if PurePosixPath(path).name.lower() == _TABLE.lower()]
    if not found:
        raise UsageError(
            f"no {_TABLE} in {folder}; expected {DATASET.layout} (the table's path can be given as option info)"
        )
    return folder / min(found, key=lambda path: path.count("/"))


def _parse_table(lines: list[str], name: str) -> tuple[dict[str, _Film], list[Rejection]]:
    """Read the lines from the first that begins with "mdb" on; what stands before is prose."""
    films: dict[str, _Film] = {}
    rejected = []
    first = next((at for at, line in enumerate(lines) if line.strip().lower().startswith("mdb")), len(lines))
    for number, line in enumerate(lines[first:], start=first + 1):
        if not line.strip() or set(line.strip()) == {"="}:
            continue
        problem = _parse_line(number, line, films)
        if problem:
            rejected.append(reject(name, f"line {number}: {problem}, in {line.strip()[:80]!r}"))
    return {image_id: film for image_id, film in films.items() if film.density}, rejected


def _parse_line(number: int, line: str, films: dict[str, _Film]) -> str | None:
    """Add what a line says to its film; return what is wrong with it, or None."""
    words = _NOTE.sub(" *NOTE* ", line).split()
    if not re.fullmatch(r"mdb\d{3}", words[0], re.IGNORECASE):
        return "does not begin with an image number (mdb001)"
    film = films.setdefault(words[0].lower(), _Film())
    problem = _add(number, words[1:], film)
    film.has_bad_line |= problem is not None
    return problem


def _add(number: int, words: list[str], film: _Film) -> str | None:
    if len(words) < 2 or words[0] not in DENSITIES:
        return f"has no tissue character ({', '.join(DENSITIES)}) and class after the image number"
    if film.density not in (None, words[0]):
        return f"has the tissue character {words[0]}, another line of this image {film.density}"
    if words[1] == NORMAL:
        problem = _normal_problem(words[2:], film)
        film.is_normal |= problem is None
    else:
        lesion, problem = _parse_lesion(number, words[1:], film)
        film.lesions += [lesion] if lesion else []
    if problem is None:
        film.density = words[0]
    return problem


def _normal_problem(rest: list[str], film: _Film) -> str | None:
    if rest:
        return f"is {NORMAL} but goes on"
    return f"is {NORMAL}, but another line of this image has a lesion" if film.lesions else None


def _parse_lesion(number: int, words: list[str], film: _Film) -> tuple[_Lesion | None, str | None]:
    if film.is_normal:
        return None, f"has a lesion, but another line of this image is {NORMAL}"
    if words[0] not in FINDINGS:
        return None, f"has the class {words[0]}, not one of {', '.join(FINDINGS)}, {NORMAL}"
    if len(words) < 2 or words[1] not in PATHOLOGIES:
        return None, "has no severity (B or M) after the class"
    circle, problem = _parse_circle(words[2:])
    return (None if problem else _Lesion(number, words[0], PATHOLOGIES[words[1]], circle)), problem


def _parse_circle(words: list[str]) -> tuple[tuple[float, float, float] | None, str | None]:
    if words in ([], ["*NOTE*"]):  # Info.txt, note 4: coordinates are left out where they would say nothing
        return None, None
    if len(words) != 3 or not all(re.fullmatch(r"\d{1,5}(\.\d+)?", word) for word in words):
        return None, "has something else than x, y and radius after the severity"
    x, y, radius = (float(word) for word in words)
    return (x, y, radius), (None if radius > 0 else "has the radius 0")


def _row(folder: Path, path: str, image_id: str, film: _Film, rejected: list[Rejection]) -> dict[str, Any]:
    header = headers.read_header(folder / path)
    number = int(image_id[3:])
    pair = (number + 1) // 2
    label = _label(film)
    findings = {lesion.finding for lesion in film.lesions} or {NORMAL}
    return {
        "dataset": DATASET.name,
        "image_id": image_id,
        "patient_id": f"mdb{2 * pair - 1:03d}-mdb{2 * pair:03d}",  # Info.txt, note 1: pairs of films
        "path": path,
        "modality": "MG",
        "laterality": "L" if number % 2 == 0 else "R",  # Info.txt, note 1
        "view": "MLO",
        "label": label,
        "target": None if label is None else int(label == "malignant"),
        "density": film.density,
        "subtype": findings.pop() if len(findings) == 1 else None,
        "lesions": [_lesion(lesion, image_id, header, rejected) for lesion in film.lesions],
        "pixel_spacing_mm": PIXEL_SPACING_MM,
        "source": DATASET.source,
    }


def _label(film: _Film) -> str | None:
    pathologies = {lesion.pathology for lesion in film.lesions}
    if "malignant" in pathologies:
        return "malignant"
    if film.has_bad_line:
        return None  # the line that was skipped may have named a worse lesion
    return "benign" if pathologies else "normal"


def _lesion(lesion: _Lesion, image_id: str, header: headers.Header, rejected: list[Rejection]) -> dict[str, Any]:
    fields = {"finding": lesion.finding, "pathology": lesion.pathology}
    if lesion.circle is None:
        return {"kind": "unlocated", "coordinates": [], **fields}
    x, y, radius = lesion.circle
    if x > header.width or y > header.height:
        rejected.append(
            reject(_TABLE, f"line {lesion.line}: the circle of {image_id} has its centre outside the image")
        )
        return {"kind": "unlocated", "coordinates": [], **fields}
    # Info.txt, note 3: the origin is the bottom-left corner; the Index has it at the top left.
    return {"kind": "circle", "coordinates": [x, header.height - y, radius], **fields}


DATASET = Dataset(
    name="mini-mias",
    title="mini-MIAS: 322 digitised screening mammograms (MLO) of 161 women, lesions as circles",
    source="http://peipa.essex.ac.uk/info/mias.html",
    terms="research only, no resale (Licence.txt of the archive)",
    citation="Suckling J et al. (1994). The Mammographic Image Analysis Society Digital Mammogram Database. "
    "Excerpta Medica, International Congress Series 1069, 375-378.",
    classes=("non-malignant", "malignant"),
    read=read,
    layout="all-mias.tar.gz, or its files unpacked: mdb001.pgm, mdb002.pgm, ... and Info.txt",
    archives=("all-mias*.tar.gz", "all-mias*.tgz", "all-mias*.tar", "all-mias*.zip"),
    options={
        "info": Option("The table Info.txt, where it does not lie with the images.", is_path=True, beside="Info.txt")
    },
    expected={"images": 322, "patients": 161},
)
