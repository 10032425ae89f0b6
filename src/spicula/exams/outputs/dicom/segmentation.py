"""Where a heatmap reaches a threshold, as a DICOM Segmentation of the image that it was made of (PS3.3 A.51).

Mammograms are projections and have no frame of reference. A segmentation of such an image lies on it pixel by pixel:
same rows and columns, and the image named by the Derivation Image functional group (PS3.3 A.51.5). highdicom does so
for one image of one frame at a time, so that there is one object an image.
"""

from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt

import spicula
from spicula.exams.outputs.dicom import codes
from spicula.exams.outputs.dicom.instance import EQUIPMENT, UNKNOWN_UID, short
from spicula.exams.outputs.dicom.results import Algorithm
from spicula.exams.outputs.dicom.study import Source, anatomy, orientation, stub
from spicula.exams.stages.visualize import BENIGN_COLOR, MALIGNANT_COLOR

#: Number of the series, beside those of a unit.
SERIES_NUMBER = 9903
# The colours of the pictures.
_COLOURS = {"malignant": MALIGNANT_COLOR, "benign": BENIGN_COLOR}


def masks(maps: npt.NDArray[np.float32], source: Source, threshold: float) -> npt.NDArray[np.uint8]:
    """Return where heatmaps reach a threshold, in the image as it is stored.

    Args:
        maps: (2, h, w), malignant and benign, of the crop.
        source: the image, and where its crop is.
        threshold: the least probability, above 0 to 1.

    Returns:
        (1, rows, columns, 2), 0 or 1; outside of the crop 0.
    """
    assert source.place is not None
    top, bottom, left, right = source.place.window
    result = np.zeros((1, source.rows, source.columns, len(maps)), np.uint8)
    result[0, top:bottom, left:right] = np.moveaxis(maps >= threshold, 0, -1)
    return result


def segmentation(
    source: Source,
    maps: npt.NDArray[np.float32],
    algorithm: Algorithm,
    threshold: float,
    *,
    series_uid: str,
    number: int,
) -> Any:
    """Return the segmentation of one image: two binary segments, malignant and benign, that may overlap.

    Both are there also where no pixel reaches the threshold.

    Args:
        source: the image.
        maps: (2, h, w), malignant and benign, of the crop.
        algorithm: that made the heatmaps.
        threshold: the least probability that counts, above 0 to 1.
        series_uid: of the series of all images' segmentations.
        number: of the object in it, from 1.
    """
    told = hd.AlgorithmIdentificationSequence(
        name=short(algorithm.name),
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=short(algorithm.version),
        parameters={"threshold": f"{threshold:g}", "sha256": algorithm.digest, "Spicula": spicula.__version__},
    )
    instance = hd.seg.Segmentation(
        [stub(source)],
        masks(maps, source, threshold),
        hd.seg.SegmentationTypeValues.BINARY,
        [
            _segment(place, target, threshold, source, told)
            for place, target in enumerate(("malignant", "benign"), start=1)
        ],
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=UNKNOWN_UID,
        instance_number=number,
        device_serial_number=short(algorithm.digest),
        content_label="HEATMAP",
        content_description=short(spicula.RESEARCH_NOTICE),
        series_description=short(f"RESEARCH heatmaps at {threshold:g} or more: {algorithm.name}"),
        content_qualification="RESEARCH",
        omit_empty_frames=False,
        **EQUIPMENT,
    )
    instance.PatientOrientation = orientation(source)
    instance.ImageLaterality = source.side
    return instance


def _segment(place: int, target: str, threshold: float, source: Source, algorithm: Any) -> Any:
    segment = hd.seg.SegmentDescription(
        segment_number=place,
        segment_label=short(f"{target}: probability {threshold:g} or more"),
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.LESION,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[target]),
    )
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(codes.FINDINGS[target])]
    segment.AnatomicRegionSequence = [anatomy(source.side)]
    return segment
