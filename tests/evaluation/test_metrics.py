import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from spicula.evaluation import metrics


@st.composite
def samples(draw):
    """Labels of both classes, scores with many ties, and weights (at least one of each class drawn)."""
    count = draw(st.integers(2, 30))
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=count - 2, max_size=count - 2))])
    values = draw(st.sampled_from([[0.0, 0.25, 0.5, 1.0], list(np.linspace(0, 1, 21)), [0.3]]))
    scores = np.array(draw(st.lists(st.sampled_from(values), min_size=count, max_size=count)))
    weights = np.array(draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)), dtype=float)
    weights[:2] += 1
    return labels, scores, weights


@settings(max_examples=150, deadline=None)
@given(samples())
def test_score_figures_agree_with_scikit_learn_with_ties_and_weights(sample):
    labels, scores, weights = sample
    found = {
        **metrics.ranking(labels, scores, weights[None]),
        **metrics.probability(labels, scores, weights[None]),
    }
    assert tuple(found) == metrics.SCORE_METRICS
    assert found["auc"][0] == pytest.approx(sk.roc_auc_score(labels, scores, sample_weight=weights))
    assert metrics.auc(labels, scores, weights[None])[0] == found["auc"][0]
    assert found["average_precision"][0] == pytest.approx(
        sk.average_precision_score(labels, scores, sample_weight=weights)
    )
    assert found["brier"][0] == pytest.approx(sk.brier_score_loss(labels, scores, sample_weight=weights))


@settings(max_examples=150, deadline=None)
@given(samples(), st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_decision_figures_agree_with_scikit_learn(sample, threshold):
    labels, scores, weights = sample
    called = scores >= threshold
    found = {name: values[0] for name, values in metrics.decisions(labels, called, weights[None]).items()}
    assert tuple(found) == metrics.DECISION_METRICS
    given_weights = {"sample_weight": weights}
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, called, **given_weights))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, called, **given_weights))
    assert found["sensitivity"] == pytest.approx(sk.recall_score(labels, called, **given_weights))
    assert found["specificity"] == pytest.approx(sk.recall_score(1 - labels, ~called, **given_weights))
    assert found["f1"] == pytest.approx(sk.f1_score(labels, called, zero_division=0, **given_weights))
    if weights[called].sum():
        assert found["precision"] == pytest.approx(sk.precision_score(labels, called, **given_weights))
    else:
        assert np.isnan(found["precision"])
    tn, fp, fn, tp = sk.confusion_matrix(labels, called, labels=[0, 1], **given_weights).ravel()
    assert tuple(cell[0] for cell in metrics.confusion(labels, called, weights[None])) == (tp, fp, fn, tn)


@settings(max_examples=100, deadline=None)
@given(samples())
def test_calibration_error_is_the_weighted_gap_of_each_bin(sample):
    labels, scores, weights = sample
    expected = 0.0
    for number in range(metrics.BINS):
        last = number == metrics.BINS - 1
        inside = (scores >= number / 10) & ((scores < (number + 1) / 10) | last)
        if weights[inside].sum():
            gap = np.average(labels[inside], weights=weights[inside]) - np.average(
                scores[inside], weights=weights[inside]
            )
            expected += abs(gap) * weights[inside].sum() / weights.sum()
    found = metrics.probability(labels, scores, weights[None])["calibration_error"][0]
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(samples(), st.integers(0, 10))
def test_a_weight_is_the_same_as_so_many_copies(sample, seed):
    labels, scores, _ = sample
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(labels))).astype(float)
    weights[:, :2] += 1
    called = scores >= 0.5
    together = {
        **metrics.ranking(labels, scores, weights),
        **metrics.probability(labels, scores, weights),
        **metrics.decisions(labels, called, weights),
    }
    for row, counts in enumerate(weights.astype(int)):
        copies = [np.repeat(values, counts) for values in (labels, scores, called)]
        alone = {
            **metrics.ranking(*copies[:2]),
            **metrics.probability(*copies[:2]),
            **metrics.decisions(copies[0], copies[2]),
        }
        for name, values in alone.items():
            assert together[name][row] == pytest.approx(values[0], nan_ok=True), name


def test_what_is_not_defined_is_nan_and_nothing_else_is():
    ones, scores = np.ones(3, dtype=int), np.array([0.2, 0.4, 0.9])
    assert np.isnan(metrics.ranking(ones, scores)["auc"][0])
    assert metrics.ranking(ones, scores)["average_precision"][0] == 1.0
    assert np.isnan(metrics.ranking(1 - ones, scores)["average_precision"][0])
    found = metrics.decisions(ones, np.zeros(3, dtype=bool))
    assert {name for name, value in found.items() if np.isnan(value[0])} == {
        "balanced_accuracy", "specificity", "precision",
    }  # fmt: skip
    assert found["f1"][0] == 0.0
    assert np.isnan(metrics.decisions(1 - ones, np.zeros(3, dtype=bool))["f1"][0])


def test_a_resample_without_one_class_is_nan_beside_others_that_are_not():
    labels, scores = np.array([0, 0, 1]), np.array([0.1, 0.8, 0.6])
    weights = np.array([[1.0, 1, 1], [2, 1, 0], [0, 0, 3], [3, 0, 1]])
    assert metrics.auc(labels, scores, weights) == pytest.approx([0.5, np.nan, np.nan, 1.0], nan_ok=True)


def test_constant_scores_are_no_better_than_chance():
    labels = np.array([0, 1, 1, 0])
    assert metrics.auc(labels, np.full(4, 0.7))[0] == 0.5


@pytest.mark.parametrize(("score", "number"), [(0.0, 0), (0.1, 1), (0.3, 3), (0.7, 7), (0.999, 9), (1.0, 9)])
def test_a_bin_has_its_lower_edge_and_the_last_one_both(score, number):
    assert metrics.bin_of(np.array([score]))[0] == number
