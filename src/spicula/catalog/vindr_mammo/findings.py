"""The findings of VinDr-Mammo: one line is one box, with all categories that a reader gave it."""

import math
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spicula.catalog import birads, official_tables
from spicula.catalog.official_tables import Line
from spicula.catalog.tree import Rejection, reject

#: Categories of the table, other than No Finding.
CATEGORIES = (
    "Mass",
    "Suspicious Calcification",
    "Asymmetry",
    "Focal Asymmetry",
    "Global Asymmetry",
    "Architectural Distortion",
    "Skin Thickening",
    "Skin Retraction",
    "Nipple Retraction",
    "Suspicious Lymph Node",
)
NO_FINDING = "No Finding"
#: Between the categories of one lesion.
SEPARATOR = "; "

_BOX = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("image_id", "finding_categories", "finding_birads", *_BOX)
# A list as Python prints it, of words in quotes. Never evaluated.
_WORD = r"(?:'([A-Za-z ]*)'|\"([A-Za-z ]*)\")"
_LIST = re.compile(rf"\[\s*{_WORD}(?:\s*,\s*{_WORD})*\s*\]")


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        line: its number.
        categories: of `CATEGORIES`, in the order of the table, at least one.
        assessment: BI-RADS of the finding; None where the table has none.
        box: x0, y0, x1, y1 in pixels, as the table has them; None where it has none.
    """

    line: int
    categories: tuple[str, ...]
    assessment: str | None
    box: tuple[float, float, float, float] | None

    def without_box(self) -> "Finding":
        """Return the finding with its place taken away."""
        return replace(self, box=None)

    def lesion(self, width: int, height: int) -> tuple[dict[str, Any], str | None]:
        """Return the finding as a lesion of the Index, its box cut to the image, and what had to be changed.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
        fields = {"finding": SEPARATOR.join(self.categories), "birads": self.assessment}
        unlocated: dict[str, Any] = {"kind": "unlocated", "coordinates": [], **fields}
        if self.box is None:
            return unlocated, None
        x0, y0, x1, y1 = self.box
        cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if not (cut[0] < cut[2] and cut[1] < cut[3]):
            return unlocated, "the box lies outside the image; kept without a place"
        outside = max(abs(was - now) for was, now in zip(self.box, cut, strict=True))
        note = f"the box reached {outside:.6g} pixels out of the image and was cut to it" if outside else None
        return {"kind": "box", "coordinates": list(cut), **fields}, note


def read_findings(table: Path, images: Container[str]) -> tuple[dict[str, list[Finding]], list[Rejection]]:
    """Return the findings of each image, and the lines that make no sense.

    Args:
        table: `finding_annotations.csv`.
        images: the images there are.

    Raises:
        UsageError: it cannot be read, or lacks a column.
    """
    findings: dict[str, list[Finding]] = {}
    rejected = []
    for line in official_tables.read_csv(table, _COLUMNS):
        finding, problem = _parse(line, images)
        if problem:
            rejected.append(reject(table.name, f"line {line.number}: {problem}"))
        if finding is not None:
            of_image = findings.setdefault(line.values["image_id"], [])
            if any(replace(one, line=line.number) == finding for one in of_image):
                rejected.append(reject(table.name, f"line {line.number}: repeats an earlier line"))
            else:
                of_image.append(finding)
    return findings, rejected


def parse_categories(value: str) -> tuple[str, ...]:
    """Return the words of a list as the table writes it: ['Mass', 'Skin Retraction'].

    Raises:
        ValueError: it is no such list.
    """
    if not _LIST.fullmatch(value):
        raise ValueError("not a list of words in quotes")
    return tuple(single or double for single, double in re.findall(_WORD, value))


def _parse(line: Line, images: Container[str]) -> tuple[Finding | None, str | None]:
    """Return what a line says (None for No Finding), or what is wrong with it."""
    values = line.values
    if line.problem:
        return None, line.problem
    if values["image_id"] not in images:
        return None, "is about an image that the table of breasts does not have, or not validly"
    try:
        categories = parse_categories(values["finding_categories"])
    except ValueError as error:
        return None, f"finding_categories is {values['finding_categories'][:80]!r}, {error}"
    if categories == (NO_FINDING,):
        has_more = any(values[column] for column in ("finding_birads", *_BOX))
        return None, f"says {NO_FINDING}, but has a box or an assessment" if has_more else None
    unknown = [word for word in categories if word not in CATEGORIES]
    if unknown:
        return None, f"finding_categories has {unknown[0][:80]!r}, not one of {', '.join(CATEGORIES)}"
    return _finding(line, categories)


def _finding(line: Line, categories: tuple[str, ...]) -> tuple[Finding | None, str | None]:
    values: Mapping[str, str] = line.values
    try:
        assessment = birads.parse(values["finding_birads"]) if values["finding_birads"] else None
    except ValueError as error:
        return None, f"finding_birads is {values['finding_birads'][:80]!r}, {error}"
    finding = Finding(line.number, categories, assessment, None)
    if not any(values[column] for column in _BOX):
        return finding, None
    try:
        x0, y0, x1, y1 = (float(values[column]) for column in _BOX)
    except ValueError:
        return finding, "has a box that is not four numbers; the finding is kept without a place"
    if not (all(math.isfinite(value) for value in (x0, y0, x1, y1)) and x0 < x1 and y0 < y1):
        return finding, "has an empty box; the finding is kept without a place"
    return replace(finding, box=(x0, y0, x1, y1)), None
