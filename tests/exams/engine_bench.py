"""A worker whose workbench runs no stage: what it does stands in the name of the exam.

"ok-1" is done at once, "slow-1" after setting["seconds"]; others kill their process, hang, and so on. Each task leaves
a file in setting["artefacts"], so that tests see how far it got. Run as a script it is a worker process.
"""

import ctypes
import hashlib
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from spicula.errors import SpiculaError
from spicula.exams.engines import worker
from spicula.exams.engines.types import Done, Engine
from spicula.exams.types import Record, Task

#: Starts a worker with this workbench.
COMMAND = (sys.executable, str(Path(__file__).resolve()))

_numbers = itertools.count(1)


def task(exam: str, step: str = "crop", attempt: int = 1, images: tuple[str, ...] = ()) -> Task:
    """A task with a number of its own."""
    paths = [{"path": path} for path in images]
    key = hashlib.sha256(f"{exam} {step}".encode()).hexdigest()
    return {
        **{"id": next(_numbers), "exam": exam, "step": step, "key": key},
        **{"images": paths, "inputs": {}, "attempt": attempt},
    }


def outputs_of(one: Task) -> str:
    """What a workbench makes of a task: the same wherever it stands."""
    return hashlib.sha256(f"{one['key']} made".encode()).hexdigest()


def drive(engine: Engine, tasks: list[tuple[str, Task]], attempts: int = 3, between: Any = None) -> list[Done]:
    """Run tasks, and those that are lost again, as a driver does; `between` is called with what is done so far."""
    waiting, under_way, told = list(tasks), 0, []
    while waiting or under_way:
        while waiting and engine.room(waiting[0][0]):
            engine.submit(*waiting.pop(0))
            under_way += 1
        for done in engine.wait(1.0):
            under_way -= 1
            told.append(done)
            if done.record is None and done.task["attempt"] < attempts:
                waiting.append((done.pool, {**done.task, "attempt": done.task["attempt"] + 1}))
        if between is not None:
            between(told)
    return told


def workers_of(pid: int, word: str = COMMAND[1]) -> list[int]:
    """Numbers of the living processes that descend from a process and have a word in their command line."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state not in "ZX":
                parents[int(folder.name)] = int(parent)
                lines[int(folder.name)] = (folder / "cmdline").read_bytes()
    return [one for one in parents if word.encode() in lines[one] and pid in _ancestors(one, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while (pid := parents.get(pid, 0)) > 1:
        yield pid


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether something becomes true; the time is for a hopeless case alone."""
    until = time.monotonic() + seconds
    while not (is_true := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return is_true


class Bench:
    def __init__(self, setting: dict[str, Any]) -> None:
        self.folder = Path(setting["artefacts"])
        self.seconds = float(setting.get("seconds", 0.0))
        self.starts = int(setting.get("starts", 0))
        if not (self.starts and self._is_first()):
            self._start(setting.get("start"))

    def _is_first(self) -> bool:
        try:
            os.close(os.open(self.folder / "first", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _start(self, how: str | None) -> None:
        if how is not None:
            (self.folder / f"started-{os.getpid()}").touch()
        if how == "refused":
            raise SpiculaError("the bundle is broken")
        if how == "error":
            raise ImportError("no library here")
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stuck":
            time.sleep(600)

    def execute(self, one: Task) -> Record:
        started = time.time()
        begun = self.folder / f"begun-{one['exam']}-{one['step']}-{one['attempt']}"
        begun.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        self._misbehave(one["exam"])
        (self.folder / f"done-{one['exam']}-{one['step']}").touch()
        return {
            **{"exam": one["exam"], "step": one["step"], "key": one["key"], "status": "ok", "error": None},
            **{"outputs": outputs_of(one), "scores": [], "started": started, "seconds": time.time() - started},
        }

    def _misbehave(self, exam: str) -> None:
        how = exam.partition("-")[0]
        if how == "slow":
            time.sleep(self.seconds)
        elif how == "poison":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif how == "exit":
            os._exit(3)
        elif how == "stuck":
            time.sleep(600)
        elif how == "busy":  # native code that keeps every Python thread waiting
            re.match(r"(a+)+$", "a" * 64 + "b")
        elif how == "full":
            raise SpiculaError("the disk is full")
        elif how == "hungry":
            held = ctypes.create_string_buffer(2**29)
            ctypes.memset(held, 1, 2**29)
            time.sleep(600)
        elif how == "meet":  # done when its counterpart in the other pool is under way, and not before
            while len(list(self.folder.glob(f"begun-{exam}-*-1"))) < 2:
                time.sleep(0.01)
        elif how == "long":  # until so many others have tried to start
            while len(list(self.folder.glob("started-*"))) < self.starts:
                time.sleep(0.01)
        elif how == "vast":
            ctypes.create_string_buffer(2**33)


def begin(setting: dict[str, Any]) -> worker.Work:
    return worker.work(Bench(setting).execute)


if __name__ == "__main__":
    worker.run(begin, sys.argv[1])
