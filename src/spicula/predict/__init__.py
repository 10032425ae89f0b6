"""Classify image files with a bundle, in batches, and say what came of each.

Every file is answered or rejected with a reason; none is dropped silently. What lies outside a model's scope is
rejected as well: it gets no score.
"""

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicula import RESEARCH_NOTICE
from spicula.bundle import BATCH, Bundle
from spicula.errors import UsageError
from spicula.progress import progress, say

if TYPE_CHECKING:
    import pyarrow as pa

    from spicula.predict.intake import Ready


def predict(
    bundle: Bundle, paths: Iterable[Path], batch_size: int = BATCH, jobs: int | None = None
) -> "tuple[pa.Table, pa.Table]":
    """Classify files, and every file below folders.

    Below a given folder, hidden files and folders (a name that starts with a dot) are not looked at, links to folders
    are not followed, and texts, tables and archives are passed over, which is said on stderr.

    Args:
        bundle: the model.
        paths: files and folders. A file that is met twice is answered once.
        batch_size: images that go through the model at once.
        jobs: processes that decode; None: one a core.

    Returns:
        Predictions, one row an answered file, whose `id` is the path (as given, or below the folder as given) and
        whose `model_digest` is the bundle's; and the rejected files, with the reason (`index.REJECTED`).

    Raises:
        UsageError: no path was given, or only folders without images.
        SpiculaError: there is no room for temporary files, or worker processes cannot start.
    """
    # here, since the service's decoders, which make no tables, start in half the time without
    import pyarrow as pa

    from spicula import predictions
    from spicula.index import REJECTED
    from spicula.predict import intake
    from spicula.predict.intake import Document, Ready, Refused

    found = intake.walk(paths)
    if not found:
        raise UsageError("nothing to predict: name image files, or folders that hold some")
    answered: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    documents: list[Path] = []
    for block in intake.blocks(found, bundle.info["scope"], bundle.preprocess, jobs):
        ready = [item for item in block if isinstance(item, Ready)]
        rejected += [{"path": _text(item.path), "reason": item.reason} for item in block if isinstance(item, Refused)]
        documents += [item.path for item in block if isinstance(item, Document)]
        batches = [ready[at : at + batch_size] for at in range(0, len(ready), batch_size)]
        for batch in progress(batches, "classifying", unit="batches"):
            answered += _classify(bundle, batch)
    if documents:
        say(f"passed over {_named(documents)}, beside the images")
    if not answered and not rejected:
        raise UsageError(f"nothing to predict: no image among {_named(documents)}")
    return predictions.from_rows(answered), pa.Table.from_pylist(rejected, schema=REJECTED)


def as_table_text(answered: "pa.Table", rejected: "pa.Table", bundle: Bundle, when: datetime | None = None) -> str:
    """Write what `predict` returned as aligned text: who says it, the scores, what was rejected and why, the counts.

    `when` is the time that the result carries; None: now.
    """
    info = bundle.info
    trained_on = info["data"]["dataset"] + (" (synthetic images)" if info["data"]["synthetic"] else "")
    lines = [
        f"model   {info['name']} ({info['line']}), version {info['version']}, trained on {trained_on}",
        f"digest  {info['digest']}",
        f"time    {_utc(when)}",
        f"notice  {RESEARCH_NOTICE}",
    ]
    if len(answered):
        points = [f"at {name} ({point['threshold']:.4f})" for name, point in info["operating_points"].items()]
        body = [
            (row["id"], row["side"] or "-", f"{row['score']:.4f}", *_decisions(bundle, row["score"]).values())
            for row in answered.to_pylist()
        ]
        lines += ["", *_aligned([("image", "side", f"score for {bundle.target}", *points), *body])]
    if len(rejected):
        lines += ["", *_aligned([("rejected", "reason"), *((r["path"], r["reason"]) for r in rejected.to_pylist())])]
    return "\n".join([*lines, "", summary(answered, rejected)])


def as_json(answered: "pa.Table", rejected: "pa.Table", bundle: Bundle, when: datetime | None = None) -> str:
    """Write what `predict` returned as one JSON object, with what each operating point makes of each score."""
    info = bundle.info
    content = {
        "model": {
            key: info[key] for key in ("name", "version", "digest", "line", "classes", "target", "scope", "data")
        },
        "operating_points": {name: point["threshold"] for name, point in info["operating_points"].items()},
        "time": _utc(when),
        "notice": RESEARCH_NOTICE,
        "predictions": [
            {"id": row["id"], "side": row["side"], "target": row["target"], "score": row["score"]}
            | {"decisions": _decisions(bundle, row["score"])}
            for row in answered.to_pylist()
        ],
        "rejected": rejected.to_pylist(),
        "counts": {"answered": len(answered), "rejected": len(rejected)},
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(answered: "pa.Table", rejected: "pa.Table", bundle: Bundle, when: datetime | None = None) -> str:
    """Write what `predict` returned as CSV: one row a file; a rejected one has no score but a reason."""
    points = list(bundle.info["operating_points"])
    common = [bundle.name, bundle.info["version"], bundle.digest, _utc(when), RESEARCH_NOTICE]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["id", "side", "target", "score", *points, "rejected", "model", "version", "model_digest", "time", "notice"]
    )
    for row in answered.to_pylist():
        decisions = _decisions(bundle, row["score"])
        scored = [row["id"], row["side"] or "", row["target"], repr(row["score"])]
        writer.writerow([*scored, *(decisions[name] for name in points), "", *common])
    for row in rejected.to_pylist():
        writer.writerow([row["path"], "", bundle.target, "", *("" for _ in points), row["reason"], *common])
    return stream.getvalue()


def summary(answered: "pa.Table", rejected: "pa.Table") -> str:
    """Count what was answered and what was rejected, in one line."""
    return f"{len(answered)} answered, {len(rejected)} rejected"


def _decisions(bundle: Bundle, score: float) -> dict[str, str]:
    """The class that each operating point decides for."""
    other = next(name for name in bundle.info["classes"] if name != bundle.target)
    points = bundle.info["operating_points"]
    return {name: bundle.target if score >= point["threshold"] else other for name, point in points.items()}


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns under one another."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _shown(text: str) -> str:
    """Text as a person sees it: what a terminal would act on (a name may hold anything) is an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _utc(when: datetime | None) -> str:
    return (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _named(paths: list[Path], most: int = 3) -> str:
    names = ", ".join(_shown(str(path)) for path in paths[:most])
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''} ({names}{', ...' if len(paths) > most else ''})"


def _classify(bundle: Bundle, batch: "list[Ready]") -> list[dict[str, Any]]:
    column = bundle.info["classes"].index(bundle.target)
    scores = bundle.probabilities(np.stack([item.read() for item in batch]), batch=len(batch))[:, column]
    return [
        {
            "id": _text(item.path),
            "side": item.side,
            "target": bundle.target,
            "score": float(score),
            "model": bundle.name,
            "model_digest": bundle.digest,
        }
        for item, score in zip(batch, scores, strict=True)
    ]


def _text(path: Path) -> str:
    """A path as text that any table can hold: bytes of a name that are not UTF-8 are written as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()
