"""Heatmaps over the mammogram as a Secondary Capture (PS3.3 A.8.1): a colour picture that every viewer shows.

What it is, and that it is for research, stands in the pixels, so that no viewer can leave it out.
"""

from typing import Any

import cv2
import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

import spicula
from spicula.errors import RejectedImageError
from spicula.exams.outputs.dicom import codes
from spicula.exams.outputs.dicom.instance import EQUIPMENT, UNKNOWN_UID, lossy, short
from spicula.exams.outputs.dicom.results import Algorithm
from spicula.exams.outputs.dicom.study import Source, anatomy, opened, orientation, stub
from spicula.exams.stages.visualize import lay_over
from spicula.imaging.display import read_display
from spicula.imaging.readers import read_pixels

#: Number of the series, beside those of a unit.
SERIES_NUMBER = 9902
#: Longest side of the mammogram in the picture: heatmaps are coarser than it, and the mammogram itself is beside it.
LONGEST_PX = 1536
_BAND, _LETTERS = (32, 32, 56), (255, 230, 120)


def picture(source: Source, maps: npt.NDArray[np.float32], algorithm: Algorithm) -> npt.NDArray[np.uint8]:
    """Return the mammogram with its heatmaps over it, oriented as it is stored, above a band with text.

    Args:
        source: the image.
        maps: (2, h, w), malignant and benign, of the crop.
        algorithm: that made them.

    Returns:
        (h, w, 3) RGB.

    Raises:
        SpiculaError: the image cannot be decoded.
    """
    scale = min(1.0, LONGEST_PX / max(source.rows, source.columns))
    size = max(1, round(source.columns * scale)), max(1, round(source.rows * scale))
    grey = cv2.resize(_shown(source), size, interpolation=cv2.INTER_AREA)
    assert source.place is not None
    top, bottom, left, right = source.place.window
    heat = np.zeros((len(maps), source.rows, source.columns), np.float32)
    heat[:, top:bottom, left:right] = maps
    everywhere = np.ones((source.rows, source.columns), np.bool_)  # as in the segmentation
    covered = lay_over(np.repeat(grey[..., None], 3, axis=2), heat, everywhere)
    return np.concatenate([covered, _band(source, algorithm, size[0])])


def _shown(source: Source) -> npt.NDArray[np.uint8]:
    """Return the image as a workstation shows it; where its header does not say how, from its darkest to its brightest.

    Returns:
        (rows, columns) grey.
    """
    frame = source.image.frame
    with opened(source.image, source.what) as path:
        try:
            array = read_display(path, frame, bits=8).array
        except RejectedImageError:
            raw = read_pixels(path, frame).array.astype(np.float32)
            array = ((raw - raw.min()) * (255 / max(float(np.ptp(raw)), 1))).astype(np.uint8)
    return array if array.ndim == 2 else array.mean(axis=2).astype(np.uint8)


def _band(source: Source, algorithm: Algorithm, width: int) -> npt.NDArray[np.uint8]:
    """Return the strip below the picture: the lines are as large as they fit."""
    lines = [
        spicula.RESEARCH_NOTICE.upper(),
        f"{source.image.view}: red: malignant, green: benign; the more opaque, the likelier",
        f"{_ascii(short(algorithm.name))} {_ascii(algorithm.version[:24])} sha256 {algorithm.digest[:12]}",
    ]
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, width // 500)
    widest = max(cv2.getTextSize(line, font, 1, thickness)[0][0] for line in lines)
    scale = min(0.94 * width / widest, LONGEST_PX / 1000)
    step = int(40 * scale) + 4
    band = np.full((step * len(lines) + step // 2, width, 3), _BAND, np.uint8)
    for place, line in enumerate(lines, start=1):
        cv2.putText(band, line, (int(0.02 * width), step * place), font, scale, _LETTERS, thickness, cv2.LINE_AA)
    return band


def _ascii(value: str) -> str:
    return value.encode("ascii", "replace").decode()  # the letters that OpenCV draws


def capture(
    source: Source, maps: npt.NDArray[np.float32], algorithm: Algorithm, *, series_uid: str, number: int
) -> Any:
    """Return the picture of one image.

    Args:
        source: the image.
        maps: (2, h, w), malignant and benign, of the crop.
        algorithm: that made the heatmaps.
        series_uid: of the series of all images' pictures.
        number: of the object in it, from 1.

    Raises:
        SpiculaError: the image cannot be decoded.
    """
    instance = hd.sc.SCImage(
        picture(source, maps, algorithm),
        "RGB",
        8,
        "PATIENT",
        study_instance_uid=source.uid("StudyInstanceUID"),
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=UNKNOWN_UID,
        instance_number=number,
        patient_orientation=("A", "F"),  # set below: highdicom knows not all that are allowed
        series_description=short(f"RESEARCH heatmaps: {algorithm.name}"),
        content_qualification="RESEARCH",
        device_serial_number=short(algorithm.digest),
        **EQUIPMENT,
    )
    instance.PatientOrientation = orientation(source)
    instance.ImageLaterality = source.side
    instance.AnatomicRegionSequence = [anatomy(source.side)]
    instance.ViewCodeSequence = [hd.sr.CodedConcept.from_code(codes.VIEWS[source.projection])]
    instance.BurnedInAnnotation = "YES"  # the text in the band; it names no person
    instance.RecognizableVisualFeatures = "NO"
    instance.LossyImageCompression = lossy(source)
    instance.ImageComments = (
        f"{spicula.RESEARCH_NOTICE} Heatmaps over {source.image.view}: malignant red, benign green."
    )
    instance.DerivationDescription = "; ".join(
        ["Reduced, windowed, heatmaps of probability laid over it, text added", algorithm.name, *algorithm.lines()]
    )
    reference = Dataset()
    original = stub(source)
    reference.ReferencedSOPClassUID = original.SOPClassUID
    reference.ReferencedSOPInstanceUID = original.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(codes.SOURCE_IMAGE)]
    instance.SourceImageSequence = [reference]
    return instance
