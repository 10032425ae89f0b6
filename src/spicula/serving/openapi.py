"""The OpenAPI document: what the routes say of themselves, and what holds for all of them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from spicula.serving import problems


class ProblemDetails(BaseModel):
    """Why a request was not answered as asked (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    error: str
    request: str


def document(app: FastAPI, has_tokens: bool) -> dict[str, Any]:
    """Return the OpenAPI document of an application, made once.

    Args:
        app: the application.
        has_tokens: whether requests need one.
    """
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        components = made.setdefault("components", {})
        components.setdefault("schemas", {})["ProblemDetails"] = ProblemDetails.model_json_schema()
        content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
        components["responses"] = {"Problem": {"description": "Why it was not answered as asked", "content": content}}
        for path in made.get("paths", {}).values():
            for operation in path.values():
                _add_problems(operation["responses"])
        if has_tokens:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"token": []}]
        app.openapi_schema = made
    return app.openapi_schema


def _add_problems(responses: dict[str, Any]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):  # FastAPI's own form, which is never answered
        del responses["422"]
    for status in ("4XX", "5XX"):
        responses.setdefault(status, {"$ref": "#/components/responses/Problem"})
