"""Which models are served, and their cards."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from spicula import RESEARCH_NOTICE
from spicula.bundle.format import Data, Info, Scope
from spicula.serving.problems import Problem
from spicula.serving.service import Served, Service


class Point(BaseModel):
    """An operating point: the target is there where its probability is at least the threshold."""

    name: str
    threshold: float
    chosen_on: str


class ChosenPoint(Point):
    """An operating point, and sensitivity, specificity and others there, on validation and on test images."""

    val: dict[str, float | None]
    test: dict[str, float | None]


class Trained(BaseModel):
    """What a model was trained on: which split of which index, and how many images, patients and positive ones."""

    index_digest: str
    split_digest: str
    seed: int
    fold: int | None
    counts: dict[str, dict[str, int]]


class Probability(BaseModel):
    """What the probabilities of a model are."""

    calibrated: bool
    how: str


class SelfTest(BaseModel):
    """How far the model's answers here are from those that its bundle records for its golden inputs.

    The difference is null where an older bundle records none. It says as well what another precision changes.
    """

    max_abs_difference: float | None
    tolerance: float


class Model(BaseModel):
    """A model that is served."""

    name: str
    version: str
    digest: str
    line: str
    classes: list[str]
    target: str
    scope: Scope
    size: tuple[int, int]
    operating_points: list[ChosenPoint]
    probability: Probability
    explanations: list[str]
    unexplained: str | None
    provider: str
    precision: str | None
    self_test: SelfTest
    data: Data
    training: Trained
    licence: str
    created: str


class Models(BaseModel):
    """All models that take images."""

    models: list[Model]
    notice: str


class Card(Model):
    """A model, all that its bundle says, and its card for people."""

    bundle: dict[str, Any]
    model_card: str
    notice: str


def router(service: Service) -> APIRouter:
    """Return the routes of models."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("")
    async def models() -> Models:
        """Which models take images."""
        check_ready(service)
        return Models(models=[Model(**_facts(one)) for one in service.models.values()], notice=RESEARCH_NOTICE)

    @routes.get("/{name}")
    async def model(name: str) -> Card:
        """All that is known of a model: what stands in its bundle, and its card as Markdown."""
        served = served_model(service, name)
        facts = _facts(served)
        return Card(**facts, bundle=dict(served.bundle.info), model_card=served.card, notice=RESEARCH_NOTICE)

    return routes


def check_ready(service: Service) -> None:
    """Check that the models are loaded.

    Raises:
        Problem: 503, they are not yet.
    """
    if not service.is_ready and not service.is_draining:
        raise Problem(503, "starting", "models are loading; try again shortly", {"Retry-After": "1"})


def served_model(service: Service, name: str | None) -> Served:
    """Return a model by its name; without one, the only one.

    Raises:
        Problem: 404 there is none of this name, 422 there are several, 503 they are not loaded yet.
    """
    check_ready(service)
    there = f"there are {', '.join(service.models)}" if service.models else "no model of single images is served"
    if name is None:
        if len(service.models) > 1:
            raise Problem(422, "model", f"several models are served: choose one with ?model=NAME; {there}")
        name = next(iter(service.models), "")
    if name not in service.models:
        raise Problem(404, "model", f"no such model; {there}")
    return service.models[name]


def points_of(served: Served) -> list[Point]:
    """Return a model's operating points."""
    points = served.bundle.info["operating_points"]
    return [Point(name=name, threshold=one["threshold"], chosen_on=one["chosen_on"]) for name, one in points.items()]


def probability_of(info: Info) -> Probability:
    """Return what the probabilities of a model are: whether anything was done to make them match frequencies."""
    if info["line"] != "linear":
        return Probability(calibrated=False, how="softmax of the network's outputs, not calibrated after training")
    if info["training"]["settings"].get("classifier") == "svm":
        return Probability(calibrated=True, how="Platt scaling, fitted out of fold on the training images")
    return Probability(calibrated=False, how="of logistic regression itself, not calibrated after training")


def explanations_of(served: Served) -> list[str]:
    """Return the ways in which a model's answers can be explained here."""
    return ["gradcam"] if served.unexplained is None else []


def _facts(served: Served) -> dict[str, Any]:
    info, tested = served.bundle.info, served.tested
    assert tested is not None
    return {
        **{key: info[key] for key in ("name", "version", "digest", "line", "classes", "target", "scope")},
        "size": served.bundle.preprocess.size,
        "operating_points": [ChosenPoint(name=name, **point) for name, point in info["operating_points"].items()],
        "probability": probability_of(info),
        "explanations": explanations_of(served),
        "unexplained": served.unexplained,
        "provider": tested.provider,
        "precision": tested.precision,
        "self_test": SelfTest(max_abs_difference=tested.max_abs_difference, tolerance=tested.tolerance),
        "data": info["data"],
        "training": Trained.model_validate(info["training"]),
        "licence": info["licence"],
        "created": info["created"],
    }
