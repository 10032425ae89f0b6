"""The classifiers of timm and torchvision, from random numbers, a local file or the library's hub."""

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from spicula.errors import SpiculaError, UsageError
from spicula.models import weights
from spicula.models.classifier import Classifier
from spicula.models.settings import NetworkSettings
from spicula.models.torchvision_guard import import_torchvision

Library = Literal["timm", "torchvision"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of torchvision's published weights, for inputs in 0 to 1
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Networks that train with further outputs unless told otherwise; these are never used here.
_WITHOUT_AUXILIARY_OUTPUTS = {"googlenet", "inception_v3"}
#: What a stage of a torchvision network is called: a child of a container, or a child of the network itself.
_STAGE = re.compile(r"(?:features|trunk_output|blocks|encoder\.layers)\.[^.]+|[^.]+")
#: Where torchvision's networks have their last feature map.
_LAST_MAPS = ("features", "layer4", "trunk_output", "conv5", "Mixed_7c", "inception5b", "layers", "blocks")


def find(line: str) -> tuple[Library, str]:
    """Return which library a line means, and the network's name there.

    Raises:
        UsageError: no such network; the message lists names that are close.
    """
    ours = _torchvision_names()  # first: it lets timm's import pass
    import timm

    prefix, _, name = line.partition(":")
    if prefix == "timm" and timm.is_model(name) and _is_known_tag(name):
        return "timm", name
    if name in ours:
        return "torchvision", name
    known = ours if prefix == "torchvision" else sorted({*timm.list_models(), *ours})
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    raise UsageError(f"no network {line}; " + (f"close: {', '.join(close)}" if close else "see timm.list_models()"))


def build(
    settings: NetworkSettings, size: tuple[int, int], channels: int, classes: int, pretrained: bool
) -> Classifier:
    """Return a network of timm or torchvision, with its weights loaded and its frozen part frozen.

    Args:
        settings: line, weights, mean, std, train and batch_norm matter here.
        size: (rows, columns) of the images in pixels.
        channels: 1 or 3; one is repeated, since the published networks take three.
        classes: number of outputs.
        pretrained: False leaves `settings.weights` aside, for weights that are loaded afterwards.

    Raises:
        UsageError: there is no such network or weights file, or the network cannot take images of that size.
        SpiculaError: the weights do not fit, or the hub does not answer.
    """
    import_torchvision()
    library, name = find(settings.line)
    source = settings.weights if pretrained else None
    net = _make(library, name, classes, from_hub=source == "hub")
    head = _head(library, net)
    _start_small(net, head)
    loaded = _load(library, net, name, head, source)
    layer = _fit_to_size(library, net, name, size, classes)
    mean, std = _normalisation(settings, net)
    classifier = Classifier(net, channels=channels, mean=mean, std=std, head=head, layer=layer)
    _freeze(settings, library, net, head)
    folded = loaded is not None and loaded.folded
    classifier.freezes_statistics = settings.batch_norm == "frozen" or (settings.batch_norm == "auto" and folded)
    if loaded is not None:
        classifier.notes.append(loaded.sentence("the hub" if source == "hub" else Path(str(source)).name))
    return classifier


def _torchvision_names() -> list[str]:
    torchvision = import_torchvision()
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _is_known_tag(name: str) -> bool:
    import timm

    return "." not in name or bool(timm.is_model_pretrained(name))


def _make(library: Library, name: str, classes: int, from_hub: bool) -> nn.Module:
    if library == "torchvision":
        torchvision = import_torchvision()
        options: dict[str, Any] = {}
        if name in _WITHOUT_AUXILIARY_OUTPUTS:
            options = {"aux_logits": False, "init_weights": True}
        made: nn.Module = torchvision.models.get_model(name, num_classes=classes, **options)
        return made
    import timm

    try:
        created: nn.Module = timm.create_model(name, pretrained=from_hub, num_classes=classes)
    except Exception as error:  # the hub's client has a dozen kinds of failure
        if not from_hub:
            raise
        raise SpiculaError(
            f"no weights for {name} from the hub: {_first_line(error)}; give weights = a local file"
        ) from error
    return created


def _load(
    library: Library, net: nn.Module, name: str, head: frozenset[str], source: Path | str | None
) -> weights.Loaded | None:
    if source is None:
        return None
    if source != "hub":
        return weights.fit_into(net, name, head, weights.read_tensors(Path(source)), str(source))
    if library == "timm":  # which loads while it builds
        return weights.Loaded(len(net.state_dict()) - len(head), tuple(sorted(head)), (), folded=False)
    torchvision = import_torchvision()
    try:
        published = torchvision.models.get_model_weights(name).DEFAULT
        tensors = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:
        raise SpiculaError(
            f"no weights for {name} from the hub: {_first_line(error)}; give weights = a local file"
        ) from error
    return weights.fit_into(net, name, head, tensors, "the hub's file")


def _head(library: Library, net: nn.Module) -> frozenset[str]:
    """Names of the last layer's parameters."""
    if library == "timm":
        found = net.get_classifier()  # type: ignore[operator]
        modules = list(found) if isinstance(found, tuple | list) else [found]
    else:
        modules = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1:]
    ids = {id(parameter) for module in modules for parameter in module.parameters()}
    return frozenset(name for name, parameter in net.named_parameters() if id(parameter) in ids)


