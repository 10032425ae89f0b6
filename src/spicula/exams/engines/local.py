"""The engine of one machine: two pools of worker processes, so that CPU stages run while networks do.

A process of its own for each worker, because native code that crashes, hangs or eats the memory takes its process with
it, and nothing else. What a worker is stands in `engines.worker`.
"""

import os
import queue
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spicula.errors import SpiculaError
from spicula.exams.engines import sizes
from spicula.exams.engines.pooled import PooledEngine
from spicula.exams.engines.pools import Pool
from spicula.exams.engines.types import Done, time_limits
from spicula.exams.types import Task
from spicula.processes import Events, WorkerProcess, cause, command_of

#: How a worker is started; the name of its pool follows.
COMMAND = command_of("spicula.exams.engines.worker")

#: A model worker that takes more than this share of the machine's memory is ended, before the system ends anything.
MEMORY_SHARE = 0.75


class LocalEngine(PooledEngine[WorkerProcess]):
    """Runs tasks in processes of this machine; see `engines.types.Engine`.

    Workers are started as they are needed, one of each pool at once.

    Args:
        setting: of the workbench, as JSON values.
        cpu_workers: most workers for CPU stages; 0 for no such pool.
        model_workers: most workers for stages with a network; 0 for no such pool.
        seconds: stage -> how long a run of it may take.
        command: starts a worker, given the name of its pool as one more argument.
    """

    def __init__(
        self,
        setting: Mapping[str, Any],
        cpu_workers: int,
        model_workers: int,
        seconds: Mapping[str, float] | None = None,
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__()
        self._setting = dict(setting)
        self._command = tuple(command)
        limits = time_limits() if seconds is None else seconds
        self._events: Events = queue.Queue()
        self._pool_of: dict[WorkerProcess, Pool[WorkerProcess]] = {}
        self._pools = {
            name: Pool(
                name,
                min(1, most),
                most,
                limits,
                hire=partial(self._hire, name),
                give=_give,
                end=WorkerProcess.kill,
            )
            for name, most in (("cpu", cpu_workers), ("model", model_workers))
        }
        self._memory_bytes = int(MEMORY_SHARE * sizes.memory_bytes())
        self._gpus = sizes.gpus() if setting.get("device") == "cuda" else []

    def start(self) -> None:
        """Start one worker of each pool."""
        for pool in self._pools.values():
            pool.start()

    def stop(self) -> None:
        """End all workers."""
        for worker in self._pool_of:
            worker.kill()
        for worker in self._pool_of:
            worker.bury()
        self._pool_of.clear()

    def _hire(self, pool: str, number: int) -> WorkerProcess:
        environment = {}
        if pool == "model" and self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[(number - 1) % len(self._gpus)]
        try:
            worker = WorkerProcess((*self._command, pool), self._setting, self._events, environment)
        except OSError as error:
            raise SpiculaError(f"worker processes cannot start ({error.strerror or error})") from error
        self._pool_of[worker] = self._pools[pool]
        return worker

    def _heard(self, timeout: float) -> list[Done]:
        done: list[Done] = []
        try:
            done += self._handle(*self._events.get(timeout=timeout))
            while True:
                done += self._handle(*self._events.get_nowait())
        except queue.Empty:
            return done

    def _handle(self, worker: WorkerProcess, message: list[Any] | None) -> list[Done]:
        pool = self._pool_of[worker]
        if message is None:
            return self._ended(pool, worker)
        kind, *rest = message
        if kind == "ready":
            pool.ready(worker)
        elif kind == "failed":
            raise SpiculaError(rest[0])
        elif kind == "done":
            return [pool.done(worker, rest[1])]
        return []

    def _ended(self, pool: Pool[WorkerProcess], worker: WorkerProcess) -> list[Done]:
        status, last_line = worker.bury()
        del self._pool_of[worker]
        reason = cause(status, "its worker") + (", as when memory runs out" if status == -signal.SIGKILL else "")
        if status >= 0 and pool.is_starting(worker):
            reason = last_line or reason
            if not pool.ready_count:  # it ended by itself: the next would do the same
                raise SpiculaError(f"worker processes cannot start ({reason})")
        return pool.ended(worker, reason)

    def _look_round(self, seconds: float) -> None:
        model = self._pools["model"]
        for worker in model.workers:
            if _resident_bytes(worker.pid) > self._memory_bytes:
                model.kill(worker, f"it takes more than {self._memory_bytes // 2**20} MB of memory")


def _give(worker: WorkerProcess, task: Task) -> None:
    worker.say([task])


def _resident_bytes(pid: int) -> int:
    """Return how much memory a process takes; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
