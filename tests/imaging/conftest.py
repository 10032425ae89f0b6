"""Real image files of every kind, made in code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest


def smooth_noise(rows: int, columns: int, top: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Blurred noise from 0 to `top`: something that codecs can bite on."""
    import cv2

    noise = np.random.default_rng(seed).random((rows, columns, channels)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 3).reshape(rows, columns, channels)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    image = np.rint(noise * top).astype(np.uint8 if top < 256 else np.uint16)
    return image[..., 0] if channels == 1 else image


def save_dicom(
    path: Path,
    frames: list[bytes] | bytes,
    shape: tuple[int, ...],
    syntax: str = "1.2.840.10008.1.2.1",
    photometric: str = "MONOCHROME2",
    *,
    bits: int = 12,
    allocated: int = 16,
    signed: bool = False,
    **elements: object,
) -> Path:
    """Write a DICOM file around pixel bytes: a list of compressed frames, or the bytes of native ones."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.PatientName = "CANARY^PATIENT"
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = shape[2] if len(shape) == 3 else 1
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    if isinstance(frames, list):
        dataset.NumberOfFrames = len(frames)
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = frames
        dataset["PixelData"].VR = "OW" if allocated == 16 else "OB"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    return smooth_noise


@pytest.fixture
def dicom() -> Callable[..., Path]:
    return save_dicom


@pytest.fixture
def mammogram() -> Callable[..., np.ndarray]:
    """A caricature of a mammogram: half an ellipse of tissue on the left or right edge, a label, dark film."""

    def draw(height: int = 400, width: int = 320, side: str = "left", label: bool = True, top: int = 255) -> np.ndarray:
        rows, columns = np.mgrid[:height, :width]
        distance = ((rows - height / 2) / (height * 0.45)) ** 2 + (columns / (width * 0.6)) ** 2
        image = np.where(distance < 1, 0.35 + 0.5 * (1 - distance), 0.04)
        if label:
            image[height // 20 : height // 7, int(width * 0.8) : int(width * 0.92)] = 1.0
        image = image if side == "left" else image[:, ::-1]
        image = image + np.random.default_rng(0).normal(0, 0.004, image.shape)
        return np.rint(np.clip(image, 0, 1) * top).astype(np.uint8 if top < 256 else np.uint16)

    return draw


@pytest.fixture
def folder_of_images(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of small grey PNGs, `name` -> value of every pixel, with the Index beside them."""
    import cv2

    def make(**images: int) -> Path:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for name, value in images.items():
            cv2.imwrite(str(folder / f"{name}.png"), np.full((12, 10), value, np.uint8))
        return folder

    return make


@pytest.fixture
def index_of() -> Callable[..., pa.Table]:
    """Makes an Index of all files in a folder, with their digests."""
    from spicula import files, index

    def make(folder: Path, **columns: object) -> pa.Table:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        return index.from_rows(
            [
                {
                    "dataset": "test",
                    "image_id": path.stem,
                    "path": path.name,
                    "sha256": files.sha256_file(path),
                    **columns,
                }
                for path in paths
            ],
            folder,
        )

    return make


WORKER = """
import os, signal, sys, time
import numpy as np
from pathlib import Path
from spicula.imaging import decoding

real = decoding.read_pixels

def read_pixels(path, frame=0):
    {misdeed}
    return real(path, frame)

decoding.read_pixels = read_pixels
{more}
decoding.main()
"""


@pytest.fixture
def worker_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the workers of the Store do something bad before they read a file."""
    import sys

    from spicula.imaging import workers

    def make(misdeed: str, more: str = "") -> None:
        script = tmp_path / "worker.py"
        script.write_text(WORKER.format(misdeed=misdeed, more=more))
        monkeypatch.setattr(workers, "COMMAND", (sys.executable, str(script)))

    return make
