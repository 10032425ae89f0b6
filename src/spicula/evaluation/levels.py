"""From images to what is decided about: the patient, the exam, the breast. The mean or the highest of their images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spicula.errors import SpiculaError
from spicula.evaluation.metrics import Floats, Ints

#: What images are put together to, and how their scores are. The label is 1 where any image's is.
GROUPS = ("patient", "exam", "breast")
MERGES = ("mean", "max")


@dataclass(frozen=True)
class Scored:
    """One model's scores on one side, at one level, in an order that is the same for every model.

    Attributes:
        rows: positions in the Index; at a level above the image, of the first image of each, shape (N,).
        labels: 0 or 1, shape (N,).
        scores: 0 to 1, shape (N,).
        folds: 0 to folds - 1, all 0 without folds, shape (N,).
        patients: 0 to patients - 1, shape (N,). An image without a patient_id counts as a patient of its own.
        keys: for each of GROUPS, which patient, exam or breast an image belongs to, shape (N,); None where the Index
            does not say it for every image.
    """

    rows: Ints
    labels: Ints
    scores: Floats
    folds: Ints
    patients: Ints
    keys: dict[str, npt.NDArray[np.int64] | None]

    @property
    def count(self) -> int:
        """How many patients there are."""
        return int(self.patients.max()) + 1 if len(self.patients) else 0

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Scored":
        """Return the chosen ones (a mask), their patients numbered anew."""
        return Scored(
            self.rows[chosen],
            self.labels[chosen],
            self.scores[chosen],
            self.folds[chosen],
            _numbered(self.patients[chosen].tolist()),
            {group: None if key is None else key[chosen] for group, key in self.keys.items()},
        )


def scored(index: pa.Table, predictions: pa.Table, split: str, model: str) -> Scored:
    """Match a model's predictions on one side with the Index, in order of fold and image_id.

    Args:
        index: the Index that the model was trained from.
        predictions: Predictions of the model, of every fold.
        split: "val" or "test".
        model: its name, for errors.

    Raises:
        SpiculaError: an image is not in the Index, has no target or another one, stands on another side, or has two
            predictions of the same fold.
    """
    chosen = predictions.filter(pc.equal(predictions["split"], split))
    folds = [0 if fold is None else fold for fold in chosen["fold"].to_pylist()]
    ids = chosen["id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda at: (folds[at], ids[at]))
    ids, folds = [ids[at] for at in order], [folds[at] for at in order]
    chosen = chosen.take(pa.array(order, type=pa.int64()))
    position = {image: row for row, image in enumerate(index["image_id"].to_pylist())}
    _refuse_unknown(ids, folds, position, split, model)
    rows = np.array([position[image] for image in ids], dtype=np.int64)
    of_index = index.take(pa.array(rows))
    labels = of_index["target"].to_pylist()
    _refuse_others(chosen, of_index, split, model)
    patients = [
        ("image", image) if patient is None else ("patient", patient)
        for image, patient in zip(ids, of_index["patient_id"].to_pylist(), strict=True)
    ]
    return Scored(
        rows,
        np.array(labels, dtype=np.int64),
        np.array(chosen["score"].to_pylist(), dtype=np.float64),
        np.array(folds, dtype=np.int64),
        _numbered(patients),
        _group_keys(patients, of_index),
    )


def one_fold(part: Scored, fold: int) -> Scored:
    """Return what is of one fold, as if there were no others: numbered 0."""
    chosen = part.where(part.folds == fold)
    return replace(chosen, folds=np.zeros_like(chosen.folds))


def levels_of(parts: Sequence[Scored]) -> list[str]:
    """Return the levels that parts of an Index can be judged at, "image" first.

    Images and patients always; exams where every image has an exam_id and some patient has several exams; breasts
    where every image has a laterality. A level that has the same members as one before it is left out, but for
    the patient, which is asked for most.
    """
    test = parts[0]
    levels, sizes = ["image"], {len(test.rows)}
    for group in GROUPS:
        if any(part.keys[group] is None for part in parts):
            continue
        size = len(at_level(test, f"{group}-mean").rows)
        if group == "patient" or size not in sizes:
            levels += [f"{group}-{merge}" for merge in MERGES]
        sizes.add(size)
    return levels


def at_level(part: Scored, level: str) -> Scored:
    """Return the same at another level: one member a patient, exam or breast (and fold), with its images' labels.

    Args:
        part: at image level.
        level: "image", or one of GROUPS and one of MERGES with a hyphen: "patient-mean".
    """
    if level == "image":
        return part
    group, merge = level.split("-")
    key = part.keys[group]
    if key is None:
        raise ValueError(f"not every image has a {group}")
    if not len(key):
        return part
    members = part.folds * (key.max() + 1) + key
    _, first, of = np.unique(members, return_index=True, return_inverse=True)
    labels = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(labels, of, part.labels)
    if merge == "mean":
        scores = np.bincount(of, part.scores) / np.bincount(of)
        scores = np.clip(scores, 0.0, 1.0)  # a mean of ones may round to just above 1
    else:
        scores = np.zeros(len(first))
        np.maximum.at(scores, of, part.scores)
    return replace(
        part,
        rows=part.rows[first],
        labels=labels,
        scores=scores,
        folds=part.folds[first],
        patients=part.patients[first],
        keys={name: None if values is None else values[first] for name, values in part.keys.items()},
    )


def _group_keys(patients: Sequence[tuple[str, str]], of_index: pa.Table) -> dict[str, Ints | None]:
    exams, sides = of_index["exam_id"].to_pylist(), of_index["laterality"].to_pylist()
    return {
        "patient": _numbered(patients),
        "exam": None if None in exams else _numbered(list(zip(patients, exams, strict=True))),
        "breast": None
        if None in sides
        else _numbered([(*key, exam or "", side) for key, exam, side in zip(patients, exams, sides, strict=True)]),
    }


def _numbered(values: Iterable[Any]) -> Ints:
    """Return each value's place among the sorted distinct ones."""
    listed = list(values)
    place = {value: at for at, value in enumerate(sorted(set(listed)))}
    return np.array([place[value] for value in listed], dtype=np.int64)


