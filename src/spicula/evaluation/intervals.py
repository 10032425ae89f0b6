"""How sure a figure is: intervals by a bootstrap that draws whole patients, because a patient's images are alike."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spicula.evaluation.metrics import Floats, Ints

RESAMPLES = 2000
CONFIDENCE = 0.95

#: Drawn patients, or images, that are held at once: bounds memory, without any influence on the result.
_MOST_AT_ONCE = 4_000_000


def multiplicities(patients: int, resamples: int, seed: int, at_once: int) -> Iterator[Ints]:
    """Yield how often each patient is drawn, in blocks of resamples: shape (at most `at_once`, patients).

    A resample draws as many patients as there are, with replacement (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13). The same arguments give the same draws, which is what makes two models' resamples
    pairs; the size of the blocks makes no difference.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(patients, size=(count, patients), dtype=np.int64)
        drawn += np.arange(count, dtype=np.int64)[:, None] * patients
        yield np.bincount(drawn.ravel(), minlength=count * patients).reshape(count, patients).astype(np.int64)


def bootstrap(
    figures: Callable[[Floats], dict[str, Floats]], patients: Ints, resamples: int, seed: int
) -> dict[str, Floats]:
    """Evaluate figures in every resample of patients.

    Args:
        figures: takes weights of shape (R, N) and returns arrays of shape (R,) or (R, ...).
        patients: each image's patient, 0 to P - 1, shape (N,).
        resamples: how many resamples.
        seed: of the draws.

    Returns:
        What `figures` returns, over all resamples.
    """
    count = int(patients.max()) + 1
    at_once = max(1, min(resamples, _MOST_AT_ONCE // max(len(patients), count)))
    blocks = [
        figures(drawn[:, patients].astype(np.float64)) for drawn in multiplicities(count, resamples, seed, at_once)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def figure(value: float, samples: Floats, patients: int, undefined: str = "") -> dict[str, Any]:
    """Return a figure with its percentile interval, as it stands in `metrics.json`.

    Resamples in which the figure is not defined (one class only, most often) are left out and counted. Where that
    is more than half of them, or there is one patient alone, there is no interval.

    Args:
        value: the figure itself; NaN where it is not defined.
        samples: its values in the resamples, NaN where not defined, shape (R,).
        patients: how many patients were drawn from.
        undefined: why the value is not defined.

    Returns:
        "value", "low", "high" (numbers, or None); "reason" where one is None; "skipped" where resamples were left out.
    """
    if np.isnan(value):
        return {"value": None, "low": None, "high": None, "reason": undefined or "not defined"}
    entry: dict[str, Any] = {"value": float(value), "low": None, "high": None}
    if patients < 2:
        return {**entry, "reason": "one patient only: there is nothing to resample"}
    defined = samples[~np.isnan(samples)]
    skipped = len(samples) - len(defined)
    if skipped:
        entry["skipped"] = skipped
    if 2 * len(defined) < len(samples):
        return {**entry, "reason": f"defined in only {len(defined)} of {len(samples)} resamples of patients"}
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {**entry, "low": float(low), "high": float(high)}
