"""One append-only Delta table: opening, reading, commits that notice one another, and keeping it quick to read."""

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.stores import is_remote

#: Every commit writes its number under this name (Delta's application transactions). Two commits that do so at the
#: same time conflict, where two that only add rows would both pass.
APPLICATION = "spicula.ledger"

#: Who is about to put files together writes under this name when it began, in seconds of POSIX time, and 0 when it is
#: done. Of two processes that replace the same files at once the library lets both commit, and then every row in them
#: is there twice. It takes seconds; one that was killed meanwhile is waited for no longer than this.
TIDYING, TIDYING_SECONDS = "spicula.ledger.tidying", 3600

#: So often a commit is tried while others come first, with a random wait of up to the second number in between.
MOST_TRIES, LONGEST_WAIT_SECONDS = 200, 0.5

#: Small files are put together when there are so many: each commit makes one, and each slows all that follows.
MOST_SMALL_FILES = 64
FILE_BYTES = 64 << 20

#: Commits between two checkpoints of the log: whoever opens the table reads at most so many single entries.
CHECKPOINT_INTERVAL = 50


#: Characters of a path that the library takes for something else, or stumbles over.
_ODD = re.compile(r"[%\[\]\\^|\x00-\x1f\x7f]")


def delta() -> Any:
    """Return the library for Delta tables.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import deltalake
    except ImportError:
        raise UsageError("the exam ledger needs deltalake: pip install 'spicula[exams]'") from None
    return deltalake


def check_path(place: str) -> None:
    """Refuse paths that the library reads as others.

    Raises:
        UsageError: it has such a character.
    """
    odd = _ODD.search(place)
    if odd:
        raise UsageError(f"{place!r}: Delta tables cannot lie where the path has {odd[0]!r}; choose another place")


def options_for(place: str, given: Mapping[str, str] | None) -> dict[str, str]:
    """Return Delta's storage options for a place; what is not given there comes from the environment."""
    options = dict(given or {})
    if place.startswith("s3://"):
        names = {name.upper() for name in options}
        endpoint = next(
            (value for name, value in options.items() if name.upper() in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")),
            os.environ.get("AWS_ENDPOINT_URL", ""),
        )
        if endpoint.startswith("http://") and "AWS_ALLOW_HTTP" not in names:
            options["AWS_ALLOW_HTTP"] = "true"
        if "AWS_CONDITIONAL_PUT" not in names:
            options["AWS_CONDITIONAL_PUT"] = "etag"  # without it two commits at once could overwrite one another
    return options


def exists(place: str, options: dict[str, str]) -> bool:
    """Whether there is a Delta table."""
    with _errors(place, "read"):
        return bool(delta().DeltaTable.is_deltatable(place, options))


def create(place: str, schema: pa.Schema, description: str, options: dict[str, str]) -> None:
    """Make an empty table, unless there is one; several processes may do so at once.

    Raises:
        SpiculaError: the place cannot be written.
    """
    from deltalake.exceptions import DeltaError

    settings = {"delta.checkpointInterval": str(CHECKPOINT_INTERVAL), "delta.appendOnly": "true"}
    with _errors(place, "written"):
        try:
            delta().DeltaTable.create(
                place, schema, mode="ignore", description=description, configuration=settings, storage_options=options
            )
        except DeltaError:
            if not exists(place, options):  # else another process was quicker
                raise


class Table:
    """A Delta table whose rows are only ever added, as it was when it was last looked at (`refresh`).

    Args:
        place: folder or address.
        schema: the columns, `commit` and `time` among them, which `append` fills.
        options: Delta's storage options.

    Raises:
        SpiculaError: it cannot be read, or has other columns.
    """

    def __init__(self, place: str, schema: pa.Schema, options: dict[str, str]) -> None:
        self.place, self.schema = place, schema
        with _errors(place, "read"):
            self._delta = delta().DeltaTable(place, storage_options=options)
            found = [field.name for field in self._delta.schema().fields]
        if found != schema.names:
            raise SpiculaError(
                f"{place} was not made by this version of Spicula: its columns are {', '.join(found)}; "
                "use the version that made it, or start with an empty workspace"
            )
        self._files: Any = None
        if not is_remote(place):  # quicker than through the library
            self._files = pyarrow.fs.SubTreeFileSystem(place, pyarrow.fs.LocalFileSystem())

    @property
    def commits(self) -> int:
        """The number of the last commit that is known here."""
        return self._delta.transaction_version(APPLICATION) or 0

    def refresh(self) -> None:
        """Look at what was committed meanwhile."""
        with _errors(self.place, "read"):
            self._delta.update_incremental()

    def read(self, columns: Iterable[str], where: ds.Expression | None = None) -> pa.Table:
        """Return columns of all rows for which an expression holds, in any order."""
        with _errors(self.place, "read"):
            dataset = self._delta.to_pyarrow_dataset(filesystem=self._files)
            table = dataset.to_table(columns=list(columns), filter=where)
        return table.cast(pa.schema([self.schema.field(name) for name in table.schema.names]))

    def append(self, rows: Callable[[], pa.Table]) -> int:
        """Add rows in one commit, or none.

        Args:
            rows: returns what is to be added to the table as it is known then, without `commit` and `time`. It is
                called again when another process committed in between.

        Returns:
            How many rows were added.

        Raises:
            SpiculaError: the table cannot be written.
        """
        from deltalake.exceptions import CommitFailedError

        for _ in range(MOST_TRIES):
            new = rows()
            if not new.num_rows:
                return 0
            number = self.commits + 1
            try:
                with _errors(self.place, "written", but=(CommitFailedError,)):
                    self._write(_stamped(new, self.schema, number), number)
            except CommitFailedError:
                time.sleep(random.uniform(0, LONGEST_WAIT_SECONDS))
                self.refresh()
            else:
                return int(new.num_rows)
        raise SpiculaError(f"{self.place}: other runs came first {MOST_TRIES} times; start this one again")

    def tidy(self, sweep: bool = False) -> None:
        """Put small files together when there are many; safe while others read and write.

        Args:
            sweep: also delete files that no version of the last week needs.
        """
        from deltalake.exceptions import CommitFailedError

        with _errors(self.place, "written", but=(CommitFailedError,)):
            sizes = pa.table(self._delta.get_add_actions(flatten=True))["size_bytes"].to_numpy()
            if (sizes < FILE_BYTES // 2).sum() < MOST_SMALL_FILES:
                return
            began = int(time.time())
            last = self._delta.transaction_version(TIDYING) or 0
            if abs(began - last) < TIDYING_SECONDS:
                return
            try:
                self._mark_tidying(began)
                with _quiet(), self._synced():
                    self._delta.optimize.compact(target_size=FILE_BYTES, writer_properties=_written_as())
                if sweep:
                    self._delta.vacuum(dry_run=False, full=True)
                self._delta.update_incremental()
                if self._delta.transaction_version(TIDYING) == began:
                    self._mark_tidying(0)
            except CommitFailedError:  # another process did so at the same time
                self.refresh()

    def _mark_tidying(self, number: int) -> None:
        """Write a commit of no rows, which fails when another process wrote one since the table was last looked at."""
        with self._synced():
            self._delta.create_write_transaction(
                [], "append", self._delta.schema(), commit_properties=_marked(TIDYING, number)
            )
            self._delta.update_incremental()

    def _write(self, rows: pa.Table, number: int) -> None:
        with _quiet(), self._synced():
            delta().write_deltalake(
                self._delta,
                rows,
                mode="append",
                writer_properties=_written_as(),
                commit_properties=_marked(APPLICATION, number),
            )

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """Wait until what is committed here is on the disk: the library leaves that to the operating system."""
        before = self._delta.version()
        yield
        if is_remote(self.place):
            return
        root = Path(self.place)
        for version in range(before + 1, self._delta.version() + 1):
            entry = root / "_delta_log" / f"{version:020}.json"
            actions = [json.loads(line) for line in entry.read_text(encoding="utf-8").splitlines()]
            for path in (*(root / action["add"]["path"] for action in actions if "add" in action), entry):
                files.sync(path)
        files.sync(root)
        files.sync(root / "_delta_log")


def _stamped(rows: pa.Table, schema: pa.Schema, number: int) -> pa.Table:
    count = rows.num_rows
    rows = rows.append_column("commit", pa.repeat(pa.scalar(number, pa.int64()), count))
    rows = rows.append_column("time", pa.repeat(pa.scalar(datetime.now(UTC), schema.field("time").type), count))
    return rows.select(schema.names).cast(schema)


def _marked(application: str, number: int) -> Any:
    library = delta()
    return library.CommitProperties(app_transactions=[library.Transaction(application, number)])


def _written_as() -> Any:
    # digests are half the rows; hexadecimal digits take half the room when packed
    return delta().WriterProperties(compression="ZSTD", compression_level=3)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from standard error what the library's threads print there when a disk is full; it raises the error too."""
    kept = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _errors(place: str, what: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the library raises into one line that names the table."""
    failures = (delta().exceptions.DeltaError, OSError, pa.ArrowException)
    try:
        yield
    except but:
        raise
    except failures as error:
        raise SpiculaError(
            f"{place} cannot be {what}: {plain(str(error))}; check that it is reachable, your rights and the free space"
        ) from None


def plain(text: str) -> str:
    """Return a message of the library in one line, without colours, arrows, and names that it made up for files."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|↳|/part-\d+-[0-9a-f-]{36}\S*parquet(#\d+)?", " ", text).split())[:300]
