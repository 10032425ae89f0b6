"""The points of ROC, precision-recall and calibration curves, few enough to be drawn in a page."""

from typing import Any

import numpy as np

from spicula.evaluation.metrics import BINS, Floats, Ints, bin_of, divide, tie_sums

#: A curve has no more points than this: more than a screen can show.
MOST_POINTS = 500
#: Where the band around the ROC curve is computed: 1 - specificity from 0 to 1.
GRID = np.linspace(0.0, 1.0, 101)


def curves(labels: Ints, scores: Floats) -> dict[str, Any]:
    """Return the curves of one model at one level.

    Args:
        labels: 0 or 1, shape (N,).
        scores: 0 to 1, shape (N,).

    Returns:
        "roc": x (1 - specificity) and y (sensitivity), from (0, 0) to (1, 1). "pr": x (recall, rising) and y
        (precision), from recall 0 at the precision of the highest score. "calibration": for each bin of the score
        that has images, "predicted" (mean score), "observed" (share of positives) and "count". The ROC curve is None
        without both classes, the precision-recall curve without positives.
    """
    positive, negative = (sums[0] for sums in tie_sums(labels, scores))
    found, wrong = np.cumsum(positive), np.cumsum(negative)
    roc = pr = None
    if positive.sum() and negative.sum():
        roc = _points(np.r_[0.0, wrong / wrong[-1]], np.r_[0.0, found / found[-1]])
    if positive.sum():
        precision = found / (found + wrong)
        pr = _points(np.r_[0.0, found / found[-1]], np.r_[precision[0], precision])
    return {"roc": roc, "pr": pr, "calibration": _calibration(labels, scores)}


def roc_band(labels: Ints, scores: Floats, weights: Floats) -> Floats:
    """Return the sensitivity at each 1 - specificity of GRID, in every resample: shape (R, len(GRID)).

    NaN in resamples without both classes. Between two points of the curve it is interpolated.
    """
    positive, negative = tie_sums(labels, scores, weights)
    start = np.zeros((len(weights), 1))
    y = np.hstack([start, divide(np.cumsum(positive, axis=1), positive.sum(axis=1)[:, None])])
    x = np.hstack([start, divide(np.cumsum(negative, axis=1), negative.sum(axis=1)[:, None])])
    band = np.full((len(weights), len(GRID)), np.nan)
    for row in np.flatnonzero(~np.isnan(x[:, -1]) & ~np.isnan(y[:, -1])):
        band[row] = np.interp(GRID, x[row], y[row])
    return band


def with_band(roc: dict[str, Any], samples: Floats, confidence: float) -> dict[str, Any]:
    """Return a ROC curve with "low" and "high": pointwise limits of the sensitivity at each of its x.

    Args:
        roc: from `curves`.
        samples: from `roc_band`.
        confidence: 0 to 1.
    """
    defined = samples[~np.isnan(samples[:, 0])]
    if 2 * len(defined) < len(samples):
        return roc
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {**roc, "low": np.interp(roc["x"], GRID, low).tolist(), "high": np.interp(roc["x"], GRID, high).tolist()}


def _calibration(labels: Ints, scores: Floats) -> dict[str, Any]:
    bins = bin_of(scores)
    count = np.bincount(bins, minlength=BINS)
    used = count > 0
    return {
        "predicted": (np.bincount(bins, scores, BINS)[used] / count[used]).tolist(),
        "observed": (np.bincount(bins, labels, BINS)[used] / count[used]).tolist(),
        "count": count[used].tolist(),
    }


def _points(x: Floats, y: Floats) -> dict[str, list[float]]:
    """Drop points on a straight line between their neighbours, then thin what is still too many."""
    turn = np.diff(x)[1:] * np.diff(y)[:-1] != np.diff(x)[:-1] * np.diff(y)[1:]
    kept = np.flatnonzero(np.r_[True, turn, True])
    if len(kept) > MOST_POINTS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, MOST_POINTS).round().astype(int))]
    return {"x": x[kept].tolist(), "y": y[kept].tolist()}
