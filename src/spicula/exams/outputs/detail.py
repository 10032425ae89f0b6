"""An exam in full: its geometry, its heatmaps in numbers, its scores, and what made each of them.

`spicula exams show EXAM --json` prints it; `outputs.report` makes a page of it. Paths are left out: folders at times
carry names of persons.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from spicula import RESEARCH_NOTICE
from spicula.errors import UsageError
from spicula.exams.artefacts import Artefacts
from spicula.exams.ledger import Ledger
from spicula.exams.outputs.abouts import abouts_of
from spicula.exams.outputs.views import View
from spicula.exams.stages import heatmaps
from spicula.exams.steps import Step

#: A heatmap is told by the means of so many by so many blocks.
BLOCKS = 8
#: Digits of scores and of means of blocks, after the decimal point.
SCORE_DIGITS, BLOCK_DIGITS = 7, 6

_SIDES = {"L": "left", "R": "right"}


class Heatmap(TypedDict):
    """A heatmap in numbers: probabilities, 0 to 1.

    Attributes:
        shape: height and width, those of the crop, in pixels.
        mean, std, max: over all pixels.
        blocks8x8: means of 8 by 8 blocks that divide the map, rows from top to bottom, to 6 digits.
    """

    shape: list[int]
    mean: float
    std: float
    max: float
    blocks8x8: list[list[float]]


class ImageDetail(TypedDict):
    """An image of an exam. What no stage has given is None.

    Attributes:
        view: one of `types.VIEWS`.
        sha256: of the file.
        frame: which image of the file, from 0.
        mirrored: found from the pixels: the image is stored as its mirror image.
        window_location, rightmost_points, bottommost_points, distance_from_starting_side: see `types.Crop`.
        best_center: (y, x) in the crop, as the classifier sees it, in pixels.
        notes: what was found odd, and what was done about it.
        crop: name of the artefact that holds the crop (PNG).
        heatmaps: name of the artefact that holds the patch scores.
        picture: name of the artefact that `visualize` made (PNG).
        heatmap_malignant, heatmap_benign: see `Heatmap`.
    """

    view: str
    sha256: str
    frame: int
    mirrored: bool | None
    window_location: list[int] | None
    rightmost_points: list[Any] | None
    bottommost_points: list[Any] | None
    distance_from_starting_side: int | None
    best_center: list[int] | None
    notes: list[str]
    crop: str | None
    heatmaps: str | None
    picture: str | None
    heatmap_malignant: Heatmap | None
    heatmap_benign: Heatmap | None


class PredictionDetail(TypedDict):
    """A score.

    Attributes:
        model: "image-only", "image-and-heatmaps", or the name of a bundle that Spicula trained.
        model_digest: of the networks that made it.
        bundle: digest of the bundle that the model belongs to.
        bundle_name, version: what that bundle called itself, or None.
        side: "left" or "right"; in single-image mode the view ("L-CC"): images have scores of their own.
        target: "benign" or "malignant".
        score: 0 to 1, to 7 digits.
    """

    model: str
    model_digest: str
    bundle: str
    bundle_name: str | None
    version: str | None
    side: str
    target: str
    score: float


class StepDetail(TypedDict):
    """A step: a stage with its model.

    Attributes:
        step: "crop", "classify:image-only", ...
        stage: its stage.
        version: of the stage.
        status: "ok", "refused", "failed"; "blocked": a step before it was refused or failed; "left": not done yet. In
            the last two cases all that follows is None or empty.
        error: why it was refused or failed, or None.
        key: the input key.
        outputs: digest of the output manifest, or None.
        model: whose scores it gives, or None.
        about: what the bundle says of the model, see `Step.about`: its name, version, operating points.
        models: role -> digest of the networks that it used.
        parameters: what it was told, the precision among them.
        attempts: how often it was tried.
        seconds: how long the last attempt took.
        engine: its name, "local cpu" or the like.
        time: when it was committed to the ledger, ISO 8601, UTC.
        run: id of the run.
        spicula: version of the code that did it.
    """

    step: str
    stage: str
    version: int | None
    status: str
    error: str | None
    key: str | None
    outputs: str | None
    model: str | None
    about: dict[str, Any]
    models: dict[str, str]
    parameters: dict[str, Any]
    attempts: int | None
    seconds: float | None
    engine: str | None
    time: str | None
    run: str | None
    spicula: str | None


class ExamDetail(TypedDict):
    """An exam.

    Attributes:
        exam_id: unique in the workspace.
        status: "ok"; "refused", "failed" (some step is); "incomplete" (steps are left to do).
        reasons: why it is not "ok", one sentence each.
        horizontal_flip: "YES" when its images are stored mirrored, "NO" when not, None when no stage has told.
        notes: of intake.
        images: by name, in the order of `types.VIEWS`.
        predictions: of all models.
        steps: in the order in which they are done.
        as_of: the time that was asked for, ISO 8601, UTC, or None: now.
        notice: research use only.
    """

    exam_id: str
    status: str
    reasons: list[str]
    horizontal_flip: str | None
    notes: list[str]
    images: dict[str, ImageDetail]
    predictions: list[PredictionDetail]
    steps: list[StepDetail]
    as_of: str | None
    notice: str


def detail_of(
    ledger: Ledger,
    artefacts: Artefacts,
    exam_id: str,
    as_of: datetime | str | None = None,
    steps: Sequence[Step] | None = None,
) -> ExamDetail:
    """Return an exam in full, as it stands with the configuration of the last run.

    Args:
        ledger: of the workspace.
        artefacts: of the workspace.
        exam_id: the exam.
        as_of: a time in the past, UTC where it names no zone, also as ISO 8601 text; None: now.
        steps: another configuration than that of the last run.

    Raises:
        UsageError: the ledger has, or had, no such exam; or the text is no time.
        SpiculaError: an artefact is missing or damaged.
    """
    time = _time(as_of) if isinstance(as_of, str) else as_of
    shown = ledger.show(exam_id, time, steps)
    about = {step.name: dict(step.about) for step in (ledger.configuration(time) if steps is None else steps)}
    exam, rows = shown["exam"], {row["step"]: row for row in shown["steps"]}
    found = {
        name: _by_image(artefacts, rows.get(name)) for name in ("crop", "centers", "heatmaps", "visualize")
    }  # fmt: skip
    images = {image["name"]: _image(image, found, artefacts) for image in exam["images"]}
    mirrored = [image["mirrored"] for image in images.values() if image["mirrored"] is not None]
    predictions = sorted(shown["predictions"], key=lambda row: list(rows).index(row["step"]))
    made_by = abouts_of(ledger, {row["run"] for row in predictions})
    status, reasons = _status(exam["refusal"], shown["steps"])
    return {
        "exam_id": exam["exam_id"],
        "status": status,
        "reasons": reasons,
        "horizontal_flip": ("YES" if all(mirrored) else "NO") if mirrored else None,
        "notes": list(exam["notes"] or []),
        "images": images,
        "predictions": [_prediction(row, made_by.get((row["run"], row["step"]), {})) for row in predictions],
        "steps": [_step(row, about.get(row["step"], {})) for row in shown["steps"]],
        "as_of": _iso(shown["as_of"]),
        "notice": RESEARCH_NOTICE,
    }


def pictures_of(detail: ExamDetail, artefacts: Artefacts) -> dict[str, View]:
    """Return what can be shown of an exam's images: crops, and heatmaps where there are any.

    Args:
        detail: of the exam.
        artefacts: of its workspace.

    Raises:
        SpiculaError: an artefact is missing or damaged.
    """
    from spicula.exams.reading import read_crop

    pictures = {}
    for name, image in detail["images"].items():
        if image["crop"] is None:
            continue
        malignant, benign = _maps(artefacts, image["heatmaps"]) if image["heatmaps"] else (None, None)
        pictures[name] = View(read_crop(artefacts.get(image["crop"])), malignant, benign)
    return pictures


def describe_heatmap(heat: npt.NDArray[np.float32]) -> Heatmap:
    """Return a heatmap in numbers.

    Args:
        heat: (H, W), 0 to 1, at least as large as the blocks are many.
    """
    height, width = heat.shape
    rows, columns = (np.arange(BLOCKS + 1) * length // BLOCKS for length in (height, width))
    blocks = [
        [
            round(float(heat[top:bottom, left:right].mean(dtype=np.float64)), BLOCK_DIGITS)
            for left, right in itertools.pairwise(columns)
        ]
        for top, bottom in itertools.pairwise(rows)
    ]
    return {
        "shape": [height, width],
        "mean": float(heat.mean(dtype=np.float64)),
        "std": float(heat.std(dtype=np.float64)),
        "max": float(heat.max()),
        "blocks8x8": blocks,
    }


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no time; expected one such as 2026-11-21T14:30 (UTC unless it says else)"
        ) from None


def _by_image(artefacts: Artefacts, row: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return what a step's output manifest says of each image; nothing where the step has none."""
    if row is None or row["state"] != "ok":
        return {}
    return {image["name"]: image for image in artefacts.get_json(row["outputs"])["images"]}


