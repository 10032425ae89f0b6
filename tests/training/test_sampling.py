import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.training.sampling import class_weights, epoch_order, split_batches

TARGETS = np.array([0] * 90 + [1] * 10)


@pytest.mark.parametrize("imbalance", ["none", "loss"])
def test_every_image_once_in_another_order_each_epoch(imbalance):
    first, second = (epoch_order(TARGETS, 1, imbalance, 0, epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(100))


def test_copies_show_every_variant_of_every_image():
    order = epoch_order(TARGETS, 3, "none", 0, 0)
    assert sorted(order) == list(range(300))


def test_the_sampler_draws_classes_alike():
    order = epoch_order(TARGETS, 20, "sampler", 0, 0)
    assert len(order) == 2000
    assert 0.45 < TARGETS[order % 100].mean() < 0.55


def test_undersampling_takes_all_of_the_smaller_class_and_others_of_the_larger_each_epoch():
    first, second = (epoch_order(TARGETS, 1, "undersample", 0, epoch) for epoch in (0, 1))
    for order in (first, second):
        assert len(set(order)) == len(order) == 20
        assert sorted(order[order >= 90]) == list(range(90, 100))
    assert set(first[first < 90]) != set(second[second < 90])


@pytest.mark.parametrize("imbalance", ["none", "sampler", "undersample"])
def test_seed_and_epoch_decide_the_order(imbalance):
    orders = {
        tuple(epoch_order(TARGETS, 1, imbalance, seed, epoch)) for seed in (0, 1) for epoch in (0, 1) for _ in range(2)
    }
    assert len(orders) == 4


@given(count=st.integers(1, 200), batch=st.integers(1, 50))
def test_batches_hold_everything_in_order_and_none_has_one_image_beside_others(count, batch):
    batches = split_batches(np.arange(count), batch)
    assert np.concatenate(batches).tolist() == list(range(count))
    assert max(len(one) for one in batches) <= batch + 1
    if batch > 1 and count > 1:
        assert min(len(one) for one in batches) > 1


def test_weights_of_the_loss_balance_the_classes():
    weights = class_weights(TARGETS, 2, "loss")
    assert weights == pytest.approx([100 / 180, 100 / 20])
    assert weights[TARGETS].mean() == pytest.approx(1)
    assert class_weights(TARGETS, 2, "sampler").tolist() == [1, 1]
