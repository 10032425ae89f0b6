"""A study from end to end: archive -> Index -> Store -> splits and checks -> runs -> metrics -> report -> bundle.

Everything lands in one folder, and every step takes up what is there already:

    study.json         the recipe as it was run, and where the data are
    index.parquet      the Index, with its split
    rejected.parquet   files that could not be used, and why
    unpacked/          archives, where the data came as such
    store/             the preprocessed images
    runs/MODEL/[fold-K/]
    predictions.parquet, metrics.json, report.html, bundle/
    image-split/       the same (Index, runs, predictions, metrics) for a split by image, when that was asked for
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spicula import __version__, files, index, predictions
from spicula.catalog import class_names, index_dataset
from spicula.curate.leakage import refuse_leakage
from spicula.curate.splits import assign, parts
from spicula.errors import SpiculaError, UsageError
from spicula.imaging.store import Store, build_store
from spicula.models.settings import NetworkSettings
from spicula.progress import say
from spicula.recipe import Recipe
from spicula.study.folder import (
    BUNDLE,
    IMAGE_SPLIT,
    INDEX,
    METRICS,
    PREDICTIONS,
    REJECTED,
    RUNS,
    STORE,
    STUDY,
    Material,
    Outcome,
    folds,
    only_one,
    read_material,
    read_predictions,
    read_recipe,
    run_folder,
)  # fmt: skip


def run(
    study: Recipe, data: Path, out: Path, *, image_split: bool = False, device: str = "auto", jobs: int | None = None
) -> Outcome:
    """Run a study: index, train, evaluate, report and bundle. What an earlier call finished is not done again.

    Args:
        study: the recipe.
        data: the archive or its folder.
        out: where everything is written.
        image_split: also train on a split by image, to measure how much that common mistake flatters.
        device: cpu, cuda, cuda:N, or auto.
        jobs: processes for decoding; None: one a core.

    Raises:
        UsageError: the data or the recipe cannot be used.
        SpiculaError: a step failed; what is finished by then stays.
    """
    with only_one(out):
        _train(study, data, out, image_split=image_split, device=device, jobs=jobs)
        outcome = _evaluate(out)
        say("writing the report")
        path = _report(out)
        chosen = _best_run(out)
        say(f"exporting {chosen.relative_to(out)}")
        made = bundle(chosen, out / BUNDLE)
    return Outcome(out, outcome.metrics, outcome.rejected, path, Path(made["bundle"]))


def train(
    study: Recipe, data: Path, out: Path, *, image_split: bool = False, device: str = "auto", jobs: int | None = None
) -> list[Path]:
    """Do the first half of a study, up to the trained runs, and return their folders. Arguments as for `run`."""
    with only_one(out):
        return _train(study, data, out, image_split=image_split, device=device, jobs=jobs)


def evaluate(out: Path) -> Outcome:
    """Compute the metrics of a trained study again.

    Raises:
        UsageError: `out` holds no study.
        SpiculaError: a run of it is not finished.
    """
    with only_one(out, must_exist=True):
        return _evaluate(out)


def report(out: Path) -> Path:
    """Write a study's report again, and return its path.

    Raises:
        UsageError: `out` holds no study.
        SpiculaError: it has not been evaluated.
    """
    with only_one(out, must_exist=True):
        return _report(out)


def bundle(run_folder: Path, to: Path, *, licence: str | None = None, version: str = "1") -> dict[str, Any]:
    """Export one run of a study as a verified bundle.

    Args:
        run_folder: the run's.
        to: the bundle's folder.
        licence: of the weights, as whoever publishes them says it.
        version: of the model, as whoever publishes it counts.

    Returns:
        bundle (path), digest, images compared, and the largest difference of a probability.

    Raises:
        UsageError: the folder is no run of a study.
        SpiculaError: the run is not finished, or the bundle does not answer as the run does.
    """
    from spicula.bundle.export import export_bundle, read_run

    card = read_run(run_folder)
    out = next((folder for folder in run_folder.resolve().parents if (folder / STUDY).is_file()), None)
    if out is None:
        raise UsageError(f"{run_folder} stands in no study's folder: none above it holds {STUDY}")
    material = read_material(out)
    table = material.table
    if IMAGE_SPLIT in run_folder.resolve().relative_to(out).parts:
        raise UsageError(f"{run_folder} was trained on a split by image, which is for measuring alone; export another")
    metrics_file = out / METRICS
    metrics = json.loads(metrics_file.read_text()) if metrics_file.is_file() else None
    made = export_bundle(
        run_folder,
        parts(table, card["fold"]),
        material.store,
        to,
        metrics=metrics,
        licence=licence,
        version=version,
    )
    parity = made.info["parity"]
    return {
        "bundle": str(to),
        "model": made.name,
        "digest": made.digest,
        "images_compared": parity["images"],
        "max_abs_difference": parity["max_abs_difference"],
    }


# the steps


def _train(study: Recipe, data: Path, out: Path, *, image_split: bool, device: str, jobs: int | None) -> list[Path]:
    _check_models(study)
    material = _prepare(study, data, out, jobs)
    runs = _fit_all(material, material.table, out / RUNS, device)
    if image_split:
        folder = out / IMAGE_SPLIT
        unit = study.split.model_copy(update={"unit": "image", "official": False})
        table = assign(material.table, unit, study.seed)
        index.write(folder / INDEX, table)
        runs += _fit_all(material, table, folder / RUNS, device)
    return runs


def _check_models(study: Recipe) -> None:
    """A missing weights file is found now, not after the models before it were trained."""
    from spicula.models import registry

    for settings in study.models:
        if isinstance(settings, NetworkSettings):
            registry.check(settings)


def _prepare(study: Recipe, data: Path, out: Path, jobs: int | None) -> Material:
    reading = index_dataset(study.dataset, data, out / "unpacked", study.options)
    # Images without a target are no part of a comparison, and need no pixels.
    usable = reading.index.filter(pc.is_valid(reading.index["target"]))
    if not len(usable):
        raise SpiculaError(f"none of the {len(reading.index)} images in {data} has a target; nothing to train on")
    store = build_store(usable, study.preprocess, out / STORE, jobs)
    table = _only_stored(usable, store)
    rejected = pa.concat_tables([reading.rejected, store.rejected])
    table = assign(table, study.split, study.seed, _previous(study, out))
    for fold in folds(table):
        refuse_leakage(parts(table, fold))
    files.write_table(out / REJECTED, rejected)
    index.write(out / INDEX, table)
    files.write_json(out / STUDY, {"spicula": __version__, "recipe": study.model_dump(mode="json"), "data": str(data)})
    patients = len(set(table["patient_id"].to_pylist()))
    say(f"{len(table)} images of {patients} patients, {sum(table['target'].to_pylist())} with the target; "
        f"{len(rejected)} files rejected")  # fmt: skip
    return Material(study, out, table, store, rejected)


def _only_stored(table: pa.Table, store: Store) -> pa.Table:
    return table.filter(pc.is_in(table["image_id"], value_set=store.table["image_id"].combine_chunks()))


def _previous(study: Recipe, out: Path) -> pa.Table | None:
    """The Index of an earlier call with the same split, so that patients who were added since move nobody."""
    if not (out / STUDY).is_file() or not (out / INDEX).is_file():
        return None
    before = read_recipe(out)
    same = (before.dataset, before.split, before.seed) == (study.dataset, study.split, study.seed)
    return index.read(out / INDEX) if same else None


def _fit_all(material: Material, table: pa.Table, folder: Path, device: str) -> list[Path]:
    from spicula.training.fit import fit

    study = material.recipe
    classes = class_names(study.dataset, table)
    runs = []
    for settings in study.models:
        for fold in folds(table):
            trained = run_folder(folder, settings.name, fold)
            say(f"training {trained.relative_to(material.out)}")
            fit(
                settings,
                parts(table, fold),
                material.store,
                trained,
                seed=study.seed,
                target_name=classes[1],
                classes=classes,
                fold=fold,
                device=device,
                recipe=study.model_dump(mode="json"),
            )
            runs.append(trained)
    return runs


def _evaluate(out: Path) -> Outcome:
    study = read_recipe(out)
    metrics = _evaluate_folder(study, out)
    if (out / IMAGE_SPLIT / INDEX).is_file():
        _evaluate_folder(study, out / IMAGE_SPLIT)
    return Outcome(out, metrics, pq.read_metadata(out / REJECTED).num_rows)


def _evaluate_folder(study: Recipe, folder: Path) -> dict[str, Any]:
    from spicula.evaluation.evaluate import evaluate as judge

    table = index.read(folder / INDEX)
    by_model = read_predictions(study, table, folder)
    say(f"computing metrics with {study.evaluation.resamples} bootstrap resamples of the patients")
    metrics = judge(table, by_model, study.seed, study.evaluation.resamples)
    predictions.write(folder / PREDICTIONS, pa.concat_tables(by_model.values()))
    files.write_json(folder / METRICS, metrics)
    return metrics


def _report(out: Path) -> Path:
    from spicula.study import reporting  # draws, and explains networks: neither is needed before

    return reporting.write(out)


def _best_run(out: Path) -> Path:
    """The run to export: of the recipe's model, else of the one with the best AUC on validation; the first fold."""
    from spicula.evaluation.metrics import auc

    study = read_recipe(out)
    table = index.read(out / INDEX)
    name = study.bundle.model
    if name is None:
        scores = {}
        for model, rows in read_predictions(study, table, out).items():
            validation = rows.filter(pc.equal(rows["split"], "val"))
            scores[model] = auc(
                validation["label"].to_numpy(zero_copy_only=False), validation["score"].to_numpy(zero_copy_only=False)
            )
        name = max(scores, key=lambda model: np.nan_to_num(scores[model], nan=-1.0))
    return run_folder(out / RUNS, name, folds(table)[0])
