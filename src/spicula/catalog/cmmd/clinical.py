"""The clinical table of CMMD: a spreadsheet with one row for each breast that was examined by biopsy."""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spicula.catalog import official_tables
from spicula.catalog.official_tables import Line, matching, one_of
from spicula.catalog.tree import Rejection
from spicula.errors import UsageError
from spicula.index import LATERALITIES
from spicula.silence import silence

#: Largest size of the spreadsheet's parts once inflated, in bytes, and most rows. The archive's has 1,873 rows.
MAX_BYTES = 2**26
MAX_ROWS = 100_000

PATIENT = re.compile(r"D[12]-\d{4}")
#: Findings that the column `abnormality` stands for.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    "mass": ("mass",),
    "calcification": ("calcification",),
    "both": ("mass", "calcification"),
}
CLASSIFICATIONS: Mapping[str, str] = {"Benign": "benign", "Malignant": "malignant"}
SUBTYPES = ("Luminal A", "Luminal B", "HER2-enriched", "triple negative")

_COLUMNS = ("ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype")

#: A patient and a side.
BreastKey = tuple[str, str]


@dataclass(frozen=True)
class Breast:
    """One row of the table.

    Attributes:
        age: of the patient, in years.
        images: how many the breast has.
        findings: mass, calcification or both.
        pathology: benign or malignant, confirmed by biopsy.
        subtype: the molecular one, of `SUBTYPES`; None where the table has none.
        line: the number of the row.
    """

    age: float
    images: int
    findings: tuple[str, ...]
    pathology: str
    subtype: str | None
    line: int = field(compare=False)


def read(table: Path) -> tuple[dict[BreastKey, Breast], list[Rejection]]:
    """Return the breasts that the table has, and the rows that make no sense.

    Raises:
        UsageError: it cannot be read, is no spreadsheet, or lacks a column.
    """
    return official_tables.collect(table.name, _lines(table), _parse)


def _parse(line: Line) -> tuple[BreastKey, Breast]:
    subtype = one_of(line, "subtype", SUBTYPES) if line.values["subtype"] else None
    key = (matching(line, "ID1", PATIENT, "a patient (D1-0001)")[0], one_of(line, "LeftRight", LATERALITIES))
    return key, Breast(
        age=float(matching(line, "Age", re.compile(r"\d{1,3}"), "an age in years")[0]),
        images=int(matching(line, "number", re.compile(r"\d{1,2}"), "a number of images")[0]),
        findings=FINDINGS[one_of(line, "abnormality", tuple(FINDINGS))],
        pathology=CLASSIFICATIONS[one_of(line, "classification", tuple(CLASSIFICATIONS))],
        subtype=subtype,
        line=line.number,
    )


def _lines(table: Path) -> Iterator[Line]:
    """Yield the rows of the first sheet below its first row, which names the columns."""
    rows = _rows(table)
    names = next(rows, [])
    missing = [column for column in _COLUMNS if column not in names]
    if missing:
        has = ", ".join(names)[:200] or "none"
        raise UsageError(
            f"the table {table} has no column {', '.join(missing)}; it has {has}. Is it the archive's own?"
        )
    for number, row in enumerate(rows, start=2):
        if any(row):
            filled = [*row, *[""] * (len(names) - len(row))]
            yield Line(number, dict(zip(names, filled, strict=False)))


def _rows(table: Path) -> Iterator[list[str]]:
    """Yield the rows of the first sheet, as texts."""
    try:
        cells = _cells(table)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"cannot read the table {table}: {error.strerror or 'broken file'}") from error
    except Exception as error:  # of a damaged file, the library raises nearly anything
        raise UsageError(f"the table {table} is not an XLSX spreadsheet ({type(error).__name__})") from error
    for row in cells:
        yield [_text(value) for value in row]


def _cells(table: Path) -> list[Sequence[Any]]:
    import openpyxl

    with zipfile.ZipFile(table) as parts:
        size = sum(part.file_size for part in parts.infolist())
    if size > MAX_BYTES:
        raise UsageError(f"the table {table} inflates to {size} bytes; at most {MAX_BYTES} are read")
    rows: list[Sequence[Any]] = []
    with silence:
        book = openpyxl.load_workbook(table, read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # what the sheet says of its size can be wrong
            for row in sheet.iter_rows(values_only=True):
                rows.append(row[:64])
                if len(rows) > MAX_ROWS:
                    raise UsageError(f"the table {table} has more than {MAX_ROWS} rows")
        finally:
            book.close()
    return rows


def _text(value: Any) -> str:
    """Return what a cell shows: whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()
