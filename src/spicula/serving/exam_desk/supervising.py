"""Keeping the runner alive: it is started with the service, started again when it dies, and ended with it."""

import asyncio
import queue
import threading
from collections.abc import Mapping
from typing import Any

from spicula.errors import SpiculaError
from spicula.processes import Events, WorkerProcess, cause, command_of
from spicula.progress import say

COMMAND = command_of("spicula.serving.exam_desk.runner")

#: A runner that ends at once is started again after so many seconds, then twice as many, up to the most.
_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.25, 30.0


class Supervisor:
    """Starts a runner, and starts it again whenever it ends, until `close`.

    Args:
        setting: what the runner is told, see `runner.Setting`.

    Attributes:
        about: what the runner said when it was ready; {} before.
        is_ready: a runner is there, with its models loaded.
    """

    def __init__(self, setting: Mapping[str, Any]) -> None:
        self.about: dict[str, Any] = {}
        self.is_ready = False
        self._setting = dict(setting)
        self._closing = threading.Event()
        self._process: WorkerProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first: asyncio.Future[None] | None = None
        # the thread lives as long as the service: a child may be told to end with the thread that started it
        self._thread = threading.Thread(target=self._supervise, name="exams", daemon=True)

    @property
    def pid(self) -> int | None:
        """The number of the runner's process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the runner, and wait until its models are loaded.

        Raises:
            SpiculaError: it cannot start; the message says why.
        """
        self._loop = asyncio.get_running_loop()
        self._first = self._loop.create_future()
        self._thread.start()
        await self._first

    async def close(self) -> None:
        """End the runner. What it was at is in the queue, and is run when the next one starts."""
        self._closing.set()
        if self._process is not None:
            self._process.kill()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _supervise(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            error = self._run()
            if self._closing.is_set() or self._told(SpiculaError(error)):
                return
            pause = _FIRST_PAUSE_SECONDS if self.is_ready else min(2 * pause, _MOST_PAUSE_SECONDS)
            self.is_ready = False
            say(f"the process that runs exams ended, and is started again in {pause:g} s: {error}")
            self._closing.wait(pause)

    def _run(self) -> str:
        """Run one process to its end; return why it ended."""
        events: Events = queue.Queue()
        try:
            self._process = process = WorkerProcess(COMMAND, self._setting, events)
        except OSError as error:
            return f"it cannot start ({error.strerror or error})"
        if self._closing.is_set():
            process.kill()
        said = ""
        while (message := events.get()[1]) is not None:
            if message[0] == "ready":
                self.about, self.is_ready = message[1], True
                self._told(None)
            elif message[0] == "failed":
                said = message[1]
        status, last_line = process.bury()
        return said or (last_line if status > 0 else "") or cause(status, "something")

    def _told(self, error: SpiculaError | None) -> bool:
        """Tell `start` how the first start went; return whether it was told now of an error."""
        first, self._first = self._first, None
        if first is None or self._loop is None:
            return False

        def tell() -> None:
            if first.done():
                return
            if error is None:
                first.set_result(None)
            else:
                first.set_exception(error)

        self._loop.call_soon_threadsafe(tell)
        return error is not None