def _image(
    image: Mapping[str, Any], found: Mapping[str, Mapping[str, dict[str, Any]]], artefacts: Artefacts
) -> ImageDetail:
    name = image["name"]
    crop = found["crop"].get(name, {})
    scores = found["heatmaps"].get(name, {}).get("file")
    malignant, benign = _maps(artefacts, scores) if scores else (None, None)
    return {
        "view": image["view"],
        "sha256": image["sha256"],
        "frame": image["frame"],
        "mirrored": crop.get("mirrored"),
        "window_location": crop.get("window_location"),
        "rightmost_points": crop.get("rightmost_points"),
        "bottommost_points": crop.get("bottommost_points"),
        "distance_from_starting_side": crop.get("distance_from_starting_side"),
        "best_center": found["centers"].get(name, {}).get("best_center"),
        "notes": crop.get("notes", []),
        "crop": crop.get("file"),
        "heatmaps": scores,
        "picture": found["visualize"].get(name, {}).get("file"),
        "heatmap_malignant": None if malignant is None else describe_heatmap(malignant),
        "heatmap_benign": None if benign is None else describe_heatmap(benign),
    }


def _maps(artefacts: Artefacts, name: str) -> npt.NDArray[np.float32]:
    return heatmaps.maps(heatmaps.decode(artefacts.get(name)))


