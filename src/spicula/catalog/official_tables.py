"""Reading the tables that archives come with: found in the folder, checked for their columns, line by line."""

import csv
import io
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from spicula.catalog.tree import Rejection, reject
from spicula.errors import UsageError

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")

#: Largest table that is read, in bytes. The largest of the catalog has 20,000 lines and 5 MB.
MAX_BYTES = 2**26


class Line(NamedTuple):
    """One line of a table: its number in the file, and its values by column, without white space around them."""

    number: int
    values: dict[str, str]
    problem: str | None = None  # why the line cannot be used


def find(folder: Path, paths: Iterable[str], name: str, given: Path | None = None) -> Path | None:
    """Return the table that was given, else the one of this name that lies nearest to the root, else None."""
    if given is not None:
        return given
    found = [path for path in paths if path.rpartition("/")[2].lower() == name.lower()]
    return folder / min(found, key=lambda path: (path.count("/"), path)) if found else None


def read_csv(table: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[Line]:
    """Yield the lines of a table; blank ones are passed over.

    Args:
        table: the file, in UTF-8 or, where it is not, Latin-1.
        columns: what it must have; other columns are let be.
        delimiter: between values.

    Raises:
        UsageError: it cannot be read, is no CSV, or lacks a column.
    """
    reader = csv.DictReader(io.StringIO(_text(table), newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise UsageError(f"the table {table} is not CSV: {error}") from error
    missing = [column for column in columns if column not in names]
    if missing:
        has = "".join(letter if letter.isprintable() else "?" for letter in ", ".join(names)[:200]) or "none"
        raise UsageError(
            f"the table {table} has no column {', '.join(missing)}; it has {has}. Is it the archive's own?"
        )
    reader.fieldnames = names
    return _lines(table, reader)


def collect(
    name: str, lines: Iterable[Line], parse: Callable[[Line], tuple[Key, Entry]]
) -> tuple[dict[Key, Entry], list[Rejection]]:
    """Return what a table says of each image or breast, and the lines that could not be used.

    Where lines contradict each other, none of them counts: what they are about is left out.

    Args:
        name: of the table, for the rejected lines.
        lines: of the table.
        parse: returns what a line is about and what it says; what is wrong with it is a ValueError.
    """
    entries: dict[Key, Entry] = {}
    contradictory: set[Key] = set()
    rejected = []
    for line in lines:
        try:
            if line.problem:
                raise ValueError(line.problem)
            key, entry = parse(line)
            if key in entries and entries[key] != entry:
                contradictory.add(key)
                raise ValueError("says something else than an earlier line of the same; neither counts")
            if key in entries:
                raise ValueError("repeats an earlier line")
            entries[key] = entry
        except ValueError as error:
            rejected.append(reject(name, f"line {line.number}: {error}"))
    return {key: entry for key, entry in entries.items() if key not in contradictory}, rejected


def one_of(line: Line, column: str, allowed: Sequence[str]) -> str:
    """Return a value that is one of a few.

    Raises:
        ValueError: it is none of them; the message names the column, the value and what it can be.
    """
    if line.values[column] not in allowed:
        raise ValueError(f"{column} is {shown(line.values[column])}, not one of {', '.join(allowed)}")
    return line.values[column]


def matching(line: Line, column: str, pattern: re.Pattern[str], what: str) -> re.Match[str]:
    """Return the match of a value with a pattern.

    Raises:
        ValueError: it does not match; the message says that it is not `what`.
    """
    found = pattern.fullmatch(line.values[column])
    if not found:
        raise ValueError(f"{column} is {shown(line.values[column])}, not {what}")
    return found


def converted(line: Line, column: str, convert: Callable[[str], Entry]) -> Entry:
    """Return what a function makes of a value.

    Raises:
        ValueError: as the function does; the message names the column and the value.
    """
    try:
        return convert(line.values[column])
    except ValueError as error:
        raise ValueError(f"{column} is {shown(line.values[column])}, {error}") from None


def shown(value: str) -> str:
    """Return the beginning of a value as a message quotes it: on one line."""
    return repr(value[:60])


def _lines(table: Path, reader: "csv.DictReader[str]") -> Iterator[Line]:
    try:
        for values in reader:
            extra = values.pop(None, None)  # where DictReader puts what is too much
            short = any(value is None for value in values.values())
            clean = {name: (value or "").strip() for name, value in values.items()}
            if not any(clean.values()):
                continue
            problem = "has more values than the table has columns" if extra else None
            problem = "has fewer values than the table has columns" if short else problem
            yield Line(reader.line_num, clean, problem)
    except csv.Error as error:
        raise UsageError(f"the table {table} is not CSV: line {reader.reader.line_num}: {error}") from error


def _text(table: Path) -> str:
    try:
        size = table.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"the table {table} has {size} bytes; at most {MAX_BYTES} are read")
        data = table.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the table {table}: {error.strerror}") from error
    if b"\0" in data[:1000]:
        raise UsageError(f"the table {table} is not CSV in UTF-8; it is compressed, a spreadsheet, or in UTF-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
