"""What a report is made of, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from spicula.catalog.types import Dataset
from spicula.evaluation.wording import Question
from spicula.imaging.store import Store


class NearDuplicate(NamedTuple):
    """Two images on different sides of the split that look alike.

    Attributes:
        first: image_id.
        second: image_id.
        distance: bits of 64 in which their perceptual hashes differ.
    """

    first: str
    second: str
    distance: int


@dataclass(frozen=True)
class ReportInput:
    """Everything a report is made of, as plain data.

    Attributes:
        title: of the study.
        question: what it asks, in a sentence or two; may be empty.
        dataset: the catalog's entry.
        synthetic: whether the images are phantoms: said wherever they are shown.
        classes: names of target 0 and target 1.
        index: the Index, with `split` or `fold` filled.
        rejected: files that could not be used (`spicula.index.REJECTED`).
        store: the preprocessed images.
        metrics: what `evaluate()` returned.
        predictions: by model, in the recipe's order: Predictions of validation and test, all folds.
        runs: by model: its run folders, one a fold, in order of the folds.
        recipe_text: the recipe, exactly as it was run.
        created: when; stands in the report.
        digests: what the figures follow from, by name ("Index", "split", "recipe", ...).
        versions: of the software, by name.
        questions: pairs of models to compare in words; empty: those that the models pose by themselves.
        split_unit: "patient", or "image" for a split that flatters.
        image_split_metrics: `evaluate()` on a split by image, to show how much it flatters; None: not asked for.
        near_duplicates: near-identical images on two sides.
        cams: by model, by image_id: Grad-CAM maps (H, W) in [0, 1] of the images that `mistakes.to_explain` lists.
    """

    title: str
    question: str
    dataset: Dataset
    synthetic: bool
    classes: tuple[str, str]
    index: pa.Table
    rejected: pa.Table
    store: Store
    metrics: Mapping[str, Any]
    predictions: Mapping[str, pa.Table]
    runs: Mapping[str, Sequence[Path]]
    recipe_text: str
    created: datetime
    digests: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    questions: Sequence[Question] = ()
    split_unit: str = "patient"
    image_split_metrics: Mapping[str, Any] | None = None
    near_duplicates: Sequence[NearDuplicate] = ()
    cams: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
