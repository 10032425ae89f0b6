"""What the tests of shards share: converted images made in code, and the real libraries in processes of their own."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spicula import index
from spicula.convert import holdings, packing, png
from spicula.convert.sample import Sample
from spicula.imaging.geometry import Geometry


def make_sample(
    number: int, *, shape: tuple[int, int] = (40, 30), bits: int = 12, split: str | None = None, masks: int = 0
) -> Sample:
    """One converted image; rows of even number have few values, those of odd number nearly all."""
    random = np.random.default_rng(number)
    image = png.encode(random.integers(0, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16))
    pngs = {
        f"masks/{number}-{k}.png": png.encode((random.random(shape) < 0.5).astype(np.uint8) * np.uint8(255))
        for k in range(masks)
    }
    geometry = Geometry(shape[0], shape[1], 0, 0, *shape, False, *shape, 0, 0, *shape)
    record = {
        "key": f"key {number}",
        "path": f"p{number // 4}/i.{number}.png",
        "bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "bits": bits,
        "photometric": "MONOCHROME2",
        "masks": [{"path": path, "bytes": len(data), "reason": None} for path, data in pngs.items()],
        **geometry.to_row(),
    }
    row = {
        "dataset": "made-up",
        "image_id": f"p{number // 4}/i.{number}",
        "path": record["path"],
        "split": split,
        "lesions": _lesions(number, list(pngs)),
        "width": shape[1],
        "height": shape[0],
        "bits": bits,
        "photometric": "MONOCHROME2",
        "sha256": record["sha256"],
    }
    return Sample(row | (_FULL if number % 2 else {}), image, pngs, record)


_FULL = {
    "patient_id": "Ärztin 1",
    "exam_id": "e",
    "modality": "MG",
    "laterality": "L",
    "view": "MLO",
    "label": "malignant",
    "target": 1,
    "birads": "4A",
    "density": "C",
    "subtype": "ductal",
    "magnification": 40.0,
    "age": 61.5,
    "fold": 3,
    "flags": ["implant", "overlay"],
    "pixel_spacing_mm": 0.07,
    "manufacturer": "Ω",
    "model": "m",
    "source": "https://example.org/1",
}


def _lesions(number: int, masks: list[str]) -> list[dict[str, Any]]:
    lesions: list[dict[str, Any]] = [
        {"kind": "mask", "coordinates": [], "mask_path": path, "finding": "mass", "pathology": "benign", "birads": "2"}
        for path in masks
    ]
    rest = {"mask_path": None, "finding": "Verkalkung – grob", "pathology": None, "birads": None}
    if number % 3 == 0:
        lesions.append({"kind": "box", "coordinates": [3.0, 4.0, 10.5, 20.0], **rest})
        lesions.append({"kind": "polygon", "coordinates": [1.0, 2.0, 9.0, 2.0, 5.0, 30.0], **rest})
    if number % 4 == 0:
        lesions.append({"kind": "circle", "coordinates": [3.0, 4.0, 5.0], **rest})
    return lesions


def pack(folder: Path, format: str, samples: Sequence[Sample], limit: int = 10**6, batch: int = 5) -> None:
    """Hand converted images over in batches, as workers do, and make shards of them."""
    there = holdings.pieces(holdings.scan(folder))
    new = [sample for sample in samples if sample.record["key"] not in there]
    for at in range(0, len(new), batch):
        holdings.save_batch(folder, new[at : at + batch])
    table = index.from_rows([sample.row for sample in samples], folder)
    packing.pack(folder, format, limit, table.to_pylist(), [sample.record["key"] for sample in samples])


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by name; what Spicula keeps for itself apart."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".spicula" not in path.parts
    }


def rows_of(samples: Sequence[Sample], root: Path) -> dict[str, dict[str, Any]]:
    """Full rows by image_id, as an Index gives them (float32 and all)."""
    return {row["image_id"]: row for row in index.from_rows([sample.row for sample in samples], root).to_pylist()}


def digest_of(pixels: np.ndarray) -> str:
    """What tells two arrays apart: dtype, shape without a last side of 1, values."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return f"{pixels.dtype} {pixels.shape} {hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()}"


def decoded(data: bytes) -> str:
    """`digest_of` the pixels of a grey PNG, decoded by OpenCV."""
    return digest_of(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


#: Put before a script: the same `digest_of`, and lines of JSON on stdout.
PROLOGUE = """
import hashlib, json, sys
import numpy as np

def digest_of(pixels):
    pixels = np.asarray(pixels)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return f"{pixels.dtype} {pixels.shape} {hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()}"

def tell(value):
    print("TOLD " + json.dumps(value))
"""


def needs(library: str) -> None:
    """Skip a test whose library is missing. It is not imported here: that takes long, and it warns of much."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}, of the extra formats")


def tell(script: str, *arguments: object, cwd: Path) -> list[Any]:
    """Run a script in a process of its own, offline and with its own home, and return what it told."""
    environment = {
        **os.environ,
        "HOME": str(cwd),
        "HF_HOME": str(cwd / "hf"),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + script, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line.removeprefix("TOLD ")) for line in done.stdout.splitlines() if line.startswith("TOLD ")]
