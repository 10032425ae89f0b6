"""Small DICOM mammograms, as a picture archive would export them."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

MG = "1.2.840.10008.5.1.4.1.1.1.2"
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

#: What must never be seen outside the files.
CANARIES = ("CANARY^NAME", "CANARY-4711", "19610203", "ACC-CANARY")


def mammogram(path: Path, number: int = 1, **fields: Any) -> Path:
    """Write an image of 6 rows by 4 columns; `fields` replace or add elements, None leaves out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    values = {
        "SOPClassUID": MG,
        "SOPInstanceUID": f"1.2.826.0.1.{number}",
        "StudyInstanceUID": "1.2.826.0.2",
        "SeriesInstanceUID": f"1.2.826.0.3.{number}",
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "StudyID": "1",
        "AccessionNumber": "ACC-CANARY",
        "PatientName": "CANARY^NAME",
        "PatientID": "CANARY-4711",
        "PatientBirthDate": "19610203",
        "Modality": "MG",
        "SeriesNumber": number,
        "InstanceNumber": number,
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageLaterality": "L",
        "ViewPosition": "CC",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 6,
        "Columns": 4,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        **fields,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    frames = fields.get("NumberOfFrames") or 1
    if "PixelData" not in dataset and "Rows" in dataset and frames < 1000:
        pixels = np.random.default_rng(number).integers(0, 4096, (frames, 6, 4), dtype=np.uint16)
        dataset.PixelData = pixels.tobytes()
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    meta.MediaStorageSOPClassUID = values["SOPClassUID"] or "1.2.3"
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.4"
    dataset.save_as(path, enforce_file_format=True)
    return path
