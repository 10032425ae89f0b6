import numpy as np
import pytest

from spicula.evaluation import metrics
from spicula.evaluation.intervals import bootstrap, figure, multiplicities


def test_every_resample_draws_as_many_patients_as_there_are():
    drawn = np.concatenate(list(multiplicities(patients=7, resamples=500, seed=0, at_once=64)))
    assert drawn.shape == (500, 7)
    assert (drawn.sum(axis=1) == 7).all()
    assert abs(drawn.mean() - 1) < 1e-12
    assert drawn.var() == pytest.approx(1 - 1 / 7, rel=0.1)  # multinomial


def test_the_size_of_the_blocks_makes_no_difference_and_the_seed_does():
    at_once = [np.concatenate(list(multiplicities(11, 50, 3, size))) for size in (1, 7, 50)]
    assert np.array_equal(at_once[0], at_once[1])
    assert np.array_equal(at_once[0], at_once[2])
    assert not np.array_equal(at_once[0], np.concatenate(list(multiplicities(11, 50, 4, 50))))


def accuracy(correct):
    return lambda weights: {"accuracy": weights @ correct / weights.sum(axis=1)}


def test_the_spread_of_independent_images_is_the_binomial_one():
    correct = np.repeat([1.0, 0.0], [150, 50])
    samples = bootstrap(accuracy(correct), np.arange(200), resamples=4000, seed=0)["accuracy"]
    assert samples.std() == pytest.approx(np.sqrt(0.75 * 0.25 / 200), rel=0.05)
    entry = figure(0.75, samples, patients=200)
    assert entry["low"] == pytest.approx(0.75 - 1.96 * 0.0306, abs=0.01)
    assert entry["high"] == pytest.approx(0.75 + 1.96 * 0.0306, abs=0.01)


def test_patients_whose_images_are_all_alike_make_the_interval_as_wide_as_if_they_had_one_each():
    correct = np.repeat([1.0, 0.0], [150, 50])
    patients = np.arange(200) // 10  # 20 patients, 15 of them with all images right
    samples = bootstrap(accuracy(correct), patients, resamples=4000, seed=0)["accuracy"]
    assert samples.std() == pytest.approx(np.sqrt(0.75 * 0.25 / 20), rel=0.05)


def test_resamples_are_those_of_the_images_copied_as_often_as_their_patient_was_drawn():
    rng = np.random.default_rng(0)
    labels, scores, patients = rng.integers(0, 2, 40), rng.random(40), np.r_[np.arange(8), rng.integers(0, 8, 32)]
    found = bootstrap(lambda weights: metrics.ranking(labels, scores, weights), patients, 20, seed=5)["auc"]
    drawn = next(multiplicities(8, 20, 5, 20))
    for row in range(20):
        copies = np.repeat(np.arange(40), drawn[row][patients])
        assert found[row] == pytest.approx(metrics.auc(labels[copies], scores[copies])[0], nan_ok=True)


def test_undefined_resamples_are_left_out_and_counted():
    samples = np.r_[np.linspace(0.4, 0.6, 80), np.full(20, np.nan)]
    entry = figure(0.5, samples, patients=9)
    assert entry == {"value": 0.5, "low": pytest.approx(0.405), "high": pytest.approx(0.595), "skipped": 20}


def test_an_interval_of_too_few_resamples_is_none():
    entry = figure(0.5, np.r_[np.full(40, 0.5), np.full(60, np.nan)], patients=3)
    assert (entry["value"], entry["low"], entry["high"], entry["skipped"]) == (0.5, None, None, 60)
    assert entry["reason"] == "defined in only 40 of 100 resamples of patients"


def test_one_patient_alone_has_a_value_and_no_interval():
    entry = figure(0.5, np.full(100, 0.5), patients=1)
    assert entry["value"] == 0.5
    assert entry["low"] is entry["high"] is None
    assert "one patient" in entry["reason"]


def test_an_undefined_value_says_why():
    assert figure(np.nan, np.full(9, np.nan), 5, "no positive among the 5") == {
        "value": None, "low": None, "high": None, "reason": "no positive among the 5",
    }  # fmt: skip
