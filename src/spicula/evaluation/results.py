"""The report's sections of figures: from `evaluate()`'s result to what the templates print, one function a section."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from spicula.evaluation import figures, wording
from spicula.evaluation.figures import ForestRow, Style

_SCORES = ("auc", "average_precision", "brier", "calibration_error")
_DECISIONS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1")
_SUBGROUPS = ("auc", "sensitivity", "specificity")
_COLUMNS = {"birads": "BI-RADS"}
_FLATTERED = ("auc", "average_precision")


def levels_of(metrics: Mapping[str, Any]) -> list[str]:
    """The levels that say something of their own: where every patient has one image, image level says it all."""
    image = next(iter(metrics["models"].values()))["levels"]["image"]
    return ["image"] if image["n"] == image["patients"] else list(metrics["levels"])


def auc_forest(metrics: Mapping[str, Any], looks: Mapping[str, Style]) -> str:
    """The headline figure: every model's AUC with its interval, on images and on the means of what they belong to."""
    rows = []
    for level in _drawn(metrics):
        of_level = {name: model["levels"][level]["metrics"]["auc"] for name, model in metrics["models"].items()}
        rows += _forest_block(level, [(name, auc, looks[name]) for name, auc in of_level.items()])
    words = {"title": "AUC of every model with its interval", "axis": "AUC", "columns": "AUC (95 % interval)"}
    return figures.forest(rows, "auc", reference=0.5, **words)


def _drawn(metrics: Mapping[str, Any]) -> list[str]:
    """The levels that are drawn; those by the highest image stand in the tables alone."""
    return [level for level in levels_of(metrics) if not level.endswith("-max")]


def _forest_block(
    level: str, lines: Sequence[tuple[str, Mapping[str, Any], Style | None]], signed: bool = False
) -> list[ForestRow]:
    """A heading and its lines; where none of them is defined, one line says why."""
    heading = ForestRow(wording.level_name(level), heading=True)
    if all(figure["value"] is None for _, figure, _ in lines):
        first = wording.shown(lines[0][1])
        return [heading, ForestRow("", text=": ".join(filter(None, (first.value, first.reason))))]
    return [heading, *(_forest_row(label, figure, look, signed) for label, figure, look in lines)]


def _forest_row(label: str, figure: Mapping[str, Any], look: Style | None, signed: bool = False) -> ForestRow:
    text = str(wording.shown(figure, signed=signed))
    return ForestRow(label, figure["value"], figure["low"], figure["high"], text, look)


@dataclass(frozen=True)
class MetricTable:
    """A table of models by metrics.

    Attributes:
        heading: what kind of metrics.
        columns: their names.
        rows: by model.
    """

    heading: str
    columns: list[str]
    rows: dict[str, list[wording.Shown]]


def comparison(metrics: Mapping[str, Any], looks: Mapping[str, Style]) -> dict[str, Any]:
    """The comparison table with intervals at every level, and model against model."""
    # later in the recipe minus earlier: a gain over the baseline, which comes first, is above 0
    compared = [wording.turned(one) for one in metrics["comparisons"]]
    pairs = {level: [one for one in compared if one["level"] == level] for level in levels_of(metrics)}
    rows = []
    for level in _drawn(metrics):
        ones = pairs[level]
        lines = [(f"{o['a']} {wording.MINUS} {o['b']}", o["difference"], None) for o in ones if o["metric"] == "auc"]
        rows += _forest_block(level, lines, signed=True) if lines else []
    title = "Differences in AUC between models with their intervals"
    words = {"title": title, "axis": "Difference in AUC", "columns": "Difference (95 % interval)"}
    figure = figures.forest(rows, "difference", reference=0.0, **words) if rows else ""
    return {
        "tables": {level: _metric_tables(metrics["models"], level) for level in levels_of(metrics)},
        "pairs": _by_metric(pairs),
        "forest": Markup(figure),
    }


