import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.evaluation import metrics
from spicula.evaluation.compare import delong, delong_clustered, holm, p_of_difference, paired_difference, placements
from spicula.evaluation.intervals import bootstrap

# Ratings of 109 CT images by one reader, from definitely normal to definitely abnormal: Hanley and McNeil, Radiology
# 143:29-36, 1982, table I.
NORMAL, ABNORMAL = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]


def test_delong_gives_the_published_area_error_and_limits():
    """The area is the paper's; its standard error and limits are Stata's for these ratings (roctab, DeLong)."""
    labels = np.repeat([0, 1], [sum(NORMAL), sum(ABNORMAL)])
    ratings = np.r_[np.repeat(range(1, 6), NORMAL), np.repeat(range(1, 6), ABNORMAL)].astype(float)
    areas, covariance = delong(labels, [ratings])
    error = float(np.sqrt(covariance[0, 0]))
    assert areas[0] == pytest.approx(0.8932, abs=5e-5)
    assert error == pytest.approx(0.0307, abs=5e-5)
    assert areas[0] - 1.959964 * error == pytest.approx(0.83295, abs=5e-6)
    assert areas[0] + 1.959964 * error == pytest.approx(0.95339, abs=5e-6)


def kernel(labels, scores):
    """The definition, pair by pair: 1 where the positive is higher, 1/2 where they tie."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    return np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive])


@st.composite
def paired_scores(draw):
    """Labels (at least two of each), two models' scores with ties, and patients."""
    count = draw(st.integers(4, 24))
    labels = np.array([0, 0, 1, 1, *draw(st.lists(st.integers(0, 1), min_size=count - 4, max_size=count - 4))])
    values = st.lists(st.sampled_from(np.linspace(0, 1, 7)), min_size=count, max_size=count).map(np.array)
    # the first four images are of four patients, so that either class has two
    more = draw(st.lists(st.integers(0, 5), min_size=count - 4, max_size=count - 4))
    return labels, draw(values), draw(values), np.array([0, 1, 2, 3, *more])


@settings(max_examples=100, deadline=None)
@given(paired_scores())
def test_placements_from_midranks_are_those_of_the_definition(sample):
    labels, scores, _, _ = sample
    above, below = placements(labels, scores)
    pairs = kernel(labels, scores)
    assert above == pytest.approx(pairs.mean(axis=1))
    assert below == pytest.approx(pairs.mean(axis=0))
    assert above.mean() == pytest.approx(metrics.auc(labels, scores)[0])


@settings(max_examples=100, deadline=None)
@given(paired_scores())
def test_delong_is_its_definition(sample):
    """Against DeLong's equations written out over all pairs of images."""
    labels, a, b, _ = sample
    areas, covariance = delong(labels, [a, b])
    pairs = [kernel(labels, scores) for scores in (a, b)]
    positives, negatives = pairs[0].shape
    for i in (0, 1):
        assert areas[i] == pytest.approx(pairs[i].mean())
        for j in (0, 1):
            rows = [pairs[k].mean(axis=1) - pairs[k].mean() for k in (i, j)]
            columns = [pairs[k].mean(axis=0) - pairs[k].mean() for k in (i, j)]
            expected = (rows[0] @ rows[1]) / (positives - 1) / positives
            expected += (columns[0] @ columns[1]) / (negatives - 1) / negatives
            assert covariance[i, j] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(paired_scores())
