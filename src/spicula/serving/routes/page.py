"""The page for people: a few files of the package, read once, with an ETag by their content."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from spicula.serving.problems import Problem
from spicula.serving.service import Service

INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Everything comes from here, and scripts from files alone. Pictures of answers come as data, those of dropped files as
#: blobs of the browser.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def router(service: Service) -> APIRouter:
    """Return the routes of the page: / and /page/NAME."""
    routes = APIRouter(tags=["page"])
    known = _files()

    @routes.get("/", response_class=Response, responses=_answers(".html"))
    async def index(request: Request) -> Response:
        """Return the page."""
        return _answer(request, known[INDEX])

    @routes.get("/page/{name}", response_class=Response, responses=_answers(*MEDIA_TYPES))
    async def part(request: Request, name: str) -> Response:
        """Return a file that the page is made of."""
        if name not in known:
            raise Problem(404, "not-found", "the page has no such file")
        return _answer(request, known[name])

    return routes


def _files() -> dict[str, _File]:
    found = {}
    for one in files("spicula.serving").joinpath("page").iterdir():
        media_type = MEDIA_TYPES.get(PurePosixPath(one.name).suffix)
        if media_type is not None:
            content = one.read_bytes()
            found[one.name] = _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()}"')
    return found


def _answers(*suffixes: str) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a file as an answer."""
    schema = {"schema": {"type": "string"}}
    content = {MEDIA_TYPES[suffix].partition(";")[0]: schema for suffix in suffixes}
    return {200: {"description": "the file", "content": content}, 304: {"description": "it has not changed"}}


def _answer(request: Request, file: _File) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
