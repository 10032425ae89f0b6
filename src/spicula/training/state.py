"""What a network's training needs to go on after it was killed: safetensors and JSON, written after every epoch."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from spicula import files
from spicula.models.classifier import Classifier

_STATE = "state.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam (Kingma & Ba 2015)

Epochs = list[dict[str, Any]]


def write(
    folder: Path,
    epochs: Epochs,
    best_epoch: int,
    *,
    module: Classifier,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write the state after the last of `epochs`; a kill at any moment leaves this state or the one before.

    The files of tensors carry the epoch in their names, and `state.json`, written last, says which belong to it.
    """
    done = epochs[-1]["epoch"]
    last, best = f"last-{done:04d}.safetensors", f"best-{best_epoch:04d}.safetensors"
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    files.write_bytes(folder / last, save(_plain(tensors | dict(_moments(optimizer)))))
    if best_epoch == done:
        files.write_bytes(folder / best, encode(module))
    files.write_json(folder / _STATE, {"epochs": epochs, "last": last, "best": best, "scaler": scaler.state_dict()})
    for path in folder.glob("*.safetensors"):
        if path.name not in (last, best):
            path.unlink()


def read(folder: Path, module: Classifier, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Epochs:
    """Restore the state that `write` left, and return the epochs that are done; none where nothing was left."""
    try:
        state = json.loads((folder / _STATE).read_text())
    except FileNotFoundError:
        return []
    tensors = load_file(folder / state["last"])
    module.load_state_dict(
        {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
    )
    _restore_moments(optimizer, tensors)
    scaler.load_state_dict(state["scaler"])
    epochs: Epochs = state["epochs"]
    return epochs


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the best epoch."""
    name = json.loads((folder / _STATE).read_text())["best"]
    tensors: dict[str, torch.Tensor] = load_file(folder / name)
    return tensors


def encode(module: Classifier) -> bytes:
    """Return a network's weights as the bytes of a safetensors file."""
    data: bytes = save(_plain(module.state_dict()))
    return data


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # safetensors takes neither channels-last tensors nor ones that share memory
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for number, parameter in enumerate(_parameters(optimizer)):
        for name in _MOMENTS if parameter in optimizer.state else ():
            yield f"optimizer.{number}.{name}", optimizer.state[parameter][name]


def _restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    for number, parameter in enumerate(_parameters(optimizer)):
        key = f"optimizer.{number}"
        if f"{key}.step" not in tensors:
            continue
        # The optimizer walks through parameter and moments in memory order, so the moments must be laid out alike.
        moments = {
            name: torch.empty_like(parameter).copy_(tensors[f"{key}.{name}"]) for name in ("exp_avg", "exp_avg_sq")
        }
        optimizer.state[parameter] = {"step": tensors[f"{key}.step"].to(parameter.device), **moments}


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
