"""Pictures and documents of exams, made on demand by one process, and kept beside the exam as long as its result is."""

import asyncio
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from spicula.processes import Events, WorkerProcess, command_of
from spicula.serving.exam_desk.incoming import Incoming
from spicula.serving.problems import Problem, beyond

COMMAND = command_of("spicula.serving.exam_desk.making")

#: The largest report takes a few seconds; whoever takes that long hangs.
_MOST_SECONDS = 120.0

#: Why a thing cannot be made: status and words.
_REASONS: Mapping[str, tuple[int, str]] = {
    "no-result": (409, "the exam failed before anything was made of it; it tells why at /v1/exams/ID"),
    "no-image": (409, "the image cannot be read; the exam tells why at /v1/exams/ID"),
    "no-crop": (409, "no breast was found in the image; ask for it whole with part=whole"),
    "no-heatmap": (409, "there are no heatmaps of this image"),
    "no-scores": (409, "the exam has no scores; it tells why at /v1/exams/ID"),
    "no-study": (409, "results cannot be put beside the study: its images have odd UIDs, or are of several studies"),
    "not-written": (409, "DICOM cannot be written of this exam"),
    "memory": (503, "it takes more memory than there is"),
    "gone": (409, "the exam is being run again; ask when it is done"),
    "lost": (500, "a file of the workspace is lost; send the same images again, and it is made again"),
    "died": (500, "the process that makes it ended; the image may be damaged"),
}


class Making:
    """Has things made of exams, one at a time.

    Args:
        workspace: of the exams.
        incoming: the exams.
        limits: "making-queue".
        command: starts the process.
    """

    def __init__(
        self, workspace: str, incoming: Incoming, limits: Mapping[str, int], command: tuple[str, ...] = COMMAND
    ) -> None:
        self._workspace, self._incoming, self._limits, self._command = workspace, incoming, limits, command
        self._thread = ThreadPoolExecutor(1, "making")
        self._events: Events = queue.Queue()
        self._process: WorkerProcess | None = None
        self._waiting = 0
        self._closing = threading.Event()

    async def files(self, exam: str, stem: str, task: Mapping[str, Any]) -> list[Path]:
        """Return what is wanted, from the last time where it is there.

        Args:
            exam: the exam; it has a result.
            stem: what begins the names of the files: the same for the same task.
            task: see `making.Task`, without `result`, `to` and `stem`.

        Raises:
            Problem: it cannot be made of this exam, or too many wait.
        """
        to = self._incoming.made(exam)
        stem = f"{self._incoming.stamp(exam)}-{stem}"
        found = _named(to, stem)
        if found:
            return found
        if self._waiting >= (most := self._limits["making-queue"]):
            raise beyond("making-queue", most, "{value} pictures and documents of exams wait to be made")
        asked = {**task, "to": str(to), "stem": stem, "result": str(to.parent / "result.json")}
        self._waiting += 1
        try:
            said = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, to, stem, asked)
        finally:
            self._waiting -= 1
        if isinstance(said, str):
            status, detail = _REASONS[said]
            raise Problem(status, said, detail, {"Retry-After": "5"} if status == 503 else {})
        return [to / name for name in said]

    async def close(self) -> None:
        """End the process."""
        self._closing.set()
        if self._process is not None:
            self._process.kill()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _ask(self, to: Path, stem: str, task: Mapping[str, Any]) -> list[str] | str:
        """Return the names of the files, or why there are none; in a thread of its own."""
        found = _named(to, stem)  # made while this one waited
        if found:
            return [path.name for path in found]
        if self._process is None:
            self._events = queue.Queue()
            self._process = WorkerProcess(self._command, {"workspace": self._workspace}, self._events)
        self._process.say([task])
        until = time.monotonic() + _MOST_SECONDS
        said: list[str] | str = "died"
        while not self._closing.is_set():
            try:
                message = self._events.get(timeout=max(0.0, until - time.monotonic()))[1]
            except queue.Empty:
                self._process.kill()
                until = time.monotonic() + _MOST_SECONDS
                continue
            if message is None:
                self._process.bury()
                self._process = None
                return said
            if message[0] in ("done", "rejected"):
                said = message[2]
            elif message[0] == "end":
                return said
        return said


def _named(folder: Path, stem: str) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.name.startswith(f"{stem}."))
    return []


def digest_in(path: Path) -> str:
    """Return the SHA-256 of a file's content, from its name."""
    return path.name.split(".")[-2]
