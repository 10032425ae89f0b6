"""Worker processes as their parent sees them: how they are started, spoken to in lines of JSON, and buried.

What they are told and what they answer is the business of those who start them; the messages that all of them know are
those of `imaging.worker_process`.
"""

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import spicula

# Each worker has one core. It keeps memory for its next image instead of giving it back to the system (mallopt(3), of
# the GNU C library): to clear fresh pages takes a tenth of the time that an image does.
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}


#: Processor time that a container may use, microseconds and in how many, or "max" (Linux, cgroup-v2.rst, cpu.max).
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def command_of(module: str) -> tuple[str, ...]:
    """Return how a worker is started (-P: without the current folder, where a file may be called like a module)."""
    return (sys.executable, "-P", "-m", module)


def cores() -> int:
    """Return how many cores this process may use, which in a container can be fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file: no container, or one that may use all; "max": the same
        time, period = map(int, _QUOTA.read_text().split())
        return max(1, min(allowed, -(-time // period)))
    return allowed


def environment_with(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a worker: this process's, with one core, and this package where Python looks for it.

    Args:
        more: variables beyond those that every worker gets.
    """
    package = str(Path(spicula.__file__).parent.parent)
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), package) if part)
    return {**os.environ, **_ENVIRONMENT, **(more or {}), "PYTHONPATH": path}


def trim_memory() -> None:
    """Give memory that was freed back to the system, which the GNU C library alone keeps."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class WorkerProcess:
    """A process that reads lines of JSON and answers with lines of JSON.

    Args:
        command: starts it.
        setting: the first thing that it is told, as JSON values.
        events: gets a pair of this worker and a message for each line that it says, and (this, None) when it has ended.
        environment: variables beyond those that every worker gets.

    Raises:
        OSError: the command cannot be run.
    """

    def __init__(
        self, command: Sequence[str], setting: Any, events: "Events", environment: Mapping[str, str] | None = None
    ) -> None:
        self._events = events
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is buried
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                env=environment_with(environment),
            )
        except OSError:
            self._errors.close()
            raise
        threading.Thread(target=self._listen, daemon=True).start()
        self.say(setting)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def say(self, value: Any) -> None:
        """Tell it something."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died; the end of its output says so
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """Tell it that nothing more will come."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def bury(self) -> tuple[int, str]:
        """Wait for its end and close its pipes.

        Returns:
            Its exit status, as `subprocess` counts, and the last line that it wrote to standard error.
        """
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # unsent input of a dead process
                    pipe.close()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        return status, lines[-1] if lines else ""

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # it may have died in the middle of one
                self._events.put((self, json.loads(line)))
        self._events.put((self, None))


#: What workers said, in the order in which it came.
Events: TypeAlias = "queue.Queue[tuple[WorkerProcess, list[Any] | None]]"


def cause(status: int, what: str) -> str:
    """Return why a process ended, from its exit status.

    Args:
        status: as `subprocess` counts.
        what: to be blamed: "its decoder".
    """
    if status >= 0:
        return f"{what} ended the process with status {status}"
    with suppress(ValueError):
        return f"{what} died of {signal.Signals(-status).name}"
    return f"{what} died of signal {-status}"
