"""Whether an exported graph answers as the trained model did, measured on real images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spicula.bundle import Bundle, onnx_graph
from spicula.bundle.format import Parity
from spicula.errors import SpiculaError
from spicula.imaging.store import Store
from spicula.models.linear import LinearModel
from spicula.training.data import Part

#: Largest difference of a probability between the graph and the trained model.
TOLERANCE = 1e-4
#: A score this close to a threshold has no decision to keep: it is the threshold, up to rounding in float32.
DECISION_MARGIN = 1e-6
#: Images that the graph is compared on: at least (where the Store holds as many), and at most.
FEWEST_IMAGES, MOST_IMAGES = 64, 256

_BATCH = 64

Floats = npt.NDArray[np.float64]


def measure(
    bundle: Bundle,
    *,
    run: Path,
    told: pa.Table,
    parts: Mapping[str, Part],
    store: Store,
    linear: LinearModel | None,
) -> Parity:
    """Compare the graph, run as a bundle runs it, with the trained model and with what the run said of the same images.

    Args:
        bundle: with the graph.
        run: the run's folder.
        told: the run's Predictions.
        parts: the images, by split: test images are taken first; where they are too few, val and train as well.
        store: holds them.
        linear: the trained model, of a run of that line; None: the run holds a network.

    Raises:
        SpiculaError: probabilities differ by `TOLERANCE` or more, or decisions differ.
    """
    import onnxruntime

    chosen = choose_images(parts)
    rows = np.concatenate([parts[split].rows[positions] for split, positions in chosen.items()])
    ids = [parts[split].image_ids[position] for split, positions in chosen.items() for position in positions]
    graph = bundle.probabilities(store.read(rows))
    trained = _of_linear(bundle, store, rows, linear) if linear else _of_network(run, store, rows)
    parity: Parity = {
        "images": len(rows),
        "splits": {split: len(positions) for split, positions in chosen.items()},
        "max_abs_difference": _largest(graph - trained),
        "max_abs_difference_to_run": _to_run(told, ids, graph[:, 1]),
        "tolerance": TOLERANCE,
        "decisions_differ": _decisions_differ(bundle, graph[:, 1], trained[:, 1]),
        "reference": "numpy, float64" if linear else "torch, float32, CPU",
        "onnxruntime": onnxruntime.__version__,
        "opset": onnx_graph.OPSET,
    }
    problem = _problem(parity)
    if problem:
        raise SpiculaError(f"no bundle written: on {len(rows)} images, the graph of {run} {problem}")
    return parity


def sentence(parity: Parity) -> str:
    """Say in one line how closely the graph answers as the trained model does."""
    return (
        f"probabilities of graph and trained model differ by at most {parity['max_abs_difference']:.1e} "
        f"on {parity['images']} real images (tolerance {parity['tolerance']:.0e}); every decision is the same"
    )


def choose_images(parts: Mapping[str, Part]) -> dict[str, npt.NDArray[np.int64]]:
    """Choose the images to compare on: evenly spread over the test side; the others fill up where those are too few.

    Returns:
        Positions in each part that was needed.
    """
    chosen: dict[str, npt.NDArray[np.int64]] = {}
    count = 0
    for split in ("test", "val", "train"):
        wanted = min(len(parts[split]), MOST_IMAGES if split == "test" else FEWEST_IMAGES - count)
        if wanted > 0:
            chosen[split] = np.linspace(0, len(parts[split]) - 1, wanted).astype(np.int64)
            count += wanted
    return chosen


def _problem(parity: Parity) -> str | None:
    # a network that has hardly learnt can be so steep that rounding in float32 alone moves its probabilities so far
    way_out = f"the tolerance is {TOLERANCE:.0e}; a network that has hardly been trained does this, train it for longer"
    if not parity["max_abs_difference"] < TOLERANCE:
        difference = parity["max_abs_difference"]
        return f"gives probabilities up to {difference:.1e} away from the trained model's; {way_out}"
    told = parity["max_abs_difference_to_run"]
    if told is not None and not told < TOLERANCE:
        return f"gives probabilities up to {told:.1e} away from the run's own predictions; {way_out}"
    if parity["decisions_differ"]:
        return f"decides {parity['decisions_differ']} otherwise than the trained model"
    return None


def _of_network(run: Path, store: Store, rows: npt.NDArray[np.int64]) -> Floats:
    """(N, classes), by torch, fed as training feeds it."""
    import torch

    from spicula.models import registry
    from spicula.training.feed import Feed

    module = registry.load(run)
    feed = Feed(store, rows, torch.device("cpu"))
    order = [np.arange(at, min(at + _BATCH, len(rows))) for at in range(0, len(rows), _BATCH)]
    with torch.inference_mode():
        logits = torch.cat([module(batch) for batch in feed.batches(order)])
        found: Floats = logits.double().softmax(dim=1).numpy()
    return found


def _of_linear(bundle: Bundle, store: Store, rows: npt.NDArray[np.int64], linear: LinearModel) -> Floats:
    """(N, 2), by the formula, of the features that the bundle computes."""
    starts = range(0, len(rows), _BATCH)
    positive = [linear.probabilities(bundle.inputs(store.read(rows[at : at + _BATCH]))) for at in starts]
    scores = np.concatenate(positive)
    return np.stack([1 - scores, scores], axis=1)


def _to_run(told: pa.Table, ids: list[str], scores: Floats) -> float | None:
    """Largest difference to the run's own predictions, of those images that have one."""
    known = dict(zip(told["id"].to_pylist(), told["score"].to_pylist(), strict=True))
    differences = [score - known[image] for image, score in zip(ids, scores, strict=True) if image in known]
    return _largest(np.array(differences)) if differences else None


def _decisions_differ(bundle: Bundle, graph: Floats, trained: Floats) -> int:
    differ = np.zeros(len(graph), bool)
    for point in bundle.info["operating_points"].values():
        threshold = point["threshold"]
        differ |= ((graph >= threshold) != (trained >= threshold)) & (np.abs(trained - threshold) > DECISION_MARGIN)
    return int(differ.sum())


def _largest(differences: Floats) -> float:
    return float(np.abs(differences).max(initial=0.0))
