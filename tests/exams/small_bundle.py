"""A screening bundle with tiny networks, for tests of everything that only needs a four-view classifier to be there.

Its graphs are made by hand, quick, deterministic in their seeds, and depend on every part of their inputs. They are not
of the published architecture, so that they run through OpenVINO and ONNX Runtime, and not through torch.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from spicula.bundle.screening import ScreeningSettings, writing
from spicula.bundle.screening import format as layout

SMALL = ScreeningSettings(
    cc=(64, 48), mlo=(72, 44), erosions=2, buffer=2, patch=32, stride=9, shift=4, resize=4, windows=3
)

_FILTERS, _STEP = 6, 8


def small_bundle(
    to: Path,
    seed: int = 0,
    heatmaps: bool = True,
    *,
    patch_seed: int | None = None,
    image_seed: int | None = None,
    image_heatmaps_seed: int | None = None,
    settings: ScreeningSettings = SMALL,
    name: str = "small",
    version: str = "1",
    heatmap_threshold: float | None = None,
    symmetric: bool = False,
) -> Path:
    """Write the bundle, and return its folder.

    Args:
        to: the bundle's folder; a screening bundle that is there is replaced.
        seed: of all networks.
        heatmaps: False leaves out the patch network and the classifier that reads heatmaps.
        patch_seed: of the patch network alone; None: `seed`.
        image_seed: of the classifier image-only alone.
        image_heatmaps_seed: of the classifier image-and-heatmaps alone.
        settings: of the stages.
        name: of the model.
        version: of the model.
        heatmap_threshold: of segmentations.
        symmetric: the classifiers treat both breasts alike, as the published ones were trained to, but need not.
    """
    seeds = {layout.PATCH: patch_seed, layout.IMAGE_ONLY: image_seed, layout.IMAGE_AND_HEATMAPS: image_heatmaps_seed}
    roles = layout.ROLES if heatmaps else (layout.IMAGE_ONLY,)
    graphs, weights = {}, {}
    for number, role in enumerate(roles):
        own = seeds[role]
        rng = np.random.default_rng([seed if own is None else own, number])
        tensors = {}
        for graph in layout.graphs_of(role):
            made = _weights(rng, layout.CHANNELS[role], 4 if role == layout.PATCH else 8)
            if symmetric and role != layout.PATCH:
                _make_symmetric(made)
            graphs[graph] = _patch(made, settings.patch) if role == layout.PATCH else _angle(made)
            tensors |= {f"{graph}.{key}": value for key, value in made.items()}
        weights[role] = save(tensors)
    written = writing.write(
        to,
        name=name,
        version=version,
        settings=settings,
        graphs=graphs,
        weights=weights,
        licence="CC0",
        heatmap_threshold=heatmap_threshold,
    )
    return written.folder


def _weights(rng, channels, outputs):
    features = _FILTERS if outputs == 4 else 2 * _FILTERS
    return {
        "kernel": (rng.normal(0, 1, (_FILTERS, channels, _STEP, _STEP)) / (_STEP * channels)).astype(np.float32),
        "bias": rng.normal(0, 0.2, _FILTERS).astype(np.float32),
        "weights": rng.normal(0, 1.5, (features, outputs)).astype(np.float32),
        "offset": rng.normal(0, 0.5, outputs).astype(np.float32),
    }


def _make_symmetric(made):
    """Give the right breast's outputs what the left one's have, with the features of the two breasts exchanged."""
    for left, right in ((slice(0, 2), slice(2, 4)), (slice(4, 6), slice(6, 8))):
        made["weights"][:, right] = np.roll(made["weights"][:, left], _FILTERS, axis=0)
        made["offset"][right] = made["offset"][left]


def _features(image):
    """Nodes that turn an image (N, C, H, W) into (N, FILTERS): strided convolution, ReLU, mean over all places."""
    return [
        helper.make_node("Conv", [image, "kernel", "bias"], [f"{image}.maps"], strides=[_STEP, _STEP]),
        helper.make_node("Relu", [f"{image}.maps"], [f"{image}.active"]),
        helper.make_node("GlobalAveragePool", [f"{image}.active"], [f"{image}.pooled"]),
        helper.make_node("Flatten", [f"{image}.pooled"], [f"{image}.features"]),
    ]


def _patch(weights, size):
    nodes = [
        *_features(layout.PATCHES),
        helper.make_node("Gemm", [f"{layout.PATCHES}.features", "weights", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [layout.PROBABILITIES], axis=1),
    ]
    return _model(nodes, weights, {layout.PATCHES: ["batch", 1, size, size]})


def _angle(weights):
    channels = weights["kernel"].shape[1]
    constants = {"shape": np.array([-1, 4, 2]), "second": np.array(1)}
    nodes = [
        *_features(layout.LEFT),
        *_features(layout.RIGHT),
        helper.make_node("Concat", [f"{layout.LEFT}.features", f"{layout.RIGHT}.features"], ["both"], axis=1),
        helper.make_node("Gemm", ["both", "weights", "offset"], ["logits"]),
        helper.make_node("Reshape", ["logits", "shape"], ["pairs"]),
        helper.make_node("Softmax", ["pairs"], ["shares"], axis=2),
        helper.make_node("Gather", ["shares", "second"], [layout.PROBABILITIES], axis=2),
    ]
    shape = ["batch", channels, "height", "width"]
    return _model(nodes, weights | constants, {layout.LEFT: shape, layout.RIGHT: shape})


def _model(nodes, constants, inputs):
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(layout.PROBABILITIES, TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return model.SerializeToString(deterministic=True)
