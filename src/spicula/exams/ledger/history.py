"""What the ledger has of one exam: all that happened to it, and how it stood at a time.

The past is read from the rows' times, not from versions of the tables: rows are only ever added, so it stays readable
when small files are put together, old log entries go, or a workspace is copied.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spicula.exams.ledger import planning
from spicula.exams.ledger.planning import latest, settled, walk
from spicula.exams.steps import Step

_STATES = ("ok", "refused", "failed", "blocked", "left", "left", "left")


def history(exams: pa.Table, results: pa.Table) -> list[dict[str, Any]]:
    """Return all rows of an exam in order of time: `what` is "exam" or "step", the rest as in the tables.

    Args:
        exams: its rows of that table.
        results: its rows of the table `steps`.
    """
    rows = [{"what": "exam", **row} for row in exams.sort_by("commit").to_pylist()]
    rows += [{"what": "step", **row} for row in results.sort_by("commit").to_pylist()]
    return sorted(rows, key=lambda row: row["time"])


def as_utc(time: datetime) -> datetime:
    """Return a time in UTC; one without a zone is meant so."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def until(table: pa.Table, time: datetime | None) -> pa.Table:
    """Return the rows that were there at a time; all of them when None."""
    if time is None:
        return table
    return table.filter(pc.less_equal(table["time"], pa.scalar(time, table.schema.field("time").type)))


def show(exams: pa.Table, results: pa.Table, predictions: pa.Table, steps: Sequence[Step]) -> dict[str, Any]:
    """Return how an exam stands with a configuration.

    Args:
        exams: its rows of that table, at least one.
        results: its rows of the table `steps`.
        predictions: its rows of that table.
        steps: the configuration.

    Returns:
        `exam`: its row; `steps`: one entry a step, with its state (ok, refused, failed, blocked or left) and, where
        the ledger has one, the row; `predictions`: the rows of the steps that are ok.
    """
    exam = latest(exams, "exam_id")
    rows = settled(results)
    found = walk(exam.select(["exam_id", "digest", "refusal"]), rows, steps)
    by_key = {row["key"]: row for row in rows.to_pylist()}
    entries, keys = [], []
    for step in steps:
        state, key = found.states[step.name][0], found.keys[step.name][0].as_py()
        entries.append({"step": step.name, "state": _STATES[state], **by_key.get(key, {})})
        keys += [key] if state == planning.DONE else []
    scores = predictions.filter(pc.is_in(predictions["key"], value_set=pa.array(keys, pa.string())))
    order = [("step", "ascending"), ("side", "ascending"), ("target", "ascending")]
    return {"exam": exam.to_pylist()[0], "steps": entries, "predictions": scores.sort_by(order).to_pylist()}
