"""Make a bundle of a finished training run: convert, compare with the trained model on real images, write.

Needs the `train` extra. A bundle that does not answer as the run did is not written.
"""

import json
import math
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spicula import RESEARCH_NOTICE, __version__, bundle, files, predictions
from spicula.bundle import Bundle, golden, model_card, onnx_graph, parity, provenance
from spicula.bundle.format import FORMAT, MODEL, NAMES, WEIGHTS, Explanation, Info, OperatingPoint, Tensor
from spicula.bundle.sealed import CARD, INFO, seal
from spicula.bundle.writing import check_target, record, write_folder
from spicula.errors import SpiculaError, UsageError
from spicula.evaluation.metrics import decisions
from spicula.evaluation.thresholds import RULES, choose
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import Store
from spicula.models import features, linear
from spicula.models.linear import LinearModel
from spicula.progress import say
from spicula.training.data import Part, part

Floats = npt.NDArray[np.float64]


def export_bundle(
    run: Path,
    table: pa.Table,
    store: Store,
    to: Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    licence: str | None = None,
    version: str = "1",
) -> Bundle:
    """Export a finished run as a bundle, and return the bundle, loaded and verified.

    Args:
        run: the run's folder.
        table: the Index that it was trained on, with the column `split` as it was then.
        store: the images of that Index.
        to: the bundle's folder. One that holds a bundle is replaced; one that holds anything else is left alone.
        metrics: what `evaluation.evaluate` returned, for the card's figures with intervals.
        licence: of the weights, as whoever publishes them says it.
        version: of the model, as whoever publishes it counts.

    Raises:
        UsageError: there is no such run, or `to` holds something else.
        SpiculaError: the run is not finished, the Index or the Store is not the one it was trained on, or the graph
            does not repeat its probabilities to within `parity.TOLERANCE`.
    """
    run, to = Path(run), Path(to)
    card = read_run(run)
    check_target(to, NAMES)
    told = predictions.read(run / "predictions.parquet")
    parts = {split: part(table, store, split) for split in ("train", "val", "test")}
    _check_origin(run, card, told, parts, store)
    model, plain, explanation = _convert(run, card, parts, store)
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": card["name"],
        "version": version,
        "line": card["line"],
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "spicula": __version__,
        "notice": RESEARCH_NOTICE,
        "classes": card["classes"],
        "target": card["classes"][1],
        "scope": provenance.scope(parts["train"], store),
        "input": _input(card, plain),
        "output": _output(card),
        "explanation": explanation,
        "preprocessing": {"digest": store.preprocess.digest(), "settings": store.preprocess.model_dump(mode="json")},
        "features": {"version": features.VERSION, "settings": card["settings"]["features"]} if plain else None,
        "operating_points": _operating_points(told),
        "training": provenance.training(card, parts),
        "data": provenance.data(table),
        "licence": licence or "not stated",
    }
    draft = Bundle(folder=to, info=cast("Info", content), model=model)
    content["parity"] = parity.measure(draft, run=run, told=told, parts=parts, store=store, linear=plain)
    say(parity.sentence(content["parity"]))
    content["golden"] = golden.record(draft)
    return write_bundle(to, content, model, run / WEIGHTS, _of_model(metrics, card["name"]))


def read_run(run: Path) -> dict[str, Any]:
    """Read a run's `run.json`.

    Raises:
        UsageError: there is none.
        SpiculaError: it is damaged, or the run is not finished.
    """
    path = Path(run) / "run.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"no run at {run}: cannot read {path}; name a folder that training has written") from error
    except ValueError as error:
        raise SpiculaError(f"{path} is damaged; train again") from error
    if card.get("status") != "complete":
        raise SpiculaError(f"the run at {run} is not finished; the command that started it takes it up again")
    if files.sha256_file(run / WEIGHTS) != card["model_digest"]:
        raise SpiculaError(f"{run / WEIGHTS} is not what training wrote; train again")
    return card


def write_bundle(
    to: Path, content: Mapping[str, Any], model: bytes, weights: Path, evaluation: Mapping[str, Any] | None
) -> Bundle:
    """Write a bundle's files beside `to`, verify them as `bundle.load` does, and only then put them in place.

    Args:
        to: the bundle's folder; a bundle that is there is replaced.
        content: `bundle.json` without `files` and `digest`.
        model: the ONNX file.
        weights: the safetensors file, which is copied.
        evaluation: of this model, for the card; see `model_card.render`.

    Raises:
        UsageError: `to` holds something that is not a bundle.
        SpiculaError: the files cannot be written, or are no valid bundle.
    """

    def fill(folder: Path) -> None:
        files.write_bytes(folder / MODEL, model)
        with files.atomic_path(folder / WEIGHTS) as copy:
            shutil.copyfile(weights, copy)
        listed = {name: record(folder / name) for name in (MODEL, WEIGHTS)}
        files.write_text(folder / CARD, model_card.render(cast("Info", {**content, "files": listed}), evaluation))
        listed[CARD] = record(folder / CARD)
        files.write_text(folder / INFO, seal({**content, "files": listed}))
        bundle.load(folder)

    return bundle.load(write_folder(to, NAMES, fill))


