"""Bundles whose models other servers run."""

from bundle_maker import EXPLANATION, brightness_model, make
from onnx import TensorProto, helper, load_from_string


def pair(folder):
    """Return a bundle, and one of the same shape and of another model."""
    return make(folder / "bundle"), make(folder / "other", brightness_model(left=True))


def explained(to, scale=1.0):
    """Return the bundle with a second output, `EXPLANATION`, times a scale."""
    model = load_from_string(brightness_model())
    graph = model.graph
    graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]))
    graph.initializer.append(helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]))
    graph.initializer.append(helper.make_tensor("channel", TensorProto.INT64, [1], [1]))
    graph.node.append(helper.make_node("Sub", ["image", "half"], ["brighter"]))
    graph.node.append(helper.make_node("Mul", ["brighter", "scale"], ["scaled"]))
    graph.node.append(helper.make_node("Squeeze", ["scaled", "channel"], ["evidence"]))
    graph.output.append(helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["batch", 8, 8]))
    return make(to, model.SerializeToString(), explanation=EXPLANATION)
