"""What is to be done next for the exams of a run: order of steps, hits in the ledger, attempts. No engine, no files.

A step is due when all that it reads is there. Its key then says whether the ledger has its result already: so a step
whose inputs turn out to be what they were is not run again, even where a step before it was.

Where a step finds that what it reads is lost, the step that made it is run once more, and then the step itself. The
ledger has that result, so it is not kept again: it has to be the same, or what reads it fails.
"""

import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
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
class _Remake:
    """A step whose output is lost, and which is run again."""

    waiting: list[tuple[Task, Record]] = field(default_factory=list)  # what found it lost
    done: int | None = None  # tasks with lower numbers may have looked before it was there again


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
    remakes: dict[str, _Remake] = field(default_factory=dict)
    is_admitted: bool = False


class Schedule:
    """Hands out tasks, and takes in what became of them.

    Args:
        steps: each after those that it reads from.
        exams: those with something left to do, and what the ledger has of them.
        open_exams: so many exams are under way at a time: memory stays flat, and CPU stages do not run far ahead.
        retry_failed: run steps again that the ledger has as failed.
        lost: exam -> steps whose output is known to be lost; what else is lost is found when it is read.

    Attributes:
        finished: exams with nothing left to do.
        remade: step -> how many lost outputs were made again.
        failed_earlier: steps that the ledger has as failed, and whose key was not known when the run was planned.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        exams: Iterable[LeftExam],
        open_exams: int,
        retry_failed: bool = False,
        lost: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._steps = steps
        self._codes = {step.name: step.code() for step in steps}
        self._step = {step.name: step for step in steps}
        self._coming = iter(exams)
        self._open_exams = open_exams
        self._retry_failed = retry_failed
        self._lost = lost or {}
        self._exams: dict[str, _Exam] = {}
        self._due: dict[str, deque[Task]] = {step.pool: deque() for step in steps}
        self._number = 0
        self._is_drained = False
        self.finished = 0
        self.remade = Counter[str]()
        self.failed_earlier = 0

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

    def take(self, task: Task, record: Record | None, lost: str | None) -> list[Result]:
        """Take in what became of a task.

        Args:
            task: as `next` returned it.
            record: what the worker handed back; None where it was lost.
            lost: why there is no record.

        Returns:
            The results to be kept; none when the task is tried again, or made again what the ledger has already.
        """
        exam = self._exams[task["exam"]]
        if record is None or record["status"] == "failed":
            if record is not None and "lost" in record and self._waits(exam, task, record):
                return []
            if task["attempt"] < MOST_ATTEMPTS:
                self._hand_out({**task, "attempt": task["attempt"] + 1})
                return []
            record = record or _lost(task, lost or "its worker died")
            if "lost" in record:
                record = {**record, "error": f"{record['error']}, though it was made again; check the disk"}
        results = self._settled(exam, task, record)
        self._advance(exam)
        return results

    def _settled(self, exam: _Exam, task: Task, record: Record) -> list[Result]:
        """Take in the last record of a task."""
        exam.under_way -= 1
        if task.get("anew"):
            return self._remade(exam, task, record)
        if record["status"] == "ok" and record["outputs"] is not None:
            exam.outputs[task["step"]] = record["outputs"]
        return [self._result(exam, task, record)]

    def _result(self, exam: _Exam, task: Task, record: Record) -> Result:
        return Result(record, self._reads(exam, self._step[task["step"]]), exam.digest, task["attempt"])

    # what is lost

    def _waits(self, exam: _Exam, task: Task, record: Record) -> bool:
        """Have made again what a task did not find; return whether there is something to wait for."""
        if record["lost"] not in exam.remakes:
            self._remake(exam, self._step[record["lost"]])
        remake = exam.remakes[record["lost"]]
        if remake.done is None:
            remake.waiting.append((task, record))
        elif task["id"] < remake.done:
            self._hand_out({**task, "id": self._next_number()})
        else:
            return False
        return True

    def _remake(self, exam: _Exam, step: Step) -> None:
        exam.remakes[step.name] = _Remake()
        exam.under_way += 1
        self._hand_out({**self._task(exam, step), "anew": True})

    def _remade(self, exam: _Exam, task: Task, record: Record) -> list[Result]:
        """Take in what became of a step that was run again; what waits for it is tried again, or fails."""
        name = task["step"]
        remake = exam.remakes[name]
        remake.done = self._next_number()
        waiting, remake.waiting = remake.waiting, []
        if record["status"] == "ok" and record["outputs"] == exam.outputs[name]:
            self.remade[name] += 1
            for one, _ in waiting:
                self._hand_out({**one, "id": self._next_number()})
            return []
        why = _why_not(name, record)
        failed: Record = {
            **record,
            "status": "failed",
            "outputs": None,
            "scores": [],
            "error": f"its output is lost; {why}",
        }
        results = [self._result(exam, task, failed)]  # it is told, and not kept: the ledger has a result of the key
        for one, found in waiting:
            results += self._settled(exam, one, {**found, "error": f"{found['error']}; {why}"})
        return results

    def _admit(self) -> None:
        while not self._is_drained and len(self._exams) < self._open_exams:
            one = next(self._coming, None)
            if one is None:
                self._is_drained = True
                return
            exam = _Exam(one.exam_id, one.images, one.digest, one.known)
            self._exams[one.exam_id] = exam
            self._advance(exam)
            exam.is_admitted = True

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
            if step.name in self._lost.get(exam.exam_id, ()):
                self._remake(exam, step)
        elif status is None or (status == "failed" and self._retry_failed):
            exam.under_way += 1
            self._hand_out(self._task(exam, step))
        elif status == "failed" and exam.is_admitted:
            self.failed_earlier += 1

    def _task(self, exam: _Exam, step: Step) -> Task:
        return {
            "id": self._next_number(),
            "exam": exam.exam_id,
            "step": step.name,
            "key": key_of(exam.exam_id, self._codes[step.name], self._reads(exam, step)),
            "images": exam.images if IMAGES in step.inputs else [],
            "inputs": {one: exam.outputs[one] for one in step.inputs if one != IMAGES},
            "attempt": 1,
        }

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _hand_out(self, task: Task) -> None:
        self._due[self._step[task["step"]].pool].append(task)


def _why_not(step: str, record: Record) -> str:
    """Return why a step that was run again did not give what is lost."""
    if record["status"] == "ok":
        return (
            f"made again, {step} gives something else, as other libraries or another processor can: restore the file "
            "from a copy, or start with an empty workspace"
        )
    return f"{step} cannot make it again: {record['error']}"


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
