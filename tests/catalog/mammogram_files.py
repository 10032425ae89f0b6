"""Small real DICOM mammograms, for miniatures of the archives: uncompressed, 12 bits, every file another picture."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

#: PS3.16 CID 4014, in SNOMED CT.
VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}


def uid(*name: object) -> str:
    """A UID that belongs to a name."""
    return f"2.25.{int.from_bytes('/'.join(map(str, name)).encode()[-15:], 'big')}"


def write_mammogram(path: Path, size: tuple[int, int] = (24, 30), **elements: Any) -> Path:
    """Write a file of `size` (width, height); `elements` are set on top of the usual ones."""
    width, height = size
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid("image", path.name)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.Modality = "MG"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = height, width
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    rng = np.random.default_rng(list(str(path).encode()))
    image.PixelData = rng.integers(0, 4096, (height, width), dtype=np.uint16).tobytes()
    for name, value in elements.items():
        setattr(image, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def coded_view(view: str) -> list[Dataset]:
    """A ViewCodeSequence of one view."""
    item = Dataset()
    item.CodeValue, item.CodeMeaning = VIEW_CODES[view]
    item.CodingSchemeDesignator = "SCT"
    return [item]
