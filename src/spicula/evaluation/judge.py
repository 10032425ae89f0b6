"""One model at one level: thresholds from validation, figures with intervals from test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spicula.evaluation import curves, metrics
from spicula.evaluation.intervals import CONFIDENCE, bootstrap, figure
from spicula.evaluation.levels import Scored
from spicula.evaluation.metrics import DECISION_METRICS, SCORE_METRICS, Bools, Floats
from spicula.evaluation.thresholds import RULES, choose_per_fold, decide

#: What is told of a subgroup besides its sizes; decisions at the threshold of this rule.
SUBGROUP_METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
SUBGROUP_RULE = "youden"

_BAND = "roc band"
Thresholds = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Judged:
    """What came out for one model at one level.

    Attributes:
        entry: as it stands in `metrics.json`.
        values: every figure by name ("auc", "youden/f1"), NaN where it is not defined.
        samples: the same in every resample of patients, shape (resamples,) each.
        reasons: why a figure is not defined, by name.
    """

    entry: dict[str, Any]
    values: dict[str, float]
    samples: dict[str, Floats]
    reasons: dict[str, str]


def judge(val: Scored, test: Scored, folds: int, resamples: int, seed: int) -> Judged:
    """Judge one model at one level.

    Args:
        val: its scores of validation images; thresholds are chosen on them alone.
        test: its scores of test images.
        folds: how many folds there are, 1 without folds. Each has its own model and so its own thresholds; decisions
            of all folds are pooled.
        resamples: how many resamples of patients.
        seed: of the resamples.
    """
    thresholds = {rule: choose_per_fold(rule, val.labels, val.scores, val.folds, folds) for rule in RULES}
    called = {rule: decide(test.scores, test.folds, thresholds[rule]) for rule in RULES}
    figures = _figures(test, called, folds)
    values = {name: float(one[0]) for name, one in figures(np.ones((1, len(test.rows)))).items()}
    drawn = curves.curves(test.labels, test.scores)

    def with_band(weights: Floats) -> dict[str, Floats]:
        band = {_BAND: curves.roc_band(test.labels, test.scores, weights)} if drawn["roc"] else {}
        return {**figures(weights), **band}

    samples = bootstrap(with_band, test.patients, resamples, seed)
    if drawn["roc"]:
        drawn["roc"] = curves.with_band(drawn["roc"], samples.pop(_BAND), CONFIDENCE)
    reasons = {name: _reason(name, test, thresholds) for name, value in values.items() if np.isnan(value)}
    told = {name: figure(value, samples[name], test.count, reasons.get(name, "")) for name, value in values.items()}
    entry: dict[str, Any] = {
        **sizes(test),
        "metrics": {
            **{name: told[name] for name in told if "/" not in name},
            **{rule: {metric: told[f"{rule}/{metric}"] for metric in DECISION_METRICS} for rule in RULES},
        },
        "thresholds": thresholds,
        "confusion": {rule: _confusion(test, called[rule]) for rule in RULES},
        "curves": drawn,
    }
    if folds > 1:
        entry["metrics"]["auc_per_fold"]["folds"] = _auc_of_folds(test, folds)
    return Judged(entry, values, samples, reasons)


def judge_subgroup(test: Scored, thresholds: Thresholds, resamples: int, seed: int) -> dict[str, Any]:
    """Return sizes, AUC and the SUBGROUP_METRICS of a part of the test images, with intervals.

    Args:
        test: the part.
        thresholds: chosen on all validation images, by rule and fold.
        resamples: how many resamples of the patients in this part.
        seed: of the resamples.
    """
    called = decide(test.scores, test.folds, thresholds[SUBGROUP_RULE])

    def figures(weights: Floats) -> dict[str, Floats]:
        decided = _decided(test, called, weights)
        area = metrics.auc(test.labels, test.scores, weights)
        return {"auc": area, **{f"{SUBGROUP_RULE}/{name}": decided[name] for name in SUBGROUP_METRICS}}

    values = {name: float(one[0]) for name, one in figures(np.ones((1, len(test.rows)))).items()}
    samples = bootstrap(figures, test.patients, resamples, seed)
    return {
        **sizes(test),
        **{
            name.rpartition("/")[2]: figure(value, samples[name], test.count, _reason(name, test, thresholds))
            for name, value in values.items()
        },
    }


def sizes(part: Scored) -> dict[str, int]:
    """Return how many members (images, patients, ...) a part has, of how many patients, and how many are positive."""
    return {"n": len(part.rows), "patients": part.count, "positive": int(part.labels.sum())}


def _figures(test: Scored, called: Mapping[str, Bools | None], folds: int) -> Callable[[Floats], dict[str, Floats]]:
    """Return the function from weights to every figure of the test images, by name."""

    def figures(weights: Floats) -> dict[str, Floats]:
        found = {
            **metrics.ranking(test.labels, test.scores, weights),
            **metrics.probability(test.labels, test.scores, weights),
        }
        found = {name: found[name] for name in SCORE_METRICS}
        if folds > 1:
            found["auc_per_fold"] = np.mean(
                [
                    metrics.auc(test.labels[of], test.scores[of], weights[:, of])
                    for of in (np.flatnonzero(test.folds == fold) for fold in range(folds))
                ],
                axis=0,
            )
        for rule in RULES:
            decided = _decided(test, called[rule], weights)
            found.update({f"{rule}/{name}": decided[name] for name in DECISION_METRICS})
        return found

    return figures


def _decided(test: Scored, called: Bools | None, weights: Floats) -> dict[str, Floats]:
    if called is None:
        return {name: np.full(len(weights), np.nan) for name in DECISION_METRICS}
    return metrics.decisions(test.labels, called, weights)


def _auc_of_folds(test: Scored, folds: int) -> list[float | None]:
    areas = [
        float(metrics.auc(test.labels[test.folds == fold], test.scores[test.folds == fold])[0]) for fold in range(folds)
    ]
    return [None if np.isnan(area) else area for area in areas]


def _confusion(test: Scored, called: Bools | None) -> dict[str, int] | None:
    if called is None:
        return None
    cells = metrics.confusion(test.labels, called)
    return {name: round(float(cell[0])) for name, cell in zip(("tp", "fp", "fn", "tn"), cells, strict=True)}


def _reason(name: str, test: Scored, thresholds: Thresholds) -> str:
    """Say why a figure of the test images is not defined."""
    rule, _, metric = name.rpartition("/")
    if rule and None in thresholds[rule]:
        where = f" in fold {thresholds[rule].index(None)}" if len(thresholds[rule]) > 1 else ""
        return f"no threshold: the validation side has one class only{where}"
    for label, word, needed_by in (
        (1, "positive", ("auc", "average_precision", "balanced_accuracy", "sensitivity")),
        (0, "negative", ("auc", "balanced_accuracy", "specificity")),
    ):
        if metric in needed_by and not (test.labels == label).any():
            return f"no {word} among the {len(test.rows)}"
    if metric == "auc_per_fold":
        return "a fold has one class only"
    return f"none of the {len(test.rows)} was called positive" if metric in ("precision", "f1") else ""
