"""The report of a study: one HTML file that needs nothing else, to be read offline, printed and passed on."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup

import spicula
from spicula import files
from spicula.catalog.types import Dataset
from spicula.evaluation import sections, wording
from spicula.evaluation.wording import Question
from spicula.imaging.store import Store

_TEMPLATES = Path(__file__).parent / "templates"


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


def write_report(to: Path, data: ReportInput) -> None:
    """Write a study's report as one self-contained HTML file, atomically.

    Whatever text the data carry is escaped; the page loads nothing from anywhere and works without its script.

    Raises:
        SpiculaError: a run cannot be read, an image is not in the Store, or the file cannot be written.
    """
    files.write_text(to, render(data))


def render(data: ReportInput) -> str:
    """Return the report as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count, plural=wording.plural, level=wording.level_name, duration=wording.duration
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        data=data,
        notice=spicula.RESEARCH_NOTICE,
        version=spicula.__version__,
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        outline=_outline(data),
        **sections.assemble(data),
    )


def _outline(data: ReportInput) -> list[tuple[str, str]]:
    """The sections, for the navigation: id and name."""
    split = [("image-split", "Split by image")] if data.image_split_metrics is not None else []
    return [
        ("summary", "In short"),
        ("data", "The data"),
        ("models", "The models"),
        ("comparison", "Comparison"),
        *split,
        ("curves", "Curves and calibration"),
        ("confusion", "Confusion matrices"),
        ("training", "Training"),
        ("subgroups", "Subgroups"),
        ("mistakes", "Confident mistakes"),
        ("gradcam", "Grad-CAM"),
        ("checks", "Checks of the data"),
        ("recipe", "Recipe and digests"),
        ("reading", "How to read the figures"),
    ]
