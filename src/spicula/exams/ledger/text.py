"""What the ledger says, for people: tables and lines. Times are UTC; digests are cut to twelve digits."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from spicula import RESEARCH_NOTICE
from spicula.progress import show_seconds

#: Digits of a digest that are shown.
DIGITS = 12


def status(found: Mapping[str, Any]) -> str:
    """Return `Ledger.status` as a table, one line a step."""
    lines = [f"{found['workspace']}: {found['exams']:,} exams, {found['refused']:,} refused at intake", _run(found)]
    head = ("step", "done", "refused", "failed", "blocked", "left", "why")
    rows = [
        (name, *(f"{count[state]:,}" for state in head[1:-1]), _reasons(count["why"]))
        for name, count in found["steps"].items()
    ]
    return "\n".join([*lines, *_columns([head, *rows], right=range(1, 6))])


def history(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `Ledger.history` as lines, the oldest first."""
    return "\n".join(f"{_time(row['time'])}  {_event(row)}  [{row['run']}]" for row in rows)


def problems(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `Ledger.problems` as a table, one line an exam and step."""
    if not rows:
        return "nothing was refused, nothing failed"
    head = ("exam", "step", "status", "attempts", "reason")
    each = [(row["exam_id"], row["step"], row["status"], str(row["attempts"]), row["error"] or "") for row in rows]
    return "\n".join(_columns([head, *each], right=(3,)))


def show(found: Mapping[str, Any]) -> str:
    """Return `Ledger.show` as lines: images, steps and scores."""
    exam = found["exam"]
    lines = [f"{exam['exam_id']}, as of {_time(found['as_of'])}" if found["as_of"] else exam["exam_id"], _run(found)]
    lines += [f"  {image['view']:6} {image['name']}  sha256 {_cut(image['sha256'])}" for image in exam["images"]]
    lines += [f"  refused at intake: {exam['refusal']}"] if exam["refusal"] else []
    lines += [f"  note: {note}" for note in exam["notes"]]
    lines += [f"  {_event(step)}" if "key" in step else f"  {step['step']}: {step['state']}" for step in found["steps"]]
    head = ("model", "side", "target", "score", "digest", "bundle")
    scores = [
        (
            row["model"],
            row["side"],
            row["target"],
            f"{row['score']:.7f}",
            _cut(row["model_digest"]),
            _cut(row["bundle"]),
        )
        for row in found["predictions"]
    ]
    return "\n".join([*lines, *(_columns([head, *scores], right=(3,)) if scores else []), RESEARCH_NOTICE])


def diff(table: pa.Table, most: int = 20) -> str:
    """Return `Ledger.diff` as a table of the largest changes, and how many there are.

    Args:
        table: the differences.
        most: rows to show.
    """
    both = table.filter(table["change"].is_valid())
    only_a, only_b = table["score_b"].null_count, table["score_a"].null_count
    head = ("exam", "side", "target", "first", "second", "change", "")
    rows = [
        (
            row["exam_id"],
            row["side"],
            row["target"],
            *(f"{row[name]:.7f}" for name in ("score_a", "score_b")),
            f"{row['change']:+.7f}",
            "" if row["same_images"] else "the images changed in between",
        )
        for row in both.slice(0, most).to_pylist()
    ]
    last = (
        f"{both.num_rows:,} scores of both models, {len(rows):,} shown; "
        f"{only_a:,} of the first alone, {only_b:,} of the second alone"
    )
    return "\n".join([*_columns([head, *rows], right=(3, 4, 5)), last, RESEARCH_NOTICE])


def _event(row: Mapping[str, Any]) -> str:
    if "step" not in row:
        what = f"exam: {len(row['images'])} images, digest {_cut(row['digest'])}"
        return f"{what}, refused: {row['refusal']}" if row["refusal"] else what
    tried = f", {row['attempts']} attempts" if row["attempts"] > 1 else ""
    made = f", outputs {_cut(row['outputs'])}" if row["outputs"] else ""
    why = f": {row['error']}" if row["error"] else ""
    return (
        f"{row['step']} (version {row['version']}): {row['status']}{why}{made}, "
        f"{show_seconds(row['seconds'])}{tried}, {row['engine']}"
    )


def _run(found: Mapping[str, Any]) -> str:
    run = found["run"]
    if run is None:
        return "no run yet"
    ended = f"ended {_time(run['ended'])}" if run["ended"] else "going on, or killed"
    return f"last run {run['run']}: {run['engine']}, began {_time(run['began'])}, {ended}"


def _reasons(why: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in why.items())


def _columns(rows: Sequence[Sequence[str]], right: Iterable[int]) -> list[str]:
    """Return rows as lines with aligned columns; those of `right` are aligned at their right ends."""
    to_the_right = set(right)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [f"{cell:>{w}}" if n in to_the_right else f"{cell:<{w}}" for n, (cell, w) in enumerate(cells)]
        lines.append("  ".join(aligned).rstrip())
    return lines


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _cut(digest: str | None) -> str:
    return (digest or "-")[:DIGITS]
