"""The images of an Index: which of their files are there, and their digests."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spicula import files, index
from spicula.errors import RejectedImageError, SpiculaError
from spicula.exams.intake.known import SCHEMA, Known
from spicula.exams.intake.listing import list_paths
from spicula.exams.intake.threads import in_threads
from spicula.progress import progress

_CHUNK = 256


def read(source: Path, known: Known) -> tuple[pa.Table, dict[str, str]]:
    """Read an Index, look for its files, and compute the digests that it does not have.

    Args:
        source: the Index.
        known: digests of the last time; brought up to date where the Index has none of its own.

    Returns:
        The Index, and path -> why a file cannot be read.

    Raises:
        UsageError: there is no such file.
        SpiculaError: it is not an Index, or none of its files is there.
    """
    table = index.read(source)
    root = index.root_of(table)
    of_exams = table.select(["path", "sha256"]).filter(table["exam_id"].is_valid())
    paths = of_exams["path"].unique().to_pylist()
    unreadable = _not_there(root, paths)
    if paths and len(unreadable) == len(paths):
        raise SpiculaError(
            f"none of the {len(paths)} files of {source} is in {root}; are the images there, and is the disk mounted? "
            "If they were moved, make the Index again"
        )
    without = of_exams.filter(of_exams["sha256"].is_null())["path"].unique().to_pylist()
    without = [path for path in without if path not in unreadable]
    if without:
        digests, more = _digests(root, without, known)
        unreadable |= more
        found = pa.array(digests.values(), pa.string()).take(
            pc.index_in(table["path"], value_set=pa.array(digests, pa.string()))
        )
        column = table.schema.get_field_index("sha256")
        table = table.set_column(column, table.schema.field(column), pc.coalesce(table["sha256"], found))
    return table, unreadable


def _not_there(root: Path, paths: list[str]) -> dict[str, str]:
    """Return the files of an Index that cannot be found, with the reason. On network shares every look takes time."""
    prefix = os.fspath(root)

    def look(path: str) -> bool:
        return os.path.isfile(f"{prefix}/{path}")  # noqa: PTH113 - half the time of Path.is_file, for 400,000 files

    there = in_threads(look, paths, _CHUNK)
    return {path: "is not there" for path, is_there in zip(paths, there, strict=True) if not is_there}


def _digests(root: Path, paths: list[str], known: Known) -> tuple[dict[str, str], dict[str, str]]:
    """Return path -> digest, and path -> why there is none."""
    listing = list_paths(root, paths)
    changed = known.changed(listing)
    old = known.rows.filter(pc.is_in(known.rows["path"], value_set=pa.array(listing.paths).filter(pa.array(~changed))))
    places = [int(place) for place in np.flatnonzero(changed)]

    def look(path: str) -> str | RejectedImageError:
        try:
            return files.sha256_file(root / path)
        except OSError as error:
            return RejectedImageError(f"cannot be read: {error.strerror}")

    to_read = [listing.paths[place] for place in places]
    found = (
        progress(in_threads(look, to_read, _CHUNK), "reading digests", "files", total=len(to_read)) if to_read else ()
    )
    new, unreadable = [], {one["path"]: one["reason"] for one in listing.problems}
    for place, digest in zip(places, found, strict=True):
        path = listing.paths[place]
        if isinstance(digest, RejectedImageError):
            unreadable[path] = str(digest)
        else:
            size, time = int(listing.sizes[place]), int(listing.times[place])
            new.append({"kind": "file", "path": path, "size": size, "mtime_ns": time, "sha256": digest})
    rows = pa.concat_tables([old, pa.Table.from_pylist(new, SCHEMA)])
    if new or rows.num_rows != known.rows.num_rows:
        known.replace(rows, "", listing.listed_ns)
    return dict(zip(rows["path"].to_pylist(), rows["sha256"].to_pylist(), strict=True)), unreadable
