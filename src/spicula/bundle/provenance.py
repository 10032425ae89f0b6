"""What a bundle says of where it comes from: the data, their terms, the training, and so its scope."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spicula import headers, index
from spicula.bundle.format import Data, Scope, Training
from spicula.bundle.scope import shows_colour, word
from spicula.catalog import DATASETS
from spicula.errors import RejectedImageError
from spicula.imaging.store import Store
from spicula.progress import progress
from spicula.training.data import Part

#: Training images whose headers and pixels are looked at, evenly spread, to learn what kinds there are.
SAMPLE = 500
#: What images are unless their headers say otherwise: raw ones (FOR PROCESSING) look different.
USUAL_INTENT = "FOR PRESENTATION"

#: The dataset of images that no camera took.
SYNTHETIC = "phantom"

_COLOUR_BATCH = 50


def scope(train: Part, store: Store) -> Scope:
    """Return the scope of a model: images of the kinds that it was trained on.

    Args:
        train: the training side.
        store: holds its images.
    """
    modalities = sorted({value for value in train.table["modality"].to_pylist() if value})
    sample = np.unique(np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(np.int64))
    intents = _intents(train.table.take(pa.array(sample))) if modalities else set()
    colour = _colour(train, store, sample)
    return {
        "modalities": modalities,
        "presentation_intents": sorted(intents or {USUAL_INTENT}),
        "colour": colour,
        "statement": _statement(train.table, modalities, colour),
    }


def training(card: Mapping[str, Any], parts: Mapping[str, Part]) -> Training:
    """Return what is known of a training run.

    Args:
        card: the run's `run.json`.
        parts: its images, by split.
    """
    settings = dict(card["settings"])
    if settings.get("weights") not in (None, "hub"):
        settings["weights"] = Path(
            settings["weights"]
        ).name  # where it lay tells something of a machine, not of a model
    return {
        "run_key": card["key"],
        "weights_digest": card["model_digest"],
        "index_digest": card["index_digest"],
        "split_digest": card["split_digest"],
        "seed": card["seed"],
        "fold": card["fold"],
        "settings": settings,
        "counts": {split: _counts(part) for split, part in parts.items()},
        "versions": dict(card["versions"]),
    }


def data(table: pa.Table) -> Data:
    """Return which dataset an Index is of, and on what terms it may be used.

    Args:
        table: an Index.
    """
    names = sorted(set(table["dataset"].to_pylist()))
    known = [DATASETS[name] for name in names if name in DATASETS]
    return {
        "dataset": ", ".join(names),
        "synthetic": SYNTHETIC in names,
        "title": ", ".join(DATASETS[name].title if name in DATASETS else name for name in names),
        "source": ", ".join(dataset.source for dataset in known if dataset.source) or None,
        "terms": "; ".join(dataset.terms for dataset in known if dataset.terms) or "not stated",
        "citation": "; ".join(dataset.citation for dataset in known if dataset.citation) or None,
    }


def _counts(part: Part) -> dict[str, int]:
    return {"images": len(part), "patients": len(set(part.patients)), "positive": int(part.targets.sum())}


def _intents(sample: pa.Table) -> set[str]:
    """The presentation intents of DICOM images; other formats, and files that are gone, say nothing."""
    found = set()
    for path in progress(index.image_paths(sample), "reading headers of training images"):
        try:
            found.add(word(headers.read_dicom(path), "PresentationIntentType"))
        except RejectedImageError:
            continue
    return {intent for intent in found if intent}


def _colour(train: Part, store: Store, sample: np.ndarray) -> bool | None:
    """Whether the images show colour; None where that cannot be told."""
    photometrics = {str(value) for value in train.table["photometric"].to_pylist() if value}
    if photometrics and all(value.startswith("MONOCHROME") for value in photometrics):
        return False
    if store.shape[2] == 1 or not len(train):
        return None
    starts = range(0, len(sample), _COLOUR_BATCH)
    return any(shows_colour(store.read(train.rows[sample[at : at + _COLOUR_BATCH]])) for at in starts)


def _statement(table: pa.Table, modalities: list[str], colour: bool | None) -> str:
    kind = {True: "Colour images", False: "Grey images", None: "Images"}[colour]
    of = f" of the DICOM modality {' or '.join(modalities)}" if modalities else ""
    told = data(table)
    return f"{kind}{of}, like those of the dataset {told['dataset']} ({told['title']})."