def _metric_tables(models: Mapping[str, Any], level: str) -> list[MetricTable]:
    of_level = {name: model["levels"][level] for name, model in models.items() if level in model["levels"]}
    folds = ["auc_per_fold"] if any("auc_per_fold" in one["metrics"] for one in of_level.values()) else []
    found = [_metric_table("Without a threshold", of_level, [*_SCORES[:1], *folds, *_SCORES[1:]], ())]
    for threshold in dict.fromkeys(key for one in of_level.values() for key in one["thresholds"]):
        heading = f"At the threshold of {wording.threshold_name(threshold)}"
        found.append(_metric_table(heading, of_level, _DECISIONS, (threshold,)))
    return found


def _metric_table(heading: str, models: Mapping[str, Any], keys: Sequence[str], below: Sequence[str]) -> MetricTable:
    rows = {}
    for name, one in models.items():
        values = one["metrics"]
        for key in below:
            values = values.get(key) or {}
        rows[name] = [wording.shown(values.get(key)) for key in keys]
    return MetricTable(heading, [wording.METRICS[key] for key in keys], rows)


def _by_metric(pairs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Model against model, one table a level and metric, AUC of every level before the other metrics."""
    found = []
    for metric in dict.fromkeys(one["metric"] for ones in pairs.values() for one in ones):
        for level, ones in pairs.items():
            chosen = [one for one in ones if one["metric"] == metric]
            if chosen:
                heading = f"{wording.METRICS.get(metric, metric)}, {wording.level_name(level).lower()}"
                found.append({"heading": heading, "delong": metric == "auc", **_pairs(chosen)})
    return found


def _pairs(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [_pair(one) for one in comparisons]
    undefined = all(row["difference"].sort is None for row in rows)
    return {"rows": rows, "undefined": undefined, "why": rows[0]["difference"].reason if undefined else ""}


def _pair(one: Mapping[str, Any]) -> dict[str, Any]:
    verdict = wording.verdict_of(one)
    words = {"yes": f"{one['a']} higher", "no": f"{one['b']} higher", "not shown": "not shown to differ"}
    keys = ("p_bootstrap", "p_bootstrap_holm", "p_delong_clustered", "p_delong")
    return {
        "a": one["a"],
        "b": one["b"],
        "difference": wording.shown(one["difference"], signed=True),
        "p": {key: _bare(wording.p_value(one.get(key))) for key in keys},
        "delong_reason": one.get("delong_reason", ""),
        "verdict": words.get(verdict, verdict),
    }


def _bare(p: str) -> str:
    return p.lstrip("p=\N{NO-BREAK SPACE} ")


def curves(
    metrics: Mapping[str, Any], predictions: Mapping[str, pa.Table], looks: Mapping[str, Style]
) -> dict[str, Any]:
    """ROC and precision-recall curves at every level; calibration of every model on images."""
    models = metrics["models"]
    drawn = []
    for level in levels_of(metrics):
        of_level = {name: model["levels"][level] for name, model in models.items() if level in model["levels"]}
        heading = wording.level_name(level)
        roc = figures.roc(of_level, looks, f"roc-{level}", "ROC")
        precision = figures.precision_recall(of_level, looks, f"pr-{level}", "Precision and recall")
        auc = wording.shown(next(iter(of_level.values()))["metrics"]["auc"])
        is_defined = any(one["curves"]["roc"] for one in of_level.values())
        charts = (Markup(roc), Markup(precision)) if is_defined else ()
        drawn.append({"heading": heading, "charts": charts, "why": auc.reason})
    calibrated = []
    for number, (name, model) in enumerate(models.items()):
        scores, labels = _test_scores(predictions[name])
        level, ident = model["levels"]["image"], f"calibration{number}"
        drawing = figures.calibration(level, scores, labels, look=looks[name], ident=ident, model=name)
        calibrated.append(Markup(drawing))
    return {"levels": drawn, "calibration": calibrated}


def _test_scores(predictions: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = predictions.select(["label", "score", "split"]).to_pylist()
    kept = [(row["score"], row["label"]) for row in rows if row["split"] == "test" and row["label"] is not None]
    return np.array([score for score, _ in kept], dtype=float), np.array([label for _, label in kept], dtype=int)


def confusions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Confusion matrices by level and threshold, each of all models."""
    found = []
    for level in levels_of(metrics):
        of_level = {name: model["levels"].get(level) or {} for name, model in metrics["models"].items()}
        for threshold in dict.fromkeys(key for one in of_level.values() for key in one.get("confusion") or {}):
            counts = {name: (one.get("confusion") or {}).get(threshold) for name, one in of_level.items()}
            chosen = {name: (one.get("thresholds") or {}).get(threshold) or [] for name, one in of_level.items()}
            found.append(
                {
                    "heading": f"{wording.level_name(level)}, threshold of {wording.threshold_name(threshold)}",
                    "counts": {name: _shares(one) for name, one in counts.items()},
                    "thresholds": {name: _numbers(values) for name, values in chosen.items()},
                }
            )
    return found


def _shares(counts: Mapping[str, int] | None) -> dict[str, tuple[int, float]] | None:
    """Counts with their share of the true class, 0 to 1."""
    if counts is None:
        return None
    positive, negative = counts["tp"] + counts["fn"], counts["fp"] + counts["tn"]
    of = {"tp": positive, "fn": positive, "fp": negative, "tn": negative}
    return {key: (counts[key], counts[key] / of[key] if of[key] else 0.0) for key in of}


def _numbers(values: Iterable[float | None]) -> str:
    return ", ".join(wording.NOT_DEFINED if value is None else wording.number(value) for value in values)


def subgroups(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every model in every subgroup: one entry a column of the Index, each with a table of AUC and of decisions."""
    models = metrics["models"]
    columns: Mapping[str, Any] = next(iter(models.values()))["subgroups"]
    return [
        {
            "column": _COLUMNS.get(column, column.replace("_", " ")),
            "tables": [
                (wording.METRICS[key], [_subgroup(models, column, value, key) for value in groups])
                for key in _SUBGROUPS
            ],
            "by_auc": any(
                model["subgroups"][column][value]["auc"]["value"] is not None
                for model in models.values()
                for value in groups
            ),
        }
        for column, groups in columns.items()
    ]


def _subgroup(models: Mapping[str, Any], column: str, value: str, key: str) -> dict[str, Any]:
    entries = {name: model["subgroups"][column][value] for name, model in models.items()}
    sizes = next(iter(entries.values()))
    return {
        "value": value,
        **{name: sizes[name] for name in ("n", "patients", "positive")},
        "figures": {name: wording.shown(entry.get(key)) for name, entry in entries.items()},
    }


def image_split(metrics: Mapping[str, Any], by_image: Mapping[str, Any] | None) -> dict[str, Any]:
    """The honest figures beside those of a split by image; without rows when not asked for."""
    other = (by_image or {}).get("models") or {}
    both = {name: (model, other[name]) for name, model in metrics["models"].items() if name in other}
    rows = {}
    for name, models in both.items():
        values = [one["levels"]["image"]["metrics"] for one in models]
        rows[name] = [_flattered(*(metrics.get(key) for metrics in values)) for key in _FLATTERED]
    gains = {name: row[0]["by"].sort for name, row in rows.items() if row[0]["by"].sort is not None}
    most = max(gains, key=lambda name: gains[name] or 0.0) if gains else None
    return {"rows": rows, "columns": [wording.METRICS[key] for key in _FLATTERED], "most": most}


def _flattered(honest: Mapping[str, Any] | None, flattering: Mapping[str, Any] | None) -> dict[str, wording.Shown]:
    values = [(one or {}).get("value") for one in (honest, flattering)]
    by = None if values[0] is None or values[1] is None else values[1] - values[0]
    return {
        "honest": wording.shown(honest),
        "flattering": wording.shown(flattering),
        "by": wording.shown({"value": by, "low": by, "high": by}, signed=True),
    }
