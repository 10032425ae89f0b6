"""The whole evaluation of a study: every model, level and subgroup, and every pair of models."""

from collections.abc import Mapping
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa

from spicula.curate.splits import parts
from spicula.errors import SpiculaError
from spicula.evaluation.compare import delong, delong_clustered, holm, p_of_difference, paired_difference
from spicula.evaluation.intervals import CONFIDENCE, RESAMPLES
from spicula.evaluation.judge import Judged, judge, judge_subgroup
from spicula.evaluation.levels import Scored, at_level, levels_of, one_fold, scored
from spicula.evaluation.subgroups import subgroups
from spicula.index import SPLITS
from spicula.progress import progress

#: What models are compared by, and the name that `judge` gives it. Of the Brier score, less is better.
COMPARED = {
    "auc": "auc",
    "average_precision": "average_precision",
    "brier": "brier",
    "balanced_accuracy": "youden/balanced_accuracy",
}

#: Below these, intervals are wide, and percentile intervals tend to be too narrow even so.
FEW_PATIENTS = 50
FEW_PATIENTS_IN_A_CLASS = 10


def evaluate(
    index: pa.Table, predictions: Mapping[str, pa.Table], seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Judge models on their test images, and compare them.

    Thresholds are chosen on validation images. Labels of test images are used for nothing but the figures.

    Args:
        index: the Index that the models were trained from, with its `split` or its `fold` column filled.
        predictions: by model name, its Predictions of val and test images, of all folds.
        seed: of the resamples of patients. The same in all models, so that they are compared in the same resamples.
        resamples: how many.

    Returns:
        What is written as `metrics.json`. A figure, below `F`, is `{"value", "low", "high"}`: numbers, or None with a
        "reason"; "skipped" says in how many resamples it was not defined, where it was not in all.

        - "target", "resamples", "confidence", "seed"; "folds" (their number, or None); "levels" (their names).
        - "counts": by side, {"images", "patients", "positive", "negative" (images), "positive_patients" (with a
          positive image), "negative_patients" (the others)}. With folds, all images play each part once, so that each
          side holds them all, and "folds" is a list with the counts by side in each fold.
        - "models": by name, {"model_digests", "levels", "subgroups"}.
          - "levels": by name ("image", "patient-mean", "patient-max", "exam-mean", ...), {"n", "patients",
            "positive", "metrics", "thresholds", "confusion", "curves"}.
            - "metrics": {"auc", "average_precision", "brier", "calibration_error": F}; with folds "auc_per_fold", the
              mean of the folds' areas: F with "folds", their areas; and by threshold rule ("youden",
              "sensitivity-0.90") {"accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1": F}.
            - "thresholds": by rule, one number (or None) a fold.
            - "confusion": by rule, {"tp", "fp", "fn", "tn"}, or None without thresholds.
            - "curves": {"roc": {"x", "y", "low", "high"}, "pr": {"x", "y"}, "calibration": {"predicted", "observed",
              "count"}}; see `curves`. A curve that is not defined is None.
          - "subgroups": of images, by column and value, {"n", "patients", "positive", "auc": F, and at the "youden"
            threshold "accuracy", "balanced_accuracy", "sensitivity", "specificity": F}.
        - "comparisons": a list of {"a", "b", "level", "metric" (a key of COMPARED), "difference": F (a minus b),
          "p_bootstrap", "p_bootstrap_holm"}; with metric "auc" also "p_delong" and "p_delong_clustered", each with
          "_holm", and "delong_reason" where one is None. "_holm" is corrected for the number of pairs of models.
        - "warnings": sentences on what weakens the figures.

    Raises:
        SpiculaError: predictions do not fit the Index, or models were not tested on the same images.
    """
    target = _target(predictions)
    val = {name: scored(index, table, "val", name) for name, table in predictions.items()}
    test = {name: scored(index, table, "test", name) for name, table in predictions.items()}
    _refuse_other_images(test)
    present = np.unique(next(iter(test.values())).folds).tolist()
    folds = len(present)
    if folds == 1:  # one fold alone is judged like a plain split
        val, test = ({name: one_fold(part, present[0]) for name, part in side.items()} for side in (val, test))
        index = parts(index, present[0]) if index["split"].null_count == len(index) else index
    elif present != list(range(folds)):
        raise SpiculaError(f"of the folds 0 to {present[-1]}, only {present} have test predictions; train the others")
    levels = levels_of([*test.values(), *val.values()])
    tasks = list(product(predictions, levels))
    judged = {
        (name, level): judge(at_level(val[name], level), at_level(test[name], level), folds, resamples, seed)
        for name, level in progress(tasks, "evaluating", unit="levels")
    }
    counts = _counts(index, folds)
    return {
        "target": target,
        "resamples": resamples,
        "confidence": CONFIDENCE,
        "seed": seed,
        "folds": folds if folds > 1 else None,
        "levels": levels,
        "counts": counts,
        "models": {
            name: {
                "model_digests": sorted(set(table["model_digest"].to_pylist())),
                "levels": {level: judged[name, level].entry for level in levels},
                "subgroups": _subgroups(index, test[name], judged[name, "image"], resamples, seed),
            }
            for name, table in predictions.items()
        },
        "comparisons": _comparisons(judged, test, levels),
        "warnings": _warnings(index, counts["test"], judged, resamples),
    }


def _target(predictions: Mapping[str, pa.Table]) -> str:
    if not predictions:
        raise SpiculaError("there is nothing to evaluate: no model has predictions; train one first")
    for name, table in predictions.items():
        if "test" not in table["split"].to_pylist():
            raise SpiculaError(f"model {name} has no test predictions; train it again, or leave it out")
    targets = sorted({target for table in predictions.values() for target in table["target"].to_pylist()})
    if len(targets) > 1:
        raise SpiculaError(f"the models predict different targets ({', '.join(targets)}); evaluate them apart")
    return str(targets[0])


def _refuse_other_images(test: Mapping[str, Scored]) -> None:
    first, *others = test
    for name in others:
        if not np.array_equal(test[first].rows, test[name].rows) or not np.array_equal(
            test[first].folds, test[name].folds
        ):
            raise SpiculaError(
                f"models {first} and {name} were not tested on the same images ({len(test[first].rows)} and "
                f"{len(test[name].rows)}); train both on the same split"
            )


def _subgroups(index: pa.Table, test: Scored, judged: Judged, resamples: int, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, value, chosen in subgroups(index.take(pa.array(test.rows))):
        entry = judge_subgroup(test.where(chosen), judged.entry["thresholds"], resamples, seed)
        found.setdefault(column, {})[value] = entry
    return found


def _comparisons(
    judged: Mapping[tuple[str, str], Judged], test: Mapping[str, Scored], levels: list[str]
) -> list[dict[str, Any]]:
    found = []
    for level, metric in product(levels, COMPARED):
        family = [_compare(judged, test, pair, level, metric) for pair in combinations(test, 2)]
        for key in [key for key in (family[0] if family else {}) if key.startswith("p_")]:
            for entry, corrected in zip(family, holm([entry[key] for entry in family]), strict=True):
                entry[f"{key}_holm"] = corrected
        found += family
    return found


def _compare(
    judged: Mapping[tuple[str, str], Judged],
    test: Mapping[str, Scored],
    pair: tuple[str, str],
    level: str,
    metric: str,
) -> dict[str, Any]:
    a, b = (judged[name, level] for name in pair)
    key = COMPARED[metric]
    part = at_level(test[pair[0]], level)
    difference, p = paired_difference(
        a.values[key] - b.values[key],
        a.samples[key] - b.samples[key],
        part.count,
        a.reasons.get(key) or b.reasons.get(key, ""),
    )
    entry = {"a": pair[0], "b": pair[1], "level": level, "metric": metric, "difference": difference, "p_bootstrap": p}
    return {**entry, **_delong(part, at_level(test[pair[1]], level))} if metric == "auc" else entry


def _delong(a: Scored, b: Scored) -> dict[str, Any]:
    """Return DeLong's p-values; None with a reason where the variance cannot be estimated or is 0."""
    entry: dict[str, Any] = {"p_delong": None, "p_delong_clustered": None}
    of_class = [a.labels == label for label in (1, 0)]
    if min(int(chosen.sum()) for chosen in of_class) < 2:
        return {**entry, "delong_reason": "needs two of each class"}
    scores = (a.scores, b.scores)
    entry["p_delong"] = p_of_difference(*delong(a.labels, scores))
    if min(len(np.unique(a.patients[chosen])) for chosen in of_class) < 2:
        return {**entry, "delong_reason": "needs two patients of each class to take patients as clusters"}
    entry["p_delong_clustered"] = p_of_difference(*delong_clustered(a.labels, scores, a.patients))
    if None in entry.values():
        entry["delong_reason"] = "the difference has no variance: both models order the images alike"
    return entry


