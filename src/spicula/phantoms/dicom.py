"""A rendered view as a DICOM file: Digital Mammography X-Ray Image Storage - For Presentation (PS3.3 A.26).

Every file says that it is synthetic, in the fields that viewers and archives show.
"""

import uuid
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from spicula import RESEARCH_NOTICE, __version__, files
from spicula.phantoms.detectors import HIGHEST, Detector, detector_of
from spicula.phantoms.render import Picture
from spicula.phantoms.types import Side, View
from spicula.phantoms.woman import Woman

#: Words in the image itself. Also for whatever shows one.
NOTICE = "SYNTHETIC image, computed. Shows no person."

# PS3.16 CID 4014, View for Mammography
_VIEW_CODES: Mapping[View, tuple[str, str]] = {
    "CC": ("399162004", "cranio-caudal"),
    "MLO": ("399368009", "medio-lateral oblique"),
}
# towards which side of the patient rows and columns run (PS3.3 C.7.6.1.1.1): nipple away from the chest wall, up is
# lateral in CC and lateral and towards the head in MLO
_ORIENTATIONS: Mapping[tuple[Side, View], list[str]] = {
    ("L", "CC"): ["A", "R"],
    ("L", "MLO"): ["A", "FR"],
    ("R", "CC"): ["P", "L"],
    ("R", "MLO"): ["P", "FL"],
}
_ROOT = uuid.UUID("299ad3f2-07f4-4ce0-9569-088951c097ba")  # of all phantoms: names are hashed below it


def uid(*name: object) -> str:
    """Return the UID that belongs to a name: always the same, below 2.25 (UUID-derived, PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_ROOT, '/'.join(map(str, name))).int}"


def patient_id(woman: Woman) -> str:
    """Return the id that stands for a woman, in DICOM and in the truth."""
    seed, number = woman.key
    return f"SYNTHETIC-{seed:04d}-{number:05d}"


def write_dicom(path: Path, picture: Picture, woman: Woman, *, side: Side, view: View, exam_id: str, key: str) -> str:
    """Write one view, atomically, as uncompressed Explicit VR Little Endian with an empty preamble.

    Args:
        path: the file.
        picture: what it shows.
        woman: whom.
        side: which breast.
        view: which view.
        exam_id: of the exam.
        key: everything that determines the exam, so that other pixels never have the same UID.

    Returns:
        The SOP instance UID.
    """
    detector = detector_of(woman)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid(key, exam_id, side, view)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")
    meta.ImplementationVersionName = "SPICULA"
    image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    groups = (
        _patient_and_study(woman, exam_id, key),
        _series(exam_id, key, side, view),
        _equipment(detector, woman, picture),
        _view(side, view),
        _pixels(picture, detector),
    )
    for values in groups:
        for name, value in values.items():
            setattr(image, name, value)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    encoded = BytesIO()
    image.save_as(encoded, enforce_file_format=True)
    files.write_bytes(path, encoded.getvalue())
    return str(image.SOPInstanceUID)


def _patient_and_study(woman: Woman, exam_id: str, key: str) -> dict[str, Any]:
    number = woman.key[1]
    date = f"{2001 + number // 336 % 20:04d}{1 + number // 28 % 12:02d}{1 + number % 28:02d}"
    when = {f"{what}Date": date for what in ("Study", "Series", "Content", "Acquisition")}
    when |= {f"{what}Time": "120000" for what in ("Study", "Series", "Content", "Acquisition")}
    return when | {
        "PatientName": "SYNTHETIC^PHANTOM",
        "PatientID": patient_id(woman),
        "PatientBirthDate": "",
        "PatientSex": "F",
        "PatientAge": f"{woman.age:03d}Y",
        "PatientComments": NOTICE,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "Synthetic: there was never an identity",
        "StudyInstanceUID": uid(key, exam_id),
        "StudyID": f"{number}",
        "StudyDescription": "SYNTHETIC screening mammogram",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
    }


def _series(exam_id: str, key: str, side: Side, view: View) -> dict[str, Any]:
    number = 1 + 2 * ("R", "L").index(side) + ("CC", "MLO").index(view)
    return {
        "Modality": "MG",
        "SeriesInstanceUID": uid(key, exam_id, side, view, "series"),
        "SeriesNumber": number,
        "SeriesDescription": f"SYNTHETIC {side} {view}",
        "PresentationIntentType": "FOR PRESENTATION",
        "InstanceNumber": 1,
        "ImageType": ["DERIVED", "PRIMARY"],
        "DerivationDescription": f"Computed by Spicula {__version__}; no X-rays were taken",
        "ImageComments": f"{NOTICE} {RESEARCH_NOTICE}",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "ContentQualification": "RESEARCH",
        "QualityControlImage": "NO",
    }


def _equipment(detector: Detector, woman: Woman, picture: Picture) -> dict[str, Any]:
    spacing = f"{picture.spacing_mm:.6f}"
    return {
        "Manufacturer": detector.manufacturer,
        "ManufacturerModelName": detector.model,
        "InstitutionName": "SYNTHETIC",
        "SoftwareVersions": f"Spicula {__version__}",
        "DeviceSerialNumber": "SYNTHETIC",
        "DetectorType": "DIRECT",
        "DetectorID": "SYNTHETIC",
        "FieldOfViewShape": "RECTANGLE",
        "ImagerPixelSpacing": [spacing, spacing],
        "BodyPartThickness": f"{woman.thickness_mm:.0f}",
        "EstimatedRadiographicMagnificationFactor": "1.0",
        "AcquisitionContextSequence": [],
    }


def _view(side: Side, view: View) -> dict[str, Any]:
    code, meaning = _VIEW_CODES[view]
    view_code = _code(code, meaning)
    view_code.ViewModifierCodeSequence = []
    return {
        "BodyPartExamined": "BREAST",
        "OrganExposed": "BREAST",
        "AnatomicRegionSequence": [_code("76752008", "Breast")],
        "ImageLaterality": side,
        "ViewPosition": view,
        "ViewCodeSequence": [view_code],
        "PatientOrientation": _ORIENTATIONS[side, view],
        "PositionerType": "MAMMOGRAPHIC",
        "PositionerPrimaryAngle": "0" if view == "CC" else "45",
        "BreastImplantPresent": "NO",
        "PartialView": "NO",
    }


def _pixels(picture: Picture, detector: Detector) -> dict[str, Any]:
    inverted = detector.photometric == "MONOCHROME1"
    stored = np.uint16(HIGHEST) - picture.pixels if inverted else picture.pixels
    centre, width = detector.window
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": detector.photometric,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelIntensityRelationship": "LOG",
        # PS3.3 C.8.11.3.1.2: 1 where higher values mean more X-rays at the detector, -1 where fewer
        "PixelIntensityRelationshipSign": 1 if inverted else -1,
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        "PresentationLUTShape": "INVERSE" if inverted else "IDENTITY",
        "WindowCenter": str(HIGHEST + 1 - centre if inverted else centre),
        "WindowWidth": str(width),
        "WindowCenterWidthExplanation": "NORMAL",
        "VOILUTFunction": "LINEAR",
        "PixelData": stored.astype("<u2").tobytes(),
    }


def _code(value: str, meaning: str) -> Dataset:
    """Return an item of a code sequence, SNOMED CT (PS3.3 8.8)."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code
