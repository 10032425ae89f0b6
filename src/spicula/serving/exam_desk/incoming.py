"""The folder of exams that were sent: what is accepted is kept there, whoever is killed.

    exams/ID/exam.json       what came: when, the files with view and digest
    exams/ID/images/         the files themselves, byte for byte, under names of ours
    exams/ID/progress.json   how far it is
    exams/ID/result.json     what came out
    exams/ID/made/           pictures and documents, made when they are asked for
    queue/TIME-ID            the exams that wait or are run, in that order
    digests/DIGEST.json      which exam has these images

The service writes what comes in, the runner what comes out. Any number of processes may use one folder at a time: what
must not happen at once is done under a lock, which a kill lets go of.
"""

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from spicula import files, stores
from spicula.serving.exam_desk.shelf import Shelf

#: Folders of uploads that were cut short are removed when they are that old: no upload takes so long.
_ABANDONED_SECONDS = 3600.0

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Entry:
    """An exam in the queue.

    Attributes:
        exam: its id.
        is_repeated: it was there before: steps that failed are tried again, and lost files made again.
        path: of the entry.
    """

    exam: str
    is_repeated: bool
    path: Path


@dataclass(frozen=True)
class Accepted:
    """What became of an exam that was sent.

    Attributes:
        exam: its id.
        is_known: the same images were sent before.
        is_queued: it waits, or is run.
    """

    exam: str
    is_known: bool
    is_queued: bool


class FullError(Exception):
    """There are as many exams in the queue as there may be."""


def place_of(workspace: str) -> Path:
    """Return where the exams of a workspace come in: in it where it is a folder of this machine, else in the cache."""
    place = stores.place_of(workspace)
    if not stores.is_remote(place):
        return Path(place) / "incoming"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "spicula" / "incoming" / sha256(place.encode()).hexdigest()[:16]


