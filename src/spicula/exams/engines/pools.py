"""A pool of workers of one kind: who is at which task, who gets the next, how many there are, and whom a death costs.

The same for processes of this machine and for workers on a cluster: engines start and end workers, and tell the pool
what happens to them.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spicula.errors import SpiculaError
from spicula.exams.engines.types import Done, stage_of
from spicula.exams.types import Record, Task
from spicula.progress import say

#: Tasks that a worker has at a time: the one that it is at, and one sent ahead, so that it never waits for the driver.
DEPTH = 2

#: A worker beyond the fewest that had nothing to do for so long is let go.
IDLE_SECONDS = 60.0

#: When so many in a row die before they are ready, workers cannot start.
MOST_STARTS = 5

#: A worker that is not ready after so long is stuck, in an import or at a file system that does not answer. To load
#: large models from a slow disk takes minutes.
START_SECONDS = 600.0

W = TypeVar("W")


@dataclass
class _Place:
    """What the pool knows of a worker.

    Attributes:
        number: from 1; the lowest that was free.
        where: the machine, where that is not this one.
        tasks: that it has; it is at the first.
        started: POSIX time at which it took up the first.
        seconds: that it has been at it, or at getting ready.
        idle_seconds: that it has had nothing to do.
        verdict: id of the task that it is ended for, None where that is its start, and why.
    """

    number: int
    is_ready: bool = False
    where: str = ""
    tasks: deque[Task] = field(default_factory=deque)
    started: float = 0.0
    seconds: float = 0.0
    idle_seconds: float = 0.0
    verdict: tuple[int | None, str] | None = None


class Pool(Generic[W]):
    """Workers of one kind.

    Args:
        name: of the kind, "cpu" or "model".
        fewest: workers that are kept when there is nothing to do.
        most: workers at a time.
        seconds: stage -> how long a run of it may take; no limit for a stage that is not named.
        hire: starts a worker, given its number.
        give: sends a task to a worker.
        end: ends a worker at once; `ended` is to be called later.
        is_placed: whether a worker has a machine. One that still waits for a machine may take as long as it likes.
    """

    def __init__(
        self,
        name: str,
        fewest: int,
        most: int,
        seconds: Mapping[str, float],
        *,
        hire: Callable[[int], W],
        give: Callable[[W, Task], None],
        end: Callable[[W], None],
        is_placed: Callable[[W], bool] = lambda worker: True,
    ) -> None:
        self.name = name
        self._fewest, self._most = fewest, most
        self._limits = seconds
        self._hire, self._give, self._end, self._is_placed = hire, give, end, is_placed
        self._places: dict[W, _Place] = {}
        self._waiting: deque[Task] = deque()
        self._failed_starts = 0

    def __contains__(self, worker: W) -> bool:
        return worker in self._places

    @property
    def workers(self) -> list[W]:
        """The workers, those included that are getting ready."""
        return list(self._places)

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""
        return max(0, DEPTH * self._most - self._count())

    @property
    def is_held_up(self) -> bool:
        """Whether tasks wait and no worker is ready."""
        return bool(self._waiting) and not self.ready_count

    @property
    def ready_count(self) -> int:
        """How many workers are ready."""
        return sum(place.is_ready for place in self._places.values())

    def is_starting(self, worker: W) -> bool:
        """Whether a worker is not ready yet."""
        return worker in self._places and not self._places[worker].is_ready

    def start(self) -> None:
        """Start the fewest workers."""
        while len(self._places) < self._fewest:
            self._add()

    def submit(self, task: Task) -> None:
        """Take a task.

        Raises:
            ValueError: there is no room.
        """
        if not self.room:
            raise ValueError(f"no room for another task in the pool {self.name!r}")
        self._waiting.append(task)
        self._share_out()

    def ready(self, worker: W, where: str = "") -> None:
        """A worker is ready for its first task."""
        if worker in self._places:
            self._places[worker].is_ready, self._places[worker].where = True, where
            self._failed_starts = 0
            self._most = max(self._most, self.ready_count)  # there may be more than at the last failed start
            self._share_out()

    def done(
        self, worker: W, record: Record | None, lost: str | None = None, times: tuple[float, float] | None = None
    ) -> Done:
        """A worker has finished the task that it was at.

        Args:
            worker: which.
            record: what it hands back.
            lost: why there is none.
            times: when it took the task up and how long it was at it, where that is not in the record.
        """
        place = self._places[worker]
        done = self._outcome(place, record, lost, times)
        self._share_out()
        return done

    def ended(self, worker: W, reason: str) -> list[Done]:
        """A worker is gone. The task that it was at is lost; those sent ahead are handed out again.

        When workers cannot start, the pool goes on with those that are ready.

        Raises:
            SpiculaError: workers cannot start, and none is ready.
        """
        place = self._places.pop(worker, None)
        if place is None:
            return []
        if place.verdict is not None:
            reason = place.verdict[1]
        if not place.is_ready:
            self._failed_start(reason)
        lost = []
        # One that finished its task just when it was to be ended for it has not begun with the next.
        if place.tasks and (place.verdict is None or place.verdict[0] == place.tasks[0]["id"]):
            lost.append(self._outcome(place, None, reason, None))
        self._waiting.extendleft(reversed(place.tasks))
        self._share_out()
        return lost

    def kill(self, worker: W, reason: str) -> None:
        """End a worker for the task that it is at; the engine will say that it has ended."""
        if self._places[worker].tasks:
            self._end_for(worker, reason)

    def tick(self, seconds: float) -> None:
        """Time has passed: end who is stuck, and let go who has had nothing to do for long."""
        for worker, place in list(self._places.items()):
            if place.is_ready or self._is_placed(worker):
                place.seconds += seconds
            overdue = self._overdue(place)
            if overdue is not None:
                self._end_for(worker, overdue)
            elif not place.tasks and not self._waiting:
                place.idle_seconds += seconds
                if place.idle_seconds > IDLE_SECONDS and len(self._places) > self._fewest:
                    del self._places[worker]
                    self._end(worker)

    def _overdue(self, place: _Place) -> str | None:
        """Return why a worker is to be ended, when it takes longer than it may."""
        if place.tasks:
            limit = self._limits.get(stage_of(place.tasks[0]))
            if limit is not None and place.seconds > limit:
                return f"{place.tasks[0]['step']} took more than {limit:g} s"
        elif not place.is_ready and place.seconds > START_SECONDS:
            return f"took more than {START_SECONDS:g} s to start"
        return None

    def _end_for(self, worker: W, reason: str) -> None:
        place = self._places[worker]
        if place.verdict is None:
            place.verdict = (place.tasks[0]["id"] if place.tasks else None, reason)
            self._end(worker)

    def _failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts < MOST_STARTS:
            return
        cannot = f"workers of the pool {self.name!r} cannot start ({reason})"
        if not self.ready_count:
            raise SpiculaError(cannot)
        self._most, self._failed_starts = self.ready_count, 0
        say(f"{cannot}; it goes on with the {self._most} that {'is' if self._most == 1 else 'are'} ready")

    def _count(self) -> int:
        return len(self._waiting) + sum(len(place.tasks) for place in self._places.values())

    def _add(self) -> None:
        numbers = {place.number for place in self._places.values()}
        number = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
        self._places[self._hire(number)] = _Place(number)

    def _share_out(self) -> None:
        """Give each ready worker a task, then one ahead, but leave some for those that are getting ready."""
        while len(self._places) < min(self._most, self._count()):
            self._add()
        starting = sum(not place.is_ready for place in self._places.values())
        while self._waiting:
            free = [(worker, place) for worker, place in self._places.items() if self._is_free(place)]
            if not free:
                return
            worker, place = min(free, key=lambda one: len(one[1].tasks))
            if place.tasks and len(self._waiting) <= starting:
                return
            task = self._waiting.popleft()
            if not place.tasks:
                self._begin(place)
            place.tasks.append(task)
            self._give(worker, task)

    @staticmethod
    def _is_free(place: _Place) -> bool:
        return place.is_ready and place.verdict is None and len(place.tasks) < DEPTH

    @staticmethod
    def _begin(place: _Place) -> None:
        place.started, place.seconds, place.idle_seconds = time.time(), 0.0, 0.0

    def _outcome(
        self, place: _Place, record: Record | None, lost: str | None, times: tuple[float, float] | None
    ) -> Done:
        """Take the task that a worker was at off it."""
        if record is not None:
            times = record["started"], record["seconds"]
        started, seconds = times or (place.started, time.time() - place.started)
        task = place.tasks.popleft()
        self._begin(place)
        worker = f"{self.name} {place.number}" + (f" on {place.where}" if place.where else "")
        return Done(task, record, lost, self.name, worker, started, seconds)
