"""Rows from what comes back of a run, and which of them the ledger has already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

import spicula
from spicula import files
from spicula.exams.ledger import tables
from spicula.exams.ledger.storage import Table
from spicula.exams.steps import Step, images_digest, key_of
from spicula.exams.types import ExamInput, Record


@dataclass(frozen=True)
class Result:
    """What became of a step, as the driver of a run hands it to the ledger.

    Attributes:
        record: as the worker handed it back.
        reads: digests that the key was made of, in the order of the step's inputs.
        images: digest of the exam's images.
        attempts: how often the step was tried.
    """

    record: Record
    reads: tuple[str, ...]
    images: str
    attempts: int = 1


class Keys:
    """The keys of a table's rows, kept up to date with it.

    Args:
        table: with the columns key and commit.
        where: the rows that count; all of them when None.
    """

    def __init__(self, table: Table, where: ds.Expression | None = None) -> None:
        self._table, self._where = table, where
        self._at, self._keys = 0, set[str]()

    def now(self) -> set[str]:
        """Return the keys of the table as it is known now; not to be changed."""
        if self._at != self._table.commits:
            new = ds.field("commit") > self._at
            rows = self._table.read(["key"], new if self._where is None else new & self._where)
            self._keys.update(rows["key"].to_pylist())
            self._at = self._table.commits
        return self._keys


def check(results: Sequence[Result], steps: Mapping[str, Step]) -> None:
    """Check that results fit their steps.

    Raises:
        ValueError: a key is not that of what was read, outputs or scores are there or missing where they cannot be, or
            a score is not from 0 to 1.
    """
    codes = {name: step.code() for name, step in steps.items()}
    for result in results:
        record = result.record
        name = f"{record['step']} of {record['exam']}"
        if record["key"] != key_of(record["exam"], codes[record["step"]], result.reads):
            raise ValueError(f"{name}: the key is not that of what was read")
        if (record["status"] == "ok") != (record["outputs"] is not None):
            raise ValueError(f"{name}: {record['status']}, with outputs {record['outputs']}")
        if record["scores"] and (record["status"] != "ok" or steps[record["step"]].model is None):
            raise ValueError(f"{name}: scores of a step that gives none")
        for score in record["scores"]:
            if not 0 <= score["score"] <= 1:
                raise ValueError(f"{name}: {score['score']} is no probability")


def one_a_key(results: Sequence[Result]) -> list[Result]:
    """Return one result a key: the last one, and one that failed only where no other is there."""
    failed_first = sorted(results, key=lambda result: result.record["status"] != "failed")
    return list({result.record["key"]: result for result in failed_first}.values())


def step_rows(results: Sequence[Result], steps: Mapping[str, Step], run: str, engine: str) -> pa.Table:
    """Return the rows of results in the table `steps`."""
    codes = {name: step.code() for name, step in steps.items()}
    rows = []
    for result in results:
        record, step = result.record, steps[result.record["step"]]
        rows.append(
            {
                "exam_id": record["exam"],
                "step": step.name,
                "stage": step.stage,
                "key": record["key"],
                "status": record["status"],
                "outputs": record["outputs"],
                "error": None if record["error"] is None else " ".join(record["error"].split()),
                "images": result.images,
                "reads": list(result.reads),
                "code": codes[step.name],
                "version": step.version,
                "parameters": tables.as_text(dict(step.parameters)),
                "models": tables.as_text(dict(step.models)),
                "attempts": result.attempts,
                "started": datetime.fromtimestamp(record["started"], UTC),
                "seconds": record["seconds"],
                "engine": engine,
                "run": run,
                "spicula": spicula.__version__,
            }
        )
    return rows_of(rows, tables.STEPS)


def prediction_rows(results: Sequence[Result], steps: Mapping[str, Step], run: str) -> pa.Table:
    """Return the rows of results in the table `predictions`."""
    rows = []
    for result in results:
        record, step = result.record, steps[result.record["step"]]
        same = {
            "exam_id": record["exam"],
            "key": record["key"],
            "step": step.name,
            "model": step.model,
            "model_digest": model_digest(step),
            "bundle": step.bundle,
            "images": result.images,
            "run": run,
        }
        rows += [
            {**same, "side": score["side"], "target": score["target"], "score": score["score"]}
            for score in record["scores"]
        ]
    return rows_of(rows, tables.PREDICTIONS)


def model_digest(step: Step) -> str:
    """Return the digest of a step's own networks: that of its network, or over all of them where it has several."""
    digests = list(step.models.values())
    return digests[0] if len(digests) == 1 else files.sha256_json(dict(step.models))


def exam_rows(exams: Sequence[ExamInput], states: Sequence[str], run: str) -> pa.Table:
    """Return the rows of exams in the table `exams`."""
    rows = []
    for exam, state in zip(exams, states, strict=True):
        images = [image.as_json() for image in exam.images]
        rows.append(
            {
                "exam_id": exam.exam_id,
                "digest": images_digest(images),
                "state": state,
                "refusal": exam.refusal,
                "notes": list(exam.notes),
                "images": images,
                "run": run,
            }
        )
    return rows_of(rows, tables.EXAMS)


def state_of(exam: ExamInput) -> str:
    """Return the SHA-256 over all that a new row of an exam is written for."""
    images = [list(vars(image).values()) for image in exam.images]
    return files.sha256_json([images, exam.refusal, list(exam.notes)])


def rows_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table, without the columns that `Table.append` fills."""
    return pa.Table.from_pylist(rows, pa.schema([field for field in schema if field.name not in ("commit", "time")]))


def not_in(table: pa.Table, column: str, values: set[str]) -> pa.Table:
    """Return the rows whose value in a column is none of `values`."""
    return table.filter(pa.array([value not in values for value in table[column].to_pylist()], pa.bool_()))