def _status(refusal: str | None, steps: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return how an exam stands, and why it is not "ok"."""
    if refusal is not None:
        return "refused", [refusal]
    for state in ("failed", "refused"):
        reasons = [f"{row['step']}: {row['error']}" for row in steps if row["state"] == state]
        if reasons:
            return state, reasons
    left = [row["step"] for row in steps if row["state"] != "ok"]
    if left or not steps:
        return "incomplete", [f"not done yet: {', '.join(left)}" if left else "no run has worked on it yet"]
    return "ok", []


def _prediction(row: Mapping[str, Any], about: Mapping[str, Any]) -> PredictionDetail:
    return {
        "model": row["model"],
        "model_digest": row["model_digest"],
        "bundle": row["bundle"],
        "bundle_name": about.get("name"),
        "version": about.get("version"),
        "side": _SIDES.get(row["side"], row["side"]),
        "target": row["target"],
        "score": round(row["score"], SCORE_DIGITS),
    }


def _step(row: Mapping[str, Any], about: dict[str, Any]) -> StepDetail:
    stage, _, model = row["step"].partition(":")
    return {
        "step": row["step"],
        "stage": stage,
        "version": row.get("version"),
        "status": row["state"],
        "error": row.get("error"),
        "key": row.get("key"),
        "outputs": row.get("outputs"),
        "model": model or None,
        "about": about,
        "models": json.loads(row.get("models") or "{}"),
        "parameters": json.loads(row.get("parameters") or "{}"),
        "attempts": row.get("attempts"),
        "seconds": row.get("seconds"),
        "engine": row.get("engine"),
        "time": _iso(row.get("time")),
        "run": row.get("run"),
        "spicula": row.get("spicula"),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
