"""A user's own CSV table: one row an image, named columns mapped to those of the Index, each value checked."""

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spicula import index
from spicula.catalog import birads
from spicula.catalog.tree import Rejection, reject
from spicula.errors import UsageError


def _text(value: str) -> str:
    return value


def _word(*allowed: str, **others: str) -> Callable[[str], str]:
    """Return a converter to one of the allowed words, whatever the case; `others` are further spellings."""
    spellings = {word.lower(): word for word in allowed} | others

    def convert(value: str) -> str:
        if value.lower() not in spellings:
            raise ValueError(f"not one of {', '.join(allowed)}")
        return spellings[value.lower()]

    return convert


def _number(least: float, is_least_allowed: bool) -> Callable[[str], float]:
    def convert(value: str) -> float:
        number = float(value)
        if not math.isfinite(number) or number < least or (number == least and not is_least_allowed):
            raise ValueError(f"not a number {'from' if is_least_allowed else 'above'} {least:g}")
        return number

    return convert


def _whole(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 32_767:
        raise ValueError("not a whole number from 0")
    return int(value)


#: Columns of the Index that a table can fill, and how a value is read.
CONVERTERS: Mapping[str, Callable[[str], Any]] = {
    "path": _text,
    "label": _text,
    "image_id": _text,
    "patient_id": _text,
    "exam_id": _text,
    "frame": _whole,
    "modality": _text,
    "laterality": _word(*index.LATERALITIES, left="L", right="R"),
    "view": _text,
    "birads": birads.parse,
    "density": _text,
    "subtype": _text,
    "magnification": _number(0, is_least_allowed=False),
    "age": _number(0, is_least_allowed=True),
    "split": _word(*index.SPLITS, valid="val", validation="val"),
    "fold": _whole,
    "pixel_spacing_mm": _number(0, is_least_allowed=False),
    "manufacturer": _text,
    "model": _text,
    "source": _text,
}
#: Shorter names that stand for columns of the Index.
ALIASES = {"patient": "patient_id", "exam": "exam_id"}


def read(root: Path, table: Path, columns: Mapping[str, str] | None) -> tuple[list[dict[str, Any]], list[Rejection]]:
    """Read a CSV table (comma, semicolon or tab; UTF-8; names in its first line).

    Paths in it are relative to the folder of the table, or to the root where the table lies elsewhere.

    Args:
        root: the folder of the images; nothing outside it is read.
        table: the CSV file.
        columns: column of the Index -> column of the table. Without it, the table's own names are taken.

    Returns:
        Rows of the Index, and the table's lines that could not be used, each with its number.

    Raises:
        UsageError: the table cannot be read, or has no such column.
    """
    names, lines = read_lines("folder", table)
    mapping = _mapping(table, names, columns)
    base = table.parent if table.parent.absolute().is_relative_to(root.absolute()) else root
    rows: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    seen: set[Any] = set()
    for number, values in lines:
        row = _row(root, base, mapping, values)
        problem = row if isinstance(row, str) else _duplicate(row, seen)
        if problem:
            rejected.append(reject(table.name, f"line {number}: {problem}"))
        elif not isinstance(row, str):
            rows.append(row)
    return rows, rejected


def read_lines(dataset: str, table: Path) -> tuple[list[str], Iterator[tuple[int, dict[str | None, Any]]]]:
    """Return the names of a CSV table's columns, and its lines: number in the file, and values by column.

    Raises:
        UsageError: it cannot be read or is no CSV; the message begins with the dataset's name.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{dataset}: cannot read the table {table}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{dataset}: the table {table} is not in UTF-8; save it as such") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise UsageError(f"{dataset}: the table {table} is not CSV: {error}") from error
    if len(set(names)) < len(names):
        raise UsageError(f"{dataset}: the table {table} has two columns of one name; its first line has to name them")
    reader.fieldnames = names
    return names, _numbered(dataset, table, reader)


def _numbered(dataset: str, table: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[int, dict[str | None, Any]]]:
    try:
        for values in reader:
            yield reader.reader.line_num, dict(values)
    except csv.Error as error:
        raise UsageError(f"{dataset}: the table {table} is not CSV: line {reader.reader.line_num}: {error}") from error


def _mapping(table: Path, names: list[str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return column of the Index -> column of the table."""
    if columns is None:
        known = {ALIASES.get(name, name): name for name in names}
        mapping = {column: name for column, name in known.items() if column in CONVERTERS}
    else:
        mapping = {ALIASES.get(column, column): name for column, name in columns.items()}
    for column in ("path", "label"):
        mapping.setdefault(column, column)
    unknown = [column for column in mapping if column not in CONVERTERS]
    if unknown:
        raise UsageError(f"folder: columns cannot fill {', '.join(unknown)}; it can fill {', '.join(CONVERTERS)}")
    absent = [name for name in mapping.values() if name not in names]
    if absent:
        raise UsageError(
            f"folder: the table {table} has no column {', '.join(map(str, absent))}; it has {', '.join(names)}. "
            'Say which one to take with the option columns, as in columns = {path = "file", label = "diagnosis"}'
        )
    return mapping


def _row(root: Path, base: Path, mapping: Mapping[str, str], values: Mapping[str | None, Any]) -> dict[str, Any] | str:
    """Return the Index row of one line, or what is wrong with the line."""
    if None in values:
        return "has more values than the table has columns"
    row: dict[str, Any] = {}
    for column, name in mapping.items():
        value = (values[name] or "").strip()
        try:
            row[column] = CONVERTERS[column](value) if value else None
        except ValueError as error:
            return f"{name} is {value!r}, {error}"
    if not row["path"]:
        return f"has no {mapping['path']}"
    path = _below(root, base, row["path"])
    if path is None:
        return f"{row['path']} lies outside {root}"
    if not (root / path).is_file():
        return f"no file {row['path']}"
    frame = row.get("frame") or 0
    image_id = row.get("image_id") or (f"{path}#{frame}" if frame else path)
    return {**row, "path": path, "frame": frame, "image_id": image_id}


def _below(root: Path, base: Path, value: str) -> str | None:
    """Return a path of the table relative to the root, or None when it leads out of it."""
    absolute = os.path.normpath(os.path.join(base.absolute(), value))  # noqa: PTH118 - and no links resolved
    relative = os.path.relpath(absolute, root.absolute()).replace(os.sep, "/")
    return None if relative == ".." or relative.startswith("../") else relative


def _duplicate(row: Mapping[str, Any], seen: set[Any]) -> str | None:
    """Say whether an earlier line has the same image or image_id; remember this one otherwise."""
    image, image_id = (row["path"], row["frame"]), row["image_id"]
    if image in seen:
        return f"{row['path']} is listed twice"
    if image_id in seen:
        return f"another line has the image_id {image_id}"
    seen.update((image, image_id))
    return None
