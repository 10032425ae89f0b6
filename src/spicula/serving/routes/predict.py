"""Images in, answers out: /v1/predict."""

from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from spicula import RESEARCH_NOTICE
from spicula.serving import forms
from spicula.serving.classifying import Classified, classify, refuse_if_full
from spicula.serving.problems import Problem
from spicula.serving.routes.models import Point, Probability, explanations_of, points_of, probability_of, served_model
from spicula.serving.service import Served, Service
from spicula.serving.together import while_connected

#: The field of the form that holds files.
FIELD = "file"

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "images: DICOM, PNG, JPEG, PGM, PPM or TIFF",
                        }
                    },
                },
                "encoding": {FIELD: {"contentType": "application/octet-stream"}},
            }
        },
    }
}


class About(BaseModel):
    """Which model answers."""

    name: str
    version: str
    digest: str


class Score(BaseModel):
    """The probability of one class."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class")
    probability: float


class Decision(BaseModel):
    """What an operating point makes of the target's probability."""

    operating_point: str
    threshold: float
    decision: str


class Grad(BaseModel):
    """Grad-CAM: PNG in base64. The heatmap's alpha is the heat, 0 to 255; laid over the image it is clear elsewhere."""

    model_config = ConfigDict(populate_by_name=True)

    method: Literal["gradcam"]
    of: str = Field(alias="class")
    image_png: str
    heatmap_png: str


class Image(BaseModel):
    """What came of one file. A refused one has a reason, and no score."""

    model_config = ConfigDict(populate_by_name=True)

    position: int = Field(description="of the file in the request, from 0")
    sha256: str
    refused: bool
    reason: str | None = None
    kind: str | None = Field(None, description="of file, by its content")
    side: str | None = Field(None, description="L or R, where a DICOM header says so")
    answer: str | None = Field(None, alias="class", description="the class of the highest probability")
    score: float | None = Field(None, description="the target's probability")
    scores: list[Score] = []
    decisions: list[Decision] = []
    explanation: Grad | None = None


class Answer(BaseModel):
    """What a model says of images."""

    model: About
    target: str
    probability: Probability
    operating_points: list[Point]
    images: list[Image]
    time: str
    notice: str


def router(service: Service) -> APIRouter:
    """Return the route of predictions."""
    routes = APIRouter(prefix="/v1", tags=["predict"])

    @routes.post("/predict", response_model=Answer, openapi_extra=FORM)
    async def predict(
        request: Request,
        model: str | None = Query(None, description="its name; needed where several are served"),
        explain: Literal["none", "gradcam"] = Query("none", description="gradcam: with the heatmap of each image"),
        of: str | None = Query(None, description="the class that is explained; the target unless another is named"),
    ) -> Response:
        """What a model says of one or many images. A file that gets no score is refused with a reason of its own."""
        served = served_model(service, model)
        explained = _explained_class(served, explain, of)
        refuse_if_full(service, served)
        uploads = await images_of(request, service)
        found = await while_connected(request, classify(service, served, uploads, explained))
        answer = _answer(served, found)
        audit(service, request, served, found)
        return Response(answer.model_dump_json(by_alias=True), media_type="application/json")

    return routes


async def images_of(request: Request, service: Service) -> list[forms.Upload]:
    """Return the images of a request's form.

    Raises:
        Problem: 422 there is none, or a file in another field; and what `forms.read` raises.
    """
    uploads = await forms.read(request, service)
    if not uploads or any(upload.field != FIELD for upload in uploads):
        raise Problem(422, "file", f"send images as files in the form's field {FIELD!r}, which may be repeated")
    return uploads


def audit(service: Service, request: Request, served: Served, found: list[Classified]) -> None:
    """Write down which digests got which answers."""
    if service.settings.audit is None:
        return
    images = [
        {"sha256": item.sha256, "refused": True}
        if item.probabilities is None
        else {"sha256": item.sha256, "scores": item.probabilities.tolist()}
        for item in found
    ]
    service.audit.write(request, "predict", model=served.about(), images=images)


def utc() -> str:
    """Return the time, as it stands in answers."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _explained_class(served: Served, explain: str, of: str | None) -> str | None:
    info = served.bundle.info
    if of is not None and of not in info["classes"]:
        raise Problem(422, "class", f"{info['name']} knows the classes {', '.join(info['classes'])}")
    if explain == "none":
        return None
    if explain not in explanations_of(served):
        raise Problem(422, "explain", f"{info['name']} has no heatmaps here: {served.unexplained}")
    return of or served.bundle.target


def _answer(served: Served, found: list[Classified]) -> Answer:
    points = points_of(served)
    return Answer(
        model=About(**served.about()),
        target=served.bundle.target,
        probability=probability_of(served.bundle.info),
        operating_points=points,
        images=[_image(served, points, position, item) for position, item in enumerate(found)],
        time=utc(),
        notice=RESEARCH_NOTICE,
    )


def _image(served: Served, points: list[Point], position: int, item: Classified) -> Image:
    if item.probabilities is None:
        return Image(position=position, sha256=item.sha256, refused=True, reason=item.reason)
    classes, target = served.bundle.info["classes"], served.bundle.target
    probabilities: list[float] = item.probabilities.tolist()
    score = probabilities[classes.index(target)]
    other = next(name for name in classes if name != target)
    shown = item.explanation
    return Image(
        position=position,
        sha256=item.sha256,
        refused=False,
        kind=item.kind,
        side=item.side,
        answer=classes[probabilities.index(max(probabilities))],
        score=score,
        scores=[Score(name=name, probability=value) for name, value in zip(classes, probabilities, strict=True)],
        decisions=[
            Decision(
                operating_point=point.name,
                threshold=point.threshold,
                decision=target if score >= point.threshold else other,
            )
            for point in points
        ],
        explanation=Grad(method="gradcam", of=shown.of, image_png=shown.image, heatmap_png=shown.heatmap)
        if shown
        else None,
    )
