"""Weight files in the forms in which the four-view classifier was published, with random numbers."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch


def random_state(net, seed=0):
    """A state_dict in which no tensor is left as it starts, and signals neither die out nor explode."""
    return {name: _tensor(name, tuple(value.shape), seed) for name, value in net.state_dict().items()}


def _tensor(name, shape, seed):
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:
        values = rng.normal(0, 0.1, shape)
    else:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        values *= 0.02 if "output_layer" in name else 1
    return torch.from_numpy(np.asarray(values, np.float32))


def with_aliases(state):
    """The entries of the published file: the towers again under the names of each side."""
    made = dict(state)
    for name, value in state.items():
        for side in "lr":
            made[re.sub(r"^four_view_resnet\.(?=cc|mlo)", f"four_view_resnet.{side}_", name)] = value
    return made


def save_patch(path: Path, state) -> Path:
    torch.save(state, path)
    return path


def save_exam(path: Path, state) -> Path:
    torch.save({"model": with_aliases(state)}, path)
    return path


def reference(test_data: Path) -> Path:
    """The folder with facts of the published classifier."""
    folder = test_data.parent / "reference"
    if not folder.is_dir():
        pytest.skip("needs the folder reference beside the test data")
    return folder
