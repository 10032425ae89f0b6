"""An engine that outlives runs: its workers keep their models loaded between exams."""

from collections.abc import Callable
from typing import Literal, Protocol

from spicula.exams.engines.types import Done, Engine
from spicula.exams.schedule import MOST_ATTEMPTS
from spicula.exams.types import Task

#: How a step of an exam stands, as far as its run has come.
StepState = Literal["running", "ok", "refused", "failed"]


class WarmEngine(Engine, Protocol):
    """An engine that tells when its workers are ready; those of one machine do."""

    @property
    def is_ready(self) -> bool:
        """Whether every pool that has workers has one that is ready; models are loaded then."""
        ...


class KeptEngine:
    """Runs tasks as the engine that it holds does, see `engines.types.Engine`; `stop` leaves workers at rest alive.

    Args:
        make: makes the engine, which is not yet started.
        tell: is told of every step that is begun or done: exam, step, and how it stands.
    """

    def __init__(self, make: Callable[[], WarmEngine], tell: Callable[[str, str, StepState], None]) -> None:
        self._make, self._tell = make, tell
        self._engine: WarmEngine | None = None
        self._under_way: set[int] = set()

    @property
    def is_ready(self) -> bool:
        """Whether its workers are ready, and have their models loaded."""
        return self._engine is not None and self._engine.is_ready

    def start(self) -> None:
        """Start the engine where it does not run."""
        if self._engine is None:
            self._engine = self._make()
            self._engine.start()

    def room(self, pool: str) -> int:
        """Return how many more tasks it takes now for that kind of worker."""
        return self._running.room(pool)

    def submit(self, pool: str, task: Task) -> None:
        """Take a task."""
        self._under_way.add(task["id"])
        if task["attempt"] == 1:
            self._tell(task["exam"], task["step"], "running")
        self._running.submit(pool, task)

    def wait(self, timeout: float) -> list[Done]:
        """Return what is finished, as soon as anything is. With nothing under way it looks after its workers."""
        done = self._running.wait(timeout)
        for one in done:
            self._under_way.discard(one.task["id"])
            state = "failed" if one.record is None else one.record["status"]
            if state != "failed" or one.task["attempt"] >= MOST_ATTEMPTS:
                self._tell(one.task["exam"], one.task["step"], state)
        return done

    def stop(self) -> None:
        """End the workers where something is under way, which would come back in the next run."""
        if self._under_way:
            self.close()

    def close(self) -> None:
        """End the workers."""
        engine, self._engine = self._engine, None
        self._under_way.clear()
        if engine is not None:
            engine.stop()

    @property
    def _running(self) -> WarmEngine:
        assert self._engine is not None, "start it first"
        return self._engine