def _check_origin(run: Path, card: Mapping[str, Any], told: pa.Table, parts: Mapping[str, Part], store: Store) -> None:
    """Images of another preprocessing, or another split, would make figures that say nothing of this run."""
    if store.preprocess != Preprocess.model_validate(card["preprocess"]):
        raise SpiculaError(f"the run at {run} was trained on images of another preprocessing than those in the Store")
    for split in ("val", "test"):
        ids = told.filter(pc.equal(told["split"], split))["id"].to_pylist()
        if sorted(ids) != sorted(parts[split].image_ids):
            raise SpiculaError(f"the run at {run} was trained on another split than this Index has ({split} differs)")


def _of_model(metrics: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    if metrics is None:
        return None
    if name not in metrics["models"]:
        raise SpiculaError(f"the metrics are of {', '.join(metrics['models'])}, not of {name}; evaluate again")
    one: Mapping[str, Any] = metrics["models"][name]
    return one


# the graph


def _convert(
    run: Path, card: Mapping[str, Any], parts: Mapping[str, Part], store: Store
) -> tuple[bytes, LinearModel | None, Explanation | None]:
    """Return the ONNX model, the trained model where the run is of the line `linear`, and what explains a network."""
    if card["line"] == "linear":
        plain = linear.load(run / WEIGHTS)
        graph = onnx_graph.of_linear(
            plain.mean, plain.scale, plain.coef, plain.intercept, slope=plain.slope, offset=plain.offset
        )
        return graph, plain, None
    from spicula.bundle import onnx_evidence
    from spicula.models import registry

    network, size, channels = registry.load(run), tuple(card["size"]), card["channels"]
    try:
        graph = onnx_evidence.of_network(network, size, channels)
        chosen = parity.choose_images(parts)
        split, positions = next(iter(chosen.items()))
        images = store.read(parts[split].rows[positions[: onnx_evidence.IMAGES]])
        return graph, None, onnx_evidence.compared(graph, network, images, str(run))
    except onnx_evidence.NoEvidenceError as error:
        say(f"the bundle explains nothing: {error}")
        return onnx_graph.of_network(registry.load(run), size, channels), None, None


def _input(card: Mapping[str, Any], plain: LinearModel | None) -> Tensor:
    if plain is not None:
        return {
            "name": onnx_graph.FEATURES,
            "dtype": "float32",
            "shape": ["batch", len(plain.mean)],
            "meaning": "features of the preprocessed image, as spicula.models.features computes them",
        }
    height, width = card["size"]
    return {
        "name": onnx_graph.IMAGE,
        "dtype": "float32",
        "shape": ["batch", card["channels"], height, width],
        "meaning": "the preprocessed image, its samples divided by the largest that their type holds: 0 to 1",
    }


def _output(card: Mapping[str, Any]) -> Tensor:
    return {
        "name": onnx_graph.PROBABILITIES,
        "dtype": "float32",
        "shape": ["batch", len(card["classes"])],
        "meaning": f"probabilities of {', '.join(card['classes'])}, in this order",
    }


# figures of the run itself


def _operating_points(told: pa.Table) -> dict[str, OperatingPoint]:
    sides = {split: _labelled(told, split) for split in ("val", "test")}
    points: dict[str, OperatingPoint] = {}
    for rule in RULES:
        threshold = choose(rule, *sides["val"])
        if threshold is not None:
            points[rule] = {
                "threshold": threshold,
                "chosen_on": "val",
                "val": _at(threshold, *sides["val"]),
                "test": _at(threshold, *sides["test"]),
            }
    return points


def _labelled(told: pa.Table, split: str) -> tuple[npt.NDArray[np.int64], Floats]:
    rows = told.filter(pc.and_(pc.equal(told["split"], split), pc.is_valid(told["label"])))
    return np.asarray(rows["label"].to_pylist(), np.int64), np.asarray(rows["score"].to_pylist(), np.float64)


def _at(threshold: float, labels: npt.NDArray[np.int64], scores: Floats) -> dict[str, float | None]:
    if not len(labels):
        return {}
    figures = {name: float(value[0]) for name, value in decisions(labels, scores >= threshold).items()}
    return {name: None if math.isnan(value) else value for name, value in figures.items()}
