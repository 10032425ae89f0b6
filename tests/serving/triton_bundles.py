"""Bundles for Triton's tests: a network whose scores are known, and one of the linear line."""

import bundle_maker
import numpy as np
import onnx

from spicula.bundle import Bundle, golden, onnx_graph
from spicula.models import features
from spicula.models.settings import FeatureSettings

SETTINGS = FeatureSettings(groups=("intensity",))


def network(to, name="brightness", **changes):
    """The mean brightness of the image."""
    return _with_golden(to, bundle_maker.brightness_model(**changes.pop("model", {})), name=name, **changes)


def explained(to, name="explained"):
    """The first one, with a map of what spoke for its class."""
    model = onnx.load_from_string(bundle_maker.brightness_model())
    graph = model.graph
    graph.initializer.append(onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.5]))
    graph.initializer.append(onnx.helper.make_tensor("channel", onnx.TensorProto.INT64, [1], [1]))
    graph.node.append(onnx.helper.make_node("Sub", ["image", "half"], ["brighter"]))
    graph.node.append(onnx.helper.make_node("Squeeze", ["brighter", "channel"], ["evidence"]))
    graph.output.append(onnx.helper.make_tensor_value_info("evidence", onnx.TensorProto.FLOAT, ["batch", 8, 8]))
    return _with_golden(to, model.SerializeToString(), name=name, explanation=bundle_maker.EXPLANATION)


def linear(to, name="linear"):
    """Of features that are computed of the image."""
    count = len(features.names(SETTINGS, bundle_maker.PREPROCESS.size, 1))
    rng = np.random.default_rng(0)
    graph = onnx_graph.of_linear(rng.random(count), rng.random(count) + 1, rng.normal(size=count) / 50, 0.1)
    return _with_golden(
        to,
        graph,
        name=name,
        line="linear",
        features={"version": features.VERSION, "settings": SETTINGS.model_dump(mode="json")},
        input={"name": "features", "dtype": "float32", "shape": ["batch", count], "meaning": "features"},
    )


def _with_golden(to, graph, **changes):
    bare = Bundle(folder=to, info=bundle_maker.content(**changes), model=graph)
    return bundle_maker.make(to, graph, golden=golden.record(bare), **changes)
