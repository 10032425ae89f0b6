"""Predictions of all exams as tables: the published CSV of one model, and long Parquet of all.

Beside either stands a table of the exams that have no score, with the reason: nothing is skipped in silence.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from spicula import RESEARCH_NOTICE, files, predictions
from spicula.errors import UsageError
from spicula.exams.ledger import Ledger
from spicula.exams.outputs.abouts import abouts_of
from spicula.exams.steps import Step

#: The step of exams that no stage saw, as the ledger names it.
INTAKE = "intake"

#: Columns of scores of the published CSV, in its order, and the side and target of each.
PUBLISHED = {
    "left_benign": ("L", "benign"),
    "right_benign": ("R", "benign"),
    "left_malignant": ("L", "malignant"),
    "right_malignant": ("R", "malignant"),
}

#: What stands behind the published columns: whose scores they are, what made them and when, and what they are not.
BEHIND = ("exam", "model", "version", "model_digest", "time", "notice")

#: Exams without a score of a model. `model` is null where no model has one.
UNSCORED = pa.schema(
    [
        pa.field("exam_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),  # "intake" where no stage saw the exam
        pa.field("status", pa.string(), nullable=False),  # refused, failed, or left: not done yet
        pa.field("reason", pa.string()),
    ]
)


#: What a spreadsheet program takes for a formula, and runs (OWASP, "CSV Injection"; the last four are full-width
#: forms). A number with its sign is none.
_FORMULA = re.compile(r"(?![-+]\d+(\.\d+)?\Z)[-+=@\t\r\n\uff0b\uff0d\uff1d\uff20]")


class ScoreRow(TypedDict):
    """A score: `side` is L or R, in single-image mode the view; `version` and digest (`bundle`) are of the bundle."""

    exam_id: str
    model: str
    bundle: str
    side: str
    target: str
    score: float
    version: str
    time: datetime


def scores_of(ledger: Ledger) -> list[ScoreRow]:
    """Return the scores of all exams by the models of the last run."""
    found = ledger.predictions()
    made_by = abouts_of(ledger, found["run"].unique().to_pylist())
    names = [name for name in ScoreRow.__annotations__ if name != "version"]
    rows: list[ScoreRow] = found.select(names).to_pylist()
    for row, run, step in zip(rows, found["run"].to_pylist(), found["step"].to_pylist(), strict=True):
        row["version"] = str(made_by.get((run, step), {}).get("version", ""))
    return rows


def unscored_of(ledger: Ledger) -> list[dict[str, str | None]]:
    """Return every exam that a model of the last run has no score of, with the reason: rows of UNSCORED."""
    steps = ledger.configuration()
    scored = {(row["exam_id"], row["model"]) for row in scores_of(ledger)}
    behind = _behind(steps)
    rows: dict[tuple[str, str | None], dict[str, str | None]] = {}
    for problem in ledger.problems():
        for model in (step for step in steps if step.model is not None):
            at = problem["exam_id"], model.model
            if problem["step"] in behind[model.name] and at not in scored:
                said = {"step": problem["step"], "status": problem["status"], "reason": problem["error"]}
                rows.setdefault(at, {"exam_id": at[0], "model": at[1], **said})
    for exam in ledger.plan(steps).left:
        for model in (step for step in steps if step.model is not None):
            at = exam.exam_id, model.model
            if at not in scored:
                said = {"step": model.name, "status": "left", "reason": "not done yet; start the run again"}
                rows.setdefault(at, {"exam_id": at[0], "model": at[1], **said})
    return [rows[at] for at in sorted(rows)]


def _behind(steps: Sequence[Step]) -> dict[str, set[str]]:
    """Return for every step all that has to go well before it is done, with itself."""
    found: dict[str, set[str]] = {}
    for step in steps:
        found[step.name] = {INTAKE, step.name}.union(*(found.get(one, set()) for one in step.inputs))
    return found


def published(scores: Iterable[ScoreRow], model: str) -> str:
    """Return one model's scores as CSV in the published form, with columns of our own (`BEHIND`) behind.

    `index,left_benign,right_benign,left_malignant,right_malignant,exam,...`: whoever reads the published file by its
    columns reads this one as well. Exams are in order of their ids, `index` counts them from 0, scores have four
    decimals. `model_digest` is the bundle's, `time` when the scores were committed to the ledger.

    Args:
        scores: of all models.
        model: the one that is wanted.

    Raises:
        UsageError: there are no scores of this model, or it does not give these four an exam.
    """
    exams: dict[str, dict[tuple[str, str], float]] = {}
    behind: dict[str, tuple[str, ...]] = {}
    models = set()
    for row in scores:
        models.add(row["model"])
        if row["model"] == model:
            exams.setdefault(row["exam_id"], {})[row["side"], row["target"]] = row["score"]
            behind[row["exam_id"]] = (model, row["version"], row["bundle"], _utc(row["time"]), RESEARCH_NOTICE)
    if not exams:
        raise _unknown(model, models)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["index", *PUBLISHED, *BEHIND])
    for index, (exam, found) in enumerate(sorted(exams.items())):
        if set(found) != set(PUBLISHED.values()):
            raise UsageError(
                f"the published table has benign and malignant of both breasts; {model} gives exam {exam} "
                f"{', '.join(f'{side} {target}' for side, target in sorted(found))}: write Parquet instead"
            )
        writer.writerow([index, *(f"{found[key]:.4f}" for key in PUBLISHED.values()), exam, *behind[exam]])
    return stream.getvalue()


def long(scores: Iterable[ScoreRow]) -> pa.Table:
    """Return scores of all models as Predictions (`predictions.SCHEMA`), in order of exam, model, side and target.

    `id` is the exam; in single-image mode, where images have scores of their own, the exam and the view: "7:L-CC".
    The table's metadata have `notice`: that the scores are for research only.
    """
    rows = [
        {
            "id": row["exam_id"] if len(row["side"]) == 1 else f"{row['exam_id']}:{row['side']}",
            "exam_id": row["exam_id"],
            "side": row["side"][0],
            "model_digest": row["bundle"],
            **{name: row[name] for name in ("target", "score", "model")},
        }
        for row in sorted(scores, key=lambda row: (row["exam_id"], row["model"], row["side"], row["target"]))
    ]
    # pandas shows the second one as `DataFrame.attrs`
    notice = {"notice": RESEARCH_NOTICE, "PANDAS_ATTRS": json.dumps({"notice": RESEARCH_NOTICE})}
    return predictions.from_rows(rows).replace_schema_metadata(notice)


def write(
    to: Path, scores: Sequence[ScoreRow], unscored: Iterable[Mapping[str, object]], model: str | None = None
) -> Path:
    """Write scores, and beside them the exams that have none.

    Args:
        to: a `.csv` for one model in the published form, or a `.parquet` for all in long form.
        scores: of all models.
        unscored: rows of UNSCORED; those of other models are left out where one is chosen.
        model: which one, for the CSV; may be None where there are scores of one model only.

    Returns:
        The second file, `NAME-unscored.csv` or `NAME-unscored.parquet`. It is written even when it has no rows, so that
        none of an earlier day is left.

    Raises:
        UsageError: the name ends otherwise, the model is not said or not known, an exam's id would be a formula in a
            CSV, or see `published`.
        SpiculaError: a file cannot be written.
    """
    beside = to.with_name(f"{to.stem}-unscored{to.suffix}")
    table = pa.Table.from_pylist([dict(row) for row in unscored], schema=UNSCORED)
    listed = table.to_pylist()
    known = {row["model"] for row in (*scores, *listed)}
    if model is not None and known and model not in known:
        raise _unknown(model, known)
    own = [row for row in scores if model in (None, row["model"])]
    if to.suffix == ".csv":
        chosen = model or _only_model(scores or listed)
        concerned = [row for row in listed if row["model"] == chosen]
        _refuse_formulas(to, (row["exam_id"] for row in (*own, *concerned)))
        files.write_text(to, published(own, chosen) if own else _header())
        files.write_text(beside, _csv(concerned))
    elif to.suffix == ".parquet":
        predictions.write(to, long(own))
        files.write_table(beside, table if model is None else table.filter(pc.equal(table["model"], model)))
    else:
        raise UsageError(f"{to}: name a .csv (one model, published form) or a .parquet (all models, long form)")
    return beside


def _refuse_formulas(to: Path, exams: Iterable[str]) -> None:
    """Refuse ids that a spreadsheet program would run. They cannot be changed: tables are joined by them."""
    for exam in exams:
        if _FORMULA.match(exam):
            raise UsageError(
                f"{to}: a spreadsheet program would run the exam id {exam!r} as a formula; write Parquet instead "
                "(--to NAME.parquet), or rename what the id comes from and run that"
            )


def _only_model(rows: Sequence[Mapping[str, Any]]) -> str:
    models = sorted({row["model"] for row in rows})
    if len(models) > 1:
        raise UsageError(f"a CSV holds one model: choose with --model one of {', '.join(models)}")
    return models[0] if models else ""


def _unknown(model: str, known: Iterable[str]) -> UsageError:
    return UsageError(f"no scores of a model called {model!r}; there are some of {', '.join(sorted(known)) or 'none'}")


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _header() -> str:
    return ",".join(["index", *PUBLISHED, *BEHIND]) + "\n"


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, UNSCORED.names, lineterminator="\n")
    writer.writeheader()
    for row in rows:  # a reason may begin with the name of an image, which is that of a file
        reason = str(row["reason"] or "")
        writer.writerow({**row, "reason": f"'{reason}" if _FORMULA.match(reason) else reason})
    return stream.getvalue()
