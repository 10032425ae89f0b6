"""The scores as a Structured Report: Comprehensive SR with template TID 1500, Measurement Report (PS3.16).

A group (TID 1501) for every score: what was looked for, in which breast, its probability, what gave it (TID 4019), and
the images of that breast. The Image Library (TID 1600) names all images with their side and view.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd

import spicula
from spicula.errors import SpiculaError
from spicula.exams.outputs.detail import PredictionDetail
from spicula.exams.outputs.dicom import codes
from spicula.exams.outputs.dicom.instance import EQUIPMENT, UNKNOWN_UID, short, uid
from spicula.exams.outputs.dicom.results import Algorithm
from spicula.exams.outputs.dicom.study import Source, stub
from spicula.exams.types import VIEWS

#: Number of the series, beside those of a unit.
SERIES_NUMBER = 9901
#: Stands beside every score.
COMMENT = f"{spicula.RESEARCH_NOTICE} A probability by a classifier, not a finding of a reader."

_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
_ACQUISITION = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


def report(
    sources: Sequence[Source],
    predictions: Sequence[PredictionDetail],
    algorithms: Mapping[str, Algorithm],
    series_uid: str,
) -> Any:
    """Return the report of one exam.

    Args:
        sources: its images.
        predictions: its scores, at least one; `side` is "left", "right" or a view.
        algorithms: by `model`; one that is not in it goes by its name and digest.
        series_uid: of the report's own series.

    Raises:
        SpiculaError: a score is of something for which there is no code.
    """
    images = {source.uid("SOPInstanceUID"): stub(source) for source in sources}
    context = hd.sr.ObserverContext(
        hd.sr.CodedConcept.from_code(codes.DEVICE),
        hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid("Spicula", spicula.__version__),
            name="Spicula",
            manufacturer_name="Spicula",
            model_name=f"Spicula {spicula.__version__}",
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=context),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=[_group(one, sources, algorithms) for one in predictions],
        title=codes.TITLE,
    )
    parts = content[0].ContentSequence
    measurements = parts.pop()
    parts.extend([_text(codes.COMMENT, COMMENT), _library(sources), measurements])
    return hd.sr.ComprehensiveSR(
        evidence=list(images.values()),
        content=content[0],
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=UNKNOWN_UID,
        instance_number=1,
        content_qualification="RESEARCH",
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=short("RESEARCH scores of a classifier, not a reader's report"),
        **EQUIPMENT,
    )


def _group(one: PredictionDetail, sources: Sequence[Source], algorithms: Mapping[str, Algorithm]) -> Any:
    """Return the group of one score."""
    side, target = one["side"], one["target"]
    letter = side[:1].upper()
    if target not in codes.FINDINGS or letter not in codes.SIDES:
        raise SpiculaError(
            f"no DICOM code for the score of {one['model']} for {target!r}, {side!r};"
            f" there are codes for {' and '.join(codes.FINDINGS)} of a left or right breast"
        )
    seen = [source for source in sources if source.image.view == side or (side not in VIEWS and source.side == letter)]
    study = sources[0].uid("StudyInstanceUID")
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid(study, side, target, one["model"], one["model_digest"]), f"{one['model']}: {side}, {target}"
        ),
        finding_type=codes.FINDINGS[target],
        finding_sites=[hd.sr.FindingSite(codes.BREAST, laterality=codes.SIDES[letter])],
        algorithm_id=_algorithm(one, algorithms),
        # to the 7 digits that scores have
        measurements=[hd.sr.Measurement(codes.PROBABILITIES[target], round(100 * one["score"], 5), codes.PERCENT)],
        source_images=[_source(source) for source in seen],
    )
    group[0].ContentSequence.append(_text(codes.COMMENT, COMMENT))
    return group


def _algorithm(one: PredictionDetail, algorithms: Mapping[str, Algorithm]) -> Any:
    model, digest = one["model"], one["model_digest"]
    algorithm = algorithms.get(model) or Algorithm(model, f"sha256 {digest[:12]}", digest)
    lines = algorithm.lines()
    return hd.sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=lines if algorithm.digest == digest else [*lines, f"bundle sha256 {digest}"],
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )


def _source(source: Source) -> Any:
    image = stub(source)
    return hd.sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID, _frames(source))


def _frames(source: Source) -> list[int] | None:
    return [source.image.frame + 1] if source.frames > 1 else None


def _library(sources: Sequence[Source]) -> Any:
    """Return the Image Library. highdicom's own wants attributes that many headers lack."""
    group = hd.sr.ContainerContentItem(codes.IMAGE_LIBRARY_GROUP, relationship_type=_CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence()
    for source in sources:
        image = stub(source)
        entry = hd.sr.ImageContentItem(
            codes.SOURCE, image.SOPClassUID, image.SOPInstanceUID, _frames(source), relationship_type=_CONTAINS
        )
        entry.ContentSequence = hd.sr.ContentSequence(
            [
                hd.sr.CodeContentItem(codes.IMAGE_LATERALITY, codes.SIDES[source.side], _ACQUISITION),
                hd.sr.CodeContentItem(codes.IMAGE_VIEW, codes.VIEWS[source.projection], _ACQUISITION),
            ]
        )
        group.ContentSequence.append(entry)
    library = hd.sr.ContainerContentItem(codes.IMAGE_LIBRARY, relationship_type=_CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def _text(name: Any, value: str) -> Any:
    return hd.sr.TextContentItem(name, value, _CONTAINS)
