"""What every engine is: it runs the tasks that it is given, and says of each once what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from spicula.exams.stages import STAGES
from spicula.exams.types import Record, Task

#: The two kinds of workers, which are scaled apart.
POOLS = ("cpu", "model")


@dataclass(frozen=True)
class Done:
    """What became of a task.

    Attributes:
        task: as it was submitted.
        record: what the worker handed back; None when it was lost.
        lost: why there is no record: its worker died or was stuck. The task may be submitted again.
        pool: the kind of worker, "cpu" or "model".
        worker: which one: "cpu 2", on a cluster "cpu 2 on HOST".
        started: POSIX time at which the worker took it up, by the worker's clock where it handed back a record.
        seconds: how long the worker was at it.
    """

    task: Task
    record: Record | None
    lost: str | None = None
    pool: str = ""
    worker: str = ""
    started: float = 0.0
    seconds: float = 0.0


class Engine(Protocol):
    """Runs tasks. All its methods are called from one thread, which lives until `stop`."""

    def start(self) -> None:
        """Start the first workers, which get ready while the first tasks are found.

        Raises:
            UsageError: there is no cluster at the address, or a library is missing.
            SpiculaError: the engine does not start.
        """
        ...

    def room(self, pool: str) -> int:
        """Return how many more tasks it takes now for that kind of worker; 0 or more."""
        ...

    def submit(self, pool: str, task: Task) -> None:
        """Take a task; its `id` is that of no other task under way. Only while there is room."""
        ...

    def wait(self, timeout: float) -> list[Done]:
        """Return what is finished, as soon as anything is; each task once.

        Args:
            timeout: in seconds; nothing is returned when nothing is finished by then.

        Raises:
            SpiculaError: workers cannot start, or one met what is no exam's fault: a full disk, a broken bundle.
        """
        ...

    def stop(self) -> None:
        """End all workers at once, also in the middle of a task. What is under way is forgotten."""
        ...


def stage_of(task: Task) -> str:
    """Return the name of the stage that a task runs."""
    return task["step"].partition(":")[0]


def time_limits() -> Mapping[str, float]:
    """Return how long a run of each stage may take, in seconds, as the stages declare it."""
    return {stage.name: stage.resources.seconds for stage in STAGES.values()}
