"""From a score to a decision: thresholds chosen on validation images, never on test images."""

from collections.abc import Sequence

import numpy as np

from spicula.evaluation.metrics import Bools, Floats, Ints, tie_sums

#: How a threshold is chosen, by the name it has in `metrics.json`.
RULES = ("youden", "sensitivity-0.90")
#: What the second rule asks for.
SENSITIVITY = 0.90


def choose(rule: str, labels: Ints, scores: Floats) -> float | None:
    """Choose a threshold on validation images; an image whose score is at least the threshold is called positive.

    "youden" has the highest balanced accuracy, which is the highest Youden index (Youden, Cancer 3:32-35, 1950); of
    several as good, the lowest, which finds more. "sensitivity-0.90" is the highest threshold that still finds
    at least SENSITIVITY of the positives. A threshold lies midway between two neighbouring scores, so that it does
    not hang on one image's last digit; the lowest one is 0 and calls every image positive.

    Args:
        rule: one of RULES.
        labels: 0 or 1, of validation images, shape (N,).
        scores: their scores, 0 to 1, shape (N,).

    Returns:
        0 to 1; None where the validation images have one class only.
    """
    positive, negative = (sums[0] for sums in tie_sums(labels, scores))
    if not positive.sum() or not negative.sum():
        return None
    sensitivity = np.cumsum(positive) / positive.sum()
    specificity = 1 - np.cumsum(negative) / negative.sum()
    cuts = _cuts(scores)
    if rule == "youden":
        merit = sensitivity + specificity
        # sums that differ by rounding alone are as good; the last is the lowest threshold
        return float(cuts[np.flatnonzero(merit >= merit.max() - 1e-12)[-1]])
    if rule == "sensitivity-0.90":
        return float(cuts[np.flatnonzero(sensitivity >= SENSITIVITY - 1e-12)[0]])
    raise ValueError(f"no rule {rule!r}; there are {', '.join(RULES)}")


def choose_per_fold(rule: str, labels: Ints, scores: Floats, folds: Ints, count: int) -> list[float | None]:
    """Choose one threshold a fold, each on that fold's own validation images.

    Args:
        rule: one of RULES.
        labels: of all folds' validation images, shape (N,).
        scores: shape (N,).
        folds: each image's fold, 0 to count - 1, shape (N,).
        count: the number of folds.
    """
    return [choose(rule, labels[folds == fold], scores[folds == fold]) for fold in range(count)]


def decide(scores: Floats, folds: Ints, thresholds: Sequence[float | None]) -> Bools | None:
    """Return which images are called positive, each at its own fold's threshold; None where one is missing."""
    known = [threshold for threshold in thresholds if threshold is not None]
    if len(known) < len(thresholds):
        return None
    return np.asarray(scores >= np.array(known)[folds], dtype=np.bool_)


def _cuts(scores: Floats) -> Floats:
    """Return, for each distinct score from the highest, a threshold that lets it and all above it pass."""
    distinct = np.unique(scores)[::-1]
    below = distinct[1:]
    middle = (distinct[:-1] + below) / 2
    # between neighbouring floats there is no middle: it would round down onto the lower score
    return np.append(np.where(middle > below, middle, distinct[:-1]), 0.0)
