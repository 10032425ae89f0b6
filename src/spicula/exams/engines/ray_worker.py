"""What a Ray actor does: it keeps one guarded worker process, the same as on one machine, and hands it tasks.

So an exam that crashes, hangs or eats the memory costs an attempt at that exam and no actor, and results are the same.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import spicula
from spicula.errors import SpiculaError
from spicula.exams.engines.local import LocalEngine
from spicula.exams.stages import STAGES
from spicula.exams.types import Record, Task

#: A shared file system may take so long to show a new file on another machine.
SEEN_SECONDS = 10.0


class Look(TypedDict):
    """What a machine is, and whether it can work."""

    host: str
    code: dict[str, Any]  # see `code`
    sees_workspace: bool


class Told(TypedDict):
    """What became of a task on a machine."""

    record: Record | None
    lost: str | None
    started: float
    seconds: float
    failed: str | None  # why no machine should go on


class RayWorker:
    """A worker on a machine of the cluster.

    Args:
        pool: "cpu" or "model".
        setting: of the workbench.
        seconds: stage -> how long a run of it may take.
        arguments: of Python, to start a worker process; it is the Python that Ray runs in.
    """

    def __init__(
        self, pool: str, setting: Mapping[str, Any], seconds: Mapping[str, float], arguments: Sequence[str]
    ) -> None:
        self._pool = pool
        workers = {"cpu_workers": int(pool == "cpu"), "model_workers": int(pool == "model")}
        self._engine = LocalEngine(setting, **workers, seconds=seconds, command=(sys.executable, *arguments))

    def look(self, token: str | None) -> Look:
        """Start the worker process, and say where it is.

        Args:
            token: a file of the workspace; None where the workspace is no folder.
        """
        sees = token is None or _appears(Path(token))
        if sees:
            self._engine.start()
        return {"host": socket.gethostname(), "code": code(), "sees_workspace": sees}

    def execute(self, task: Task, seen: Sequence[str]) -> Told:
        """Do a task.

        Args:
            task: the task.
            seen: files of its images, which this machine has to see as well.
        """
        told: Told = {"record": None, "lost": None, "started": time.time(), "seconds": 0.0, "failed": None}
        if not all(os.path.exists(path) for path in seen):  # noqa: PTH110 - may be many, on a slow file system
            told["failed"] = "an image is not there; put the images on storage that all machines share"
            return told
        try:
            self._engine.submit(self._pool, task)
            while not (found := self._engine.wait(60.0)):
                pass
        except SpiculaError as error:
            told["failed"] = str(error)
            return told
        done = found[0]
        told["record"], told["lost"], told["started"], told["seconds"] = (
            done.record,
            done.lost,
            done.started,
            done.seconds,
        )
        return told


def code() -> dict[str, Any]:
    """Return what has to be the same on all machines for results to be."""
    return {"spicula": spicula.__version__, "stages": {name: stage.version for name, stage in STAGES.items()}}


def _appears(file: Path) -> bool:
    until = time.monotonic() + SEEN_SECONDS
    while not (is_there := file.exists()) and time.monotonic() < until:
        time.sleep(0.2)
    return is_there
