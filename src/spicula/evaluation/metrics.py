"""Figures of merit of a binary classifier, for many resamples at once.

Every function takes weights of shape (R, N): row r says how often each of N images counts in resample r (how often the
bootstrap drew its patient). It returns arrays of shape (R,), NaN where a figure is not defined in that resample.
Without weights, R is 1 and every image counts once. Figures agree with scikit-learn's, ties included.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Of the score, whatever the threshold.
SCORE_METRICS = ("auc", "average_precision", "brier", "calibration_error")
#: Of the decisions at one threshold.
DECISION_METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1")

#: Equal-width bins of the score for the calibration error and the calibration curve.
BINS = 10


def ranking(labels: Ints, scores: Floats, weights: Floats | None = None) -> dict[str, Floats]:
    """Return the area under the ROC curve and the average precision.

    The area is the share of pairs of a positive and a negative image in which the positive one has the higher score,
    ties counting half (Hanley and McNeil, Radiology 143:29-36, 1982). Average precision is the sum over thresholds of
    precision times the gain in recall, without interpolation.

    Args:
        labels: 0 or 1, shape (N,).
        scores: any numbers; higher means more likely positive, shape (N,).
        weights: how often each image counts, shape (R, N).

    Returns:
        "auc" (undefined without both classes) and "average_precision" (undefined without positives), shape (R,) each.
    """
    positive, negative = tie_sums(labels, scores, weights)
    positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
    above = np.cumsum(negative, axis=1)
    won = ((negatives[:, None] - above + negative / 2) * positive).sum(axis=1)
    called = np.cumsum(positive, axis=1)
    precision = divide(called, called + above, undefined=0.0)
    return {
        "auc": divide(won, positives * negatives),
        "average_precision": divide((precision * positive).sum(axis=1), positives),
    }


def auc(labels: Ints, scores: Floats, weights: Floats | None = None) -> Floats:
    """Return the area under the ROC curve alone, as `ranking` does."""
    positive, negative = tie_sums(labels, scores, weights)
    positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
    won = ((negatives[:, None] - np.cumsum(negative, axis=1) + negative / 2) * positive).sum(axis=1)
    return divide(won, positives * negatives)


def probability(labels: Ints, scores: Floats, weights: Floats | None = None) -> dict[str, Floats]:
    """Return how far scores are from being probabilities.

    The Brier score is the mean squared difference of score and label (Brier, Monthly Weather Review 78:1-3, 1950).
    The calibration error is the expected calibration error: over BINS equal-width bins of the score, the mean of
    |observed share of positives - mean score|, weighted by how many images a bin has (Naeini, Cooper and Hauskrecht,
    AAAI 2015; Guo et al., ICML 2017). It is never negative, so that in small samples chance alone raises it.

    Args:
        labels: 0 or 1, shape (N,).
        scores: probabilities, 0 to 1, shape (N,).
        weights: how often each image counts, shape (R, N).

    Returns:
        "brier" and "calibration_error", each 0 (best) to 1, shape (R,).
    """
    weights = _every_image_once(len(labels)) if weights is None else weights
    total = weights.sum(axis=1)
    gaps = np.zeros((len(labels), BINS))
    gaps[np.arange(len(labels)), bin_of(scores)] = labels - scores
    return {
        "brier": divide(weights @ np.square(labels - scores), total),
        "calibration_error": divide(np.abs(weights @ gaps).sum(axis=1), total),
    }


def decisions(labels: Ints, called: Bools, weights: Floats | None = None) -> dict[str, Floats]:
    """Return the figures of a set of decisions.

    Args:
        labels: 0 or 1, shape (N,).
        called: whether each image was called positive, shape (N,).
        weights: how often each image counts, shape (R, N).

    Returns:
        The DECISION_METRICS, 0 to 1, shape (R,) each. Undefined: sensitivity without positives, specificity without
        negatives, balanced accuracy without both, precision where nothing was called positive, F1 where nothing was
        called positive and nothing is.
    """
    tp, fp, fn, tn = confusion(labels, called, weights)
    sensitivity, specificity = divide(tp, tp + fn), divide(tn, tn + fp)
    return {
        "accuracy": divide(tp + tn, tp + fp + fn + tn),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": divide(tp, tp + fp),
        "f1": divide(2 * tp, 2 * tp + fp + fn),
    }


def confusion(labels: Ints, called: Bools, weights: Floats | None = None) -> tuple[Floats, Floats, Floats, Floats]:
    """Return true positives, false positives, false negatives and true negatives, shape (R,) each."""
    weights = _every_image_once(len(labels)) if weights is None else weights
    is_positive = labels == 1
    cells = [is_positive & called, ~is_positive & called, is_positive & ~called, ~is_positive & ~called]
    counts = weights @ np.stack(cells, axis=1).astype(np.float64)
    return counts[:, 0], counts[:, 1], counts[:, 2], counts[:, 3]


def tie_sums(labels: Ints, scores: Floats, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Return how many positives and how many negatives have each distinct score, highest score first.

    Returns:
        Two arrays of shape (R, distinct scores).
    """
    weights = _every_image_once(len(labels)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(scores)]
    taken = weights[:, order]
    positive = taken * labels[order]
    if len(starts) < len(scores):
        taken, positive = np.add.reduceat(taken, starts, axis=1), np.add.reduceat(positive, starts, axis=1)
    return positive, taken - positive


def bin_of(scores: Floats) -> Ints:
    """Return which of BINS equal-width bins each score lies in, 0 to BINS - 1; a bin has its lower edge."""
    return np.asarray(np.digitize(scores, np.arange(1, BINS) / BINS), dtype=np.int64)


def divide(numerator: Floats, denominator: Floats, undefined: float = np.nan) -> Floats:
    """Return the ratio, and `undefined` where the denominator is 0."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), undefined)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _every_image_once(count: int) -> Floats:
    return np.ones((1, count))