def _start_small(net: nn.Module, head: frozenset[str]) -> None:
    """Draw the head anew, with a standard deviation of 0.01 and no bias, so that training starts undecided.

    Some architectures scale the last layer by its number of outputs: meant for a thousand classes, this starts two
    classes with logits far apart, and a trained backbone would first have to unlearn its features.
    """
    for name, parameter in net.named_parameters():
        if name in head:
            with torch.no_grad():
                parameter.normal_(std=0.01) if parameter.ndim > 1 else parameter.zero_()


def _fit_to_size(library: Library, net: nn.Module, name: str, size: tuple[int, int], classes: int) -> nn.Module | None:
    """Set the network to the images' size, try it once, and return the module that makes its last feature map."""
    layer = _last_map(library, net)
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output)) if layer else None
    native = _native_size(net)
    net.eval()
    try:
        if hasattr(net, "set_input_size") and native != size:
            net.set_input_size(img_size=size)  # type: ignore[operator]  # position embeddings are resampled
        with torch.no_grad():
            logits = net(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        own = f"; its own size is {native[0]}x{native[1]}" if native else ""
        raise UsageError(f"{name} cannot take images of {size[0]}x{size[1]}{own}: {_first_line(error)}") from error
    finally:
        if hook is not None:
            hook.remove()
        net.train()
    if logits.shape != (1, classes):
        raise UsageError(f"{name} is not a classifier: it answers with {tuple(logits.shape)}")
    return layer if seen and _is_map(seen[-1]) else None


def _is_map(output: Any) -> bool:
    # (N, channels, h, w). Tokens have three axes; maps with the channels last have more of them there than columns
    return isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[1] >= output.shape[3]


def _last_map(library: Library, net: nn.Module) -> nn.Module | None:
    modules = dict(net.named_modules())
    if library == "torchvision":
        return next((modules[name] for name in _LAST_MAPS if name in modules), None)
    stages: Any = getattr(net, "feature_info", None) or [{}]
    return modules.get(stages[-1].get("module"))


def _native_size(net: nn.Module) -> tuple[int, int] | None:
    card: dict[str, Any] = getattr(net, "pretrained_cfg", {})
    if card.get("input_size"):
        return int(card["input_size"][1]), int(card["input_size"][2])
    side: Any = getattr(net, "image_size", None)  # torchvision's vision transformers
    return (side, side) if isinstance(side, int) else None


def _normalisation(settings: NetworkSettings, net: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    card: dict[str, Any] = getattr(net, "pretrained_cfg", {})
    mean = settings.mean or card.get("mean") or IMAGENET_MEAN
    std = settings.std or card.get("std") or IMAGENET_STD
    return tuple(mean), tuple(std)


def _freeze(settings: NetworkSettings, library: Library, net: nn.Module, head: frozenset[str]) -> None:
    if settings.train == "all":
        return
    trained = set(head)
    if isinstance(settings.train, int):
        stages = _stages(library, net, head)
        if settings.train > len(stages):
            raise UsageError(f"{settings.line} has {len(stages)} stages besides its head, not {settings.train}")
        trained.update(*stages[-settings.train :])
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)


def _stages(library: Library, net: nn.Module, head: frozenset[str]) -> list[list[str]]:
    """Names of the backbone's parameters, stage by stage; what stands beside the head belongs to the last stage."""
    if library == "timm":
        from timm.models import group_parameters

        groups = list(group_parameters(net, net.group_matcher(coarse=True)).values())  # type: ignore[operator]
    else:
        by_stage: dict[str, list[str]] = {}
        for name, _ in net.named_parameters():
            found = _STAGE.match(name)
            by_stage.setdefault(found.group() if found else name, []).append(name)
        groups = list(by_stage.values())
    stages: list[list[str]] = []
    for group in groups:
        rest = [name for name in group if name not in head]
        if len(rest) < len(group) and stages:
            stages[-1] += rest
        elif rest:
            stages.append(rest)
    return stages


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
