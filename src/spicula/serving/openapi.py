"""The OpenAPI document: what the routes say of themselves, and what holds for all of them."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.routing import Route

from spicula.serving import problems
from spicula.serving.guard import HEALTH, PAGE

#: Where the document is.
PATH = "/openapi.json"


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
    """Return the OpenAPI document of an application.

    Args:
        app: the application, with all its routes.
        has_tokens: whether requests need one.
    """
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
        for path, operations in made["paths"].items():
            if path in (*HEALTH, *PAGE) or path.startswith("/page/"):  # answered without a token
                for operation in operations.values():
                    operation["security"] = []
    return made


def route(document: dict[str, Any]) -> Route:
    """Return the route that answers with a document, put into words once."""
    content = json.dumps(document).encode()

    async def openapi(_: Request) -> Response:
        return Response(content, media_type="application/json")

    return Route(PATH, openapi, methods=["GET"], include_in_schema=False)


def _add_problems(responses: dict[str, Any]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):  # FastAPI's own form, which is never answered
        del responses["422"]
    for status in ("4XX", "5XX"):
        responses.setdefault(status, {"$ref": "#/components/responses/Problem"})
