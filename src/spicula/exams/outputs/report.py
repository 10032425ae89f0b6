"""The report of one exam: one HTML file that needs nothing else, to be opened offline, printed and passed on."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import spicula
from spicula import evaluation, files
from spicula.errors import UsageError
from spicula.exams.artefacts import Artefacts
from spicula.exams.outputs.detail import SCORE_DIGITS, ExamDetail, ImageDetail, PredictionDetail, pictures_of
from spicula.exams.outputs.views import View, hang, show
from spicula.exams.stages.visualize import BENIGN_COLOR, MALIGNANT_COLOR, OPACITY
from spicula.exams.types import HANGING

_TEMPLATES = Path(__file__).parent / "templates"
# The look is that of a study's report.
_SHARED = Path(evaluation.__file__).parent / "templates"

#: The columns of scores, in the order in which breasts are hung.
_SIDES = {"right": "Right breast", "left": "Left breast", **{view: view for view in HANGING}}
_HEADINGS = {"ok": "", "refused": "{part}refused", "failed": "{part}failed", "incomplete": "Not finished"}
_TARGETS = ("malignant", "benign")


def write(detail: ExamDetail, artefacts: Artefacts, to: Path) -> Path:
    """Write the report of one exam as one self-contained HTML file, atomically.

    Whatever text the exam carries is escaped; the page loads nothing from anywhere and works without its script.

    Args:
        detail: of the exam. One that was refused or failed gets a report too, with the reason.
        artefacts: of its workspace, for the pictures.
        to: a folder.

    Returns:
        `report.html` in that folder.

    Raises:
        UsageError: jinja2 is not installed.
        SpiculaError: an artefact is missing or damaged, or the file cannot be written.
    """
    path = to / "report.html"
    files.write_text(path, render(detail, pictures_of(detail, artefacts)))
    return path


def render(detail: ExamDetail, pictures: Mapping[str, View], when: datetime | None = None) -> str:
    """Return the report as HTML text.

    Args:
        detail: see `write`.
        pictures: image name -> what is shown of it; images without one are named.
        when: the time that the page carries; None: now.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise UsageError("a report needs jinja2: pip install 'spicula[exams]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_TEMPLATES, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "exam.js").read_text(encoding="utf-8")
    styles = [(folder / name).read_text(encoding="utf-8") for folder, name in _STYLES]
    return environment.get_template("exam.html").render(
        detail=detail,
        heading=_HEADINGS[detail["status"]].format(part="In part " if detail["predictions"] else "").capitalize(),
        notice=spicula.RESEARCH_NOTICE,
        version=spicula.__version__,
        created=when or datetime.now(UTC),
        css=Markup("\n".join(styles)),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        scores=_scores(detail["predictions"]),
        points=_points(detail),
        views=_views(detail["images"], pictures),
        notes=_notes(detail),
        models=_models(detail),
    )


_STYLES = ((_SHARED, "report.css"), (_TEMPLATES, "exam.css"))


def _scores(predictions: Sequence[PredictionDetail]) -> dict[str, Any]:
    """The table of scores: one row a model, for each breast (in single-image mode: each view) its targets."""
    found = {(one["model"], one["side"], one["target"]): one["score"] for one in predictions}
    sides = [side for side in _SIDES if any(key[1] == side for key in found)]
    other = sorted({target for _, _, target in found} - set(_TARGETS))
    targets = [target for target in (*_TARGETS, *other) if any(key[2] == target for key in found)]
    models = list(dict.fromkeys(one["model"] for one in predictions))
    return {
        "sides": [_SIDES[side] for side in sides],
        "targets": targets,
        "rows": [
            (model, [(side, target, found.get((model, side, target))) for side in sides for target in targets])
            for model in models
        ],
        "is_by_image": any(side in HANGING for side in sides),
    }


def _points(detail: ExamDetail) -> list[dict[str, Any]]:
    """What every stated operating point makes of the scores, and which models state none."""
    predictions = detail["predictions"]
    stated = {step["model"]: step["about"].get("operating_points", {}) for step in detail["steps"]}
    found = []
    for model in dict.fromkeys(one["model"] for one in predictions):
        lines = [
            {
                "target": target,
                "name": name,
                "threshold": threshold,
                "reached": [
                    # Scores have SCORE_DIGITS here: one that is the threshold itself still reaches it.
                    (_SIDES.get(one["side"], one["side"]), one["score"] >= round(threshold, SCORE_DIGITS))
                    for one in predictions
                    if one["model"] == model and one["target"] == target
                ],
            }
            for target, named in stated.get(model, {}).items()
            for name, threshold in named.items()
        ]
        found.append({"model": model, "lines": lines})
    return found


def _views(images: Mapping[str, ImageDetail], pictures: Mapping[str, View]) -> dict[str, Any]:
    """The pictures in hanging order, all at one scale, and the images of which there is none."""
    shown = {name: show(pictures[name], bool(image["mirrored"])) for name, image in images.items() if name in pictures}
    by_view: dict[str, list[dict[str, Any]]] = {}
    for name, one in shown.items():
        entry = {"name": name, "shown": one, "detail": images[name]}
        by_view.setdefault(images[name]["view"], []).append(entry)
    return {
        "pairs": [[(view, by_view.get(view, [])) for view in pair] for pair in hang(list(by_view))],
        "width": max((one.width for one in shown.values()), default=1),
        "height": max((one.height for one in shown.values()), default=1),
        "colors": {"malignant": MALIGNANT_COLOR, "benign": BENIGN_COLOR},
        "opacity": OPACITY,
        "have_heatmaps": any(one.malignant or one.benign for one in shown.values()),
        "missing": [(name, image["view"]) for name, image in images.items() if name not in shown],
    }


def _notes(detail: ExamDetail) -> list[tuple[str, str]]:
    """What was found odd: about whom, and what."""
    notes = [("The exam", note) for note in detail["notes"]]
    return notes + [
        (f"{name} ({image['view']})", note) for name, image in detail["images"].items() for note in image["notes"]
    ]


def _models(detail: ExamDetail) -> list[dict[str, Any]]:
    """The networks behind the scores and the heatmaps, each with the step that ran it."""
    bundles = {one["model"]: one["bundle"] for one in detail["predictions"]}
    return [
        {"name": step["model"] or step["stage"], "bundle": bundles.get(step["model"] or ""), "step": step}
        for step in detail["steps"]
        if step["models"]
    ]
