"""The objects below a prefix of a bucket, listed as files of a folder are, and fetched one by one."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from spicula import headers, stores
from spicula.catalog.tree import reject
from spicula.errors import RejectedImageError, SpiculaError
from spicula.exams.intake.listing import Listing, problem_of
from spicula.progress import progress

#: Objects that are fetched at a time; so many lie on the disk for temporary files.
AT_ONCE = 8

#: Largest object that is fetched: the most that an image may have decoded, and room for its header.
MOST_BYTES = headers.MAX_BYTES + 2**26


class Bucket:
    """A prefix of a bucket; see `origins.Origin`.

    Args:
        place: its address, as `stores.place_of` returns it.
    """

    chunk: int = 1
    threads: int | None = AT_ONCE

    def __init__(self, place: str) -> None:
        self.place = place
        self.name = place.rpartition("/")[2]

    def listing(self) -> Listing:
        """List the objects as `list_folder` does files, in the same order."""
        listed, problems = [], []
        for path, size, version in progress(stores.objects(self.place), f"listing {self.place}", "objects"):
            if (path.endswith("/") and not size) or _is_hidden(path):  # what consoles make for a folder
                continue
            problem = problem_of(path) or _problem_of(path, size)
            if problem:
                problems.append(reject(path, problem))
            else:
                listed.append((_order(path), path, size, _stamp(version), not version))
        listed.sort()
        _, paths, sizes, stamps, is_fresh = zip(*listed, strict=True) if listed else ((),) * 5
        return Listing(
            list(paths),
            np.array(sizes, dtype=np.int64),
            np.array(stamps, dtype=np.int64),
            np.array(is_fresh, dtype=np.bool_),
            problems,
        )

    def find(self, paths: Sequence[str]) -> Listing:
        """Return these objects, in the order of the listing: to list them all asks less of a store than one by one."""
        wanted, listing = set(paths), self.listing()
        return listing.select([place for place, path in enumerate(listing.paths) if path in wanted])

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return which of these objects are not there."""
        there = {path for path, _, _ in stores.objects(self.place)}
        return [path for path in paths if path not in there]

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """Fetch an object into a temporary file, which is removed afterwards."""
        # lists are told apart by their names; nothing else of a name comes into that of a file
        suffix = ".json" if path.lower().endswith(".json") else ""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(stores.fetched(f"{self.place}/{path}", suffix))
            except FileNotFoundError:
                raise RejectedImageError("cannot be opened: it is no longer there") from None
            except PermissionError:
                raise RejectedImageError(
                    "cannot be opened: it may not be read; check your rights, and its storage class"
                ) from None
            except OSError as error:
                raise SpiculaError(f"{error}; what was read is kept, so that the same command goes on") from None
            yield file


def _is_hidden(path: str) -> bool:
    """Say whether walking a folder would leave it out; see `catalog.tree.walk`."""
    *folders, name = path.split("/")
    return name.startswith(".") or any(part.startswith(".") or part == "__MACOSX" for part in folders)


def _problem_of(path: str, size: int) -> str | None:
    if "" in path.split("/"):
        return "has an empty part in its name, as no file can; give it another"
    if size > MOST_BYTES:
        return f"has {size} bytes; objects of at most {MOST_BYTES} are fetched"
    return None


def _order(path: str) -> str:
    """Return what sorts objects as files are listed: those of a folder, by name, and then the folders in it."""
    folder, _, name = path.rpartition("/")
    folders = [f"\2{part}\0" for part in folder.split("/")] if folder else []
    return f"{''.join(folders)}\1{name}"


def _stamp(version: str) -> int:
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:8], "big", signed=True)
