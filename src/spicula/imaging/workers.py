"""Worker processes, from outside: they share the images out, and the death of one costs one image.

The Store and conversions use it. What a worker is and how it speaks stands in `imaging.worker_process`.
"""

import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spicula.errors import SpiculaError
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.shards import Task
from spicula.processes import Events, WorkerProcess, cause, command_of

#: How a worker of the Store is started.
COMMAND = command_of("spicula.imaging.decoding")

#: A worker that says nothing for so long is stuck in one image.
LIMIT_SECONDS = 60.0

#: Fewest and most images of the Store handed to a worker at a time.
CHUNK_IMAGES = (4, 2048)

#: A worker may die so often between images, with no image to blame, before the work is given up.
DEATHS_WITHOUT_CAUSE = 3


@dataclass
class _Worker:
    """A process, the chunk it works on, and what it has said about it."""

    process: WorkerProcess
    is_ready: bool = False
    silent_seconds: float = 0.0
    chunk: list[int] = field(default_factory=list)  # numbers of tasks
    settled: int = 0  # how many of the chunk are done or rejected
    unsaved: list[int] = field(default_factory=list)  # done, but lost if the worker dies now


def prepare_all(
    tasks: Sequence[Task], preprocess: Preprocess, folder: Path, jobs: int
) -> Iterator[tuple[Task, str | None]]:
    """Prepare images in worker processes, which write them to `folder` as shards.

    Yields:
        Each task once, in no particular order, with None, or with the reason why it is rejected.

    Raises:
        SpiculaError: workers cannot start, or cannot write.
    """
    setting = {"folder": str(folder), "preprocess": preprocess.model_dump(mode="json")}
    chunks = chunks_of(len(tasks), jobs, *CHUNK_IMAGES)
    for number, reason in run_tasks(COMMAND, setting, [asdict(task) for task in tasks], chunks, jobs):
        yield tasks[number], reason


def chunks_of(count: int, jobs: int, fewest: int, most: int) -> list[list[int]]:
    """Return the numbers from 0 to `count` - 1 in chunks of one size, about four for each worker."""
    size = max(fewest, min(most, count // (4 * jobs)))
    return [list(range(at, min(at + size, count))) for at in range(0, count, size)]


def run_tasks(
    command: Sequence[str],
    setting: dict[str, Any],
    tasks: Sequence[dict[str, Any]],
    chunks: Sequence[Sequence[int]],
    jobs: int,
) -> Iterator[tuple[int, str | None]]:
    """Work through tasks in worker processes.

    A worker that dies, is silent for `LIMIT_SECONDS` or wants too much memory costs the task that it was at, which is
    rejected with that reason. The rest of its chunk, and what was done but not yet saved, is handed out again.

    Args:
        command: starts a worker, a process that speaks the protocol of `imaging.worker_process`.
        setting: what all tasks have in common, as JSON values; the first thing that a worker is told.
        tasks: JSON values.
        chunks: numbers of tasks that one worker gets at a time, each number once.
        jobs: most worker processes.

    Yields:
        The number of each task once, in no particular order, with None, or with the reason why it is rejected.

    Raises:
        SpiculaError: workers cannot start, or cannot write.
    """
    pool = _Pool(command, setting, tasks, chunks, jobs)
    try:
        yield from pool.run()
    finally:
        pool.stop()


class _Pool:
    def __init__(
        self,
        command: Sequence[str],
        setting: dict[str, Any],
        tasks: Sequence[dict[str, Any]],
        chunks: Sequence[Sequence[int]],
        jobs: int,
    ) -> None:
        self._command = command
        self._setting = setting
        self._tasks = tasks
        self._waiting = deque(list(chunk) for chunk in chunks if chunk)
        self._jobs = min(jobs, len(self._waiting))
        self._events: Events = queue.Queue()
        self._workers: dict[WorkerProcess, _Worker] = {}
        self._told: set[int] = set()
        self._deaths = 0

    def run(self) -> Iterator[tuple[int, str | None]]:
        for _ in range(self._jobs):
            self._start()
        while self._workers:
            began = time.monotonic()
            with suppress(queue.Empty):
                process, message = self._events.get(timeout=1.0)
                worker = self._workers[process]
                worker.silent_seconds = worker.silent_seconds if message is None else 0.0
                for number, reason in self._handle(worker, message):
                    if number not in self._told:
                        self._told.add(number)
                        yield number, reason
            # A longer turn than the time-out means that this process was held up, and its workers perhaps as well.
            self._kill_late(min(time.monotonic() - began, 1.0))

    def stop(self) -> None:
        for process in self._workers:
            process.kill()
            process.bury()

    def _start(self) -> None:
        process = WorkerProcess(self._command, self._setting, self._events)
        self._workers[process] = _Worker(process)

    def _feed(self, worker: _Worker) -> None:
        """Give a worker its next chunk, or send it home."""
        worker.chunk = self._waiting.popleft() if self._waiting else []
        worker.settled, worker.unsaved = 0, []
        if worker.chunk:
            worker.process.say([self._tasks[number] for number in worker.chunk])
        else:
            worker.process.dismiss()

    def _handle(self, worker: _Worker, message: list[Any] | None) -> Iterator[tuple[int, str | None]]:
        if message is None:
            yield from self._ended(worker)
            return
        kind, *rest = message
        if kind == "ready":
            worker.is_ready = True
            self._feed(worker)
        elif kind == "failed":
            raise SpiculaError(rest[0])
        elif kind == "end":
            self._feed(worker)
        elif kind == "saved":
            saved = {worker.chunk[position] for position in rest[0]}
            worker.unsaved = [number for number in worker.unsaved if number not in saved]
        else:
            number = worker.chunk[rest[0]]
            worker.settled = rest[0] + 1
            if kind == "done":
                worker.unsaved.append(number)
            yield number, rest[1] if kind == "rejected" else None

    def _ended(self, worker: _Worker) -> Iterator[tuple[int, str | None]]:
        """A worker is gone: with its work done, or because of the image that it was at."""
        status, last_line = worker.process.bury()
        del self._workers[worker.process]
        reason = cause(status, "its decoder")
        if not worker.is_ready:
            raise SpiculaError(f"worker processes cannot start ({last_line or reason})")
        if not worker.chunk:
            return
        rest = worker.chunk[worker.settled :]
        if rest:
            is_late = worker.silent_seconds > LIMIT_SECONDS
            yield rest[0], f"decoding it took more than {LIMIT_SECONDS:.0f} s" if is_late else reason
        else:
            self._deaths += 1
            if self._deaths > DEATHS_WITHOUT_CAUSE:
                raise SpiculaError(f"worker processes keep dying ({last_line or reason})")
        again = worker.unsaved + rest[1:]
        if again:
            self._waiting.appendleft(again)
        if self._waiting:
            self._start()

    def _kill_late(self, seconds: float) -> None:
        for worker in self._workers.values():
            worker.silent_seconds += seconds
            if worker.silent_seconds > LIMIT_SECONDS:
                worker.process.kill()
