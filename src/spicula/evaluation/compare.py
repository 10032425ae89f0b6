"""Is one model better than another? Paired resamples of patients, and DeLong's test, also with patients as clusters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from spicula.evaluation.intervals import figure
from spicula.evaluation.metrics import Floats, Ints


def paired_difference(
    value: float, samples: Floats, patients: int, undefined: str = ""
) -> tuple[dict[str, Any], float | None]:
    """Return the difference of two models with its interval, and the two-sided bootstrap p-value.

    The p-value is twice the smaller share of resamples on one side of no difference, each share with one added to
    count and total so that it is never 0 (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    sections 4.2 and 5.4): the confidence level at which the percentile interval would just touch 0.

    Args:
        value: the difference of the two models' figures; NaN where it is not defined.
        samples: the same difference in every resample, both models in the same resample, shape (R,).
        patients: how many patients were drawn from.
        undefined: why the value is not defined.

    Returns:
        An entry as of `intervals.figure`, and p (None where there is no interval).
    """
    entry = figure(value, samples, patients, undefined)
    if entry["low"] is None:
        return entry, None
    defined = samples[~np.isnan(samples)]
    below, above = ((np.count_nonzero(side) + 1) / (len(defined) + 1) for side in (defined <= 0, defined >= 0))
    return entry, float(min(1.0, 2 * min(below, above)))


def placements(labels: Ints, scores: Floats) -> tuple[Floats, Floats]:
    """Return each positive's and each negative's share of the area under the ROC curve (DeLong's components).

    A positive's is the share of negatives with a lower score, a negative's the share of positives with a higher
    one, ties counting half. Computed from midranks in O(N log N) (Sun and Xu, IEEE Signal Processing Letters
    21:1389-1393, 2014).

    Returns:
        Shape (positives,) and shape (negatives,), in the order of the images.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    ranks = rankdata(np.r_[positive, negative])
    above = (ranks[: len(positive)] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[len(positive) :] - rankdata(negative)) / len(positive)
    return above, below


def delong(labels: Ints, scores: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return the areas under the ROC curves of several models on the same images, and their covariance.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837-845, 1988. Images are taken as independent.

    Args:
        labels: 0 or 1, both present at least twice, shape (N,).
        scores: one array of shape (N,) a model.

    Returns:
        Shape (models,) and shape (models, models).
    """
    parts = [placements(labels, one) for one in scores]
    above, below = (np.stack([part[side] for part in parts]) for side in (0, 1))
    covariance = np.cov(above, ddof=1) / above.shape[1] + np.cov(below, ddof=1) / below.shape[1]
    return above.mean(axis=1), np.atleast_2d(covariance)


def delong_clustered(labels: Ints, scores: Sequence[Floats], clusters: Ints) -> tuple[Floats, Floats]:
    """Return the same, with images of one patient correlated in whatever way.

    Obuchowski, Biometrics 53:567-578, 1997. With one image a patient it is DeLong's.

    Args:
        labels: 0 or 1, each in at least two clusters, shape (N,).
        scores: one array of shape (N,) a model.
        clusters: each image's patient, 0 to patients - 1, shape (N,).

    Returns:
        Shape (models,) and shape (models, models).
    """
    parts = [placements(labels, one) for one in scores]
    areas = np.array([above.mean() for above, _ in parts])
    is_positive, patients = labels == 1, int(clusters.max()) + 1
    # deviations from the area, summed over each patient's positives and negatives: shape (models, patients) each
    sums = [
        np.stack(
            [
                np.bincount(clusters[chosen], part[side] - area, patients)
                for part, area in zip(parts, areas, strict=True)
            ]
        )
        for side, chosen in ((0, is_positive), (1, ~is_positive))
    ]
    totals, terms = [], []
    for of_side, chosen in zip(sums, (is_positive, ~is_positive), strict=True):
        with_one = len(np.unique(clusters[chosen]))
        totals.append(int(chosen.sum()))
        terms.append(of_side @ of_side.T * with_one / ((with_one - 1) * totals[-1]))
    all_patients = len(np.unique(clusters))
    between = sums[0] @ sums[1].T * all_patients / (all_patients - 1)
    covariance = terms[0] / totals[0] + terms[1] / totals[1] + (between + between.T) / (totals[0] * totals[1])
    return areas, covariance


def p_of_difference(areas: Floats, covariance: Floats) -> float | None:
    """Return the two-sided p-value that two areas differ; None where the variance of the difference is 0."""
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if not variance > 1e-14:
        return None
    return float(2 * norm.sf(abs(areas[0] - areas[1]) / np.sqrt(variance)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for how many comparisons there are (Holm, Scand J Statist 6:65-70, 1979).

    The smallest is multiplied by their number, the next by one less, and so on, never falling; those that are None
    stay None and do not count.
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    so_far = 0.0
    for rank, (p, at) in enumerate(known):
        so_far = max(so_far, min(1.0, p * (len(known) - rank)))
        corrected[at] = so_far
    return corrected
