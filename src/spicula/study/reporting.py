"""What the report of a study is made of."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spicula import index
from spicula.catalog import class_names, get
from spicula.curate.similarity import near_duplicates, perceptual_hashes
from spicula.evaluation.gradcam import explain
from spicula.evaluation.mistakes import to_explain
from spicula.evaluation.report import write_report
from spicula.evaluation.report_input import NearDuplicate, ReportInput
from spicula.models import registry
from spicula.models.settings import NetworkSettings
from spicula.progress import progress
from spicula.recipe import Recipe
from spicula.study.folder import (
    IMAGE_SPLIT,
    METRICS,
    REPORT,
    RUNS,
    Material,
    folds,
    read_material,
    read_metrics,
    read_predictions,
    run_folder,
)

_HASH_BATCH = 512


def write(out: Path) -> Path:
    """Write the report of an evaluated study, and return its path."""
    material = read_material(out)
    study, table = material.recipe, material.table
    dataset = get(study.dataset)
    runs = {s.name: [run_folder(out / RUNS, s.name, fold) for fold in folds(table)] for s in study.models}
    by_model = read_predictions(study, table, out)
    metrics = read_metrics(out)
    write_report(
        out / REPORT,
        ReportInput(
            title=study.title,
            question=study.question,
            dataset=dataset,
            synthetic=study.dataset == "phantom",
            classes=class_names(study.dataset, table),
            index=table,
            rejected=material.rejected,
            store=material.store,
            metrics=metrics,
            predictions=by_model,
            runs=runs,
            recipe_text=_recipe_text(study),
            created=datetime.now(UTC),
            digests=_digests(material),
            versions=_versions(),
            image_split_metrics=read_metrics(out / IMAGE_SPLIT) if (out / IMAGE_SPLIT / METRICS).is_file() else None,
            near_duplicates=_near_duplicates(material),
            cams=_cams(material, by_model, runs, metrics),
        ),
    )
    return out / REPORT


def _recipe_text(study: Recipe) -> str:
    """The recipe as it was run, but for the folders of weights files: a report is passed on, and they are private."""
    content = study.model_dump(mode="json")
    for model in content["models"]:
        if model.get("weights"):
            model["weights"] = Path(model["weights"]).name
    return json.dumps(content, indent=2, ensure_ascii=False)


def _digests(material: Material) -> dict[str, str]:
    return {
        "Index": index.digest(material.table),
        "recipe": material.recipe.digest(),
        "preprocessing": material.recipe.preprocess.digest(),
    }


def _versions() -> dict[str, str]:

    names = ("spicula", "torch", "timm", "scikit-learn", "scikit-image", "numpy", "opencv-python-headless")
    return {name: version(name) for name in names}


def _near_duplicates(material: Material) -> list[NearDuplicate]:
    table = material.table
    rows = material.store.rows(table["image_id"].to_pylist())
    batches = [rows[start : start + _HASH_BATCH] for start in range(0, len(rows), _HASH_BATCH)]
    hashes = perceptual_hashes(
        material.store.read(batch) for batch in progress(batches, "looking for near-duplicates", "batches")
    )
    sides = table["split"] if folds(table) == [None] else table["fold"]
    ids = table["image_id"].to_pylist()
    pairs = near_duplicates(hashes, sides.to_pylist())
    return [NearDuplicate(ids[pair.first], ids[pair.second], pair.distance) for pair in pairs]


def _cams(
    material: Material, by_model: dict[str, pa.Table], runs: dict[str, list[Path]], metrics: dict[str, Any]
) -> dict[str, dict[str, np.ndarray]]:

    networks = [s.name for s in material.recipe.models if isinstance(s, NetworkSettings)]
    wanted = to_explain({name: by_model[name] for name in networks}, metrics)
    return {
        name: explain(runs[name], by_model[name], material.store, wanted, registry.load)
        for name in progress(networks, "explaining", "models")
    }
