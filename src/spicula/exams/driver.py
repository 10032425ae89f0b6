"""Run exams: plan what is left, feed an engine, commit what comes back. The same for every engine."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spicula.exams.engines.types import Done, Engine
from spicula.exams.ledger import Ledger, Result
from spicula.exams.schedule import Schedule
from spicula.exams.steps import Step
from spicula.exams.types import ExamInput, Record
from spicula.progress import progress

#: Results are committed when the oldest has waited so long, or so many wait: that much work a kill can cost.
COMMIT_SECONDS, COMMIT_RECORDS = 5.0, 500

#: Exams under way for each task that the engine takes at a time.
EXAMS_A_PLACE = 2

#: How long the driver waits for an engine before it looks round.
WAIT_SECONDS = 1.0


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        run: its id in the ledger.
        exams: exams that were given.
        worked_on: exams that had something left to do.
        executed: step -> how many were run, whatever came of them.
        remade: step -> how many were run again because what they had made was lost; it is as it was.
        statuses: status -> how many steps ended so.
        failed: exam, step and error of the steps that failed.
        failed_earlier: how many steps failed in an earlier run, and were not tried again.
        refused: exam, step and reason of the exams that were refused, at intake (step "intake") or by a stage.
        problems: path and reason of files that belong to no exam.
        seconds: from the first task to the last commit.
        timeline: what the workers did when.
    """

    run: str
    exams: int
    worked_on: int = 0
    executed: Counter[str] = field(default_factory=Counter)
    remade: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    failed: list[dict[str, str]] = field(default_factory=list)
    failed_earlier: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    timeline: list[Done] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values, without the timeline."""
        return {
            "run": self.run,
            "exams": self.exams,
            "worked_on": self.worked_on,
            "executed": dict(self.executed),
            "remade": dict(self.remade),
            "statuses": dict(self.statuses),
            "failed": self.failed,
            "failed_earlier": self.failed_earlier,
            "refused": self.refused,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
        }

    def as_text(self) -> str:
        """Return the outcome as one line."""
        steps = sum(self.executed.values())
        did = f"{self.worked_on} had something left to do, {steps} steps run" if steps else "nothing left to do"
        remade, earlier = self.remade.total(), self.failed_earlier
        return (
            f"{self.exams} exams: {did}; {len({one['exam'] for one in self.failed})} failed, "
            f"{len({one['exam'] for one in self.refused})} refused, {len(self.problems)} files of no exam"
            + (f"; {remade} lost results made again" if remade else "")
            + (f"; {earlier} steps failed earlier (retry with --retry-failed)" if earlier else "")
        )


def bring_up_to_date(
    ledger: Ledger,
    exams: Sequence[ExamInput],
    steps: Sequence[Step],
    engine: Callable[[], Engine],
    name: str,
    *,
    retry_failed: bool = False,
    check_artefacts: bool = False,
    keep_timeline: bool = False,
) -> Outcome:
    """Bring exams up to date with the models and the code of this run.

    Args:
        ledger: of the workspace.
        exams: all exams that were given; those already there and unchanged cost next to nothing.
        steps: see `models.steps_of`.
        engine: makes the engine; it is not called when nothing is left to do.
        name: of the engine, for the ledger.
        retry_failed: run steps again that failed before.
        check_artefacts: read all that earlier runs made for these exams, and make again what is missing or damaged.
            Otherwise that is found when something reads it.
        keep_timeline: keep what every worker did when, for `engines.timeline`.

    Returns:
        What was done. What failed is listed; it stops nobody else.

    Raises:
        SpiculaError: the workspace cannot be written, or the engine's workers cannot start.
    """
    began = time.monotonic()
    run_id = ledger.begin_run(steps, name, wait=True)
    ledger.add_exams(exams, run_id)
    ids = [exam.exam_id for exam in exams]
    lost = _lost(ledger, steps, ids) if check_artefacts else {}
    # another run in the same workspace may take incomplete exams, or refuse them: what this run's intake says counts
    refused = [exam.exam_id for exam in exams if exam.refusal is not None]
    plan = ledger.plan(steps, ids, retry_failed=retry_failed, refused=refused, also=lost)
    outcome = Outcome(run_id, len(exams), worked_on=len(plan.left))
    outcome.failed_earlier = sum(count.failed for count in plan.counts.values())
    outcome.refused += [
        {"exam": exam.exam_id, "step": "intake", "reason": exam.refusal} for exam in exams if exam.refusal is not None
    ]
    if len(plan.left):
        ledger.note_begin(run_id)
        with _Book(ledger, steps, run_id, name) as book, _started(engine()) as running:
            places = sum(running.room(pool) for pool in {step.pool for step in steps})
            schedule = Schedule(steps, plan.left, max(4, EXAMS_A_PLACE * places), retry_failed, lost)
            finished = _finished(running, schedule, book, outcome, keep_timeline)
            for _ in progress(finished, "exams", "exams", len(plan.left)):
                pass
        outcome.remade = schedule.remade
        outcome.failed_earlier += schedule.failed_earlier
    outcome.seconds = time.monotonic() - began
    counts = {name: dict(vars(outcome)[name]) for name in ("executed", "remade", "statuses")}
    ledger.end_run(run_id, counts)
    return outcome


def _lost(ledger: Ledger, steps: Sequence[Step], exam_ids: Sequence[str]) -> dict[str, set[str]]:
    from spicula.exams.artefacts import Artefacts
    from spicula.exams.checking import lost_outputs

    return lost_outputs(Artefacts(f"{ledger.place}/artefacts"), ledger.outputs(steps, exam_ids))


class _Book:
    """Collects results and commits them a few hundred at a time, and what is left in the end, come what may."""

    def __init__(self, ledger: Ledger, steps: Sequence[Step], run_id: str, engine: str) -> None:
        self._ledger, self._run, self._engine = ledger, run_id, engine
        self._steps = {step.name: step for step in steps}
        self._results: list[Result] = []
        self._oldest = 0.0

    def __enter__(self) -> "_Book":
        return self

    def __exit__(self, *error: object) -> None:
        self.commit()

    def add(self, result: Result) -> None:
        """Take a result."""
        if not self._results:
            self._oldest = time.monotonic()
        self._results.append(result)

    def look(self) -> None:
        """Commit when it is time to."""
        if self._results and (
            len(self._results) >= COMMIT_RECORDS or time.monotonic() - self._oldest >= COMMIT_SECONDS
        ):
            self.commit()

    def commit(self) -> None:
        """Commit what there is."""
        if self._results:
            results, self._results = self._results, []
            self._ledger.commit(results, self._steps, self._run, self._engine)


@contextmanager
def _started(engine: Engine) -> Iterator[Engine]:
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


def _finished(engine: Engine, schedule: Schedule, book: _Book, outcome: Outcome, keep_timeline: bool) -> Iterator[None]:
    """Work until nothing is left, and yield once for every exam that is finished."""
    told = 0
    while not schedule.is_done:
        for pool in schedule.pools:
            _fill(engine, schedule, pool)
        for done in engine.wait(WAIT_SECONDS):
            if keep_timeline:
                outcome.timeline.append(done)
            for result in schedule.take(done.task, done.record, done.lost):
                _count(result.record, outcome)
                book.add(result)
        book.look()
        while told < schedule.finished:
            told += 1
            yield


def _fill(engine: Engine, schedule: Schedule, pool: str) -> None:
    while engine.room(pool) > 0:
        task = schedule.next(pool)
        if task is None:
            return
        engine.submit(pool, task)


def _count(record: Record, outcome: Outcome) -> None:
    outcome.executed[record["step"]] += 1
    outcome.statuses[record["status"]] += 1
    if record["status"] != "ok":
        entry = {"exam": record["exam"], "step": record["step"], "reason": record["error"] or ""}
        (outcome.failed if record["status"] == "failed" else outcome.refused).append(entry)
