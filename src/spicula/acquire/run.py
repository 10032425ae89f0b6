"""Working through the items of a download: from the mirror or from upstream, several at a time, with patience."""

import errno
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spicula.acquire import records, transfer
from spicula.acquire.account import Row
from spicula.acquire.records import Record
from spicula.acquire.transfer import Retry, Tell, Unreachable, wait_seconds
from spicula.acquire.types import Item
from spicula.errors import SpiculaError
from spicula.progress import Meter, show_bytes

if TYPE_CHECKING:
    from spicula.acquire.mirror import Mirror

# What is wrong with the target, and not with one item.
_TARGET_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_LOOK_EVERY_SECONDS = 0.2
_SECONDS_TO_STOP = 2.0


class _Stopped(BaseException):
    """The download is being stopped. No Exception, so that nobody takes it for the failure of an item."""


def run(
    items: Sequence[Item], to: Path, *, jobs: int, mirror: "Mirror | None" = None, fill_mirror: bool = False
) -> list[Row]:
    """Fetch items into a folder, several at a time; the failure of one never stops the others.

    Args:
        items: what to fetch, each key once.
        to: the target, in which nobody else works.
        jobs: how many at a time.
        mirror: a copy to ask first.
        fill_mirror: whether what is whole is put into the mirror.

    Returns:
        How each item ended, in their order.

    Raises:
        SpiculaError: the target cannot be written to, or has not enough space.
    """
    whole = {item.key: record for item in items if (record := records.whole(to, item.key))}
    missing = [item for item in items if item.key not in whole]
    _check_space(to, missing)
    rows = {key: _row(record, "skipped") for key, record in whole.items()}
    with Meter("downloading", "items", [item.bytes for item in missing]) as meter:
        worker = _Worker(to, _places(items, whole), meter, mirror, mirror if fill_mirror else None)
        work: list[Callable[[], Row]] = [lambda item=item: worker.obtain(item) for item in missing]  # type: ignore[misc]
        if fill_mirror:
            work += [lambda record=record: worker.fill(record) for record in whole.values()]  # type: ignore[misc]
        rows |= {row.key: row for row in _in_threads(work, worker, jobs)}
    return [rows[item.key] for item in items]


def _in_threads(work: "Sequence[Callable[[], Row]]", worker: "_Worker", jobs: int) -> list[Row]:
    """Call functions in threads, and return what they return. An interrupt, or a target that fails, stops all soon."""
    todo: queue.SimpleQueue[Callable[[], Row]] = queue.SimpleQueue()
    for call in work:
        todo.put(call)
    done: queue.SimpleQueue[Row] = queue.SimpleQueue()
    rows: list[Row] = []
    # Daemons: a thread that waits for a server does not hold up the end of the program. Nothing is lost with it.
    threads = [
        threading.Thread(target=worker.obey, args=(todo, done), daemon=True) for _ in range(min(jobs, len(work)))
    ]
    try:
        for thread in threads:
            thread.start()
        while len(rows) < len(work) and worker.target_error is None:
            with suppress(queue.Empty):
                rows.append(done.get(timeout=_LOOK_EVERY_SECONDS))
            worker.meter.show()
    finally:
        worker.stop.set()
        deadline = time.monotonic() + _SECONDS_TO_STOP
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if worker.target_error is not None:
        raise worker.target_error
    return rows


