"""The report's tables: what data there are, and what each model is, counted and read from the Index and the runs."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from spicula.errors import SpiculaError

_SIDES = {"train": "Training", "val": "Validation", "test": "Test"}
UNUSED = "Not used"


@dataclass(frozen=True)
class Side:
    """One row of the table of data: a side of the split, or a fold.

    Attributes:
        name: "Training", "Validation", "Test", "Fold 0", "Not used", "All".
        patients: how many; images without a patient_id count as one each.
        patients_positive: those with at least one positive image.
        images: how many.
        negative: images of target 0.
        positive: images of target 1.
        labels: images by the dataset's own label.
    """

    name: str
    patients: int
    patients_positive: int
    images: int
    negative: int
    positive: int
    labels: Mapping[str, int]


def sides(index: pa.Table) -> list[Side]:
    """Return the counts by side of the split (by fold, where there are folds), and of all, from an Index."""
    rows = index.select(["image_id", "patient_id", "label", "target", "split", "fold"]).to_pylist()
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_side(row), []).append(row)
    folds = sorted({row["fold"] for row in rows if row["fold"] is not None})
    order = [*_SIDES.values(), *(_fold_name(fold) for fold in folds), UNUSED]
    return [_count(name, groups[name]) for name in order if name in groups] + [_count("All", rows)]


def images_per_patient(index: pa.Table) -> tuple[int, float, int] | None:
    """Return the least, the mean and the largest number of images a patient has; None where no patient is known."""
    counts = Counter(patient for patient in index["patient_id"].to_pylist() if patient is not None)
    if not counts:
        return None
    return min(counts.values()), sum(counts.values()) / len(counts), max(counts.values())


def _side(row: Mapping[str, Any]) -> str:
    if row["target"] is None:
        return UNUSED
    if row["fold"] is not None:
        return _fold_name(row["fold"])
    return _SIDES.get(row["split"], UNUSED)


def _patient(row: Mapping[str, Any]) -> tuple[str, str]:
    """Who an image is of; without a patient_id it counts as a patient of its own."""
    known = row["patient_id"] is not None
    return ("patient", row["patient_id"]) if known else ("image", row["image_id"])


def _fold_name(fold: int) -> str:
    return f"Fold {fold}"


def _count(name: str, rows: Sequence[Mapping[str, Any]]) -> Side:
    targets = Counter(row["target"] for row in rows)
    return Side(
        name=name,
        patients=len({_patient(row) for row in rows}),
        patients_positive=len({_patient(row) for row in rows if row["target"] == 1}),
        images=len(rows),
        negative=targets[0],
        positive=targets[1],
        labels=Counter(row["label"] if row["label"] is not None else "no label" for row in rows),
    )


@dataclass(frozen=True)
class ModelCard:
    """What one model is and how it was made, over its folds.

    Attributes:
        name: in the recipe.
        line: "linear", "cnn", "timm:...".
        description: in a sentence.
        runs: its `run.json`, one a fold.
        epochs: the lines of its `epochs.jsonl`, one list a fold; empty lists for a model without epochs.
        notes: what the training chose: regularisation, best epoch.
    """

    name: str
    line: str
    description: str
    runs: tuple[Mapping[str, Any], ...]
    epochs: tuple[tuple[Mapping[str, Any], ...], ...]
    notes: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings, the same in every fold; of a weights file only its name, for its folder is nobody's concern."""
        settings = dict(self.runs[0].get("settings") or {})
        if settings.get("weights"):
            settings["weights"] = PurePath(settings["weights"]).name
        return settings

    @property
    def seconds(self) -> float | None:
        """Training time of all folds together."""
        return _sum(run.get("seconds") for run in self.runs)

    @property
    def images_per_second(self) -> float | None:
        """Mean over the folds."""
        rates = [run["images_per_second"] for run in self.runs if run.get("images_per_second")]
        return sum(rates) / len(rates) if rates else None


def model_card(name: str, folders: Sequence[Path]) -> ModelCard:
    """Read what a model is from its run folders, one a fold.

    Raises:
        SpiculaError: a folder holds no readable `run.json`.
    """
    runs = tuple(_read_run(folder) for folder in folders)
    if not runs:
        raise SpiculaError(f"no run of the model {name}; train it before reporting")
    line, settings = runs[0]["line"], runs[0].get("settings") or {}
    epochs = tuple(tuple(_read_epochs(folder / "epochs.jsonl")) for folder in folders)
    return ModelCard(name, line, _describe(line, settings), runs, epochs, _notes(runs))


def _read_run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpiculaError(f"{path} cannot be read as a run: {error}; train the model again") from error
    return run


def _read_epochs(path: Path) -> Iterable[Mapping[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield json.loads(line)


def _describe(line: str, settings: Mapping[str, Any]) -> str:
    if line == "linear":
        classifier = "linear support vector machine" if settings.get("classifier") == "svm" else "logistic regression"
        return f"Hand-crafted features of shape, texture and intensity, standardised; {classifier}"
    parts = ["Three convolution blocks (32, 64, 128 channels) and a dense layer of 128" if line == "cnn" else
             line.partition(":")[2]]  # fmt: skip
    if settings.get("weights"):
        source = "the library's hub" if settings["weights"] == "hub" else PurePath(settings["weights"]).name
        trained = {"all": "all layers trained", "head": "only the last layer trained"}
        train = settings.get("train", "all")
        parts += [f"pretrained, from {source}", trained.get(train, f"the head and the last {train} stages trained")]
    else:
        parts.append("trained from random weights")
    if settings.get("expand") == "rotate-flip":
        parts.append("every training image also rotated and flipped (three times the images)")
    if settings.get("augment", "none") != "none":
        parts.append("random changes of each training image")
    if settings.get("imbalance", "none") != "none":
        parts.append(f"imbalance met by {settings['imbalance']}")
    return "; ".join(parts)


def _notes(runs: Sequence[Mapping[str, Any]]) -> str:
    found = []
    best = [str(run["best_epoch"]) for run in runs if run.get("best_epoch") is not None]
    if best:
        found.append(f"best epoch {', '.join(best)}")
    chosen = [run.get("chosen") or {} for run in runs]
    keys = dict.fromkeys(key for one in chosen for key, value in one.items() if not isinstance(value, dict | list))
    found += [f"{key} {', '.join(dict.fromkeys(_plain(one.get(key)) for one in chosen))}" for key in keys]
    return "; ".join(found)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
