"""What is said of an exam: how far it is, and what came out of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from spicula.exams.types import HANGING, VIEWS
from spicula.serving.exam_desk.answers import (
    ExamAnswer,
    ExamImage,
    Geometry,
    ImageLinks,
    Links,
    Model,
    OperatingPoint,
    Prediction,
    Progress,
    Reached,
    Stage,
    Status,
    StepProgress,
)

_SIDES = ("right", "left")


def answer(
    exam: str,
    status: Status,
    description: Mapping[str, Any],
    *,
    progress: Mapping[str, Any],
    result: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    ahead: int,
    name: str | None = None,
) -> ExamAnswer:
    """Return what is said of an exam.

    Args:
        exam: its id.
        status: how it stands.
        description: see `Incoming.description`.
        progress: see `Incoming.progress`; of an exam that is not finished.
        result: see `Incoming.result`; {} of an exam that is not finished.
        steps: what the runner does with every exam, `Step.as_json` values.
        ahead: exams that came before it.
        name: in the ledger, of one that was not sent.
    """
    detail = result.get("detail") or {}
    listed = result.get("steps", steps)
    images = _images(exam, detail)
    return ExamAnswer(
        id=exam,
        origin="sent" if name is None else "ledger",
        name=name,
        status=status,
        time=description["time"],
        started=result.get("started", progress.get("started")),
        finished=result.get("finished"),
        progress=_progress(listed, detail, progress, ahead),
        reasons=result.get("reasons", []),
        notes=detail.get("notes", description["notes"]),
        is_mirrored={"YES": True, "NO": False}.get(detail.get("horizontal_flip") or ""),
        predictions=predictions_of(result),
        operating_points=_operating_points(detail),
        images=images,
        models=_models(detail),
        stages=[_stage(step) for step in detail.get("steps", ())],
        links=links_of(exam, description, result),
    )


def predictions_of(result: Mapping[str, Any]) -> list[Prediction]:
    """Return the scores of a result, see `Incoming.result`; none where it has none."""
    detail = result.get("detail") or {}
    return [
        Prediction(model=one["model"], side=one["side"], target=one["target"], score=one["score"])
        for one in detail.get("predictions", ())
    ]


def links_of(exam: str, description: Mapping[str, Any], result: Mapping[str, Any]) -> Links:
    """Return where the results of an exam are."""
    here = f"/v1/exams/{exam}"
    detail = result.get("detail")
    is_dicom = all(one["kind"] == "dicom" for one in description.get("files", ()))
    has_scores = bool(detail and detail["predictions"]) and is_dicom
    has_maps = has_scores and any(image["heatmaps"] for image in detail["images"].values()) if detail else False
    return Links(
        self=here,
        report=f"{here}/report.html" if detail else None,
        sr=f"{here}/sr.dcm" if has_scores else None,
        sc=f"{here}/sc.dcm" if has_maps else None,
        seg=f"{here}/seg.dcm" if has_maps else None,
    )


def image_name(detail: Mapping[str, Any], view: str, number: int) -> str | None:
    """Return the name of an image of an exam; None where there is none."""
    names = [name for name, image in detail["images"].items() if image["view"] == view]
    return names[number - 1] if number <= len(names) else None


def _progress(
    steps: Sequence[Mapping[str, Any]], detail: Mapping[str, Any], progress: Mapping[str, Any], ahead: int
) -> Progress:
    states = progress.get("steps", {})
    if detail:
        states = {step["step"]: step["status"] for step in detail["steps"]}
    listed = [StepProgress(step=one["name"], status=_state(states.get(one["name"]))) for one in steps]
    done = sum(one.status not in ("waiting", "running") for one in listed)
    return Progress(done=done, total=len(listed), steps=listed, ahead=ahead)


def _state(state: str | None) -> Any:
    return "waiting" if state in (None, "left") else state


def _images(exam: str, detail: Mapping[str, Any]) -> list[ExamImage]:
    counts = dict.fromkeys(VIEWS, 0)
    found = []
    for image in detail.get("images", {}).values():
        counts[image["view"]] += 1
        found.append(_image(exam, image, counts[image["view"]]))
    return sorted(found, key=lambda image: HANGING.index(image.view))


def _image(exam: str, image: Mapping[str, Any], number: int) -> ExamImage:
    here = f"/v1/exams/{exam}/views/{image['view']}"
    which = "" if number == 1 else f"&number={number}"
    has_maps = image["heatmaps"] is not None
    return ExamImage(
        view=image["view"],
        number=number,
        sha256=image["sha256"],
        frame=image["frame"],
        is_mirrored=image["mirrored"],
        geometry=Geometry(**{name: image[name] for name in Geometry.model_fields}),
        notes=image["notes"],
        links=ImageLinks(
            whole=f"{here}/image?part=whole{which}",
            crop=f"{here}/image?part=crop{which}" if image["crop"] is not None else None,
            heatmap_malignant=f"{here}/heatmap?target=malignant{which}" if has_maps else None,
            heatmap_benign=f"{here}/heatmap?target=benign{which}" if has_maps else None,
        ),
    )


def _models(detail: Mapping[str, Any]) -> list[Model]:
    found = {
        one["model"]: Model(
            name=one["model"],
            bundle=one["bundle_name"],
            version=one["version"],
            digest=one["bundle"],
            networks=one["model_digest"],
        )
        for one in detail.get("predictions", ())
    }
    return list(found.values())


def _stage(step: Mapping[str, Any]) -> Stage:
    fields = {name: step[name] for name in Stage.model_fields if name != "networks"}
    return Stage(**fields, networks=step["models"])


def _operating_points(detail: Mapping[str, Any]) -> list[OperatingPoint]:
    """Return what every stated threshold makes of the scores."""
    found = []
    for step in detail.get("steps", ()):
        stated = step["about"].get("operating_points", {})
        for target, points in stated.items():
            for rule, threshold in points.items():
                breasts = [
                    Reached(side=one["side"], score=one["score"], is_reached=one["score"] >= round(threshold, 7))
                    for one in detail["predictions"]
                    if one["model"] == step["model"] and one["target"] == target
                ]
                breasts.sort(key=lambda one: _SIDES.index(one.side) if one.side in _SIDES else len(_SIDES))
                if breasts:
                    found.append(_operating_point(step["model"], target, rule, threshold, breasts))
    return found


def _operating_point(model: str, target: str, rule: str, threshold: float, breasts: list[Reached]) -> OperatingPoint:
    reached = [one.side for one in breasts if one.is_reached]
    meaning = (
        f"A breast counts as {target} from a score of {threshold:.3f} on. The threshold was chosen on validation images"
        f" by the rule {rule}. {'Reached: ' + ', '.join(reached) if reached else 'No breast reaches it'}."
    )
    return OperatingPoint(model=model, target=target, rule=rule, threshold=threshold, breasts=breasts, meaning=meaning)