class Incoming:
    """The exams that were sent.

    Args:
        place: the folder; it is made when the first exam comes.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._exams, self._queue, self._digests = (place / name for name in ("exams", "queue", "digests"))

    def open(self) -> None:
        """Make the folders, and remove what a kill left of uploads.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        self.place.chmod(0o700)  # images of patients
        for folder in (self._exams, self._queue, self._digests):
            folder.mkdir(exist_ok=True)
        with self._locked():
            queued = {entry.exam for entry in self.queue()}
            for folder in self._exams.iterdir():
                is_whole = (folder / "result.json").exists() or folder.name in queued
                if not is_whole and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    # what comes in

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Yield an empty folder for an exam that is coming in; it is gone when the block ends."""
        folder = self._exams / f"{files.TEMPORARY}{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def accept(self, room: Path, description: Mapping[str, Any], most: int, configuration: str) -> Accepted:
        """Take in an exam. When this returns, it is on the disk, and will be run.

        The same images again are the same exam; it is run again where it failed, or where the models are others now.

        Args:
            room: a folder of `room`, with the images in `images`.
            description: of what came: "files", each with "view", "sha256" and more.
            most: exams in the queue, at most.
            configuration: what the runner runs exams with; "" where that is not known.

        Raises:
            FullError: there are that many.
            SpiculaError, OSError: it cannot be written.
        """
        digest = digest_of(description["files"])
        for path in room.rglob("*"):
            files.sync(path)
        index = self._digests / f"{digest}.json"
        with self._locked():
            queue = self.queue()
            known = self._read(index).get("exam", "")
            if self.description(known):
                is_queued = any(entry.exam == known for entry in queue)
                if not is_queued and self._is_worth_repeating(known, configuration):
                    self._enqueue(known, len(queue), most, is_repeated=True)
                    is_queued = True
                return Accepted(known, is_known=True, is_queued=is_queued)
            if len(queue) >= most:
                raise FullError
            exam = uuid.uuid4().hex
            files.write_json(room / "exam.json", {"time": now(), "digest": digest, **description})
            files.place_folder(room, self._exams / exam)
            files.write_json(index, {"exam": exam})
            self._enqueue(exam, len(queue), most, is_repeated=False)
        return Accepted(exam, is_known=False, is_queued=True)

    def remove(self, exam: str) -> bool:
        """Remove an exam with its files and all that was made of them; return False where it is being run.

        The same images are another exam from then on.
        """
        with self._locked():
            entry = next((entry for entry in self.queue() if entry.exam == exam), None)
            if self.progress(exam):
                return False
            description = self.description(exam)
            if entry is not None:
                entry.path.unlink(missing_ok=True)
            if description:
                (self._digests / f"{description['digest']}.json").unlink(missing_ok=True)
            (self._exams / exam / "result.json").unlink(missing_ok=True)  # first: without it nothing is made of it
            shutil.rmtree(self._exams / exam, ignore_errors=True)
        return True

    # the queue

    def queue(self) -> list[Entry]:
        """Return the exams that wait or are run, the one that came first first."""
        try:
            names = sorted(path.name for path in self._queue.iterdir())
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            exam = name.rpartition(".")[0].rpartition("-")[2]
            if _ID.fullmatch(exam) and not name.startswith(files.TEMPORARY):
                found.append(Entry(exam, name.endswith(".again"), self._queue / name))
        return found

    def take(self, most: int) -> list[Entry]:
        """Return the next exams to run, all of them new or all of them repeated, and note that they are run."""
        with self._locked():
            queue = self.queue()
            entries = [entry for entry in queue if entry.is_repeated == queue[0].is_repeated][:most]
            for entry in entries:
                if not self.progress(entry.exam):
                    self.tell_progress(entry.exam, {"started": now(), "steps": {}})
        return entries

    def finish(self, entry: Entry, result: Mapping[str, Any]) -> None:
        """Keep what came out of an exam, and take it off the queue."""
        folder = self._exams / entry.exam
        shutil.rmtree(folder / "made", ignore_errors=True)  # of the result before
        files.write_json(folder / "result.json", result)
        (folder / "progress.json").unlink(missing_ok=True)
        entry.path.unlink(missing_ok=True)

    def tell_progress(self, exam: str, progress: Mapping[str, Any]) -> None:
        """Note how far an exam is."""
        files.write_json(self._exams / exam / "progress.json", progress)

    # what is there

    def changed(self) -> int:
        """Return when an exam last came, went, or was taken off the queue, in nanoseconds since 1970."""
        return max(folder.stat().st_mtime_ns for folder in (self._exams, self._queue))

    def shelf(self, exam: str) -> Shelf:
        """Return the folder of an exam; one that is not there where this is no id."""
        return Shelf(self._exams / (exam if _ID.fullmatch(exam) else "none"))

    def ids(self) -> list[str]:
        """Return all exams, in no order."""
        try:
            return [path.name for path in self._exams.iterdir() if _ID.fullmatch(path.name)]
        except FileNotFoundError:
            return []

    def description(self, exam: str) -> dict[str, Any]:
        """Return what came, see `Shelf.description`."""
        return self.shelf(exam).description()

    def progress(self, exam: str) -> dict[str, Any]:
        """Return how far an exam is; {} when it is not being run."""
        return self.shelf(exam).progress()

    def result(self, exam: str) -> dict[str, Any]:
        """Return what came out of an exam; {} when nothing has yet."""
        return self.shelf(exam).result()

    def stamp(self, exam: str) -> int:
        """Return what changes when the result does; 0 where there is none."""
        return self.shelf(exam).stamp()

    def images(self, exam: str) -> Path:
        """Return the folder of an exam's files."""
        return self._exams / exam / "images"

    # helpers

    def _is_worth_repeating(self, exam: str, configuration: str) -> bool:
        result = self.result(exam)
        has_other_models = bool(result and configuration) and result["configuration"] != configuration
        return not result or result["status"] == "failed" or has_other_models

    def _enqueue(self, exam: str, waiting: int, most: int, *, is_repeated: bool) -> None:
        if waiting >= most:
            raise FullError
        name = f"{time.time_ns():020d}-{exam}.{'again' if is_repeated else 'new'}"
        files.write_bytes(self._queue / name, b"")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        return found


def digest_of(listed: Sequence[Mapping[str, Any]]) -> str:
    """Return what makes two exams the same: the SHA-256 over their files' contents and views, in whatever order."""
    return files.sha256_json(sorted([str(one["view"]), str(one["sha256"])] for one in listed))


def now() -> str:
    """Return the time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
