"""The networks of a four-view classifier as ONNX graphs."""

import torch
from torch import nn

from spicula.bundle import onnx_graph
from spicula.bundle.screening import format as layout
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.models.screening import patches
from spicula.models.screening.view_wise import Angle, ViewWise

#: Side of the images that a tower is traced with, and the range of sides that the exporter is told: from 75 on the
#: tower's last map has more than one row. The graph is the same for smaller images.
_TRACED = 96
_SIDES = (75, 2**14)


def modules_of(role: str, network: nn.Module) -> dict[str, nn.Module]:
    """Return what computes each graph of a network, by the graph's name; each returns probabilities (N, 4)."""
    if role == layout.PATCH:
        return {layout.PATCH: patches.Lean(network).eval()}
    assert isinstance(network, ViewWise)
    return {f"{role}.{angle}": Angle(network, angle).eval() for angle in layout.ANGLES}


def published_of(role: str, network: nn.Module) -> dict[str, nn.Module]:
    """Return the same in the form that was published, which a graph has to repeat; it takes what the graph takes."""
    if role == layout.PATCH:
        return {layout.PATCH: patches.AsPublished(network).eval()}
    return modules_of(role, network)


def convert(role: str, network: nn.Module, settings: ScreeningSettings) -> dict[str, bytes]:
    """Return a network's graphs, by name. The patches' size is fixed, that of the views is not; N is any.

    Args:
        role: of the network.
        network: with its weights.
        settings: give the patches' size.
    """
    batch = torch.export.Dim("batch")
    size = settings.patch if role == layout.PATCH else _TRACED
    example = torch.zeros(2, layout.CHANNELS[role], size, size)
    if role == layout.PATCH:
        examples, dynamic = {layout.PATCHES: example}, [{0: batch}]
    else:
        height, width = (torch.export.Dim(name, min=_SIDES[0], max=_SIDES[1]) for name in ("height", "width"))
        # two tensors: the exporter would take one for a single input
        examples = {layout.LEFT: example, layout.RIGHT: example.clone()}
        dynamic = [{0: batch, 2: height, 3: width}] * 2
    (first, module), *others = modules_of(role, network).items()
    made = {first: onnx_graph.of_module(module, examples, dynamic)}
    return made | {graph: onnx_graph.with_weights(made[first], other) for graph, other in others}
