"""What both sides of `serve.py` work on: one ResNet-50 with seeded weights, as a bundle and as a file, and pictures."""
# ruff: noqa: PLC0415  torch is for whoever makes the bundle

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

SIZE = (224, 224)
CLASSES = ["benign", "malignant"]
#: The weights of the network alone, under torchvision's names.
WEIGHTS = "resnet50.safetensors"
#: Standard deviation that the log-odds of the pictures get, so that scores spread over 0 to 1.
_SPREAD = 1.5

Picture = npt.NDArray[np.uint8]


def made_pictures(count: int, seed: int) -> list[Picture]:
    """Return pictures (224, 224, 3) with the colours and the grain of stained tissue, some 100 KB each as PNG."""
    import cv2

    numbers = np.random.default_rng(seed)
    height, width = SIZE
    stroma, cells, empty = np.array([[222, 164, 198], [112, 62, 138], [241, 236, 242]], np.float32)
    pictures = []
    for _ in range(count):

        def field(scale: float) -> npt.NDArray[np.float32]:
            smooth = cv2.GaussianBlur(numbers.standard_normal((height, width)).astype(np.float32), (0, 0), scale)
            return np.asarray((smooth - smooth.mean()) / smooth.std(), np.float32)[..., np.newaxis]

        dense = numbers.uniform(-0.5, 1.2)
        tissue = 1 / (1 + np.exp(-4 * (field(24) + dense)))
        nuclei = 1 / (1 + np.exp(-5 * (field(3) - numbers.uniform(0.4, 1.4))))
        picture = stroma + 14 * field(6) + 7 * field(1)
        picture = tissue * (nuclei * cells + (1 - nuclei) * picture) + (1 - tissue) * empty
        picture += numbers.normal(0, 4, (height, width, 3))
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    return pictures


def read_pictures(folder: Path, count: int) -> list[Picture]:
    """Return pictures of a folder, scaled to 224 x 224."""
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif"))
    if not paths:
        raise SystemExit(f"{folder} has no PNG, JPEG or TIFF files")
    chosen = paths[:: max(1, len(paths) // count)][:count]
    return [np.asarray(Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)) for path in chosen]


def png(picture: Picture) -> bytes:
    """Return a picture as PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def make_bundle(folder: Path, pictures: list[Picture], seed: int) -> None:
    """Write `folder/bundle`, by Spicula's own export, and `folder/resnet50.safetensors`, of the same network."""
    import torch
    from safetensors.torch import save_file

    from spicula.bundle import onnx_evidence
    from spicula.bundle.export import write_bundle
    from spicula.models import registry
    from spicula.models.settings import NetworkSettings

    torch.manual_seed(seed)
    settings = NetworkSettings.model_validate({"line": "torchvision:resnet50"})
    network = registry.create(settings, SIZE, 3, len(CLASSES))
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    _settle(network, images)
    save_file(network.net.state_dict(), folder / WEIGHTS)
    graph = onnx_evidence.of_network(network, SIZE, 3)
    write_bundle(folder / "bundle", _content(graph, folder), graph, folder / WEIGHTS, None)


def _settle(network: Any, images: "torch.Tensor") -> None:
    """Let random weights behave as trained ones do.

    Batch normalisation gets the statistics of the pictures, and the last layer looks where its inputs differ the most
    between them (their first principal component), so that scores of both classes come out, and not by magnified noise.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    head = network.net.fc
    with torch.no_grad():
        network.train()(images)
        network.net.fc = torch.nn.Identity()
        features = network.eval()(images)
        network.net.fc = head
        middle = features.mean(dim=0)
        direction = torch.linalg.svd(features - middle, full_matrices=False).Vh[0]
        direction *= _SPREAD / ((features - middle) @ direction).std()
        head.weight.zero_()
        head.bias.zero_()
        head.weight[1] = direction
        head.bias[1] = -(features @ direction).median()


def _content(graph: bytes, folder: Path) -> dict[str, Any]:
    from spicula import RESEARCH_NOTICE, __version__
    from spicula.bundle import Bundle, golden
    from spicula.bundle.explanation import EVIDENCE
    from spicula.bundle.format import FORMAT, Info
    from spicula.imaging.preprocess import Preprocess

    preprocess = Preprocess(size=SIZE, channels=3)
    threshold = {"threshold": 0.5, "chosen_on": "val", "val": {}, "test": {}}
    counts = {"images": 0, "patients": 0, "positive": 0}
    tensor = {"name": "image", "dtype": "float32", "shape": ["batch", 3, *SIZE], "meaning": "0 to 1"}
    output = {"name": "probabilities", "dtype": "float32", "shape": ["batch", 2], "meaning": ", ".join(CLASSES)}
    explained = {"name": EVIDENCE, "dtype": "float32", "shape": ["batch", 7, 7], "meaning": "Grad-CAM"}
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": "resnet50",
        "version": "1",
        "line": "torchvision:resnet50",
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "spicula": __version__,
        "notice": RESEARCH_NOTICE,
        "classes": CLASSES,
        "target": CLASSES[1],
        "scope": {"modalities": [], "presentation_intents": [], "colour": True, "statement": "Stained tissue."},
        "input": tensor,
        "output": output,
        "explanation": explained | {"images": 0, "max_abs_difference": 0.0},
        "preprocessing": {"digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json")},
        "features": None,
        "operating_points": {"youden": threshold},
        "training": {
            **dict.fromkeys(("run_key", "weights_digest", "index_digest", "split_digest"), "0" * 64),
            "seed": 0,
            "fold": None,
            "settings": {"line": "torchvision:resnet50"},
            "counts": dict.fromkeys(("train", "val", "test"), counts),
            "versions": {"spicula": __version__},
        },
        "data": {
            "dataset": "none",
            "synthetic": True,
            "title": "Random weights",
            "source": None,
            "terms": "none",
            "citation": None,
        },
        "licence": "none",
        "parity": {
            **{"images": 0, "splits": {"test": 0}, "max_abs_difference": 0.0, "max_abs_difference_to_run": 0.0},
            **{"tolerance": 1e-4, "decisions_differ": 0, "reference": "none", "onnxruntime": "none", "opset": 23},
        },
    }
    content["golden"] = golden.record(Bundle(folder=folder, info=cast("Info", content), model=graph))
    return content
