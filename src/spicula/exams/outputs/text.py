"""What the ledger says, as lines for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from spicula import RESEARCH_NOTICE
from spicula.exams.outputs.abouts import called
from spicula.exams.outputs.detail import ExamDetail, PredictionDetail

#: Rows of a table that are printed; JSON has them all.
MOST_ROWS = 20

_SHORT = 12  # digits of a digest


def status(found: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> str:
    """Return how a workspace stands.

    Args:
        found: `Ledger.status()`.
        problems: `Ledger.problems()`.
    """
    run = found["run"]
    lines = [f"{found['workspace']}: {found['exams']} exams, {found['refused']} of them refused at intake"]
    if run is None:
        return "\n".join([*lines, "no run yet"])
    ended = f"ended {_time(run['ended'])}" if run["ended"] else "not ended: it goes on, or was killed"
    lines.append(f"last run {run['run']}, {run['engine']}, began {_time(run['began'])}, {ended}")
    heads = ("step", "done", "refused", "failed", "blocked", "left", "why")
    rows = [
        (name, *(str(count[key]) for key in heads[1:-1]), ", ".join(f"{why} {n}" for why, n in count["why"].items()))
        for name, count in found["steps"].items()
    ]
    lines += ["", *_aligned([heads, *rows])]
    if problems:
        lines += ["", *_listed(problems)]
    return "\n".join(lines)


def exam(detail: ExamDetail) -> str:
    """Return one exam: scores, steps, images, and what was found odd."""
    lines = [_shown(f"{detail['exam_id']}: {detail['status']}"), *(f"  {_shown(one)}" for one in detail["reasons"])]
    scores = [
        (one["model"], one["side"], one["target"], f"{one['score']:.4f}", _bundle(one)) for one in detail["predictions"]
    ]
    if scores:
        lines += ["", *_aligned([("model", "side", "target", "score", "bundle"), *scores])]
    lines += ["", *_aligned([("image", "view", "sha256"), *_images(detail)])]
    steps = [
        (
            one["step"],
            str(one["version"] or "-"),
            one["status"],
            one["time"] or "-",
            _took(one["seconds"]),
            one["engine"] or "-",
        )
        for one in detail["steps"]
    ]
    if steps:
        lines += ["", *_aligned([("step", "version", "status", "done", "took", "engine"), *steps])]
    notes = [
        *detail["notes"],
        *(f"{name}: {one}" for name, image in detail["images"].items() for one in image["notes"]),
    ]
    return "\n".join([*lines, *(["", *map(_shown, notes)] if notes else []), "", detail["notice"]])


def _bundle(one: PredictionDetail) -> str:
    return f"{called({'name': one['bundle_name'], 'version': one['version']})} {one['bundle'][:_SHORT]}".lstrip()


def _images(detail: ExamDetail) -> list[tuple[str, ...]]:
    return [(name, image["view"], image["sha256"][:_SHORT]) for name, image in detail["images"].items()]


def history(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what happened to an exam, a line for each.

    Args:
        rows: `abouts.history_of()`.
    """
    lines = []
    for row in rows:
        if row["what"] == "exam":
            what, said = "images", row["refusal"] or f"{len(row['images'])} images, digest {row['digest'][:_SHORT]}"
        else:
            made = f"outputs {row['outputs'][:_SHORT]}" if row["outputs"] else row["error"] or ""
            what = row["step"]
            bundle = called(row.get("about", {}))
            by = f", bundle {bundle}" if bundle else ""
            said = f"{row['status']}, version {row['version']}{by}, key {row['key'][:_SHORT]}, {made}"
        lines.append((_time(row["time"]), what, said, f"run {row['run']}"))
    return "\n".join(_aligned(lines)) if lines else "nothing"


def differences(table: pa.Table) -> str:
    """Return how the scores of two models differ, largest change first; see `Ledger.diff`."""
    if not table.num_rows:
        return "no exam has a score of either model"
    rows = [
        (row["exam_id"], row["side"], row["target"], *(_number(row[key]) for key in ("score_a", "score_b", "change")))
        for row in table.slice(0, MOST_ROWS).to_pylist()
    ]
    lines = _aligned([("exam", "side", "target", "A", "B", "change"), *rows])
    more = table.num_rows - len(rows)
    return "\n".join([*lines, *([f"and {more} more; --json lists them all"] if more > 0 else []), "", RESEARCH_NOTICE])


def plain(value: Any) -> Any:
    """Return rows of the ledger as JSON values: times as ISO 8601 in UTC."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def _listed(problems: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds = Counter(one["status"] for one in problems)
    lines = [", ".join(f"{count} {kind}" for kind, count in kinds.items()) + ":"]
    lines += ["  " + _shown(f"{one['exam_id']} at {one['step']}: {one['error']}") for one in problems[:MOST_ROWS]]
    more = len(problems) - MOST_ROWS
    return [*lines, *([f"  and {more} more"] if more > 0 else [])]


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}" if value < 0 else f"{value:.4f}"


def _shown(line: str) -> str:
    """What a terminal would act on is an escape; ids of exams and images are names of folders and files."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under one another."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
