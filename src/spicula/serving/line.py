"""A bounded line of questions that wait for one of a few answerers: decoding processes, or a model's threads."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spicula.serving.problems import beyond

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(eq=False)
class Asked(Generic[Q, A]):
    """A question, and who waits for its answer.

    Attributes:
        question: what is asked.
        answer: to be given by `give`.
        since: when it was asked, by `time.monotonic`.
    """

    question: Q
    answer: "asyncio.Future[A]"
    since: float = field(default_factory=time.monotonic)

    def give(self, found: A | Exception) -> None:
        """Give the answer, or the reason why there is none, unless whoever asked has left."""
        if self.answer.done():
            return
        if isinstance(found, Exception):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)


class Line(Generic[Q, A]):
    """Questions in the order in which they came. Whoever leaves leaves the line.

    Args:
        most: questions that may wait at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Asked[Q, A]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()  # of those who wait for a question

    def __len__(self) -> int:
        return len(self._waiting)

    def refuse_if_full(self) -> None:
        """Check that there is room.

        Raises:
            Problem: 503, there is none.
        """
        if len(self._waiting) >= self._most:
            raise beyond("queue", self._most, "{value} images wait already; try again shortly")

    async def ask(self, question: Q) -> A:
        """Wait in the line, and return the answer.

        Raises:
            Problem: 503, the line is full.
            Exception: what was given as the reason why there is no answer.
        """
        asked: Asked[Q, A] = Asked(question, asyncio.get_running_loop().create_future())
        self.put(asked)
        try:
            return await asked.answer
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._waiting.remove(asked)
            raise

    def put(self, asked: Asked[Q, A]) -> None:
        """Let a question wait here that was taken out of another line, or that nobody has asked before.

        Raises:
            Problem: 503, the line is full.
        """
        self.refuse_if_full()
        self._waiting.append(asked)
        self._wake()

    async def take(self, most: int = 1, linger_seconds: float = 0.0) -> list[Asked[Q, A]]:
        """Wait for questions and take them out of the line.

        Args:
            most: to be taken at a time; at least one is.
            linger_seconds: to wait for more of them, once there is one.
        """
        while not self._waiting:
            come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(come)
            try:
                await come
            except asyncio.CancelledError:
                if self._waiting:  # it may have been told of a question that another has to take now
                    self._wake()
                raise
        if linger_seconds and len(self._waiting) < most:
            await asyncio.sleep(linger_seconds)
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        return taken or await self.take(most, linger_seconds)

    def _wake(self) -> None:
        """Tell one of those who wait that there is a question."""
        while self._idle:
            come = self._idle.popleft()
            if not come.done():
                come.set_result(None)
                return
