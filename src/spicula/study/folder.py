"""The folder of a study: what stands where, and how it is read again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spicula import files, index, predictions, recipe
from spicula.errors import SpiculaError, UsageError
from spicula.imaging.store import Store, build_store
from spicula.recipe import Recipe

STUDY, INDEX, REJECTED, STORE, RUNS = "study.json", "index.parquet", "rejected.parquet", "store", "runs"
PREDICTIONS, METRICS, REPORT, BUNDLE = "predictions.parquet", "metrics.json", "report.html", "bundle"
IMAGE_SPLIT = "image-split"


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        out: its folder.
        metrics: what `evaluation.evaluate` returned.
        rejected: how many files could not be used.
        report: the HTML file; None where only the metrics were computed.
        bundle: the bundle's folder; None where none was made.
    """

    out: Path
    metrics: dict[str, Any]
    rejected: int
    report: Path | None = None
    bundle: Path | None = None


@dataclass(frozen=True)
class Material:
    """What all models of a study share.

    Attributes:
        recipe: the study.
        out: its folder.
        table: the Index, divided.
        store: its images, preprocessed.
        rejected: `spicula.index.REJECTED`.
    """

    recipe: Recipe
    out: Path
    table: pa.Table
    store: Store
    rejected: pa.Table


def read_material(out: Path) -> Material:
    """Read what a trained study holds; the Store is complete, so nothing is decoded."""
    study = read_recipe(out)
    table = index.read(out / INDEX)
    return Material(study, out, table, build_store(table, study.preprocess, out / STORE), pq.read_table(out / REJECTED))


def read_recipe(out: Path) -> Recipe:
    """Read the recipe of a study as it was run.

    Raises:
        UsageError: the folder holds no study.
    """
    try:
        content = json.loads((out / STUDY).read_text())["recipe"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{out} holds no study: {STUDY} is not there or not readable") from error
    return recipe.validate(content, where=str(out / STUDY))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of an evaluated study.

    Raises:
        SpiculaError: it has not been evaluated.
    """
    path = folder / METRICS
    if not path.is_file():
        raise SpiculaError(f"{folder} has no {METRICS}; run first: spicula evaluate {folder}")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def folds(table: pa.Table) -> list[int | None]:
    """The folds of a divided Index: [None] where it is divided once."""
    found = sorted({fold for fold in table["fold"].to_pylist() if fold is not None})
    return list(found) or [None]


def run_folder(runs: Path, model: str, fold: int | None) -> Path:
    """Return where the run of a model, and of a fold where there are folds, stands below `runs`."""
    return runs / model if fold is None else runs / model / f"fold-{fold}"


def read_predictions(study: Recipe, table: pa.Table, folder: Path) -> dict[str, pa.Table]:
    """Read the Predictions of each model, of all its folds, in the recipe's order.

    Raises:
        SpiculaError: a run is not finished.
    """
    return {
        settings.name: pa.concat_tables(
            predictions.read(run_folder(folder / RUNS, settings.name, fold) / PREDICTIONS) for fold in folds(table)
        )
        for settings in study.models
    }


@contextmanager
def only_one(out: Path, must_exist: bool = False) -> Iterator[None]:
    """Keep two commands from writing into the same study at once."""
    if must_exist and not (out / STUDY).is_file():
        raise UsageError(f"{out} holds no study: there is no {STUDY} in it")
    with files.locked(out / ".lock", f"another command is working in {out}; wait for it, or choose another --out"):
        yield
