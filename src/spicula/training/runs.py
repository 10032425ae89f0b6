"""The folder that a training run leaves, and what goes in and out of one."""

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spicula import __version__, files
from spicula.imaging.store import Store
from spicula.models.settings import LinearSettings, NetworkSettings
from spicula.training.data import Part

CARD, EPOCHS, WEIGHTS, PREDICTIONS = "run.json", "epochs.jsonl", "weights.safetensors", "predictions.parquet"
CHECKPOINT, TENSORBOARD = "checkpoint", "tensorboard"

_PACKAGES = ("numpy", "scikit-image", "scikit-learn", "timm", "torch", "torchvision")


@dataclass(frozen=True)
class Job:
    """All that a line needs to train.

    Attributes:
        settings: of the line.
        parts: by split: train, val and test; the last two may be empty.
        store: holds the images.
        run: the run's folder.
        seed: of everything random.
        classes: how many there are.
        device: as the user named it.
    """

    settings: LinearSettings | NetworkSettings
    parts: Mapping[str, Part]
    store: Store
    run: Path
    seed: int
    classes: int
    device: str


@dataclass(frozen=True)
class Outcome:
    """What a line answers with, once `weights.safetensors` is written.

    Attributes:
        scores: by split: (N,) probability of the positive class, in the order of the part.
        facts: for `run.json`.
    """

    scores: Mapping[str, npt.NDArray[np.float64]]
    facts: Mapping[str, Any] = field(default_factory=dict)


def status(run: Path, key: str) -> str:
    """Return how far a run of this key is: `complete`, `started`, or `absent` where the folder holds no such run."""
    try:
        card = json.loads((run / CARD).read_text())
    except (OSError, ValueError):
        return "absent"
    if card.get("key") != key:
        return "absent"
    if card.get("status") != "complete":
        return "started"
    whole = (run / WEIGHTS).is_file() and (run / PREDICTIONS).is_file()
    return "complete" if whole and files.sha256_file(run / WEIGHTS) == card["model_digest"] else "absent"


def clear(run: Path) -> None:
    """Remove what an earlier run left in its folder, and nothing else."""
    for name in (CARD, EPOCHS, WEIGHTS, PREDICTIONS):
        (run / name).unlink(missing_ok=True)
    for name in (CHECKPOINT, TENSORBOARD):
        shutil.rmtree(run / name, ignore_errors=True)


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"spicula": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # the linear line runs without torch
            continue
    return found


def clear_checkpoint(run: Path) -> None:
    """Remove the state for resuming, once it is no longer needed."""
    shutil.rmtree(run / CHECKPOINT, ignore_errors=True)