def _counts(index: pa.Table, folds: int) -> dict[str, Any]:
    if folds == 1:
        sides = index["split"].to_pylist()
        return {name: _count(index, [side == name for side in sides]) for name in SPLITS}
    every = _count(index, [fold is not None for fold in index["fold"].to_pylist()])
    return {
        **dict.fromkeys(SPLITS, every),
        "folds": [_counts(parts(index, fold), 1) for fold in range(folds)],
    }


def _count(index: pa.Table, chosen: list[bool]) -> dict[str, int]:
    rows = index.filter(pa.array(chosen, type=pa.bool_()))
    targets = rows["target"].to_pylist()
    patients = [
        ("image", image) if patient is None else ("patient", patient)
        for image, patient in zip(rows["image_id"].to_pylist(), rows["patient_id"].to_pylist(), strict=True)
    ]
    positive = {patient for patient, target in zip(patients, targets, strict=True) if target == 1}
    return {
        "images": len(rows),
        "patients": len(set(patients)),
        "positive": targets.count(1),
        "negative": targets.count(0),
        "positive_patients": len(positive),
        "negative_patients": len(set(patients) - positive),
    }


def _warnings(
    index: pa.Table, counts: Mapping[str, int], judged: Mapping[tuple[str, str], Judged], resamples: int
) -> list[str]:
    found = []
    if counts["patients"] < FEW_PATIENTS:
        found.append(
            f"{counts['patients']} patients on the test side: intervals are wide, and from so few patients they tend "
            "to be too narrow even so"
        )
    found += [
        f"{counts[f'{which}_patients']} {which} patients on the test side: figures at patient level hang on single ones"
        for which in ("positive", "negative")
        if counts[f"{which}_patients"] < FEW_PATIENTS_IN_A_CLASS
    ]
    nameless = index["patient_id"].null_count
    if nameless:
        found.append(
            f"{nameless} images have no patient_id and count as patients of their own: intervals may be too narrow"
        )
    for (_, level), one in judged.items():
        missing = one.reasons.get("youden/accuracy")
        if missing:
            found.append(f"{level} level: {missing}, so there are no decisions to judge")
        skipped = one.entry["metrics"]["auc"].get("skipped", 0)
        if skipped:
            found.append(f"{level} level: {skipped} of {resamples} resamples have one class only; AUC leaves them out")
        if any(_is_without_width(figure) for figure in one.entry["metrics"].values()):
            found.append(
                f"{level} level: an interval of no width (such as 1 to 1) means no error among so few, not certainty"
            )
    return list(dict.fromkeys(found))


def _is_without_width(figure: Mapping[str, Any]) -> bool:
    if "value" not in figure:  # the figures of a threshold rule
        return any(_is_without_width(one) for one in figure.values())
    return figure["low"] is not None and bool(figure["low"] == figure["high"])
