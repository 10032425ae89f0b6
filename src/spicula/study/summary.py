"""A study's outcome in a few lines of text, for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from spicula import RESEARCH_NOTICE
from spicula.evaluation import findings, wording
from spicula.study.folder import Outcome, read_recipe

_COLUMNS = (
    ("AUC", ("auc",)),
    ("AUC by patient", ("auc",)),
    ("sensitivity", ("youden", "sensitivity")),
    ("specificity", ("youden", "specificity")),
    ("calibration error", ("calibration_error",)),
)


def text(outcome: Outcome) -> str:
    """Return the comparison table with its intervals, the warnings, and where to look."""
    metrics = outcome.metrics
    test = metrics["counts"]["test"]
    rows = [["model", *(title for title, _ in _COLUMNS)]]
    for name, model in metrics["models"].items():
        rows.append([name, *(_cell(model, title, keys) for title, keys in _COLUMNS)])
    lines = [
        f"Test: {test['images']} images of {test['patients']} patients, {test['positive']} with {metrics['target']}",
        "",
        *_aligned(rows),
        "",
        *_answers(outcome),
        *(f"Note: {warning}" for warning in findings.merged(metrics["warnings"])),
    ]
    if outcome.rejected:
        lines.append(f"{outcome.rejected} files were rejected: {outcome.out / 'rejected.parquet'}")
    if outcome.report is not None:
        lines.append(f"Report: {outcome.report}")
    if outcome.bundle is not None:
        lines.append(f"Bundle: {outcome.bundle}")
    lines.append(RESEARCH_NOTICE)
    return "\n".join(lines)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as plain data: the metrics without their curves, and where everything is."""
    models = {
        name: {
            "levels": {
                level: {key: value for key, value in content.items() if key != "curves"}
                for level, content in model["levels"].items()
            }
        }
        for name, model in outcome.metrics["models"].items()
    }
    return {
        "out": str(outcome.out),
        "report": str(outcome.report) if outcome.report else None,
        "bundle": str(outcome.bundle) if outcome.bundle else None,
        "rejected": outcome.rejected,
        "target": outcome.metrics["target"],
        "counts": outcome.metrics["counts"],
        "models": models,
        "comparisons": outcome.metrics["comparisons"],
        "warnings": outcome.metrics["warnings"],
        "notice": RESEARCH_NOTICE,
    }


def _answers(outcome: Outcome) -> list[str]:
    """The questions that the models pose, each answered at image level, as in the report."""
    models = {s.name: {"line": s.line, "settings": s.model_dump()} for s in read_recipe(outcome.out).models}
    answers = [
        wording.answer(question, outcome.metrics["comparisons"], ["image"]) for question in findings.questions(models)
    ]
    return [f"{one.question} {one.short}. {one.sentences[0]}" for one in answers]


def _cell(model: Mapping[str, Any], title: str, keys: Sequence[str]) -> str:
    level = "patient-mean" if title.endswith("by patient") else "image"
    value: Any = model["levels"][level]["metrics"]
    for key in keys:
        value = value[key]
    if value["value"] is None:
        return "not defined"
    if value["low"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
