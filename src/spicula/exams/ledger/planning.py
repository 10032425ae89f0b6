"""What is left to do: the keys that a configuration wants, against those that the ledger has. Whole columns at a time.

A step of an exam is

- done, refused or failed when the ledger has a row of the key that is wanted;
- blocked when the exam was refused at intake, or a step that it reads from was refused, failed or is blocked itself;
- left otherwise: to be run now, or, as its key is not known yet, when the steps before it are done.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spicula.exams.ledger.tables import as_text
from spicula.exams.steps import IMAGES, Step, key_of

#: States of a step of an exam: as in `Count`, and the three ways of being left: now, again after it failed, later.
DONE, REFUSED, FAILED, BLOCKED, LEFT, RETRIED, WAITING = range(7)

#: Why a step is left, as `Plan.counts` names it.
NEW = "new"
CHANGED_IMAGE = "changed image"
NEW_MODEL = "new model"
NEW_VERSION = "new stage version"
NEW_PARAMETERS = "new parameters"
CHANGED_INPUT = "changed input"
FAILED_BEFORE = "failed"
UPSTREAM = "waiting for upstream"

_STATES = {"ok": DONE, "refused": REFUSED, "failed": FAILED}


@dataclass
class Count:
    """Exams of one step, by state, and of those that are left, why: see the constants of this module."""

    done: int = 0
    refused: int = 0
    failed: int = 0
    blocked: int = 0
    left: int = 0
    why: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Walk:
    """Every exam under a configuration.

    Attributes:
        exams: exam_id, digest and refusal, one row an exam.
        states: step -> (exams,) one of the states.
        keys: step -> (exams,) the key that is wanted, null where it is not known.
        outputs: step -> (exams,) digest of the output manifest, null where it is not done.
    """

    exams: pa.Table
    states: dict[str, npt.NDArray[np.int8]]
    keys: dict[str, pa.Array]
    outputs: dict[str, pa.Array]


def latest(table: pa.Table, by: str) -> pa.Table:
    """Return the last committed row of each value of a column, in the order of the table."""
    if not table.num_rows:
        return table
    numbered = table.select([by, "commit"]).append_column("row", pa.array(np.arange(table.num_rows)))
    order = [("commit", "ascending"), ("row", "ascending")]
    last = numbered.sort_by(order).group_by(by, use_threads=False).aggregate([("row", "last")])
    return table.take(pa.array(np.sort(last["row_last"].to_numpy())))


def settled(results: pa.Table) -> pa.Table:
    """Return one row a key: where a step failed and was tried again, the row that counts.

    Args:
        results: with the columns key, status and commit.
    """
    failed = pc.equal(results["status"], "failed")
    final = results.filter(pc.invert(failed))
    lost = results.filter(failed)
    if not lost.num_rows:
        return final
    lost = latest(lost.filter(pc.invert(pc.is_in(lost["key"], value_set=final["key"]))), "key")
    return pa.concat_tables([final, lost])


def with_refused(exams: pa.Table, refused: Collection[str]) -> pa.Table:
    """Return exams of which exactly these are refused, whatever their rows say."""
    those = pc.is_in(exams["exam_id"], value_set=pa.array(list(refused), pa.string()))
    refusals = pc.if_else(those, pc.coalesce(exams["refusal"], ""), None)
    return exams.set_column(exams.column_names.index("refusal"), "refusal", refusals)


def walk(exams: pa.Table, results: pa.Table, steps: Sequence[Step], retry_failed: bool = False) -> Walk:
    """Find the key that every step of every exam wants, and what the ledger has of it.

    Args:
        exams: exam_id, digest and refusal, one row an exam.
        results: step, key, status and outputs, one row a key.
        steps: the configuration, each step after those that it reads from.
        retry_failed: steps that failed are left.
    """
    count = exams.num_rows
    ids = exams["exam_id"].to_pylist()
    refused = pc.is_valid(exams["refusal"]).to_numpy(zero_copy_only=False) if count else np.zeros(0, bool)
    found = Walk(exams, {}, {}, {})
    read: dict[str, list[str | None]] = {IMAGES: exams["digest"].to_pylist()}
    done = {IMAGES: np.full(count, DONE, np.int8)}
    for step in steps:
        inputs = np.array([done[name] for name in step.inputs])
        state = np.full(count, LEFT, np.int8)
        state[(inputs >= LEFT).any(0)] = WAITING
        state[((inputs > DONE) & (inputs < LEFT)).any(0) | refused] = BLOCKED
        keys = _keys(ids, step, [read[name] for name in step.inputs], state == LEFT)
        mine = results.filter(pc.equal(results["step"], step.name))
        rows = pc.index_in(keys, value_set=mine["key"], skip_nulls=True)
        hit = pc.is_valid(rows).to_numpy(zero_copy_only=False)
        status = _state_of(mine["status"])[rows.drop_null().to_numpy(zero_copy_only=False)]
        state[hit] = np.where(status == FAILED, RETRIED, status) if retry_failed else status
        found.states[step.name] = done[step.name] = state
        found.keys[step.name] = keys
        found.outputs[step.name] = mine["outputs"].combine_chunks().take(rows)
        read[step.name] = found.outputs[step.name].to_pylist()
    return found


def _keys(ids: list[str], step: Step, reads: list[list[str | None]], wanted: npt.NDArray[np.bool_]) -> pa.Array:
    code = step.code()
    made = zip(ids, wanted.tolist(), zip(*reads, strict=True), strict=True)
    return pa.array([key_of(exam, code, read) if want else None for exam, want, read in made], pa.string())


def _state_of(status: pa.ChunkedArray) -> npt.NDArray[np.int8]:
    names = pa.array(list(_STATES))
    return np.asarray(pc.index_in(status, value_set=names)).astype(np.int8)


def count(found: Walk, steps: Sequence[Step], last: Mapping[str, pa.Table]) -> dict[str, Count]:
    """Count states and reasons.

    Args:
        found: see `walk`.
        steps: the configuration.
        last: step -> the last result of each exam with this step, whatever its key: exam_id, images, models, version
            and parameters. Needed for the steps of `without_result`.
    """
    counts = {}
    for step in steps:
        state = found.states[step.name]
        numbers = np.bincount(state, minlength=WAITING + 1).tolist()
        why = Counter[str]()
        if numbers[LEFT]:
            why.update(_reasons(found, step, np.flatnonzero(state == LEFT), last[step.name]))
        why.update({FAILED_BEFORE: numbers[RETRIED], UPSTREAM: numbers[WAITING]})
        reasons = {reason: number for reason, number in why.most_common() if number}
        done, refused, failed, blocked = numbers[:LEFT]
        counts[step.name] = Count(done, refused, failed, blocked, sum(numbers[LEFT:]), reasons)
    return counts


def without_result(found: Walk) -> list[str]:
    """Return the steps that are left for at least one exam, with a key that the ledger does not have."""
    return [name for name, state in found.states.items() if (state == LEFT).any()]


def _reasons(found: Walk, step: Step, rows: npt.NDArray[np.int64], last: pa.Table) -> Iterator[str]:
    before = dict(zip(last["exam_id"].to_pylist(), range(last.num_rows), strict=True))
    images, models = last["images"].to_pylist(), last["models"].to_pylist()
    versions, parameters = last["version"].to_pylist(), last["parameters"].to_pylist()
    wanted = as_text(dict(step.models)), as_text(dict(step.parameters))
    left = found.exams.select(["exam_id", "digest"]).take(pa.array(rows))
    for exam, digest in zip(left["exam_id"].to_pylist(), left["digest"].to_pylist(), strict=True):
        row = before.get(exam)
        if row is None:
            yield NEW
        elif images[row] != digest:
            yield CHANGED_IMAGE
        elif models[row] != wanted[0]:
            yield NEW_MODEL
        elif versions[row] != step.version:
            yield NEW_VERSION
        elif parameters[row] != wanted[1]:
            yield NEW_PARAMETERS
        else:
            yield CHANGED_INPUT


def to_do(found: Walk) -> npt.NDArray[np.bool_]:
    """Return (exams,): whether a step of the exam can be run now."""
    now = [(state == LEFT) | (state == RETRIED) for state in found.states.values()]
    return np.any(now, axis=0) if now else np.zeros(found.exams.num_rows, bool)
