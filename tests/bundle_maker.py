"""A bundle whose scores are known (the mean brightness of the preprocessed image), and images to show it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from safetensors.numpy import save_file

from spicula import RESEARCH_NOTICE, __version__
from spicula.bundle import Bundle
from spicula.bundle.export import write_bundle
from spicula.imaging.preprocess import Preprocess

CANARY = "Canary^Jane"
PREPROCESS = Preprocess(size=(8, 8), channels=1)
#: What a bundle says of a map of what spoke for its target.
EXPLANATION = {
    "name": "evidence",
    "dtype": "float32",
    "shape": ["batch", 8, 8],
    "meaning": "Grad-CAM before its ReLU",
    "images": 1,
    "max_abs_difference": 0.0,
}


def brightness_model(
    channels: int = 1, external: bool = False, left: bool = False, size: tuple[int, int] = (8, 8)
) -> bytes:
    """The graph; with `left`, of the left half of the image alone."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, *size])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    axes = numpy_helper.from_array(np.array([1, 2, 3]), "axes")
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    if external:
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "elsewhere.bin"), ("offset", "0"), ("length", "4")):
            one.external_data.add(key=key, value=value)
    weights = np.ones(size, np.float32)
    if left:
        weights[:, : size[1] // 2], weights[:, size[1] // 2 :] = 2, 0
    nodes = [
        helper.make_node("Mul", ["image", "weights"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["positive"]),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
    ]
    last = numpy_helper.from_array(np.array([1]), "last")
    constants = [axes, one, last, numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "brightness", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return model.SerializeToString()


def content(**changes: Any) -> dict[str, Any]:
    made = {
        "format": 1,
        "name": "brightness",
        "version": "3",
        "line": "cnn",
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat(),
        "spicula": __version__,
        "notice": RESEARCH_NOTICE,
        "classes": ["dark", "bright"],
        "target": "bright",
        "scope": {"modalities": [], "presentation_intents": [], "colour": None, "statement": "Images."},
        "input": {
            "name": "image",
            "dtype": "float32",
            "shape": ["batch", 1, 8, 8],
            "meaning": "the preprocessed image, 0 to 1",
        },
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", 2], "meaning": "dark, bright"},
        "preprocessing": {"digest": PREPROCESS.digest(), "settings": PREPROCESS.model_dump(mode="json")},
        "features": None,
        "operating_points": {
            "youden": {"threshold": 0.5, "chosen_on": "val", "val": {"sensitivity": 1.0}, "test": {"sensitivity": 0.9}}
        },
        "training": {
            "run_key": "1" * 64,
            "weights_digest": "2" * 64,
            "index_digest": "3" * 64,
            "split_digest": "4" * 64,
            "seed": 0,
            "fold": None,
            "settings": {"line": "cnn", "epochs": 20},
            "counts": {
                "train": {"images": 300, "patients": 120, "positive": 90},
                "val": {"images": 100, "patients": 40, "positive": 30},
                "test": {"images": 100, "patients": 40, "positive": 30},
            },
            "versions": {"spicula": __version__, "torch": "2.13.0"},
        },
        "data": {
            "dataset": "lamps",
            "synthetic": False,
            "title": "Lamps",
            "source": None,
            "terms": "CC0",
            "citation": None,
        },
        "licence": "CC0",
        "parity": {
            "images": 64,
            "splits": {"test": 64},
            "max_abs_difference": 1e-7,
            "max_abs_difference_to_run": 2e-7,
            "tolerance": 1e-4,
            "decisions_differ": 0,
            "reference": "torch, float32, CPU",
            "onnxruntime": "1.31.1",
            "opset": 23,
        },
    }
    return made | changes


def make(to: Path, model: bytes | None = None, **changes: Any) -> Bundle:
    weights = to.parent / "trained.safetensors"
    save_file({"brightness": np.ones(1, np.float32)}, weights)
    return write_bundle(to, content(**changes), model or brightness_model(), weights, None)


def grey(path, value, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


def dicom(path, value=51, frames=1, **elements):
    """A DICOM file of one grey value, or of the pixels (rows, columns) given as `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = CANARY, "canary-id", "canary-accession"
    dataset.Modality = "MG"
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if frames > 1:
        dataset.NumberOfFrames = frames
    for name, content in elements.items():
        setattr(dataset, name, content)
    pixels = np.full((frames, 20, 30), value, np.uint8) if isinstance(value, int) else value
    dataset.Rows, dataset.Columns = elements.get("Rows", pixels.shape[-2]), pixels.shape[-1]
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path
