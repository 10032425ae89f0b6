"""The images of a folder or bucket as one Index: DICOM by their headers, all others by their names and by lists."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spicula import index
from spicula.catalog import exam_folders
from spicula.catalog.build import COLUMNS
from spicula.catalog.exam_folders.exam_files import MASK_FOLDERS
from spicula.catalog.pacs import dicomdir
from spicula.catalog.tree import is_document, reject
from spicula.errors import RejectedImageError, SpiculaError
from spicula.exams.intake import content
from spicula.exams.intake.known import SCHEMA, Known
from spicula.exams.intake.listing import Listing, Problem
from spicula.exams.intake.origins import Origin

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
_PICKLES = (".pkl", ".pickle")
_NAMED_KINDS = pa.array(["image", "list"])
#: Rows that are held as dictionaries at a time; each takes some 3 KB.
_MOST_ROWS = 4096
#: Columns that an image has from its name or list.
_NAMED = tuple(name for name in index.SCHEMA.names if name not in ("path", *COLUMNS))


@dataclass
class _Sorted:
    """The files of a listing by what their names let expect: places in the listing."""

    images: list[int] = field(default_factory=list)  # DICOM and others
    lists: list[int] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)  # DICOMDIR
    problems: list[Problem] = field(default_factory=list)


def read(origin: Origin, listing: Listing, known: Known) -> tuple[pa.Table, list[Problem]]:
    """Read images; those that are known and unchanged are not opened.

    Args:
        origin: where they are.
        listing: the files of it to read.
        known: what is known of them; it is brought up to date, and saved only when an object store fails or Ctrl-C is
            pressed, with what was read until then: to fetch it took time.

    Returns:
        An Index, in the order of the listing, and what could not be used: path and reason.

    Raises:
        SpiculaError: an object store failed.
    """
    found = _sort(listing.paths)
    wanted = listing.select(sorted(found.images + found.lists))
    changed = known.changed(wanted)
    rows = _rows(origin, wanted, changed, {listing.paths[place] for place in found.lists}, known)
    naming = _digest(rows)
    with _kept(known, lambda: rows):
        if naming != known.naming or _has_images(rows, wanted, changed):
            rows = _named(origin, rows)
        selected, problems = _select(origin, rows, found.directories)
    known.replace(rows, naming)
    table, copies = _without_copies(selected)
    problems = [*listing.problems, *found.problems, *problems, *copies, *_reported(rows)]
    return index.validate(index.with_root(table, origin.place)), problems


def _sort(paths: Sequence[str]) -> _Sorted:
    """Tell lists from images; documents and masks are passed over."""
    found = _Sorted()
    for place, path in enumerate(paths):
        parents, _, name = path.lower().rpartition("/")
        if name == dicomdir.NAME.lower():
            found.directories.append(path)
        elif name.endswith(_PICKLES) or (name.endswith(".json") and "list" in name):
            found.lists.append(place)
        elif name.endswith(_ARCHIVES):
            found.problems.append(reject(path, "an archive; unpack it into the folder"))
        elif not is_document(name) and parents.rpartition("/")[2] not in MASK_FOLDERS:
            found.images.append(place)
    return found


class _New:
    """Rows of files that are read anew, most of them as a table."""

    def __init__(self) -> None:
        self._tables = [SCHEMA.empty_table()]
        self._rows: list[content.Row] = []

    def add(self, row: content.Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= _MOST_ROWS:
            self._tables = [self.table()]
            self._rows = []

    def table(self) -> pa.Table:
        return pa.concat_tables([*self._tables, pa.Table.from_pylist(self._rows, SCHEMA)])


def _rows(origin: Origin, wanted: Listing, changed: Any, lists: set[str], known: Known) -> pa.Table:
    """Return what is known of the files and what the changed ones say, in the order of the listing."""
    paths = pa.array(wanted.paths, pa.string())
    kept = known.rows.filter(pc.is_in(known.rows["path"], value_set=paths.filter(pa.array(~changed))))
    places, new = [int(place) for place in np.flatnonzero(changed)], _New()
    if not places:
        return kept
    to_read = [wanted.paths[place] for place in places if wanted.paths[place] not in lists]
    read = content.read_many(origin, to_read) if to_read else iter(())
    with _kept(known, lambda: pa.concat_tables([kept, new.table()])):
        for place in places:
            path = wanted.paths[place]
            of_file = [{"kind": "list", "path": path, "reasons": []}] if path in lists else next(read)
            size, stamp = int(wanted.sizes[place]), int(wanted.stamps[place])
            for row in of_file:
                passes = wanted.is_fresh[place] or any(map(content.is_passing, row["reasons"]))
                new.add({**row, "size": size, "stamp": None if passes else stamp, "naming": []})
    rows = pa.concat_tables([kept, new.table()])
    return rows.take(np.argsort(pc.index_in(rows["path"], value_set=paths).to_numpy(), kind="stable"))


@contextmanager
def _kept(known: Known, rows: Callable[[], pa.Table]) -> Iterator[None]:
    """Save these rows when the block fails or Ctrl-C is pressed; names and lists are then read again next time."""
    try:
        yield
    except (SpiculaError, KeyboardInterrupt):
        known.replace(rows(), "")
        known.save()
        raise


def _digest(rows: pa.Table) -> str:
    """Return what the naming of images hangs on: which there are, and the lists with their stamps."""
    named = rows.filter(pc.is_in(rows["kind"], value_set=_NAMED_KINDS))
    lists = named.filter(pc.equal(named["kind"], "list"))
    digest = hashlib.sha256("\n".join(named["path"].to_pylist()).encode())
    digest.update(lists["size"].to_numpy().tobytes() + lists["stamp"].fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()


def _has_images(rows: pa.Table, wanted: Listing, changed: Any) -> bool:
    """Say whether a file that was read anew is one that has its exam from its name."""
    new = pa.array([wanted.paths[place] for place in np.flatnonzero(changed)], pa.string())
    named = pc.and_(pc.is_in(rows["path"], value_set=new), pc.not_equal(rows["kind"], "dicom"))
    return bool(pc.any(named).as_py())


def _named(origin: Origin, rows: pa.Table) -> pa.Table:
    """Fill in what the names of images and exam lists say."""
    is_named = pc.is_in(rows["kind"], value_set=_NAMED_KINDS)
    named = rows.filter(is_named)
    if not named.num_rows:
        return rows
    lists = named.filter(pc.equal(named["kind"], "list"))["path"].to_pylist()
    with _files(origin, lists) as local:
        reading = exam_folders.read_files(Path(origin.place), named["path"].to_pylist(), {}, local)
    at = pc.index_in(named["path"], value_set=reading.index["path"].combine_chunks())
    for name in _NAMED:
        named = _set(named, name, reading.index[name].take(at))
    named = _set(named, "position", at.cast(pa.int64()))
    named = _set(named, "naming", _reasons_by_path(named["path"].to_pylist(), reading.rejected.to_pylist()))
    order = np.argsort(np.concatenate([np.flatnonzero(~_flags(is_named)), np.flatnonzero(_flags(is_named))]))
    return pa.concat_tables([rows.filter(pc.invert(is_named)), named]).take(order)


@contextmanager
def _files(origin: Origin, paths: Iterable[str]) -> Iterator[dict[str, Path]]:
    """Yield path -> file of this machine, of some lists or DICOMDIRs.

    Raises:
        SpiculaError: one is gone from a bucket, or may not be read: without it other exams would be found.
    """
    with ExitStack() as stack:
        local = {}
        for path in paths:
            try:
                local[path] = stack.enter_context(origin.file(path))
            except RejectedImageError as error:
                raise SpiculaError(f"{origin.place}: {path} {error}; put it right, and run again") from None
        yield local


def _flags(values: Any) -> Any:
    return values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()


def _reasons_by_path(paths: Iterable[str], rejected: Iterable[Problem]) -> pa.Array:
    """Return the reasons of every path. Those about exams, not files, are found again when exams are made."""
    by_path: dict[str, list[str]] = {}
    for one in rejected:
        by_path.setdefault(one["path"], []).append(one["reason"])
    return pa.array([by_path.get(path, []) for path in paths], pa.list_(pa.string()))


def _select(origin: Origin, rows: pa.Table, directories: Sequence[str]) -> tuple[pa.Table, list[Problem]]:
    """Return the rows of images that can be used, below a DICOMDIR those that it names."""
    usable = rows.filter(pc.and_(rows["image_id"].is_valid(), rows["sha256"].is_valid()))
    is_named = pc.equal(usable["kind"], "image")
    named = usable.filter(is_named).sort_by("position")  # in the order of their lists
    usable = pa.concat_tables([usable.filter(pc.invert(is_named)), named])
    table = usable.select(index.SCHEMA.names).cast(index.SCHEMA)
    if not directories:
        return table, []
    paths = rows["path"].filter(pc.equal(rows["kind"], "dicom")).unique().to_pylist()
    with _files(origin, directories) as local:
        chosen, problems = dicomdir.select(Path(origin.place), [*paths, *directories], local)
    left_out = pa.array(sorted(set(paths) - set(chosen)), pa.string())
    return table.filter(pc.invert(pc.is_in(table["path"], value_set=left_out))), problems


def _without_copies(table: pa.Table) -> tuple[pa.Table, list[Problem]]:
    """Keep the first image of every id, and say of the others whether they are copies of it."""
    codes = table["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    if len(first) == len(codes):
        return table, []
    first_of = np.zeros(len(codes), dtype=np.int64)
    first_of[codes[first]] = first
    problems: dict[str, Problem] = {}
    others = np.setdiff1d(np.arange(len(codes)), first)
    copies, originals = (
        table.select(["path", "sha256"]).take(rows).to_pylist() for rows in (others, first_of[codes[others]])
    )
    for here, there in zip(copies, originals, strict=True):
        what = "a copy of" if here["sha256"] == there["sha256"] else "has the image id but not the content of"
        problems.setdefault(here["path"], reject(here["path"], f"{what} {there['path']}, which is used"))
    return table.take(np.sort(first)), list(problems.values())


def _reported(rows: pa.Table) -> list[Problem]:
    """Return the reasons of all files: those by names only of files that can be read."""
    odd = pc.or_(
        pc.greater(pc.list_value_length(rows["reasons"]), 0), pc.greater(pc.list_value_length(rows["naming"]), 0)
    )
    found: dict[tuple[str, str], Problem] = {}
    has_dicom = bool(pc.any(pc.equal(rows["kind"], "dicom")).as_py())
    for row in rows.filter(odd).select(["kind", "path", "reasons", "naming"]).to_pylist():
        reasons = row["reasons"] or row["naming"]
        if row["kind"] == "list" and has_dicom:
            reasons = [*reasons, "DICOM files are put together by their headers, not by this list"]
        for reason in reasons:
            found.setdefault((row["path"], reason), reject(row["path"], reason))
    return list(found.values())


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), values)
