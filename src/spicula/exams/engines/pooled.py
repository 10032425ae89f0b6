"""What engines with pools have in common: who asks them, and how they wait. Where workers are is their own business."""

import time
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from spicula.exams.engines.pools import Pool
from spicula.exams.engines.types import Done
from spicula.exams.types import Task

#: How often the driver looks round: for who is stuck, and who takes too much memory.
TURN_SECONDS = 0.5

#: More time than this between two looks was not the workers' fault: this machine slept, or was held up.
MOST_TURN_SECONDS = 5.0

W = TypeVar("W")


class PooledEngine(ABC, Generic[W]):
    """Runs tasks in pools; see `engines.types.Engine`."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool[W]] = {}
        self._looked = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Whether every pool that has workers has one that is ready; models are loaded then."""
        return all(pool.ready_count for pool in self._pools.values() if pool.workers)

    def room(self, pool: str) -> int:
        """Return how many more tasks a pool takes now."""
        return self._pools[pool].room

    def submit(self, pool: str, task: Task) -> None:
        """Take a task.

        Raises:
            ValueError: there is no room in the pool.
        """
        self._pools[pool].submit(task)

    def wait(self, timeout: float) -> list[Done]:
        """Return what is finished, as soon as anything is.

        Args:
            timeout: in seconds; nothing is returned when nothing is finished by then.

        Raises:
            SpiculaError: workers cannot start or not work where they are, or one met what is no exam's fault.
        """
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            done = self._heard(max(0.0, min(left, TURN_SECONDS)))
            now = time.monotonic()
            seconds, self._looked = min(now - self._looked, MOST_TURN_SECONDS), now
            for pool in self._pools.values():
                pool.tick(seconds)
            self._look_round(seconds)
            if done or left <= 0:
                return done

    @abstractmethod
    def _heard(self, timeout: float) -> list[Done]:
        """Return what workers say to be finished: whatever there is, or what comes first within `timeout` seconds."""

    @abstractmethod
    def _look_round(self, seconds: float) -> None:
        """Look after what a pool does not know of; so much time has passed since the last time."""
