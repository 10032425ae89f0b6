"""Small DICOM mammograms as a hospital would drop them: 8 by 6 pixels, with a patient who must never be seen."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

VIEWS = (("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO"))
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"

#: What must never be seen outside the files.
CANARIES = ("CANARY^NAME", "CANARY-4711", "19610203", "ACC-CANARY")


def study(folder: Path, number: int = 1, views: tuple[tuple[str, str], ...] = VIEWS, **elements: Any) -> Path:
    """Write a study of these views and return its folder; `elements` are those of every image."""
    for side, view in views:
        mammogram(folder / f"IM-{side}-{view}", f"{number}.{VIEWS.index((side, view)) + 1}", side, view, **elements)
    return folder


def mammogram(path: Path, uid: str, side: str, view: str, **elements: Any) -> Path:
    """Write an image; `uid` is "STUDY.IMAGE", `elements` replace or add, None leaves out."""
    study_number = uid.partition(".")[0]
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
        "SOPInstanceUID": f"1.2.826.0.1.{uid}",
        "StudyInstanceUID": f"1.2.826.0.2.{study_number}",
        "SeriesInstanceUID": f"1.2.826.0.3.{uid}",
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "StudyID": "1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "AccessionNumber": "ACC-CANARY",
        "PatientName": "CANARY^NAME",
        "PatientID": "CANARY-4711",
        "PatientBirthDate": "19610203",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageLaterality": side,
        "ViewPosition": view,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 8,
        "Columns": 6,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        **elements,
    }
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, Dataset(), file_meta=meta, preamble=bytes(128))
    with warnings.catch_warnings(action="ignore"):  # odd values are wanted
        for keyword, value in values.items():
            if value is not None:
                setattr(dataset, keyword, value)
    rng = np.random.default_rng([int(part) for part in uid.split(".")])
    frames = elements.get("NumberOfFrames") or 1
    dataset.PixelData = rng.integers(0, 4096, (frames, 8, 6), dtype=np.uint16).tobytes()
    dataset["PixelData"].VR = "OW"
    meta.MediaStorageSOPClassUID = values["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
