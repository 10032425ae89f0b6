"""The small answer of the published BreakHis services, for their clients: /predict."""

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from spicula import RESEARCH_NOTICE
from spicula.serving.classifying import classify, refuse_if_full
from spicula.serving.problems import Problem
from spicula.serving.routes.models import served_model
from spicula.serving.routes.predict import FIELD, FORM, About, audit, images_of, utc
from spicula.serving.service import Service
from spicula.serving.together import while_connected


class Published(BaseModel):
    """What a model says of one image: the first three members are those of the published services."""

    confidence: float
    predicted_label: str
    raw_prediction: list[float]
    model: About
    time: str
    notice: str


def router(service: Service) -> APIRouter:
    """Return the route of the published services."""
    routes = APIRouter(tags=["predict"])

    @routes.post("/predict", response_model=Published, openapi_extra=FORM)
    async def predict(
        request: Request, model: str | None = Query(None, description="its name; needed where several are served")
    ) -> Response:
        """What a model says of one image: the likelier class, its probability, and those of all classes in order."""
        served = served_model(service, model)
        refuse_if_full(service, served)
        uploads = await images_of(request, service)
        if len(uploads) > 1:
            raise Problem(422, "file", f"send one image in the field {FIELD!r}; /v1/predict takes many")
        found = await while_connected(request, classify(service, served, uploads))
        audit(service, request, served, found)
        if found[0].probabilities is None:
            raise Problem(422, "refused", f"the image is refused: {found[0].reason}")
        raw: list[float] = found[0].probabilities.tolist()
        answer = Published(
            confidence=max(raw),
            predicted_label=served.bundle.info["classes"][raw.index(max(raw))],
            raw_prediction=raw,
            model=About(**served.about()),
            time=utc(),
            notice=RESEARCH_NOTICE,
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    return routes
