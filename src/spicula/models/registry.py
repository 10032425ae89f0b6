"""The one verb that makes a network, by its line. Nothing heavy is imported until it is used."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from spicula.errors import SpiculaError, UsageError
from spicula.models.settings import NetworkSettings

if TYPE_CHECKING:
    from spicula.models.classifier import Classifier

#: (rows, columns) that any network of the libraries is made for.
_ANY_SIZE = (224, 224)


def create(
    settings: NetworkSettings, size: tuple[int, int], channels: int, classes: int, pretrained: bool = True
) -> "Classifier":
    """Make the network of a line.

    Args:
        settings: which line, and where its weights start.
        size: (rows, columns) of the images in pixels.
        channels: of the images: 1 or 3.
        classes: number of outputs.
        pretrained: False leaves `settings.weights` aside: for a network whose trained weights are loaded next.

    Returns:
        A module that takes (N, C, H, W) in 0 to 1 and returns logits (N, classes). Random weights come from torch's
        global generator.

    Raises:
        UsageError: no such network or weights file, or images of that size do not fit.
        SpiculaError: the weights do not fit the network.
    """
    _check_torch()
    if settings.line == "cnn":
        from spicula.models import cnn

        return cnn.build(settings, size, channels, classes)
    from spicula.models import pretrained as published

    return published.build(settings, size, channels, classes, pretrained)


def check(settings: NetworkSettings) -> None:
    """Find out whether a network and its weights can be had, before hours are spent on the way to it.

    Raises:
        UsageError: no such network, or no such weights file.
        SpiculaError: the hub does not answer.
    """
    if settings.line == "cnn":
        return
    if isinstance(settings.weights, Path) and not settings.weights.is_file():
        raise UsageError(
            f"no weights file at {settings.weights}, which {settings.name} is to start from; "
            "give the path of a .safetensors or .pth file"
        )
    _check_torch()
    from spicula.models import pretrained as published

    published.find(settings.line)
    if settings.weights == "hub":  # fetched now, and found on disk when training comes to it
        create(settings, _ANY_SIZE, 3, 2)


def load(run: Path) -> "Classifier":
    """Make the network of a training run's folder, with the weights it ended with, for evaluation.

    Raises:
        SpiculaError: the folder holds no finished run of a network.
    """
    from safetensors.torch import load_file

    try:
        card = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise SpiculaError(f"{run} is not the folder of a training run: no readable run.json") from error
    if card["line"] == "linear" or card["status"] != "complete":
        raise SpiculaError(f"{run} holds no finished network, but a {card['status']} run of the line {card['line']}")
    settings = NetworkSettings.model_validate(card["settings"])
    module = create(settings, tuple(card["size"]), card["channels"], len(card["classes"]), pretrained=False)
    module.load_state_dict(load_file(run / "weights.safetensors"))
    return module.eval()


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UsageError("training needs torch; install it with: pip install 'spicula[train]'") from error