def test_clustered_delong_is_its_definition(sample):
    """Against Obuchowski's equations written out patient by patient."""
    labels, a, b, patients = sample
    patients = np.unique(patients, return_inverse=True)[1]
    areas, covariance = delong_clustered(labels, [a, b], patients)
    pairs = [kernel(labels, scores) for scores in (a, b)]
    of_positive, of_negative = patients[labels == 1], patients[labels == 0]
    deviations = []
    for k in (0, 1):
        above, below = pairs[k].mean(axis=1), pairs[k].mean(axis=0)
        deviations.append([
            (sum(above[of_positive == p]) - sum(of_positive == p) * areas[k],
             sum(below[of_negative == p]) - sum(of_negative == p) * areas[k])
            for p in range(patients.max() + 1)
        ])  # fmt: skip
    m, n = len(of_positive), len(of_negative)
    with_m, with_n, every = len(set(of_positive)), len(set(of_negative)), patients.max() + 1
    for i in (0, 1):
        for j in (0, 1):
            both = list(zip(deviations[i], deviations[j], strict=True))
            s10 = with_m / ((with_m - 1) * m) * sum(x[0] * y[0] for x, y in both)
            s01 = with_n / ((with_n - 1) * n) * sum(x[1] * y[1] for x, y in both)
            s11 = every / (every - 1) * sum(x[0] * y[1] for x, y in both)
            s11_turned = every / (every - 1) * sum(x[1] * y[0] for x, y in both)
            expected = s10 / m + s01 / n + (s11 + s11_turned) / (m * n)
            assert covariance[i, j] == pytest.approx(expected, abs=1e-12)


def test_with_one_image_a_patient_the_clustered_variance_is_delongs():
    labels, scores = np.repeat([1, 0], [41, 72]), np.random.default_rng(0).integers(0, 9, (2, 113)).astype(float)
    plain, clustered = (
        function(labels, list(scores), *more)
        for function, more in ((delong, ()), (delong_clustered, (np.arange(113),)))
    )
    assert clustered[0] == pytest.approx(plain[0])
    assert clustered[1] == pytest.approx(plain[1])


def test_the_clustered_variance_is_that_of_resampled_patients_and_the_plain_one_is_not():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(150), 8)
    labels = rng.integers(0, 2, len(patients))
    scores = labels * 0.8 + rng.normal(size=150)[patients] + 0.5 * rng.normal(size=len(patients))
    resampled = bootstrap(lambda weights: metrics.ranking(labels, scores, weights), patients, 1000, 0)["auc"].std()
    assert np.sqrt(delong_clustered(labels, [scores], patients)[1][0, 0]) == pytest.approx(resampled, rel=0.1)
    shared = np.repeat(rng.integers(0, 2, 150), 8)  # all images of a patient of one class
    scores = shared * 0.8 + rng.normal(size=150)[patients] + 0.5 * rng.normal(size=len(patients))
    resampled = bootstrap(lambda weights: metrics.ranking(shared, scores, weights), patients, 1000, 0)["auc"].std()
    assert np.sqrt(delong_clustered(shared, [scores], patients)[1][0, 0]) == pytest.approx(resampled, rel=0.1)
    assert np.sqrt(delong(shared, [scores])[1][0, 0]) < resampled / 2


def test_models_that_order_all_images_alike_have_no_p_value():
    labels, scores = np.array([0, 0, 1, 0, 1, 1]), np.array([1.0, 2.0, 2.0, 4.0, 5.0, 6.0])
    assert p_of_difference(*delong(labels, [scores, 3 * scores + 1])) is None


def test_a_difference_seen_in_every_resample_has_the_smallest_p_that_so_many_can_give():
    entry, p = paired_difference(0.2, np.linspace(0.1, 0.3, 999), patients=50)
    assert p == pytest.approx(2 / 1000)
    assert entry["low"] > 0


def test_no_difference_has_p_one():
    assert paired_difference(0.0, np.zeros(100), patients=50)[1] == 1.0
    assert paired_difference(0.0, np.linspace(-1, 1, 101), patients=50)[1] == 1.0


def test_the_p_value_is_two_sided():
    samples = np.r_[np.full(10, -0.1), np.full(989, 0.1)]
    assert paired_difference(0.08, samples, patients=50)[1] == pytest.approx(2 * 11 / 1000)
    assert paired_difference(-0.08, -samples, patients=50)[1] == pytest.approx(2 * 11 / 1000)


def test_an_undefined_difference_has_no_p_value_and_a_reason():
    entry, p = paired_difference(np.nan, np.full(10, np.nan), 5, "no negative among the 5")
    assert p is None
    assert entry["reason"] == "no negative among the 5"


def test_holm_corrects_step_by_step():
    assert holm([0.01, 0.04, 0.03, None]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
