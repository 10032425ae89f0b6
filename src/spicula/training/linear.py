"""Training the classical baseline: features, standardisation, a linear classifier."""

import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from spicula import files
from spicula.errors import UsageError
from spicula.imaging.store import Store
from spicula.models import features
from spicula.models.linear import LinearModel
from spicula.models.settings import FeatureSettings, LinearSettings
from spicula.progress import progress, say
from spicula.training import runs
from spicula.training.data import Part
from spicula.training.runs import Job, Outcome
from spicula.training.ticks import by_image

#: Iterations of the solvers, which need some hundred.
_ITERATIONS = 5000
_BATCH = 64
_CACHE = "features"

Features = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Folds = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


def fit(job: Job) -> Outcome:
    """Train the baseline on the training side alone, and score validation and test images.

    C is chosen by the AUC of decision values that are out of fold, in a cross-validation that keeps a patient's
    images together; of equal ones, the smallest, which regularises most.

    Raises:
        UsageError: images are too small for the features, or the training side has too few patients.
    """
    settings = job.settings
    assert isinstance(settings, LinearSettings)
    start = time.perf_counter()
    train = job.parts["train"]
    folds = _folds(train, settings, job.seed)
    values = _features(job, settings)
    aucs = {}
    for c in progress(sorted(settings.c_grid), f"{settings.name}: choosing C", "values"):
        aucs[c] = float(roc_auc_score(train.targets, _out_of_fold(values["train"], train, folds, settings, c)))
    chosen = max(aucs, key=lambda c: (aucs[c], -c))
    say(f"{settings.name}: C = {chosen:g}, AUC {aucs[chosen]:.3f} in {len(folds)} folds of the training side")
    model = _classifier(values["train"], train.targets, settings, chosen)
    if settings.classifier == "svm":
        out = _out_of_fold(values["train"], train, folds, settings, chosen)
        model = _calibrated(model, *platt(out, train.targets))
    model.save(job.run / runs.WEIGHTS)
    scores = {split: model.probabilities(values[split]) for split in ("val", "test") if len(job.parts[split])}
    facts: dict[str, Any] = {
        "parameters": len(model.coef) + 1,
        "seconds": time.perf_counter() - start,
        "images_per_second": None,
        "best_epoch": None,
        "device": "cpu",
        "precision": "float64",
        "chosen": {"C": chosen, "folds": len(folds), "auc_by_C": {f"{c:g}": auc for c, auc in aucs.items()}},
        "notes": [],
    }
    return Outcome(scores, facts)


