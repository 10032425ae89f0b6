"""Trained models as ONNX graphs: one file, the batch of any length, probabilities out."""

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

#: The newest operator set that torch's exporter lists and that every onnxruntime which the core install allows runs.
OPSET = 23
#: The version of the file format that belongs to it, as torch's exporter writes it.
IR_VERSION = 10
IMAGE, FEATURES, PROBABILITIES = "image", "features", "probabilities"


def of_network(module: "torch.nn.Module", size: tuple[int, int], channels: int) -> bytes:
    """Convert a network that returns logits.

    Args:
        module: takes float32 (N, C, H, W) in [0, 1], returns (N, classes) logits.
        size: (H, W) in pixels.
        channels: C.

    Returns:
        A model with the input `image` (N, C, H, W) and the output `probabilities` (N, classes), the softmax.
    """
    import torch

    wrapped = torch.nn.Sequential(module, torch.nn.Softmax(dim=1))
    return of_module(wrapped, {IMAGE: torch.zeros(2, channels, *size)}, ({0: torch.export.Dim("batch")},))


def of_module(
    module: "torch.nn.Module",
    examples: "Mapping[str, torch.Tensor]",
    dynamic: Sequence[Mapping[int, Any]],
    outputs: Sequence[str] = (PROBABILITIES,),
) -> bytes:
    """Convert a module that returns probabilities.

    Args:
        module: takes the examples in their order.
        examples: an input for each name.
        dynamic: for each input the axes that may have any length, as `torch.export.Dim`.
        outputs: names of what it returns.

    Returns:
        A model with inputs and outputs of those names.
    """
    import torch

    # The exporter prints its steps, and warns of deprecations within torch, of which a user can do nothing.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=tuple(dynamic),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return _plain(program.model_proto)


def with_weights(graph: bytes, module: "torch.nn.Module") -> bytes:
    """Return the graph of another module of the same architecture, which takes seconds less than to convert it.

    Args:
        graph: what `of_module` made of the first one.
        module: holds the weights.
    """
    import onnx

    model = onnx.load_from_string(graph)
    weights = module.state_dict()
    for tensor in model.graph.initializer:  # the exporter calls them as the module does; others are constants
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].numpy(), tensor.name))
    return _plain(model)


def of_linear(
    mean: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
    coefficients: npt.NDArray[np.float64],
    intercept: float,
    *,
    slope: float = 1.0,
    offset: float = 0.0,
) -> bytes:
    """Build the graph of a linear classifier on standardised features.

    p = 1 / (1 + exp(-(slope * d + offset))) with d = sum(coefficients * (features - mean) / scale) + intercept.
    For logistic regression slope is 1 and offset 0; for a support vector machine they turn the distance to the
    hyperplane into a probability (Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2).

    Args:
        mean: (F,) of the training features.
        scale: (F,) standard deviations, above 0.
        coefficients: (F,).
        intercept: added to the sum.
        slope: of the logistic curve.
        offset: of the logistic curve.

    Returns:
        A model with the input `features` (N, F) and the output `probabilities` (N, 2). It computes in float64, since
        standardised differences of large features would lose digits in float32.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "mean": np.asarray(mean, np.float64),
        "scale": np.asarray(scale, np.float64),
        # both classes: the logit of one is the other's with its sign changed
        "weights": np.stack([-coefficients, coefficients], axis=1).astype(np.float64) * slope,
        "bias": np.array([-1.0, 1.0]) * (slope * intercept + offset),
    }
    nodes = [
        helper.make_node("Cast", [FEATURES], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["wide", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
        helper.make_node("Gemm", ["standardised", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["both"]),
        helper.make_node("Cast", ["both"], [PROBABILITIES], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", len(constants["mean"])])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, producer_name="spicula", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return _plain(model)


def _plain(model: Any) -> bytes:
    """Check the model, and take out notes about how it was made: the exporter's name files of this machine."""
    import onnx

    _drop_notes(model)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _drop_notes(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for one in value if isinstance(value, Iterable) else [value]:
                _drop_notes(one)
