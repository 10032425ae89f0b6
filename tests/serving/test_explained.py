"""Grad-CAM without torch: what the service shows is what the project's own Grad-CAM shows."""

import asyncio
import base64
import io

import numpy as np
import pytest
from bundle_maker import content, make
from PIL import Image
from predict_app import noise, serving, uploads, with_golden

from spicula.bundle import explanation
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.readers import read_pixels

torch = pytest.importorskip("torch", reason="a network to explain: pip install 'spicula[train]'")

from spicula.bundle import onnx_evidence  # noqa: E402
from spicula.bundle.running import make_session, run_only  # noqa: E402
from spicula.evaluation.gradcam import cam  # noqa: E402
from spicula.models import registry  # noqa: E402
from spicula.models.settings import NetworkSettings  # noqa: E402

SIZE = (32, 24)
#: Heads of every kind: flattened and dense, pooled and linear, with convolutions and activations behind the last map,
#: pooled to a size that is not 1, with the channels last in memory.
LINES = {
    "cnn": SIZE,
    "torchvision:resnet18": (64, 64),
    "timm:mobilenetv3_small_100": (64, 64),
    "torchvision:densenet121": (64, 64),
    "timm:efficientnet_b0": (64, 64),
    "torchvision:vgg11_bn": (96, 96),
    "timm:resnet50": (96, 96),
    "torchvision:inception_v3": (96, 96),
    "timm:convnext_atto": (64, 64),
}


def network_of(line, size):
    torch.manual_seed(0)
    return registry.create(NetworkSettings(line=line), size, 3, 2).eval()


def images_of(size, count=5):
    return np.random.default_rng(1).random((count, 3, *size), np.float32)


@pytest.fixture(scope="module")
def cnn():
    """The network, and its graph."""
    return network_of("cnn", SIZE), onnx_evidence.of_network(network_of("cnn", SIZE), SIZE, 3)


@pytest.fixture
def bundle(cnn, tmp_path):
    """A bundle that explains."""
    preprocess = Preprocess(size=SIZE, channels=3)
    return with_golden(
        make(
            tmp_path / "bundle",
            model=cnn[1],
            input=content()["input"] | {"shape": ["batch", 3, *SIZE]},
            preprocessing={"digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json")},
            explanation={
                "name": "evidence",
                "dtype": "float32",
                "shape": ["batch", 8, 6],
                "meaning": "Grad-CAM before its ReLU",
                "images": 1,
                "max_abs_difference": 0.0,
            },
        )
    )


def check(network, graph, size):
    images = images_of(size)
    session = make_session(graph, "test")
    probabilities, evidence = run_only(session, ["probabilities", "evidence"], {"image": images})
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(explanation.heat(evidence, size), cam(network, images, 1), atol=1e-4)
    np.testing.assert_allclose(explanation.heat(-evidence, size), cam(network, images, 0), atol=1e-4)
    (alone,) = run_only(session, ["evidence"], {"image": images[2:3]})
    np.testing.assert_allclose(alone[0], evidence[2], atol=1e-5 * np.abs(evidence).max())
    assert np.ptp(evidence) > 0


def test_the_graph_explains_as_torch_does(cnn):
    check(*cnn, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if line != "cnn"])
def test_graphs_of_all_kinds_of_heads_explain_as_torch_does(line):
    size = LINES[line]
    check(network_of(line, size), onnx_evidence.of_network(network_of(line, size), size, 3), size)


@pytest.mark.slow
def test_a_network_without_a_map_is_not_explained():
    size = (224, 224)
    with pytest.raises(onnx_evidence.NoEvidenceError, match="no map of features"):
        onnx_evidence.of_network(network_of("timm:vit_tiny_patch16_224", size), size, 3)


def test_a_graph_whose_heatmaps_are_others_is_noticed(cnn):
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    network, graph = cnn
    found = onnx_evidence.compared(graph, network, images, "test")
    assert found["max_abs_difference"] <= 1e-4
    assert found["shape"] == ["batch", 8, 6]
    torch.manual_seed(1)
    other = registry.create(NetworkSettings(line="cnn"), SIZE, 3, 2).eval()
    with pytest.raises(onnx_evidence.NoEvidenceError, match="away from torch's"):
        onnx_evidence.compared(graph, other, images, "test")


def test_nothing_for_the_class_is_an_empty_heatmap():
    heat = explanation.heat(np.array([[[-1, -2], [-3, 0]], [[0, 0], [0, 1]]], np.float32), (8, 8))
    assert not heat[0].any()
    assert heat[1].max() == 1
    assert heat[1, 7, 7] == 1


def png(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
def test_the_service_shows_the_image_and_what_spoke_for_a_class(bundle, cnn, tmp_path, provider):
    if provider == "openvino":
        pytest.importorskip("openvino", reason="another provider: pip install 'spicula[exams]'")
    files = [noise(tmp_path / f"{number}.png", seed=number) for number in range(3)]

    async def main():
        async with serving(bundle, provider=provider) as (client, service):
            assert service.models["brightness"].tested.max_abs_difference < 1e-4
            return [
                (await client.post(f"/v1/predict{query}", files=uploads(*files))).json()
                for query in ("", "?explain=gradcam", "?explain=gradcam&of=dark")
            ]

    plain, bright, dark = asyncio.run(main())
    prepared = np.stack([bundle.preprocess.apply(read_pixels(path)).array for path in files])
    inputs = bundle.inputs(prepared)
    for answer, column, name in ((bright, 1, "bright"), (dark, 0, "dark")):
        expected = cam(cnn[0], inputs, column)
        for number, image in enumerate(answer["images"]):
            shown = image["explanation"]
            assert (shown["method"], shown["class"]) == ("gradcam", name)
            np.testing.assert_array_equal(png(shown["image_png"]), prepared[number])
            heatmap = png(shown["heatmap_png"])
            assert heatmap.shape == (*SIZE, 4)
            np.testing.assert_allclose(heatmap[..., 3] / 255, expected[number], atol=0.5 / 255 + 1e-4)
            assert image["score"] == pytest.approx(plain["images"][number]["score"], abs=1e-6)
    assert all(image["explanation"] is None for image in plain["images"])
