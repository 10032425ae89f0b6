"""What is to be done next for the exams of a run: order of steps, hits in the ledger, attempts. No engine, no files.

A step is due when all that it reads is there. Its key then says whether the ledger has its result already: so a step
whose inputs turn out to be what they were is not run again, even where a step before it was.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spicula.exams.ledger import LeftExam, Result
from spicula.exams.steps import IMAGES, Step, key_of
from spicula.exams.types import Record, Task

#: A step that loses its worker, or fails, so often is given up; the exam is listed as failed, and holds up nobody.
MOST_ATTEMPTS = 3

#: What the ledger has under a key: status, and digest of the output manifest.
Known = Mapping[str, tuple[str, str | None]]


@dataclass
class _Exam:
    """An exam under way."""

    exam_id: str
    images: list[dict[str, Any]]
    digest: str
    known: Known
    outputs: dict[str, str] = field(default_factory=dict)  # step -> digest, of steps that are done
    begun: set[str] = field(default_factory=set)  # steps that are due, under way, done or given up
    under_way: int = 0


class Schedule:
    """Hands out tasks, and takes in what became of them.

    Args:
        steps: each after those that it reads from.
        exams: those with something left to do, and what the ledger has of them.
        open_exams: so many exams are under way at a time: memory stays flat, and CPU stages do not run far ahead.
        retry_failed: run steps again that the ledger has as failed.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        exams: Iterable[LeftExam],
        open_exams: int,
        retry_failed: bool = False,
    ) -> None:
        self._steps = steps
        self._codes = {step.name: step.code() for step in steps}
        self._step = {step.name: step for step in steps}
        self._coming = iter(exams)
        self._open_exams = open_exams
        self._retry_failed = retry_failed
        self._exams: dict[str, _Exam] = {}
        self._due: dict[str, deque[Task]] = {step.pool: deque() for step in steps}
        self._number = 0
        self._is_drained = False
        self.finished = 0

    @property
    def pools(self) -> list[str]:
        """The kinds of workers that are needed."""
        return list(self._due)

    @property
    def is_done(self) -> bool:
        """Whether nothing is due or under way, and no exam is left."""
        self._admit()
        return self._is_drained and not self._exams

    def next(self, pool: str) -> Task | None:
        """Return a task for a worker of that kind, or None when there is none at present."""
        self._admit()
        return self._due[pool].popleft() if self._due[pool] else None

    def take(self, task: Task, record: Record | None, lost: str | None) -> Result | None:
        """Take in what became of a task.

        Args:
            task: as `next` returned it.
            record: what the worker handed back; None where it was lost.
            lost: why there is no record.

        Returns:
            The result to be kept, or None when the task is tried again.
        """
        if record is None or record["status"] == "failed":
            if task["attempt"] < MOST_ATTEMPTS:
                self._due[self._step[task["step"]].pool].append({**task, "attempt": task["attempt"] + 1})
                return None
            record = record or _lost(task, lost or "its worker died")
        exam = self._exams[task["exam"]]
        exam.under_way -= 1
        reads = self._reads(exam, self._step[task["step"]])
        if record["status"] == "ok" and record["outputs"] is not None:
            exam.outputs[task["step"]] = record["outputs"]
        self._advance(exam)
        return Result(record, reads, exam.digest, task["attempt"])

    def _admit(self) -> None:
        while not self._is_drained and len(self._exams) < self._open_exams:
            one = next(self._coming, None)
            if one is None:
                self._is_drained = True
                return
            exam = _Exam(one.exam_id, one.images, one.digest, one.known)
            self._exams[one.exam_id] = exam
            self._advance(exam)

    def _advance(self, exam: _Exam) -> None:
        for step in self._steps:
            if step.name not in exam.begun and all(one == IMAGES or one in exam.outputs for one in step.inputs):
                exam.begun.add(step.name)
                self._begin(exam, step)
        if not exam.under_way:
            del self._exams[exam.exam_id]
            self.finished += 1

    @staticmethod
    def _reads(exam: _Exam, step: Step) -> tuple[str, ...]:
        return tuple(exam.digest if one == IMAGES else exam.outputs[one] for one in step.inputs)

    def _begin(self, exam: _Exam, step: Step) -> None:
        key = key_of(exam.exam_id, self._codes[step.name], self._reads(exam, step))
        status, outputs = exam.known.get(key, (None, None))
        if status == "ok" and outputs is not None:
            exam.outputs[step.name] = outputs
        elif status is None or (status == "failed" and self._retry_failed):
            self._number += 1
            exam.under_way += 1
            task: Task = {
                "id": self._number,
                "exam": exam.exam_id,
                "step": step.name,
                "key": key,
                "images": exam.images if IMAGES in step.inputs else [],
                "inputs": {one: exam.outputs[one] for one in step.inputs if one != IMAGES},
                "attempt": 1,
            }
            self._due[step.pool].append(task)


def _lost(task: Task, reason: str) -> Record:
    return {
        "exam": task["exam"],
        "step": task["step"],
        "key": task["key"],
        "status": "failed",
        "outputs": None,
        "error": reason,
        "scores": [],
        "started": time.time(),
        "seconds": 0.0,
    }
