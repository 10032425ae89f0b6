"""Metrics in Prometheus' text format."""

from fastapi import APIRouter
from fastapi.responses import Response

from spicula.serving.service import Service


def router(service: Service) -> APIRouter:
    """Return the route of metrics."""
    routes = APIRouter(tags=["health"])

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """What the service counts: requests, seconds, queue, images, exams, memory."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
