"""Which test images the report shows: the most confident mistakes, and those that the networks explain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

#: Pictures of each kind of mistake, a model.
MISTAKES = 4
#: Images that all networks explain: found, missed, falsely alarmed, rightly passed.
EXPLAINED = {"found": 3, "missed": 2, "false alarm": 2, "passed": 2}


@dataclass(frozen=True)
class Called:
    """A test image and what a model made of it.

    Attributes:
        image_id: which image.
        label: the truth, 0 or 1.
        score: probability of the target, 0 to 1.
        kind: "missed" (false negative), "false alarm" (false positive), "found" or "passed" (rightly negative).
    """

    image_id: str
    label: int
    score: float
    kind: str


def called(predictions: pa.Table, thresholds: Sequence[float | None]) -> list[Called]:
    """Return each labelled test image with the model's verdict at its fold's threshold.

    Args:
        predictions: one model's Predictions.
        thresholds: chosen on validation, one a fold (or one in all); None where none could be chosen: images of that
            fold are left out, for no verdict was made.
    """
    found = []
    for row in predictions.select(["id", "label", "score", "split", "fold"]).to_pylist():
        if row["split"] != "test" or row["label"] is None:
            continue
        threshold = thresholds[row["fold"] if row["fold"] is not None and len(thresholds) > 1 else 0]
        if threshold is not None:
            found.append(Called(row["id"], row["label"], row["score"], _kind(row["label"], row["score"] >= threshold)))
    return found


def most_confident(images: Sequence[Called], kind: str, at_most: int = MISTAKES) -> list[Called]:
    """Return the images of one kind on which the model was surest, surest first; ties by image_id."""
    high = kind in ("false alarm", "found")
    chosen = [one for one in images if one.kind == kind]
    return sorted(chosen, key=lambda one: (-one.score if high else one.score, one.image_id))[:at_most]


def explained(verdicts: Mapping[str, Sequence[Called]]) -> list[tuple[str, str]]:
    """Return images that all networks explain side by side, chosen by the mean of their scores.

    Args:
        verdicts: by model, of the networks only: what `called` returned.

    Returns:
        Pairs of kind and image_id; the kind is what most of the networks made of it.
    """
    scores: dict[str, list[Called]] = {}
    for images in verdicts.values():
        for one in images:
            scores.setdefault(one.image_id, []).append(one)
    together = [_together(image_id, ones) for image_id, ones in scores.items() if len(ones) == len(verdicts)]
    return [
        (kind, one.image_id) for kind, at_most in EXPLAINED.items() for one in most_confident(together, kind, at_most)
    ]


def _together(image_id: str, ones: Sequence[Called]) -> Called:
    alarms = np.mean([one.kind in ("false alarm", "found") for one in ones])
    return Called(
        image_id, ones[0].label, float(np.mean([one.score for one in ones])), _kind(ones[0].label, bool(alarms > 0.5))
    )


def to_explain(predictions: Mapping[str, pa.Table], metrics: Mapping[str, Any]) -> list[str]:
    """Return the image_ids for which the report wants Grad-CAM maps of every network.

    Args:
        predictions: by model, of the networks only.
        metrics: what `evaluate()` returned.
    """
    verdicts = {name: called(table, image_thresholds(metrics, name)) for name, table in predictions.items()}
    wanted = [image_id for _, image_id in explained(verdicts)]
    for images in verdicts.values():
        wanted += [one.image_id for kind in ("missed", "false alarm") for one in most_confident(images, kind)]
    return list(dict.fromkeys(wanted))


def image_thresholds(metrics: Mapping[str, Any], model: str) -> Sequence[float | None]:
    """Return the thresholds on images of highest balanced accuracy on validation, one a fold."""
    thresholds: Sequence[float | None] = metrics["models"][model]["levels"]["image"]["thresholds"]["youden"]
    return thresholds or [None]


def _kind(label: int, alarm: bool) -> str:
    if label:
        return "found" if alarm else "missed"
    return "false alarm" if alarm else "passed"
