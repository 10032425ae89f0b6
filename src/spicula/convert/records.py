"""What is done: small tables in the output folder, each written after the files that it speaks of.

`.spicula/records/NAME.parquet` has rows of `sample.RECORD`. What is left to do is told from the files alone: whatever
has no record, or another size than its record says, is made again.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spicula import files
from spicula.convert.sample import RECORD, Task

FOLDER = ".spicula/records"

Record = dict[str, Any]


def write(to: Path, rows: Sequence[Record]) -> Path:
    """Write records as one table, atomically, and return where."""
    path = to / FOLDER / f"{files.sha256_json([row['key'] for row in rows])[:32]}.parquet"
    files.write_table(path, pa.Table.from_pylist(list(rows), schema=RECORD))
    return path


def read(to: Path) -> dict[str, Record]:
    """Return all records of an output folder by their keys; tables that are damaged are passed over."""
    found: dict[str, Record] = {}
    for path in sorted((to / FOLDER).glob("[!.]*.parquet")):
        with suppress(OSError, ValueError, pa.ArrowInvalid):
            found.update({row["key"]: row for row in pq.read_table(path, schema=RECORD).to_pylist()})
    return found


def fold(to: Path, without: Iterable[str] = ()) -> None:
    """Put all records into one table, and leave out those of some paths.

    A conversion forgets what it is about to make again before it does so: otherwise a record could come to speak of a
    file that was written over it.
    """
    before = sorted((to / FOLDER).glob("[!.]*.parquet"))
    dropped = set(without)
    known = read(to)
    kept = [record for _, record in sorted(known.items()) if record["path"] not in dropped]
    if len(before) < 2 and len(kept) == len(known):
        return
    one = write(to, kept)
    for path in before:
        if path != one:
            path.unlink(missing_ok=True)


def whole(to: Path, tasks: Iterable[Task]) -> dict[str, Record]:
    """Return the records of those tasks whose files are all there, in the sizes in which they were written."""
    known = read(to)
    return {task.key: known[task.key] for task in tasks if task.key in known and _is_whole(to, known[task.key])}


def _is_whole(to: Path, record: Record) -> bool:
    sizes = {record["path"]: record["bytes"], **{mask["path"]: mask["bytes"] for mask in record["masks"]}}
    with suppress(OSError):
        return all((to / path).stat().st_size == size for path, size in sizes.items() if size is not None)
    return False
