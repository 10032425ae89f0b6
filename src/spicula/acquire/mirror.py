"""A copy of archives in a folder or an object store, which is asked before the public servers and can be filled.

A mirror has the layout of a download: an item's files in its place, and its record in `.spicula/items`, written last.
What has no record there, or a file that differs from it by a bit, counts as not there.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spicula import files, stores
from spicula.acquire import records
from spicula.acquire.records import Record
from spicula.errors import SpiculaError, UsageError
from spicula.progress import say

#: After so many failures in a row a mirror is not asked any more.
MAX_FAILURES = 3


class Mirror:
    """A copy of archives, at `file:///FOLDER`, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`."""

    def __init__(self, url: str) -> None:
        """Open a mirror and look whether it answers.

        Raises:
            UsageError: the address is none of a mirror, or the package for it is missing.
            SpiculaError: it does not answer, or may not be read.
        """
        self.url = url
        self._scheme, self._root = _parse(url)
        self._files = _file_system(self._scheme, url)
        self._lock = threading.Lock()
        self._failures = 0
        self._said: set[str] = set()
        self._damaged: set[str] = set()
        self._look()

    def fetch(self, key: str, place: str, to: Path, tell: Callable[[int], None]) -> Record | None:
        """Copy an item into the folder `to`, if it is whole in the mirror.

        Args:
            key: of the item.
            place: of the item; a record for another place is not taken.
            to: the item's own folder; its files come into it as `Item.fetch` leaves them.
            tell: hears of bytes as they arrive.

        Returns:
            The item's record, every file of it checked by SHA-256; None where it is not there, not whole, or the mirror
            does not answer any more. What `to` then holds is no part of the item.
        """
        if self._failures >= MAX_FAILURES:
            return None
        try:
            record = self._record(key)
            if record is None or record.place != place:
                return None
            for file in record.files:
                inside = Path(place).name if record.is_file else Path(file.path).relative_to(place)
                self._copy(file, to / inside, tell)
        except _Damaged as damage:
            self._damaged.add(key)
            say(f"mirror: {key} is damaged there ({damage}); it comes from upstream")
            return None
        except Exception as error:  # of a service that fails, these libraries raise nearly anything
            self._failed("read", error)
            return None
        self._failures = 0
        return record

    def store(self, record: Record, root: Path) -> None:
        """Put an item into the mirror, unless it is there: its files first, its record last.

        A mirror that refuses is named once.

        Args:
            record: of the item.
            root: the download's folder, `Request.to`, with the item in its place.
        """
        if self._failures >= MAX_FAILURES:
            return
        try:
            if record.key not in self._damaged and self._has(record):
                return
            for file in record.files:
                self._put(root / file.path, file.path)
            self._put_bytes(json.dumps(record.as_json(), indent=2).encode(), _record_path(record.key))
        except Exception as error:
            self._failed("written", error)
        else:
            self._failures = 0

    def _look(self) -> None:
        """Ask the mirror once, so that one that does not answer is one line at the start and not one an item."""
        try:
            self._record("is anybody there?")
            there = self._scheme == "file" or self._files.exists(self._root.split("/")[0])
        except Exception as error:
            raise SpiculaError(f"the mirror {self.url} cannot be read: {stores.reason(error)}") from None
        if not there:
            raise SpiculaError(f"the mirror {self.url} is not there: make the bucket first, or leave --mirror out")

    def _record(self, key: str) -> Record | None:
        try:
            content = json.loads(self._files.cat_file(f"{self._root}/{_record_path(key)}"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise _Damaged("its record is not JSON") from None
        record = records.from_json(content) if isinstance(content, dict) else None
        if record is None or record.key != key:
            raise _Damaged("its record is none")
        return record

    def _has(self, record: Record) -> bool:
        """Say whether an item is there already, by its record and the sizes of its files."""
        try:
            there = self._record(record.key)
            return (
                there is not None
                and (there.place, there.files) == (record.place, record.files)
                and all(self._files.size(f"{self._root}/{file.path}") == file.bytes for file in record.files)
            )
        except (_Damaged, FileNotFoundError):
            return False

    def _copy(self, file: records.File, target: Path, tell: Callable[[int], None]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        counter = _counter(tell)
        try:
            self._files.get_file(f"{self._root}/{file.path}", str(target), callback=counter)
        except FileNotFoundError:
            raise _Damaged("a file is missing") from None
        except RuntimeError:
            raise counter.stop or RuntimeError("the transfer failed") from None
        tell(target.stat().st_size - counter.told)  # from a folder, fsspec tells nothing
        if target.stat().st_size != file.bytes or files.sha256_file(target) != file.sha256:
            raise _Damaged("a file has the wrong SHA-256")

    def _put(self, source: Path, path: str) -> None:
        with self._written(path) as name:
            self._files.put_file(str(source), name)

    def _put_bytes(self, data: bytes, path: str) -> None:
        with self._written(path) as name:
            self._files.pipe_file(name, data)

    @contextmanager
    def _written(self, path: str) -> Iterator[str]:
        """Yield the name to write to: in an object store the final one, in a folder one that is renamed when done."""
        final = f"{self._root}/{path}"
        if self._scheme != "file":
            yield final
            return
        self._files.makedirs(final.rpartition("/")[0], exist_ok=True)
        with files.atomic_path(Path(final)) as temporary:
            yield str(temporary)

    def _failed(self, what: str, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            news = what not in self._said
            self._said.add(what)
            gave_up = self._failures == MAX_FAILURES
        if news:
            say(f"mirror: {self.url} could not be {what}: {stores.reason(error)}")
        if gave_up:
            say(f"mirror: {self.url} failed {MAX_FAILURES} times in a row; going on without it")


class _Damaged(Exception):
    """What the mirror has of an item is not whole."""


def _parse(url: str) -> tuple[str, str]:
    """Return the scheme of a mirror's address and its root as the file system writes it, without a last slash."""
    parts = urlsplit(url)
    found = stores.parse(url)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc and not parts.query:
        found = "file", unquote(parts.path).rstrip("/")
    if found is None or ".." in found[1].split("/"):
        raise UsageError(f"--mirror {url}: expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER")
    return found


def _file_system(scheme: str, url: str) -> Any:
    """Return what reads and writes there: fsspec's file system of that scheme."""
    if scheme != "file":
        return stores.file_system(url, f"the mirror {url}")
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(skip_instance_cache=True)


def _record_path(key: str) -> str:
    return records.record_path(Path(), key).as_posix()


def _counter(tell: Callable[[int], None]) -> Any:
    """Return what fsspec calls as bytes arrive: `told` is how many, `stop` what `tell` raised.

    It is called in the thread of fsspec's event loop, out of which nothing but a plain exception finds its way.
    """
    from fsspec.callbacks import Callback

    class Counter(Callback):  # type: ignore[misc]
        told = 0
        stop: BaseException | None = None

        def relative_update(self, inc: int = 1) -> None:
            self.told += inc
            try:
                tell(inc)
            except BaseException as stop:
                self.stop = stop
                raise RuntimeError("stopped") from None

    return Counter()
