"""The tables of the ledger: their columns. Rows are only ever added.

Every row has `commit`, the number of the commit that added it, counted for each table from 1: it says which of two rows
is the later one, whatever the clocks of the machines that wrote them say.
"""

import json
from typing import Any

import pyarrow as pa

#: UTC, to the microsecond.
TIME = pa.timestamp("us", tz="UTC")

#: `ImageFile` of an exam.
IMAGE = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("view", pa.string()),
        pa.field("path", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("frame", pa.int32()),
        pa.field("mirrored", pa.bool_()),
    ]
)

#: One row whenever an exam came, or its images, where they lie, its refusal or its notes changed. The last one counts.
EXAMS = pa.schema(
    [
        pa.field("commit", pa.int64()),
        pa.field("time", TIME),
        pa.field("exam_id", pa.string()),
        pa.field("digest", pa.string()),  # `steps.images_digest`: of the content of the images
        pa.field("state", pa.string()),  # SHA-256 over all that a new row is written for
        pa.field("refusal", pa.string()),
        pa.field("notes", pa.list_(pa.string())),
        pa.field("images", pa.list_(IMAGE)),
        pa.field("run", pa.string()),
    ]
)

#: One row a result of a step. A key has one row with the status ok or refused; before it there may be failed ones.
STEPS = pa.schema(
    [
        pa.field("commit", pa.int64()),
        pa.field("time", TIME),  # of the commit
        pa.field("exam_id", pa.string()),
        pa.field("step", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("key", pa.string()),  # `steps.key_of`
        pa.field("status", pa.string()),  # ok, refused or failed
        pa.field("outputs", pa.string()),  # digest of the output manifest, where ok
        pa.field("error", pa.string()),  # one line, where not ok
        pa.field("images", pa.string()),  # digest of the exam's images at that time
        pa.field("reads", pa.list_(pa.string())),  # digests that went into the key, in the order of the step's inputs
        pa.field("code", pa.string()),  # `Step.code()`
        pa.field("version", pa.int64()),  # of the stage
        pa.field("parameters", pa.string()),  # JSON
        pa.field("models", pa.string()),  # JSON: role -> digest
        pa.field("attempts", pa.int64()),
        pa.field("started", TIME),
        pa.field("seconds", pa.float64()),
        pa.field("engine", pa.string()),
        pa.field("run", pa.string()),
        pa.field("spicula", pa.string()),  # version of the package
    ]
)

#: One row a score. All rows of a key come in one commit, never twice, and before the row of the key in `steps`.
PREDICTIONS = pa.schema(
    [
        pa.field("commit", pa.int64()),
        pa.field("time", TIME),
        pa.field("exam_id", pa.string()),
        pa.field("key", pa.string()),
        pa.field("step", pa.string()),
        pa.field("model", pa.string()),
        pa.field("model_digest", pa.string()),  # of the step's own networks
        pa.field("bundle", pa.string()),  # digest of the bundle that the model belongs to
        pa.field("images", pa.string()),  # digest of the exam's images at that time
        pa.field("side", pa.string()),
        pa.field("target", pa.string()),
        pa.field("score", pa.float64()),  # 0 to 1
        pa.field("run", pa.string()),
    ]
)

#: Two rows a run: when it began, and when it ended, in one commit where it found nothing to do. A run without the
#: second row was killed, or is still going on.
RUNS = pa.schema(
    [
        pa.field("commit", pa.int64()),
        pa.field("time", TIME),
        pa.field("run", pa.string()),
        pa.field("event", pa.string()),  # began or ended
        pa.field("engine", pa.string()),
        pa.field("started_by", pa.string()),
        pa.field("configuration", pa.string()),  # JSON: list of `Step.as_json()`, where it began
        pa.field("summary", pa.string()),  # JSON, where it ended
        pa.field("spicula", pa.string()),
    ]
)

#: In the order in which they are made; `runs` is last, so that a ledger with it is whole.
TABLES = {"exams": EXAMS, "steps": STEPS, "predictions": PREDICTIONS, "runs": RUNS}


def as_text(value: Any) -> str:
    """Return JSON values as columns of the ledger hold them, with sorted keys. NaN is refused: JSON has none."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
