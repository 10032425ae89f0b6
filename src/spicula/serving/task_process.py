"""A process that does one task after the other for the service: it may die of one, and is started again for the next.

It speaks the protocol of `imaging.worker_process`, with one task at a time.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from spicula.processes import Events, WorkerProcess

#: What became of a task: "done" with what the process says of it, "rejected" with its reason, or "died" with "".
Outcome = tuple[str, Any]


class TaskProcess:
    """Has tasks done, one at a time, in the order in which they come. The process starts with the first.

    Args:
        command: starts the process.
        setting: what it is told first, as JSON values.
        seconds: a process that takes longer for a task hangs, and is ended.
    """

    def __init__(self, command: Sequence[str], setting: Mapping[str, Any], seconds: float) -> None:
        self._command, self._setting, self._seconds = command, setting, seconds
        self._thread = ThreadPoolExecutor(1, "tasks")
        self._events: Events = queue.Queue()
        self._process: WorkerProcess | None = None
        self._closing = threading.Event()
        #: Tasks that wait or are being done.
        self.waiting = 0

    async def do(self, task: Mapping[str, Any], known: Callable[[], Any] = lambda: None) -> Outcome:
        """Have a task done.

        Args:
            task: JSON values.
            known: is asked when it is the task's turn; what it returns is taken for what the process would say.
        """
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, task, known)
        finally:
            self.waiting -= 1

    async def close(self) -> None:
        """End the process."""
        self._closing.set()
        if self._process is not None:
            self._process.kill()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _do(self, task: Mapping[str, Any], known: Callable[[], Any]) -> Outcome:
        """Return what became of a task; in a thread of its own."""
        if found := known():
            return "done", found
        if self._process is None:
            self._events = queue.Queue()
            self._process = WorkerProcess(self._command, self._setting, self._events)
        self._process.say([task])
        until = time.monotonic() + self._seconds
        outcome: Outcome = ("died", "")
        while not self._closing.is_set():
            try:
                message = self._events.get(timeout=max(0.0, until - time.monotonic()))[1]
            except queue.Empty:
                self._process.kill()
                until = time.monotonic() + self._seconds
                continue
            if message is None:
                self._process.bury()
                self._process = None
                return outcome
            if message[0] in ("done", "rejected"):
                outcome = message[0], message[2]
            elif message[0] == "end":
                return outcome
        return outcome
