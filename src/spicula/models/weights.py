"""Reading published weight files and fitting them to a network, whatever library named the tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from spicula.errors import SpiculaError, UsageError
from spicula.models.torchvision_guard import import_torchvision

#: Architectures of timm whose tensors stand in the same order as torchvision's, under other names, and that compute
#: the same function (a test holds both outputs together). Not here: networks that differ in a constant, such as
#: MobileNetV3 and EfficientNet-B5 to B7 (epsilon of batch normalisation), or in order (RegNet, ViT, Swin): their
#: torchvision files go with the line torchvision:NAME. ResNet, DenseNet and Inception have the same names in both.
TORCHVISION_TWINS = {
    "mobilenetv2_100": "mobilenet_v2",
    "mnasnet_050": "mnasnet0_5",
    "mnasnet_075": "mnasnet0_75",
    "mnasnet_100": "mnasnet1_0",
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(5)},
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{f"vgg{depth}{kind}": f"vgg{depth}{kind}" for depth in (11, 13, 16, 19) for kind in ("", "_bn")},
}

_COUNTER = "num_batches_tracked"  # which batch normalisation does not need, and files often lack
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SHOWN = 4  # names in an error


@dataclass(frozen=True)
class Loaded:
    """What came out of a weight file.

    Attributes:
        tensors: how many tensors of the network were filled.
        fresh: tensors of the network's head that keep their random numbers.
        unused: tensors of the file that the network has no place for.
        folded: batch normalisation has means of 0 and variances of 1 throughout: its statistics were folded into
            other weights, and new statistics of batches would not fit these.
    """

    tensors: int
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    folded: bool

    def sentence(self, source: str) -> str:
        """Return one line for a person."""
        parts = [f"{self.tensors} tensors from {source}"]
        if self.fresh:
            parts.append(f"the head starts at random ({', '.join(self.fresh)})")
        if self.unused:
            parts.append(f"{len(self.unused)} tensors of the file not used ({_some(self.unused)})")
        if self.folded:
            parts.append("batch normalisation is folded in this file, so its statistics stay frozen")
        return "; ".join(parts)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a weight file: safetensors, or a .pth/.pt/.bin that holds tensors and nothing else.

    Raises:
        UsageError: there is no such file.
        SpiculaError: it is of another kind, damaged, or a pickle with more than tensors in it.
    """
    if not path.is_file():
        raise UsageError(f"no weights file at {path}; give the path of a .safetensors or .pth file")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SpiculaError(f"{path} is not a whole safetensors file: {error}") from error
    return tensors


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    # weights_only: a pickle could run code; what that mode refuses stays refused
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle raises
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpiculaError(f"{path} cannot be read as plain weights: {first}; convert it to safetensors") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise SpiculaError(f"{path} holds no table of tensors by name")
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def fit_into(
    net: nn.Module, name: str, head: frozenset[str], tensors: Mapping[str, torch.Tensor], source: str
) -> Loaded:
    """Fill `net` with published tensors.

    Args:
        net: the network, as its library made it.
        name: its name in timm or torchvision.
        head: names of the tensors that may stay as they are, because the file knows other classes.
        tensors: what the file holds, under the names of either library.
        source: where the tensors are from, for errors.

    Raises:
        SpiculaError: a tensor other than the head's is missing or of another shape; the message names it.
    """
    target = net.state_dict()
    wanted = {key for key in target if not key.endswith(_COUNTER)}
    if not (wanted - head) <= set(tensors) and name in TORCHVISION_TWINS:
        tensors = _renamed(tensors, target, TORCHVISION_TWINS[name])
    chosen = {key: tensors[key] for key in wanted if key in tensors and tensors[key].shape == target[key].shape}
    problems = sorted((wanted - head) - set(chosen))
    if problems:
        why = [_problem(key, target[key], tensors.get(key)) for key in problems[:_SHOWN]]
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise SpiculaError(f"{source} does not fit {name}: {', '.join(why)}{more}{_way_out(name)}")
    net.load_state_dict({**target, **{key: value.to(target[key].dtype) for key, value in chosen.items()}})
    unused = {key for key in tensors if key not in target and not key.endswith(_COUNTER)}
    return Loaded(len(chosen), tuple(sorted((wanted & head) - set(chosen))), tuple(sorted(unused)), _is_folded(net))


def _renamed(
    tensors: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], twin: str
) -> dict[str, torch.Tensor]:
    """Give torchvision's tensors timm's names, by their order in either network; unchanged where names are missing."""
    torchvision = import_torchvision()
    with torch.device("meta"):
        order = [key for key in torchvision.models.get_model(twin).state_dict() if not key.endswith(_COUNTER)]
    names = [key for key in target if not key.endswith(_COUNTER)]
    if len(order) != len(names) or not set(order) <= set(tensors):
        return dict(tensors)
    renamed = {name: tensors[key] for name, key in zip(names, order, strict=True)}
    # a dense layer of one library is a convolution over the whole map in the other: the same numbers in one order
    shaped = {
        name: tensor.reshape(target[name].shape) if tensor.numel() == target[name].numel() else tensor
        for name, tensor in renamed.items()
    }
    unused = {key: tensor for key, tensor in tensors.items() if key not in order and not key.endswith(_COUNTER)}
    return shaped | unused


def _problem(key: str, target: torch.Tensor, found: torch.Tensor | None) -> str:
    if found is None:
        return f"{key} is missing"
    return f"{key} is {_shape(found)} and not {_shape(target)}"


def _way_out(name: str) -> str:
    torchvision = import_torchvision()
    known = name in torchvision.models.list_models(module=torchvision.models)
    return f"; a file with torchvision's names goes with the line torchvision:{name}" if known else ""


def _is_folded(net: nn.Module) -> bool:
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return bool(norms) and all(_is_neutral(module) for module in norms)


def _is_neutral(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    if norm.running_mean is None or norm.running_var is None:
        return False
    return bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
