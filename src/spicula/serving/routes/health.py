"""Whether the service lives, and whether it takes requests."""

from fastapi import APIRouter
from pydantic import BaseModel

from spicula import RESEARCH_NOTICE, __version__
from spicula.serving.problems import Problem
from spicula.serving.service import Service


class Health(BaseModel):
    """The process lives."""

    status: str
    spicula: str
    notice: str


def router(service: Service) -> APIRouter:
    """Return the routes of health."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> Health:
        """Whether the process lives; answered also while models are loading, and under full load."""
        return Health(status="ok", spicula=__version__, notice=RESEARCH_NOTICE)

    @routes.get("/readyz")
    async def readyz() -> Health:
        """Whether it takes requests: every model has passed its self-test, and it is not being shut down."""
        if service.is_draining:
            raise Problem(503, "draining", "the service is being shut down", {"Retry-After": "5"})
        if not service.is_ready:
            raise Problem(503, "starting", "models are loading; try again shortly", {"Retry-After": "1"})
        return Health(status="ready", spicula=__version__, notice=RESEARCH_NOTICE)

    return routes
