"""A network with Grad-CAM inside: one graph gives probabilities, and the map of what spoke for the target.

The gradients from the logits back to the last feature map become nodes like all others: the network and its own
backward pass are traced together, and what the two outputs do not need is dropped.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spicula.bundle import onnx_graph
from spicula.bundle.explanation import EVIDENCE, heat
from spicula.bundle.format import Explanation
from spicula.bundle.running import make_session, run_only
from spicula.errors import SpiculaError
from spicula.imaging.contrast import normalise

if TYPE_CHECKING:
    import torch

    from spicula.models.classifier import Classifier


#: Real images that heatmaps are compared on, and the largest difference of a value of theirs, which are 0 to 1.
IMAGES, TOLERANCE = 16, 1e-3


class NoEvidenceError(SpiculaError):
    """The architecture has no map of features, or its gradients cannot be traced."""


def of_network(module: "Classifier", size: tuple[int, int], channels: int) -> bytes:
    """Convert a network that returns logits, with the evidence for class 1.

    Args:
        module: a network of `models.registry`, which takes float32 (N, C, H, W) in [0, 1] and returns (N, classes)
            logits; its parameters stop asking for gradients.
        size: (H, W) in pixels.
        channels: C.

    Returns:
        A model with the input `image` (N, C, H, W) and the outputs `probabilities` (N, classes), the softmax, and
        `evidence` (N, h, w), see `bundle.explanation`; h and w are those of the network's last map of features.

    Raises:
        NoEvidenceError: see there.
    """
    import torch

    graph = _traced(module, size, channels)
    try:
        return onnx_graph.of_module(
            graph,
            {onnx_graph.IMAGE: torch.zeros(2, channels, *size)},
            ({0: torch.export.Dim("batch")},),
            (onnx_graph.PROBABILITIES, EVIDENCE),
        )
    except Exception as error:  # an operator of the backward pass that ONNX has no word for
        raise NoEvidenceError(f"its gradients cannot be written as ONNX ({type(error).__name__})") from error


def compared(
    graph: bytes, module: "Classifier", images: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], where: str
) -> Explanation:
    """Compare the heatmaps of a graph with those of `evaluation.gradcam`, and return what `bundle.json` says of them.

    Args:
        graph: as `of_network` made it.
        module: the network.
        images: (N, H, W, C), as the Store holds them.
        where: the network is from, for errors.

    Raises:
        NoEvidenceError: they differ by more than `TOLERANCE`.
    """
    from spicula.evaluation.gradcam import cam

    inputs = np.ascontiguousarray(normalise(images).transpose(0, 3, 1, 2))
    (evidence,) = run_only(make_session(graph, where), [EVIDENCE], {onnx_graph.IMAGE: inputs})
    size = (int(inputs.shape[2]), int(inputs.shape[3]))
    difference = float(np.abs(heat(evidence, size) - cam(module, inputs, 1)).max(initial=0.0))
    if not difference <= TOLERANCE:
        raise NoEvidenceError(f"its heatmaps are up to {difference:.1e} away from torch's")
    return {
        "name": EVIDENCE,
        "dtype": "float32",
        "shape": ["batch", *evidence.shape[1:]],
        "meaning": "Grad-CAM before its ReLU: positive where the image speaks for the target, negative for the other",
        "images": len(images),
        "max_abs_difference": difference,
    }


def _traced(module: "Classifier", size: tuple[int, int], channels: int) -> "torch.nn.Module":
    """Return a module that gives probabilities (N, classes) and evidence (N, h, w)."""
    import torch
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    if module.gradcam_layer() is None:
        raise NoEvidenceError("the architecture has no map of features")
    module.eval().requires_grad_(False)
    table = core_aten_decompositions()
    table[torch.ops.aten.convolution_backward.default] = _convolution_backward
    table[torch.ops.aten._adaptive_avg_pool2d_backward.default] = _adaptive_pooling_backward
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace = make_fx(
                lambda images: _explained(module, images),
                decomposition_table=dict(table),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )
            graph = trace(torch.zeros(2, channels, *size))
    except NoEvidenceError:
        raise
    except Exception as error:  # tracing fails in as many ways as there are architectures
        raise NoEvidenceError(f"its gradients cannot be traced ({type(error).__name__})") from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _explained(module: "Classifier", images: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_(True))
        # A copy: a layer that works in place after it must not change what was kept. Its channels come first in memory:
        # pooling of maps with the channels last (ConvNeXt) has gradients that are written by address, as ONNX cannot.
        return seen[-1].clone(memory_format=torch.contiguous_format)

    layer = module.gradcam_layer()
    assert layer is not None
    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = module(images)
            if seen[-1].ndim != 4:
                raise NoEvidenceError("the architecture has no map of features")
            others = [index for index in range(logits.shape[1]) if index != 1]
            log_odds = (
                logits[:, 1] - logits[:, others].logsumexp(dim=1) if len(others) > 1 else logits[:, 1] - logits[:, 0]
            )
            (gradients,) = torch.autograd.grad(log_odds.sum(), seen[-1])
    finally:
        handle.remove()
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return logits.detach().softmax(dim=1), (weights * seen[-1].detach()).sum(dim=1)


def _convolution_backward(
    gradient: "torch.Tensor", images: "torch.Tensor", weight: "torch.Tensor", *how: Any
) -> "tuple[torch.Tensor | None, None, None]":
    """Return the gradient of a convolution's input as a transposed convolution, which ONNX has."""
    import torch

    _, stride, padding, dilation, transposed, _, groups, mask = how
    if not mask[0]:
        return None, None, None
    if transposed:
        raise NoEvidenceError("a transposed convolution stands behind its map of features")
    lost = [  # rows and columns at the far edge that the convolution's stride never came to
        int(images.shape[2 + axis])
        - (int(gradient.shape[2 + axis]) - 1) * stride[axis]
        + 2 * padding[axis]
        - dilation[axis] * (int(weight.shape[2 + axis]) - 1)
        - 1
        for axis in range(len(stride))
    ]
    back = torch.ops.aten.convolution(gradient, weight, None, stride, padding, dilation, True, lost, groups)
    return back, None, None


def _adaptive_pooling_backward(gradient: "torch.Tensor", images: "torch.Tensor") -> "torch.Tensor":
    """Return the gradient of adaptive average pooling's input: along each axis the pooling is a matrix product."""
    rows = _pooling(int(images.shape[2]), int(gradient.shape[2]))
    columns = _pooling(int(images.shape[3]), int(gradient.shape[3]))
    return rows.T @ gradient @ columns


def _pooling(before: int, after: int) -> "torch.Tensor":
    """(after, before): the share that each input has in each output, as torch cuts its windows."""
    import torch

    shares = [[0.0] * before for _ in range(after)]
    for to in range(after):
        start, end = to * before // after, -(-(to + 1) * before // after)
        shares[to][start:end] = [1 / (end - start)] * (end - start)
    return torch.tensor(shares)