class _Worker:
    """What the threads of a download do, and what they share.

    Attributes:
        stop: set when all are to stop.
        target_error: why nothing can be written any more.
        meter: how far the download got.
    """

    def __init__(
        self,
        to: Path,
        places: Mapping[str, str],
        meter: Meter,
        mirror: "Mirror | None",
        to_fill: "Mirror | None",
    ) -> None:
        self.stop = threading.Event()
        self.target_error: SpiculaError | None = None
        self.meter = meter
        self._to = to
        self._places = places
        self._mirror = mirror
        self._to_fill = to_fill
        self._gone = ""
        self._last_contact = time.monotonic()

    def obey(self, todo: "queue.SimpleQueue[Callable[[], Row]]", done: "queue.SimpleQueue[Row]") -> None:
        """Do what there is to do, until it is done or to be stopped."""
        while not self.stop.is_set():
            try:
                done.put(todo.get_nowait()())
            except (queue.Empty, _Stopped):
                return

    def fill(self, record: Record) -> Row:
        """Put an item that was whole already into the mirror."""
        assert self._to_fill is not None
        self._to_fill.store(record, self._to)
        return _row(record, "skipped")

    def obtain(self, item: Item) -> Row:
        """Fetch an item and bring it to its place; whatever fails ends in its row."""
        self.meter.begin(id(item), item.bytes)
        try:
            record = self._from_mirror(item) or self._from_upstream(item)
            if self._to_fill and record.source == "upstream":
                self._to_fill.store(record, self._to)
            return _row(record, "complete")
        except Exception as error:  # of one item: the others go on
            self._notice_target(error)
            return Row(item.key, "", "failed", reason=_reason(error))
        finally:
            self.meter.end(id(item))

    def _from_mirror(self, item: Item) -> Record | None:
        if self._mirror is None:
            return None
        folder = records.mirror_path(self._to, item.key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        place = self._places[item.key]
        found = self._mirror.fetch(item.key, place, folder, self._tell(item))
        if found is None:
            shutil.rmtree(folder)
            return None
        return self._publish(item, folder, f"{found.checks}; SHA-256 by the mirror", "mirror")

    def _from_upstream(self, item: Item) -> Record:
        folder = records.partial_path(self._to, item.key)
        folder.mkdir(parents=True, exist_ok=True)
        return self._publish(item, folder, self._fetch(item, folder), "upstream")

    def _publish(self, item: Item, folder: Path, checks: str, source: Literal["upstream", "mirror"]) -> Record:
        place = self._places[item.key]
        record = records.describe(folder, key=item.key, place=place, checks=checks, source=source)
        if not record.files:
            raise SpiculaError("nothing came of it")
        records.publish(self._to, folder, record)
        return record

    def _fetch(self, item: Item, folder: Path) -> str:
        """Fetch an item from upstream, and return what was checked.

        An answer that is no good counts as a try. While the server cannot be reached at all, nothing is counted, but
        when that goes on for too long, all items that are left fail at once.
        """
        tell, tries, outages = self._tell(item), 0, 0
        while True:
            if self._gone:
                raise SpiculaError(f"not tried: {self._gone}")
            try:
                return item.fetch(folder, tell)
            except Unreachable as error:
                outages += 1
                if time.monotonic() - self._last_contact > transfer.PATIENCE.outage_seconds:
                    self._gone = error.reason
                    raise SpiculaError(error.reason) from error
                wait = wait_seconds(outages)
            except Retry as error:
                self._last_contact, outages = time.monotonic(), 0
                tries += 1
                if tries > item.retries:
                    raise SpiculaError(f"{error.reason} (tried {tries} times)") from error
                wait = wait_seconds(tries, error.after_seconds)
            if self.stop.wait(wait):
                raise _Stopped

    def _tell(self, item: Item) -> Tell:
        def tell(count: int) -> None:
            if self.stop.is_set():
                raise _Stopped
            self._last_contact = time.monotonic()
            self.meter.add(id(item), count)

        return tell

    def _notice_target(self, error: BaseException) -> None:
        """Stop all where an error says that the target cannot be written to."""
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in _TARGET_ERRORS:
            self.target_error = SpiculaError(
                f"cannot write to {self._to}: {cause.strerror}; check the folder's rights and free space, "
                "then the same command goes on where it stopped"
            )
            self.stop.set()


def _row(record: Record, status: Literal["complete", "skipped"]) -> Row:
    return Row(record.key, record.place, status, record.bytes, "", record.checks, record.source)


def _reason(error: Exception) -> str:
    if isinstance(error, SpiculaError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot write it: {error.strerror}"
    return f"unexpected {type(error).__name__}: {error}"  # a mistake of ours: say all there is


def _places(items: Sequence[Item], whole: Mapping[str, Record]) -> dict[str, str]:
    """Return the place of every item; of two with one place, as file systems see it, one gets a number of its own."""
    taken = {record.place.casefold(): key for key, record in whole.items()}
    places = {key: record.place for key, record in whole.items()}
    for item in items:
        if item.key not in places:
            place = item.place
            if taken.setdefault(place.casefold(), item.key) != item.key:
                place = f"{item.place}-{records.digest(item.key)[:8]}"
                taken[place.casefold()] = item.key
            places[item.key] = place
    return places


def _check_space(to: Path, missing: Sequence[Item]) -> None:
    """Refuse at once what cannot fit, rather than after hours."""
    needed = sum(item.bytes or 0 for item in missing)
    there = sum(path.stat().st_size for item in missing for path in _arrived(to, item))
    free = shutil.disk_usage(to).free
    if needed - there > free:
        raise SpiculaError(
            f"{to} has {show_bytes(free)} free, and {show_bytes(needed - there)} are still to come: make space, choose "
            "another --to, or take fewer (--patients)"
        )


def _arrived(to: Path, item: Item) -> list[Path]:
    folder = records.partial_path(to, item.key)
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
