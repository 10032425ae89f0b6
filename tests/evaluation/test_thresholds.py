import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.evaluation.thresholds import RULES, choose, choose_per_fold, decide


@st.composite
def validation(draw):
    count = draw(st.integers(2, 40))
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=count - 2, max_size=count - 2))])
    score = st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1))
    return labels, np.array(draw(st.lists(score, min_size=count, max_size=count)))


def rates(labels, scores, threshold):
    """Sensitivity and specificity, counted one by one."""
    called = scores >= threshold
    return called[labels == 1].mean(), (~called)[labels == 0].mean()


@settings(max_examples=200, deadline=None)
@given(validation())
def test_youden_has_the_highest_balanced_accuracy_of_all_thresholds(sample):
    labels, scores = sample
    threshold = choose("youden", labels, scores)
    best = max(np.mean(rates(labels, scores, cut)) for cut in [0.0, *scores, 2.0])
    assert np.mean(rates(labels, scores, threshold)) == pytest.approx(best)
    assert 0 <= threshold <= 1


@settings(max_examples=200, deadline=None)
@given(validation())
def test_fixed_sensitivity_is_reached_by_the_highest_threshold_that_can(sample):
    labels, scores = sample
    threshold = choose("sensitivity-0.90", labels, scores)
    assert rates(labels, scores, threshold)[0] >= 0.9 - 1e-9
    for cut in scores:
        if (scores >= cut).sum() < (scores >= threshold).sum():
            assert rates(labels, scores, cut)[0] < 0.9


def test_a_threshold_lies_midway_between_two_scores():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.9])
    assert choose("youden", labels, scores) == pytest.approx(0.5)
    assert choose("sensitivity-0.90", labels, scores) == pytest.approx(0.5)


def test_of_thresholds_as_good_the_lowest_is_taken():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.8, 0.6, 0.4, 0.2])  # 0.7 and 0.3 both reach 0.75
    assert choose("youden", labels, scores) == pytest.approx(0.3)


def test_neighbouring_floating_point_numbers_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1.0)
    threshold = choose("youden", np.array([0, 1]), np.array([low, high]))
    assert low < threshold <= high


@pytest.mark.parametrize("rule", RULES)
def test_constant_scores_call_every_image_positive(rule):
    labels, scores = np.array([0, 1, 0]), np.full(3, 0.4)
    assert (scores >= choose(rule, labels, scores)).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_without_both_classes_there_is_no_threshold(rule, labels):
    assert choose(rule, np.array(labels, dtype=int), np.linspace(0, 1, len(labels))) is None


def test_each_fold_decides_by_its_own_threshold():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.3, 0.5, 0.9])
    folds = np.array([0, 0, 1, 1])
    thresholds = choose_per_fold("youden", labels, scores, folds, 2)
    assert thresholds == pytest.approx([0.2, 0.7])
    assert decide(np.array([0.5, 0.5]), np.array([0, 1]), thresholds).tolist() == [True, False]
    assert decide(np.array([0.5]), np.array([0]), [0.2, None]) is None
