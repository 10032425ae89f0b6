"""From file names to images ready for a model: found, examined, refused where out of scope, decoded, prepared.

Pixels are decoded in worker processes, those of the Store: a file that crashes its decoder, or keeps it busy without
end, costs itself and nothing else. Files are taken in blocks, so that memory and temporary space stay bounded.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spicula import headers
from spicula.bundle.format import Scope
from spicula.catalog.tree import is_document
from spicula.errors import RejectedImageError
from spicula.files import sha256_file
from spicula.imaging import shards
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.shards import Task
from spicula.imaging.workers import prepare_all
from spicula.predict.examine import COLOUR_PROBE, examine_header, refuse_colour
from spicula.progress import progress

#: Most files that are prepared at a time, and most bytes of prepared images.
BLOCK_IMAGES, BLOCK_BYTES = 2048, 512 * 2**20

#: A worker process takes about as long to start as to read a few images: fewer than this are not shared out.
IMAGES_A_WORKER = 4


@dataclass(frozen=True)
class Found:
    """One file to be looked at.

    Attributes:
        path: the file.
        given: it was named itself; else it was found in a folder that was.
    """

    path: Path
    given: bool


@dataclass(frozen=True)
class Ready:
    """One image, prepared.

    Attributes:
        path: the file.
        side: L or R where its header says so.
        read: returns the image: (H, W, C) uint8 or uint16, valid while its block is worked on.
    """

    path: Path
    side: str | None
    read: Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True)
class Refused:
    """One file (or folder) that gets no score, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Document:
    """A text, table or archive that lies beside images in a folder: no image, and nothing that was asked about."""

    path: Path


@dataclass(frozen=True)
class _Examined:
    path: Path
    sha256: str
    side: str | None
    may_show_colour: bool


_Seen = _Examined | Refused | Document


def walk(paths: Iterable[Path]) -> list[Found | Refused]:
    """Return files, each once: those given, and those below given folders, in order of their names.

    Hidden files and folders (a name that starts with a dot) below a given folder are left out, and links to folders
    are not followed. A folder that cannot be read, or holds nothing, is refused.
    """
    once: dict[Path, Found | Refused] = {}
    for path in paths:
        for item in _walk(Path(path)):
            if item.path not in once or (isinstance(item, Found) and item.given):
                once[item.path] = item
    return list(once.values())


def blocks(
    found: Sequence[Found | Refused], kinds: Scope, preprocess: Preprocess, jobs: int | None = None
) -> Iterator[list[Ready | Refused | Document]]:
    """Prepare files, block by block, in the order given.

    Args:
        found: as `walk` returns them.
        kinds: the model's scope.
        preprocess: the model's preprocessing.
        jobs: worker processes; None: one a core.

    Yields:
        What became of each file of a block. Images can be read until the next block is asked for.

    Raises:
        SpiculaError: workers cannot start, or there is no room for temporary files.
    """
    jobs = jobs or os.cpu_count() or 1
    image_bytes = int(np.prod(preprocess.size)) * preprocess.channels * preprocess.bits // 8
    size = max(1, min(BLOCK_IMAGES, BLOCK_BYTES // image_bytes))
    for at in range(0, len(found), size):
        what = "reading images" if len(found) <= size else f"reading images {at + 1} and on, of {len(found)}"
        with ThreadPoolExecutor(jobs) as pool:
            examined = list(pool.map(lambda item: _examine(item, kinds), found[at : at + size]))
        with _prepared(_without_colour(examined, jobs), preprocess, jobs, what) as items:
            yield items


def _walk(path: Path) -> Iterator[Found | Refused]:
    try:
        is_folder = path.is_dir()
    except OSError:  # below a folder that cannot be read, or too long a name: opening it says so
        is_folder = False
    if not is_folder:
        yield Found(path, given=True)
        return
    errors: list[OSError] = []
    count = 0
    for folder, folders, names in os.walk(path, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            count += 1
            yield Found(Path(folder, name), given=False)
    for error in errors:
        yield Refused(Path(error.filename), f"cannot be read: {error.strerror or error}")
    if not count and not errors:
        yield Refused(path, "the folder holds no files")


def _examine(item: Found | Refused, kinds: Scope) -> _Examined | Refused | Document:
    """Look at a file's header: what it is, and whether the model knows such images."""
    if isinstance(item, Refused):
        return item
    path = item.path
    try:
        header = headers.read_header(path)
    except RejectedImageError as error:
        is_beside = not item.given and is_document(path.name)
        return Document(path) if is_beside else Refused(path, str(error))
    try:
        examined = examine_header(path, header, kinds)
        return _Examined(path, sha256_file(path), examined.side, examined.may_show_colour)
    except RejectedImageError as error:
        return Refused(path, str(error))
    except OSError as error:
        return Refused(path, f"cannot be read: {error.strerror or error}")


def _without_colour(examined: list[_Seen], jobs: int) -> list[_Seen]:
    """Refuse images that show colour, where the model knows grey ones. Most need not be decoded to know."""
    doubtful = [isinstance(item, _Examined) and item.may_show_colour for item in examined]
    if not any(doubtful):
        return examined
    probes = [item for item, doubt in zip(examined, doubtful, strict=True) if doubt]
    with _prepared(probes, COLOUR_PROBE, jobs, "looking for colour") as items:
        for at, item in zip(np.flatnonzero(doubtful), items, strict=True):
            if isinstance(item, Refused):
                examined[at] = item
            elif isinstance(item, Ready):
                try:
                    refuse_colour(item.read())
                except RejectedImageError as error:
                    examined[at] = Refused(item.path, str(error))
    return examined


@contextmanager
def _prepared(
    examined: Sequence[_Seen], preprocess: Preprocess, jobs: int, what: str
) -> Iterator[list[Ready | Refused | Document]]:
    tasks = [
        Task(key=str(number), path=str(item.path), sha256=item.sha256, frame=0, laterality=item.side)
        for number, item in enumerate(examined)
        if isinstance(item, _Examined)
    ]
    with tempfile.TemporaryDirectory(prefix="spicula-") as name:
        folder = Path(name)
        reasons: dict[str, str | None] = {}
        if tasks:
            done = prepare_all(tasks, preprocess, folder, min(jobs, -(-len(tasks) // IMAGES_A_WORKER)))
            reasons = {task.key: reason for task, reason in progress(done, what, total=len(tasks))}
        places, _ = shards.scan(folder, preprocess)
        arrays = {place.shard: shards.open_shard(place.shard) for place in places.values()}

        def one(number: int, item: _Seen) -> Ready | Refused | Document:
            if not isinstance(item, _Examined):
                return item
            place = places.get(str(number))
            if place is None:
                return Refused(item.path, reasons[str(number)] or "its prepared pixels disappeared")
            return Ready(item.path, item.side, lambda: arrays[place.shard][place.position])

        yield [one(number, item) for number, item in enumerate(examined)]
