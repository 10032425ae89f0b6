"""Real image files, made in code, and what is in those of an Index."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from spicula import index


def grey(rows: int = 24, columns: int = 20, top: int = 4095, seed: int = 0) -> np.ndarray:
    """Noise from 0 to `top`, both of which occur."""
    image = np.random.default_rng(seed).integers(0, top + 1, (rows, columns))
    image.flat[0], image.flat[-1] = 0, top
    return image.astype(np.uint8 if top < 256 else np.uint16)


def save_png(path: Path, image: np.ndarray) -> Path:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def save_dicom(path: Path, frames: np.ndarray, *, bits: int = 12, **elements: object) -> Path:
    """Write (H, W) or (frames, H, W) uint16 as uncompressed DICOM."""
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.PatientName, dataset.PatientID = "CANARY^NAME", "CANARY-ID"
    dataset.Modality = "MG"
    if frames.ndim == 3:
        dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.PixelData = frames.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def pixels_of(table: pa.Table) -> dict[str, np.ndarray]:
    """The pixels of an Index's files, by image_id, read by OpenCV."""
    import cv2

    ids = table["image_id"].to_pylist()
    return {one: cv2.imread(str(path), -1) for one, path in zip(ids, index.image_paths(table), strict=True)}
