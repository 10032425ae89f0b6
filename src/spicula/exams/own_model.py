"""Classify an exam with a bundle that Spicula trained: it reads single images, and a breast gets their mean."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from spicula import headers
from spicula.bundle import Bundle, scope
from spicula.errors import RejectedImageError
from spicula.exams.reading import local_file
from spicula.exams.types import ImageFile, RefusedExamError, Score
from spicula.imaging import worker_process
from spicula.imaging.decoding import prepare
from spicula.imaging.readers import read_pixels
from spicula.imaging.shards import Task


def classify_own(images: Sequence[ImageFile], bundle: Bundle) -> list[Score]:
    """Classify the breasts of an exam.

    Args:
        images: of the exam; each is prepared as the bundle says.
        bundle: the model.

    Returns:
        For each side that has images, the mean of their scores, as `evaluate` puts images together to breasts
        ("breast-mean"); the left side first.

    Raises:
        RefusedExamError: an image cannot be read, or lies outside the model's scope.
        StaleImageError: a file is gone, or is not the one that was indexed.
        OSError: the disk or the network failed, so that another attempt may succeed.
    """
    scores: dict[str, list[float]] = {}
    column = bundle.info["classes"].index(bundle.target)
    for image in images:
        try:
            with local_file(image) as path:
                prepared = worker_process.guarded(partial(_prepared, image, path, bundle), "preparing")
        except RejectedImageError as error:
            raise RefusedExamError(f"{image.name} ({image.view}): {error}") from error
        probability = float(bundle.probabilities(prepared[np.newaxis])[0, column])
        scores.setdefault(image.view[0], []).append(probability)
    return [Score(side, bundle.target, float(np.mean(scores[side]))) for side in sorted(scores)]


def _prepared(image: ImageFile, path: Path, bundle: Bundle) -> np.ndarray:
    kinds = bundle.info["scope"]
    header = headers.read_header(path)
    if header.kind == "dicom":
        scope.refuse_header(kinds, headers.read_dicom(path))
    is_grey = (header.photometric or "").startswith("MONOCHROME")
    if is_grey and kinds["colour"] is True:
        raise RejectedImageError(scope.GREY_FOR_COLOUR)
    if not is_grey and kinds["colour"] is False and scope.shows_colour(read_pixels(path, image.frame).array):
        raise RejectedImageError(scope.COLOUR_FOR_GREY)
    task = Task(
        key=image.name, path=str(path), sha256=image.sha256, frame=image.frame, laterality=image.view[0], bits=None
    )
    return prepare(task, bundle.preprocess).array
