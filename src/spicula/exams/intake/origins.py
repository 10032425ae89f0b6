"""Where images come from: a folder or a bucket, seen alike. What is in it, and each file of it on this machine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from spicula import stores
from spicula.exams.intake.bucket import Bucket
from spicula.exams.intake.listing import Listing, list_folder, list_paths
from spicula.exams.intake.threads import in_threads

_CHUNK = 256


class Origin(Protocol):
    """A folder or a prefix of a bucket.

    Attributes:
        place: the absolute path, or the address, without a last slash.
        name: the last part of it: what an exam is called whose images lie right there.
        chunk: files that a thread looks into at a time, one after the other.
        threads: how many are looked into at once; None: by the cores.
    """

    place: str
    name: str
    chunk: int
    threads: int | None

    def listing(self) -> Listing:
        """Return all files; see `list_folder`.

        Raises:
            UsageError: there is no such bucket.
            SpiculaError: it cannot be listed.
        """
        ...

    def find(self, paths: Sequence[str]) -> Listing:
        """Return these files; those that are not there are problems, or missing."""
        ...

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return which of these files are not there."""
        ...

    def file(self, path: str) -> AbstractContextManager[Path]:
        """Yield a file of this machine with the content of `path`.

        Raises:
            RejectedImageError: an object is gone, or may not be read.
            SpiculaError: the object store failed.
        """
        ...


class Folder:
    """A folder, as an `Origin`."""

    chunk: int = 16
    threads: int | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder.absolute())
        self.name = folder.absolute().name

    def listing(self) -> Listing:
        """See `Origin`."""
        return list_folder(self._folder)

    def find(self, paths: Sequence[str]) -> Listing:
        """See `Origin`."""
        return list_paths(self._folder, paths)

    def missing(self, paths: Sequence[str]) -> list[str]:
        """See `Origin`. On network shares every look takes time."""

        def look(path: str) -> bool:
            return os.path.isfile(f"{self.place}/{path}")  # noqa: PTH113 - half the time of Path.is_file

        there = in_threads(look, paths, _CHUNK)
        return [path for path, is_there in zip(paths, there, strict=True) if not is_there]

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """See `Origin`; it is the file itself."""
        yield self._folder / path


def origin_of(source: Path | str) -> Origin:
    """Return where images come from.

    Args:
        source: a folder, or an address in an object store.

    Raises:
        UsageError: it is an address of another kind.
    """
    if isinstance(source, str) and stores.is_remote(source):
        return Bucket(stores.place_of(source))
    return Folder(Path(source))