def _refuse_unknown(ids: Sequence[str], folds: Sequence[int], position: dict[str, int], split: str, model: str) -> None:
    for image in ids:
        if image not in position:
            raise SpiculaError(f"model {model} has a prediction of image {image}, which the Index does not have")
    seen: set[tuple[int, str]] = set()
    for image, fold in zip(ids, folds, strict=True):
        # a test image is predicted once in all: by the one model that has not seen it
        key = (fold if split == "val" else 0, image)
        if key in seen:
            raise SpiculaError(f"model {model} has two {split} predictions of image {image}; keep one run a model")
        seen.add(key)


def _refuse_others(chosen: pa.Table, of_index: pa.Table, split: str, model: str) -> None:
    """Compare predictions with the rows of the Index that they belong to."""
    targets, splits, index_folds = (of_index[column].to_pylist() for column in ("target", "split", "fold"))
    images, labels, folds = (chosen[column].to_pylist() for column in ("id", "label", "fold"))
    for at, (image, label) in enumerate(zip(images, targets, strict=True)):
        if label is None:
            raise SpiculaError(f"image {image} has no target in the Index, so model {model} cannot be judged by it")
        if labels[at] not in (None, label):
            raise SpiculaError(
                f"image {image} has target {label} in the Index, but {labels[at]} in the predictions of {model}; "
                "train again, or give the Index that it was trained from"
            )
        if splits[at] not in (None, split):
            raise SpiculaError(
                f"image {image} is on the {splits[at]} side in the Index, but a {split} image for model {model}; "
                "train again, or give the Index that it was trained from"
            )
        if split == "test" and None not in (folds[at], index_folds[at]) and folds[at] != index_folds[at]:
            raise SpiculaError(
                f"image {image} is in fold {index_folds[at]} of the Index, but fold {folds[at]} tested it for {model}; "
                "train again, or give the Index that it was trained from"
            )
