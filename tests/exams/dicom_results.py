"""Results of a phantom exam as the stages would give them, with one hot patch where the phantom has its lesion."""

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from spicula import files
from spicula.exams.outputs.dicom import Algorithm, Place, Results, write
from spicula.exams.stages.orientation import is_flipped
from spicula.exams.types import VIEWS, ImageFile, PatchScores

needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="needs dciodvfy: apt-get install dicom3tools"
)

IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "AccessionNumber")
PATCH = 32
DIGEST = "5d" * 32
ALGORITHM = Algorithm("four-view screening classifier", "1.0", DIGEST, ("precision fp32",))
BUNDLE = "b0" * 32
MADE = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def predictions(model: str = "image-only", digest: str = BUNDLE) -> list[dict[str, Any]]:
    """Four scores, all different."""
    return [
        {"model": model, "model_digest": digest, "side": side, "target": target, "score": score}
        for side, target, score in (
            ("left", "benign", 0.1234567),
            ("right", "benign", 0.0212345),
            ("left", "malignant", 0.7312345),
            ("right", "malignant", 0.0054321),
        )
    ]


def image_files(folder: Path, mirrored: bool | None = None) -> list[ImageFile]:
    """The images of a phantom exam, in the order of VIEWS."""
    truth = json.loads((folder / "exam.json").read_text())
    found = {f"{one['laterality']}-{one['view']}": folder / one["file"] for one in truth["images"]}
    return [
        ImageFile(f"image {number}", view, str(found[view]), files.sha256_file(found[view]), mirrored=mirrored)
        for number, view in enumerate(VIEWS)
    ]


def results(images: list[ImageFile], spots: dict[str, tuple[int, int]] | None = None, **values: Any) -> Results:
    """Return results of images.

    Args:
        images: their files.
        spots: image name -> row and column in the stored image; the patch that covers it is malignant with 0.9.
        values: replace fields.
    """
    places, heatmaps = {}, {}
    for image in images:
        header = pydicom.dcmread(image.path, stop_before_pixels=True)
        # a whole number of patches, and off the corner, so that forgotten offsets show
        rows, columns = (header.Rows - 20) // PATCH * PATCH, (header.Columns - 9) // PATCH * PATCH
        place = Place((13, 13 + rows, 6, 6 + columns), bool(image.mirrored))
        places[image.name] = place
        heatmaps[image.name] = scores(image, place, (spots or {}).get(image.name))
    given = {
        "exam_id": "exam-1",
        "images": images,
        "predictions": predictions(),
        "made": MADE,
        "algorithms": {"image-only": ALGORITHM},
        "places": places,
        "heatmaps": heatmaps,
        "heatmap_algorithm": ALGORITHM,
    }
    return Results(**{**given, **values})


def scores(image: ImageFile, place: Place, spot: tuple[int, int] | None) -> PatchScores:
    """Patches side by side; the one that covers the spot is malignant, the one in the classifier's corner benign."""
    top, bottom, left, right = place.window
    height, width = bottom - top, right - left
    flipped = is_flipped(image.view, place.mirrored)
    tops, lefts = np.arange(0, height, PATCH, dtype=np.int32), np.arange(0, width, PATCH, dtype=np.int32)
    malignant = np.full((len(tops), len(lefts)), 0.01, np.float32)
    benign = malignant.copy()
    benign[0, 0] = 0.8
    if spot is not None:
        row, column = spot[0] - top, spot[1] - left
        malignant[row // PATCH, (width - 1 - column if flipped else column) // PATCH] = 0.9
    return PatchScores(height, width, PATCH, flipped, tops, lefts, malignant, benign)


def patch_of(place: Place, spot: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the stored image that the patch covers in which a spot lies."""
    top, _, left, _ = place.window
    row, column = (
        start + (value - start) // PATCH * PATCH for start, value in zip((top, left), spot, strict=True)
    )  # crops are whole numbers of patches wide: the grid is the same from either side
    return slice(row, row + PATCH), slice(column, column + PATCH)


def rewrite(path: Path, change: Callable[[pydicom.Dataset], Any]) -> None:
    """Change a DICOM file; odd values are written as they are."""
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        change(dataset)
        dataset.save_as(path, enforce_file_format=True)


def change_all(folder: Path, change: Callable[[pydicom.Dataset], Any]) -> None:
    """Change every image of an exam."""
    for path in sorted(folder.glob("*.dcm")):
        rewrite(path, change)


def everything(images: list[ImageFile], to: Path, **values: Any) -> list[Path]:
    """Write all kinds of objects."""
    return write(results(images, **values), to, threshold=0.5, segmentations=True)


def verify(path: Path) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of dciodvfy (dicom3tools)."""
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    if done.returncode and not errors:
        errors = [f"dciodvfy ended with {done.returncode}"]
    return errors, [line for line in lines if line.startswith("Warning")]
