import pytest

from spicula.training.verdict import judge


def epochs(*values):
    return [{"epoch": n, "val_auc": auc, "val_loss": loss} for n, (auc, loss) in enumerate(values, start=1)]


def test_before_the_first_epoch_nothing_is_decided():
    verdict = judge([], 3, 2)
    assert (verdict.best_epoch, verdict.factor, verdict.stop) == (None, 1.0, False)


def test_the_best_epoch_has_the_highest_auc_and_of_equal_ones_the_lowest_loss():
    assert judge(epochs((0.7, 1.0), (0.9, 2.0), (0.8, 0.1)), 9, 9).best_epoch == 2
    assert judge(epochs((0.9, 1.0), (0.9, 0.5), (0.9, 0.7)), 9, 9).best_epoch == 2
    assert judge(epochs((0.9, 0.5), (0.9, 0.5)), 9, 9).best_epoch == 1


def test_without_auc_the_loss_decides():
    assert judge(epochs((None, 1.0), (None, 0.4), (None, 0.6)), 9, 9).best_epoch == 2


def test_training_stops_after_patience_epochs_without_a_better_one():
    falling = epochs((0.9, 1), *[(0.8, 1)] * 5)
    assert [judge(falling[: n + 1], 3, 9).stop for n in range(6)] == [False, False, False, True, True, True]
    recovering = epochs((0.8, 1), (0.7, 1), (0.7, 1), (0.9, 1), (0.8, 1), (0.8, 1))
    assert not judge(recovering, 3, 9).stop


def test_the_learning_rate_is_cut_on_each_plateau_and_stays_cut():
    flat = epochs(*[(0.8, 1)] * 8)
    factors = [judge(flat[: n + 1], 99, 3).factor for n in range(8)]
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    better = [*flat[:4], {"epoch": 5, "val_auc": 0.9, "val_loss": 1}, {"epoch": 6, "val_auc": 0.8, "val_loss": 1}]
    assert judge(better, 99, 3).factor == pytest.approx(0.1)
