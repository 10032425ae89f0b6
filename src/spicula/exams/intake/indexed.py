"""The images of an Index: which of their files are there, and their digests."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spicula import files, index
from spicula.errors import RejectedImageError, SpiculaError
from spicula.exams.intake.known import SCHEMA, Known
from spicula.exams.intake.origins import Origin, origin_of
from spicula.exams.intake.threads import in_threads
from spicula.progress import progress


def read(file: Path, name: str, known: Known) -> tuple[pa.Table, dict[str, str]]:
    """Read an Index, look for its files, and compute the digests that it does not have.

    Args:
        file: the Index. Its root is a folder, or an address in an object store.
        name: what messages call it.
        known: digests of the last time; brought up to date where the Index has none of its own.

    Returns:
        The Index, and path -> why a file cannot be read.

    Raises:
        UsageError: there is no such file.
        SpiculaError: it is not an Index, or none of its files is there.
    """
    try:
        table = index.read(file)
    except SpiculaError as error:
        raise type(error)(str(error).replace(str(file), name)) from None
    origin = origin_of(index.place_of(table))
    of_exams = table.select(["path", "sha256"]).filter(table["exam_id"].is_valid())
    paths = of_exams["path"].unique().to_pylist()
    unreadable = dict.fromkeys(origin.missing(paths), "is not there")
    if paths and len(unreadable) == len(paths):
        raise SpiculaError(
            f"none of the {len(paths)} files of {name} is in {origin.place}; are the images there, and is the disk "
            "mounted? If they were moved, make the Index again"
        )
    without = of_exams.filter(of_exams["sha256"].is_null())["path"].unique().to_pylist()
    without = [path for path in without if path not in unreadable]
    if without:
        digests, more = _digests(origin, without, known)
        unreadable |= more
        found = pa.array(digests.values(), pa.string()).take(
            pc.index_in(table["path"], value_set=pa.array(digests, pa.string()))
        )
        column = table.schema.get_field_index("sha256")
        table = table.set_column(column, table.schema.field(column), pc.coalesce(table["sha256"], found))
    return table, unreadable


def _digests(origin: Origin, paths: list[str], known: Known) -> tuple[dict[str, str], dict[str, str]]:
    """Return path -> digest, and path -> why there is none."""
    listing = origin.find(paths)
    changed = known.changed(listing)
    old = known.rows.filter(pc.is_in(known.rows["path"], value_set=pa.array(listing.paths).filter(pa.array(~changed))))
    places = [int(place) for place in np.flatnonzero(changed)]

    def look(path: str) -> str | RejectedImageError:
        try:
            with origin.file(path) as file:
                return files.sha256_file(file)
        except RejectedImageError as error:
            return error
        except OSError as error:
            return RejectedImageError(f"cannot be read: {error.strerror}")

    to_read = [listing.paths[place] for place in places]
    found = in_threads(look, to_read, origin.chunk, origin.threads) if to_read else ()
    new, unreadable = [], {one["path"]: one["reason"] for one in listing.problems}
    for place, digest in zip(places, progress(found, "reading digests", "files", len(to_read)), strict=True):
        path = listing.paths[place]
        if isinstance(digest, RejectedImageError):
            unreadable[path] = str(digest)
        else:
            size, stamp = int(listing.sizes[place]), int(listing.stamps[place])
            kept = None if listing.is_fresh[place] else stamp
            new.append({"kind": "file", "path": path, "size": size, "stamp": kept, "sha256": digest})
    rows = pa.concat_tables([old, pa.Table.from_pylist(new, SCHEMA)])
    if new or rows.num_rows != known.rows.num_rows:
        known.replace(rows, "")
    return dict(zip(rows["path"].to_pylist(), rows["sha256"].to_pylist(), strict=True)), unreadable