def platt(decisions: Floats, targets: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Fit the logistic curve that turns decision values into probabilities.

    Platt 1999, "Probabilistic Outputs for Support Vector Machines", sections 2.2 and 2.3: the targets are not 0 and 1
    but 1 / (negatives + 2) and (positives + 1) / (positives + 2).

    Args:
        decisions: (N,) of images that the classifier was not trained on.
        targets: (N,) 0 or 1.

    Returns:
        Slope and offset: p = 1 / (1 + exp(-(slope x decision + offset))).
    """
    positive = int(targets.sum())
    negative = len(targets) - positive
    soft = np.where(targets == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(line: Floats) -> tuple[float, Floats]:
        logits = line[0] * decisions + line[1]
        gap = expit(logits) - soft
        value = (np.logaddexp(0, logits) - soft * logits).sum()
        return float(value), np.array([(gap * decisions).sum(), gap.sum()])

    start = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6 * len(targets)})
    return float(found.x[0]), float(found.x[1])


def _calibrated(model: LinearModel, slope: float, offset: float) -> LinearModel:
    return LinearModel(model.mean, model.scale, model.coef, model.intercept, slope, offset)


def _features(job: Job, settings: LinearSettings) -> dict[str, Features]:
    """Compute the features of all images, or take them from beside the run, where a sibling (a fold) left them."""
    ids = np.concatenate([np.asarray(part.image_ids, dtype=np.str_) for part in job.parts.values()])
    rows = np.concatenate([part.rows for part in job.parts.values()])
    order = np.argsort(ids)  # whichever side an image is on, its place is the same
    path = job.run.parent / _CACHE / f"{_cache_key(job, settings.features)}.npy"
    values = _read_cache(path, len(rows))
    if values is None:
        values = _compute(job.store, rows[order], settings)
        with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, values, allow_pickle=False)
    unsorted = np.empty_like(values)
    unsorted[order] = values
    ends = np.cumsum([len(part) for part in job.parts.values()])
    return dict(zip(job.parts, np.split(unsorted, ends[:-1]), strict=True))


def _compute(store: Store, rows: npt.NDArray[np.int64], settings: LinearSettings) -> Features:
    starts = range(0, len(rows), _BATCH)
    sizes = [min(_BATCH, len(rows) - at) for at in starts]
    return np.concatenate(
        [
            features.extract(store.read(rows[at : at + _BATCH]), settings.features)
            for at in by_image(starts, sizes, f"{settings.name}: features")
        ]
    )


def _read_cache(path: Path, count: int) -> Features | None:
    try:
        values: Features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if len(values) == count else None


def _cache_key(job: Job, settings: FeatureSettings) -> str:
    images = [
        [image_id, digest, frame, laterality]
        for part in job.parts.values()
        for image_id, digest, frame, laterality in zip(
            part.image_ids,
            part.digests,
            part.table["frame"].to_pylist(),
            part.table["laterality"].to_pylist(),
            strict=True,
        )
    ]
    return files.sha256_json(
        {
            "version": features.VERSION,
            "packages": {name: metadata.version(name) for name in ("numpy", "scikit-image")},
            "settings": settings.model_dump(mode="json"),
            "preprocess": job.store.preprocess.digest(),
            "images": sorted(images, key=lambda image: image[0]),
        }
    )


def _folds(train: Part, settings: LinearSettings, seed: int) -> Folds:
    """Cut the training side into as many folds as its patients allow, each with both classes left to train on."""
    patients = [len(set(train.patients[train.targets == one])) for one in (0, 1)]
    for count in range(min(settings.inner_folds, *patients), 1, -1):
        splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
        folds = list(splitter.split(np.zeros(len(train)), train.targets, train.patients))
        if all(len(np.unique(train.targets[inside])) == 2 for inside, _ in folds):
            return folds
    raise UsageError(
        f"{settings.name} chooses C by cross-validation, which needs two patients of each class on the training side; "
        f"it has {patients[0]} with negative and {patients[1]} with positive images"
    )


def _out_of_fold(values: Features, train: Part, folds: Folds, settings: LinearSettings, c: float) -> Floats:
    """(N,) decision values, each from a classifier that was trained without that patient."""
    decisions = np.empty(len(train))
    for inside, outside in folds:
        model = _classifier(values[inside], train.targets[inside], settings, c)
        decisions[outside] = model.decision(values[outside])
    return decisions


def _classifier(values: Features, targets: npt.NDArray[np.int64], settings: LinearSettings, c: float) -> LinearModel:
    scaler = StandardScaler()
    standardised = scaler.fit_transform(values.astype(np.float64))
    weights = "balanced" if settings.imbalance == "loss" else None
    if settings.classifier == "logistic":
        classifier = LogisticRegression(C=c, class_weight=weights, max_iter=_ITERATIONS)
    else:  # the primal problem: its solver has no random steps
        classifier = LinearSVC(C=c, class_weight=weights, max_iter=_ITERATIONS, dual=False)
    # one thread: these problems are small, and threads that wait for each other made them up to fifty times slower
    with threadpool_limits(1), warnings.catch_warnings():
        # a weak regularisation that converges slowly loses the comparison of C, or is close enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(standardised, targets)
    return LinearModel(scaler.mean_, scaler.scale_, classifier.coef_[0], float(classifier.intercept_[0]))
