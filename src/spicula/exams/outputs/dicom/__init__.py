"""Results of an exam as DICOM objects beside its study: a report of the scores, pictures, segmentations of heatmaps."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.exams.outputs.detail import ExamDetail
from spicula.exams.outputs.dicom.instance import encode, finish, uid
from spicula.exams.outputs.dicom.results import Algorithm, Place, Results
from spicula.exams.outputs.dicom.study import Source, read_sources
from spicula.exams.types import ImageFile, PatchScores

__all__ = ["Algorithm", "Place", "Results", "export", "write"]


def export(
    detail: ExamDetail,
    images: Sequence[ImageFile],
    to: Path,
    *,
    algorithms: Mapping[str, Algorithm],
    heatmaps: Mapping[str, PatchScores],
    heatmap_algorithm: Algorithm | None,
    threshold: float | None,
    segmentations: bool,
) -> list[Path]:
    """Write the results of one exam of a workspace as DICOM objects of its study.

    Args:
        detail: of the exam, as `spicula exams show --json` prints it.
        images: its files.
        to: a folder, which is made.
        algorithms: `model` of the predictions -> what it is; one that is not in it goes by its name and digest.
        heatmaps: image name -> patch scores; none where no stage has made them.
        heatmap_algorithm: that made the heatmaps; None where there are none.
        threshold: see `write`.
        segmentations: see `write`.

    Returns:
        The files that were written.

    Raises:
        UsageError, SpiculaError: as `write`; also when the exam has no scores.
    """
    if not detail["predictions"]:
        reasons = "; ".join(detail["reasons"]) or f"it is {detail['status']}"
        raise SpiculaError(f"exam {detail['exam_id']} has no scores to write as DICOM: {reasons}")
    results = Results(
        detail["exam_id"],
        images,
        detail["predictions"],
        max(_times(detail)),
        algorithms,
        {
            name: Place(_window(one["window_location"]), bool(one["mirrored"]))
            for name, one in detail["images"].items()
            if one["window_location"] is not None
        },
        heatmaps,
        heatmap_algorithm,
    )
    return write(results, to, threshold=threshold, segmentations=segmentations)


def write(results: Results, to: Path, *, threshold: float | None, segmentations: bool) -> list[Path]:
    """Write the results of one exam as DICOM objects of its study: same patient and study, series of their own.

    A Structured Report of all scores, and of every image with a heatmap a Secondary Capture and, if wanted, a
    Segmentation at the threshold. The same results of the same files, written by the same versions of Spicula and
    highdicom, have the same bytes, SOP instance UIDs and file names; other results have others. File names are 12
    digits of the results' digest, words of ours and the view.

    Args:
        results: of the exam.
        to: a folder, which is made.
        threshold: the least probability in a heatmap that a segmentation shows, above 0 to 1.
        segmentations: write them.

    Returns:
        The files: the report, then of every image the picture and the segmentation.

    Raises:
        UsageError: highdicom is not installed; an image is no DICOM file; or segmentations are wanted where there are
            no heatmaps or no threshold, or one outside of its range.
        SpiculaError: `study.read_sources` refuses the files; the results are not of these files; a score has no code;
            or a file cannot be written.
    """
    _check(results, threshold, segmentations)
    sources = read_sources(results)
    threshold = threshold if segmentations else None
    digest = results.digest(threshold)
    encoded = []  # all of them, before any is written
    for name, instance, used in _objects(results, sources, threshold, digest):
        finish(instance, used, results.made)
        encoded.append((name, encode(instance, f"exam {results.exam_id}: its {name}")))
    written = []
    for name, content in encoded:
        path = Path(to) / f"{digest[:12]}-{name}.dcm"
        files.write_bytes(path, content)
        written.append(path)
    return written


def _objects(
    results: Results, sources: Sequence[Source], threshold: float | None, digest: str
) -> Iterator[tuple[str, Any, Sequence[Source]]]:
    """Yield the name of every object, what highdicom made of it, and the images that it refers to."""
    # here alone: they need highdicom
    from spicula.exams.outputs.dicom.capture import capture
    from spicula.exams.outputs.dicom.report_document import report
    from spicula.exams.outputs.dicom.segmentation import segmentation
    from spicula.exams.stages.heatmaps import maps

    yield "report", report(sources, results.predictions, results.algorithms, uid(digest, "report")), sources
    algorithm = results.heatmap_algorithm
    for number, source in enumerate(sources, start=1):
        scores = results.heatmaps.get(source.image.name)
        if scores is None or algorithm is None:
            continue
        found, name = maps(scores), f"{source.image.view}-{number}"
        pictured = capture(source, found, algorithm, series_uid=uid(digest, "heatmap"), number=number)
        yield f"heatmap-{name}", pictured, [source]
        if threshold is not None:
            series = uid(digest, "segmentation")
            segmented = segmentation(source, found, algorithm, threshold, series_uid=series, number=number)
            yield f"segmentation-{name}", segmented, [source]


def _check(results: Results, threshold: float | None, segmentations: bool) -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError("writing DICOM needs highdicom: pip install 'spicula[exams]'") from error
    for name, scores in results.heatmaps.items():
        top, bottom, left, right = results.places[name].window if name in results.places else (0, 0, 0, 0)
        if (scores.height, scores.width) != (bottom - top, right - left):
            raise SpiculaError(
                f"exam {results.exam_id}: the heatmaps of {name} are of {scores.height} x {scores.width} pixels,"
                f" its crop is {bottom - top} x {right - left}: they are not of the same run"
            )
    if not segmentations:
        return
    if not results.heatmaps:
        raise UsageError(f"exam {results.exam_id} has no heatmaps to make segmentations of: --no-segmentations")
    if threshold is None:
        raise UsageError(
            "segmentations need a threshold, and the bundle states none: give a probability with --threshold,"
            " or leave them out with --no-segmentations"
        )
    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold of segmentations is {threshold:g}; it is a probability, above 0 to 1")


def _times(detail: ExamDetail) -> list[datetime]:
    """Return when the steps were done whose results are written; pictures of `visualize` are not."""
    return [
        datetime.fromisoformat(step["time"])
        for step in detail["steps"]
        if step["status"] == "ok" and step["time"] is not None and step["stage"] in ("crop", "heatmaps", "classify")
    ]


def _window(values: Sequence[int]) -> tuple[int, int, int, int]:
    top, bottom, left, right = (int(value) for value in values)
    return top, bottom, left, right
