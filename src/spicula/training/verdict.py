"""What the epochs so far say: which was the best, whether to slow down, whether to stop. Decided from them alone.

Nothing else is remembered, so that a run which was interrupted decides as one that was not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The learning rate is multiplied by this when validation has not improved for a while.
PLATEAU_FACTOR = 0.1


@dataclass(frozen=True)
class Verdict:
    """Where a training run stands after some epochs.

    Attributes:
        best_epoch: whose weights are kept: the highest AUC on validation, of equal ones the lowest loss; by loss alone
            where validation shows one class and has no AUC. From 1; None before the first.
        factor: of the learning rate in the next epoch.
        stop: there has been no better epoch for as long as one is waited for.
    """

    best_epoch: int | None
    factor: float
    stop: bool


def judge(epochs: Sequence[Mapping[str, Any]], patience: int, plateau_patience: int) -> Verdict:
    """Judge the epochs so far.

    Args:
        epochs: in order; of each, `epoch`, `val_auc` (None where it is not defined) and `val_loss`.
        patience: epochs without a better one after which training stops.
        plateau_patience: epochs without a better one after which the learning rate is cut; the wait then starts anew.
    """
    best: Mapping[str, Any] | None = None
    waited = since_cut = 0
    factor = 1.0
    for epoch in epochs:
        if best is None or _rank(epoch) > _rank(best):
            best, waited, since_cut = epoch, 0, 0
            continue
        waited += 1
        since_cut += 1
        if since_cut >= plateau_patience:
            factor *= PLATEAU_FACTOR
            since_cut = 0
    return Verdict(None if best is None else best["epoch"], factor, waited >= patience)


def _rank(epoch: Mapping[str, Any]) -> tuple[float, float]:
    auc = epoch["val_auc"]
    return (0.0 if auc is None else auc, -epoch["val_loss"])
