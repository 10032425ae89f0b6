"""A hospital's own labels for DICOM images: a CSV table that names images, studies or patients, and maybe the side.

What the table calls a patient is compared and never repeated: no message holds it, nor any other value or name of a
column, for a table without a line of names begins with a patient.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spicula.catalog.folder.table import CONVERTERS, read_lines
from spicula.catalog.tree import Rejection, reject
from spicula.errors import UsageError

#: What lines can be about, from the most to the least exact, and the names that the table may give it.
KEYS: Mapping[str, tuple[str, ...]] = {
    "image": ("SOPInstanceUID", "image"),
    "exam": ("StudyInstanceUID", "exam"),
    "patient": ("PatientID", "patient"),
}
#: Columns of the Index that the table can fill.
VALUES = ("label", "birads", "density", "subtype", "split", "fold")

Key = tuple[str, ...]


@dataclass
class Labels:
    """What a table says.

    Attributes:
        name: of the table's file.
        keys: which of `KEYS` its lines name.
        entries: image, exam or patient (as DICOM has them) and side -> line number and columns of the Index; the side
            is "" for both.
        rejected: lines that could not be used.
    """

    name: str
    keys: tuple[str, ...]
    entries: dict[Key, tuple[int, dict[str, Any]]]
    rejected: list[Rejection]
    _used: set[Key] = field(default_factory=set)

    def of(self, ids: Mapping[str, str | None], laterality: str | None) -> dict[str, Any]:
        """Return the columns for an image: those of a line for its side, else of a line without one, else none."""
        known = tuple(ids[key] or "" for key in self.keys)
        for side in (laterality or "", ""):
            key = (*known, side)
            if key in self.entries:
                self._used.add(key)
                return self.entries[key][1]
        return {}

    def unused(self) -> list[Rejection]:
        """Return the lines that fitted no image."""
        lines = sorted(line for key, (line, _) in self.entries.items() if key not in self._used)
        return [reject(self.name, f"line {line}: fits no image") for line in lines]


def read(table: Path, columns: Mapping[str, str] | None) -> Labels:
    """Read a table of labels (comma, semicolon or tab; UTF-8; names in its first line).

    Args:
        table: the CSV file.
        columns: image, exam, patient, laterality or a column of `VALUES` -> column of the table. What it does not name
            is looked for under its own name, or the DICOM keyword.

    Raises:
        UsageError: it cannot be read, has no such column, names neither image, study nor patient, or has no label.
    """
    names, lines = read_lines("dicom", table)
    mapping = _mapping(table, names, columns or {})
    keys = tuple(key for key in KEYS if key in mapping)
    if not keys:
        known = ", ".join(name for several in KEYS.values() for name in several)
        raise UsageError(
            f"dicom: the table {table} names neither image, study nor patient; give it a column of {known}"
        )
    if "label" not in mapping:
        raise UsageError(
            f"dicom: the table {table} has no column label in its first line. "
            'Say which one to take with the option columns, as in columns = {label = "diagnosis"}'
        )
    labels = Labels(table.name, keys, {}, [])
    _fill(labels, mapping, lines)
    return labels


def _mapping(table: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return what a line can say -> column of the table."""
    allowed = (*KEYS, "laterality", *VALUES)
    unknown = [name for name in columns if name not in allowed]
    if unknown:
        raise UsageError(f"dicom: columns cannot fill {', '.join(unknown)}; it can fill {', '.join(allowed)}")
    absent = [str(name) for name in columns.values() if name not in names]
    if absent:
        raise UsageError(f"dicom: the table {table} has no column {', '.join(absent)} in its first line")
    mapping = {}
    for one in allowed:
        found = [name for name in KEYS.get(one, (one,)) if name in names]
        if one in columns or found:
            mapping[one] = columns.get(one) or found[0]
    return mapping


def _fill(labels: Labels, mapping: Mapping[str, str], lines: Iterable[tuple[int, dict[str | None, Any]]]) -> None:
    contradicted: set[Key] = set()
    for number, values in lines:
        try:
            key, entry = _line(labels.keys, mapping, values)
        except ValueError as error:
            labels.rejected.append(reject(labels.name, f"line {number}: {error}"))
            continue
        first, known = labels.entries.setdefault(key, (number, entry))
        if known != entry:
            contradicted.add(key)
            reason = f"line {number}: says something else than line {first} of the same; neither counts"
            labels.rejected.append(reject(labels.name, reason))
    for key in contradicted:
        del labels.entries[key]


def _line(
    keys: tuple[str, ...], mapping: Mapping[str, str], values: Mapping[str | None, Any]
) -> tuple[Key, dict[str, Any]]:
    if None in values:
        raise ValueError("has more values than the table has columns")
    said = {one: (values[name] or "").strip() for one, name in mapping.items()}
    empty = [mapping[key] for key in keys if not said[key]]
    if empty:
        raise ValueError(f"has no {', '.join(empty)}")
    side = _converted("laterality", mapping, said["laterality"]) if said.get("laterality") else ""
    entry = {one: _converted(one, mapping, said[one]) for one in VALUES if said.get(one)}
    return (*(said[key] for key in keys), side), entry


def _converted(one: str, mapping: Mapping[str, str], value: str) -> Any:
    convert: Callable[[str], Any] = CONVERTERS[one]
    try:
        return convert(value)
    except ValueError as error:
        raise ValueError(f"{mapping[one]} is {error}") from None
