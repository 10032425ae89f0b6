"""Running a model in this process: one bounded line of images, and as many threads as images are computed at a time.

An image's answer depends on the image alone, not on what runs beside it; on a GPU up to rounding, since there images of
several requests go through the model as one batch.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spicula.serving.inference.graphs import Answer, Floats, Graph
from spicula.serving.line import Asked, Line
from spicula.serving.problems import beyond
from spicula.serving.together import together

if TYPE_CHECKING:
    from spicula.serving.service import Service


@dataclass(frozen=True)
class _Question:
    inputs: Floats
    evidence: bool


class LocalInference:
    """One model, for all requests at once; see `service.Inference`.

    To be made where an event loop runs.

    Args:
        graph: what computes.
        name: of the model, for metrics.
        service: its limits and metrics.
        workers: runs at a time; a GPU has one.
    """

    def __init__(self, graph: Graph, name: str, service: "Service", workers: int) -> None:
        self.manner = graph.manner
        self._graph, self._name = graph, name
        self._metrics = service.metrics
        self._answer_seconds = service.limits["answer-seconds"]
        self._line: Line[_Question, Answer] = Line(service.limits["queue"])
        workers = 1 if self.manner.batch > 1 else workers
        self._running = 0
        self._at_a_time = min(2 * max(workers, self.manner.batch), service.limits["queue"])
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="model")
        self._tasks = [asyncio.create_task(self._work()) for _ in range(workers)]

    @property
    def waiting(self) -> int:
        """How many images wait for the model."""
        return len(self._line)

    def refuse_if_full(self) -> None:
        """Raise what `scores` would raise if an image came now.

        Raises:
            Problem: 503, too many images wait.
        """
        self._line.refuse_if_full()

    async def scores(self, inputs: Floats) -> npt.NDArray[np.float64]:
        """Return probabilities; `service.Inference` says how."""
        return np.concatenate([answer.probabilities for answer in await self._ask(inputs, evidence=False)])

    async def explained(self, inputs: Floats) -> tuple[npt.NDArray[np.float64], Floats]:
        """Return probabilities (N, classes), and the evidence (N, h, w) of `bundle.explanation`.

        To be asked only of a model whose bundle has an explanation.
        """
        answers = await self._ask(inputs, evidence=True)
        evidence = [answer.evidence for answer in answers if answer.evidence is not None]
        return np.concatenate([answer.probabilities for answer in answers]), np.concatenate(evidence)

    async def close(self) -> None:
        """End the threads, once they have done what they are at."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _ask(self, inputs: Floats, evidence: bool) -> list[Answer]:
        rows = self.manner.rows
        questions = [_Question(inputs[at : at + rows], evidence) for at in range(0, len(inputs), rows)]
        return await together(self._ask_one, questions, self._at_a_time)

    async def _ask_one(self, question: _Question) -> Answer:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await self._line.ask(question)
        except TimeoutError:
            raise beyond(
                "answer-seconds", self._answer_seconds, "no answer within {value} s; try again when fewer ask"
            ) from None

    async def _work(self) -> None:
        """Answer questions, one batch after another."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._line.take(self.manner.batch, self.manner.linger_seconds)
            now = time.monotonic()
            for asked in batch:
                self._metrics.seconds("wait_seconds", now - asked.since, model=self._name)
            is_alone = self._running == 0 and len(self._line) == 0
            self._running += 1
            try:
                questions = [asked.question for asked in batch]
                answer = await loop.run_in_executor(self._threads, self._run, questions, is_alone)
            except Exception as error:  # it belongs to those who asked
                for asked in batch:
                    asked.give(error)
                continue
            finally:
                self._running -= 1
            self._metrics.seconds("inference_seconds", time.monotonic() - now, model=self._name)
            _share_out(answer, batch)

    def _run(self, questions: list[_Question], is_alone: bool) -> Answer:
        inputs = [question.inputs for question in questions]
        together = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        return self._graph.run(together, any(question.evidence for question in questions), is_alone)


def _share_out(answer: Answer, batch: list[Asked[_Question, Answer]]) -> None:
    at = 0
    for asked in batch:
        rows = slice(at, at + len(asked.question.inputs))
        at = rows.stop
        evidence = None if answer.evidence is None else answer.evidence[rows]
        asked.give(Answer(answer.probabilities[rows], evidence))
