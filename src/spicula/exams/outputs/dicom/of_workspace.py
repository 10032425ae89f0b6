"""Results of an exam of a workspace, as DICOM: what the ledger and the artefacts have, put together for `export`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spicula.exams.artefacts import Artefacts
from spicula.exams.ledger import Ledger
from spicula.exams.outputs import dicom
from spicula.exams.outputs.detail import ExamDetail
from spicula.exams.outputs.dicom.results import Algorithm
from spicula.exams.stages import heatmaps
from spicula.exams.steps import Step
from spicula.exams.types import ImageFile


def export(
    ledger: Ledger,
    artefacts: Artefacts,
    detail: ExamDetail,
    to: Path,
    threshold: float | None = None,
    *,
    segmentations: bool = True,
    steps: Sequence[Step] | None = None,
) -> list[Path]:
    """Write the results of one exam as DICOM objects of its study; see `dicom.write`.

    Args:
        ledger: of the workspace.
        artefacts: of the workspace.
        detail: of the exam, see `detail_of`.
        to: a folder, which is made.
        threshold: of segmentations; None: that of the bundle.
        segmentations: write them.
        steps: the configuration that `detail` is of; None: that of the last run.

    Raises:
        UsageError: see `dicom.write`.
        SpiculaError: the exam has no scores, or see `dicom.write`.
    """
    known = {step.name: step for step in (ledger.configuration() if steps is None else steps)}
    made = {one["step"]: known[one["step"]] for one in detail["steps"] if one["step"] in known}
    images = [ImageFile(**image) for image in ledger.show(detail["exam_id"])["exam"]["images"]]
    found = {
        name: heatmaps.decode(artefacts.get(image["heatmaps"]))
        for name, image in detail["images"].items()
        if image["heatmaps"] is not None
    }
    patches = made.get("heatmaps")
    if threshold is None and patches is not None:
        threshold = patches.about.get("heatmap_threshold")
    return dicom.export(
        detail,
        images,
        to,
        algorithms={step.model: _algorithm(step) for step in made.values() if step.model is not None},
        heatmaps=found,
        heatmap_algorithm=None if patches is None or not found else _algorithm(patches),
        threshold=threshold,
        segmentations=segmentations and bool(found),
    )


def _algorithm(step: Step) -> Algorithm:
    name = step.about.get("name", step.model or step.stage)
    title = name if step.model in (None, name) else f"{name} {step.model}"
    (network,) = step.models.values()
    return Algorithm(title, str(step.about.get("version", "")), network, _lines(step.parameters))


def _lines(parameters: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"{name} {value}" for name, value in parameters.items())
