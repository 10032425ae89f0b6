"""Reading the published weight files of the four-view classifier, and saying what is wrong with those that do not fit.

Files are read as tensors alone (`weights_only=True`, or safetensors): a pickle with code in it is refused.
"""

import re
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from spicula.errors import SpiculaError, UsageError
from spicula.models import weights
from spicula.models.screening import patches
from spicula.models.screening.view_wise import ViewWise

Role = Literal["patch", "image-only", "image-and-heatmaps"]

#: The option of `spicula bundle import-exam` that takes the file of a network.
OPTIONS: dict[Role, str] = {"patch": "--patch", "image-only": "--image", "image-and-heatmaps": "--image-heatmaps"}
_WORDS: dict[Role, str] = {
    "patch": "a patch classifier",
    "image-only": "a view-wise classifier of images alone",
    "image-and-heatmaps": "a view-wise classifier of images and heatmaps",
}
_CHANNELS: dict[Role, int] = {"image-only": 1, "image-and-heatmaps": 3}

#: Of batch normalisation, which does not need it here; files may lack it.
COUNTER = "num_batches_tracked"
#: The towers' names for one side, whose weights must be those of both.
_ALIAS = re.compile(r"^(four_view_resnet\.)[lr]_((?:cc|mlo)\.)")
#: How torchvision before 0.2.2 named the layers of a DenseNet.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")


def read(path: Path, role: Role) -> nn.Module:
    """Return a published network, filled from its file, ready to be run.

    Args:
        path: the file: `{"model": state_dict}` or a plain state_dict, saved by torch, or safetensors.
        role: what it is to be.

    Raises:
        UsageError: there is no such file, or it is of another role.
        SpiculaError: it holds more than tensors, or a parameter is missing, unexpected, of another shape or no number.
    """
    tensors = {_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in weights.read_tensors(path).items()}
    found = _role_of(tensors, role)
    if found is None:
        raise SpiculaError(
            f"{path} is no network of the four-view classifier: no parameter begins with features. (patch classifier) "
            "or with four_view_resnet. (view-wise classifier)"
        )
    if found != role:
        raise UsageError(f"{path} is {_WORDS[found]}: give it with {OPTIONS[found]}, not with {OPTIONS[role]}")
    return fill(role, _without_aliases(tensors, path), str(path))


def fill(role: Role, tensors: dict[str, torch.Tensor], source: str) -> nn.Module:
    """Return a network with these weights, ready to be run.

    Args:
        role: what it is.
        tensors: exactly the network's own, by the published names.
        source: where they are from, for errors.

    Raises:
        SpiculaError: a parameter is missing, unexpected, of another shape or no number.
    """
    with torch.device("meta"):  # random numbers would only be thrown away
        net = patches.build() if role == "patch" else ViewWise(_CHANNELS[role])
    net.to_empty(device="cpu")
    for name, counter in net.named_buffers():
        if name.endswith(COUNTER):
            counter.zero_()
    loaded = weights.fit_into(net, _WORDS[role], frozenset(), tensors, source)
    if loaded.unused:
        raise SpiculaError(f"{source} does not fit {_WORDS[role]}: {loaded.unused[0]} is unexpected")
    for name, tensor in net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise SpiculaError(f"{source}: {name} holds values that are no finite numbers")
    return net.eval()


def _role_of(tensors: dict[str, torch.Tensor], wanted: Role) -> Role | None:
    """Return what the names and the channels of the first layer say; where these do not tell, what is wanted."""
    if any(name.startswith("features.") for name in tensors):
        return "patch"
    if not any(name.startswith("four_view_resnet.") for name in tensors):
        return None
    first = [tensor for name, tensor in tensors.items() if name.endswith(".first_conv.weight") and tensor.ndim == 4]
    channels = {tensor.shape[1] for tensor in first}
    said = [role for role, number in _CHANNELS.items() if channels == {number}]
    return said[0] if said else wanted if wanted in _CHANNELS else "image-only"


def _without_aliases(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    kept = dict(tensors)
    for name, tensor in tensors.items():
        own = _ALIAS.sub(r"\1\2", name)
        if own == name or own not in tensors:
            continue
        if not torch.equal(tensors[own], tensor):
            raise SpiculaError(f"{path}: {name} differs from {own}, whose weights it shares in the published model")
        del kept[name]
    return kept
