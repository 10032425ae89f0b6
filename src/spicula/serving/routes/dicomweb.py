"""DICOMweb (PS3.18): studies pushed, searched and retrieved, with the results of their exams among them."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from spicula.errors import SpiculaError
from spicula.serving import forms
from spicula.serving.dicomweb import archive_of, media, retrieving, searching, storing
from spicula.serving.dicomweb.archive import Archive
from spicula.serving.dicomweb.index import Instance
from spicula.serving.dicomweb.reading import KEYS
from spicula.serving.problems import Problem
from spicula.serving.service import Service

PREFIX = "/dicomweb"
_STUDY, _SERIES, _INSTANCE = "/studies/{study}", "/series/{series}", "/instances/{instance}"
_STUDY_UID, _SERIES_UID, _INSTANCE_UID = "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"
_SEARCHES: Mapping[str, str] = {
    "/studies": _STUDY_UID,
    "/series": _SERIES_UID,
    "/instances": _INSTANCE_UID,
    _STUDY + "/series": _SERIES_UID,
    _STUDY + "/instances": _INSTANCE_UID,
    _STUDY + _SERIES + "/instances": _INSTANCE_UID,
}
_PLACES = (_STUDY, _STUDY + _SERIES, _STUDY + _SERIES + _INSTANCE)


def _content(*media_types: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {name: {"schema": {} if name == media.JSON else schema} for name in media_types}


_JSON: dict[int | str, dict[str, Any]] = {200: {"description": "DICOM JSON", "content": _content(media.JSON)}}
_STORED: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{which} of the objects are kept; the answer names each", "content": _content(media.JSON)}
    for status, which in ((200, "all"), (202, "some"), (409, "none"))
}
_FOUND: dict[int | str, dict[str, Any]] = {
    200: {"description": "objects as they are stored", "content": _content(media.RELATED, media.DICOM)}
}
_FRAMES: dict[int | str, dict[str, Any]] = {
    200: {"description": "frames as they are stored", "content": _content(media.RELATED)}
}
_SENT = {"requestBody": {"required": True, "content": _content(media.RELATED)}}


def router(service: Service) -> APIRouter:
    """Return the routes of DICOMweb."""
    routes = APIRouter(prefix=PREFIX, tags=["DICOMweb"])
    _add_storing(routes, service)
    for path, level in _SEARCHES.items():
        name = path.replace("{", "").replace("}", "").strip("/").replace("/", "-")
        routes.add_api_route(
            path,
            _searching(service, level),
            methods=["GET"],
            name=f"search {name}",
            response_class=Response,
            responses=_JSON,
            openapi_extra={"parameters": [*_named(path), *_QUERY]},
        )
    for path in _PLACES:
        what = path.rpartition("{")[2].strip("}")
        extra = {"parameters": _named(path)}
        common: dict[str, Any] = {"methods": ["GET"], "response_class": Response, "openapi_extra": extra}
        routes.add_api_route(path, _retrieving(service), name=f"retrieve {what}", responses=_FOUND, **common)
        routes.add_api_route(
            f"{path}/metadata", _describing(service), name=f"metadata of {what}", responses=_JSON, **common
        )
    _add_frames(routes, service)
    return routes


def _named(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in ("study", "series", "instance")
        if f"{{{name}}}" in path
    ]


_QUERY = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0}},
    {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0}},
    {"name": "includefield", "in": "query", "schema": {"type": "string"}, "description": "keyword, tag, or all"},
    *({"name": key, "in": "query", "schema": {"type": "string"}} for key in (*KEYS, "ModalitiesInStudy")),
]


def _add_storing(routes: APIRouter, service: Service) -> None:
    async def store(request: Request) -> Response:
        """Store the objects of a body of multipart/related; type="application/dicom" (STOW-RS)."""
        archive, study = archive_of(service), request.path_params.get("study")
        media.want(request.headers.get("accept", ""), media.JSON, "application/json")
        _check_sent(request)
        uploads = await forms.read_related(request, service)
        if not uploads:
            raise Problem(400, "no-parts", "the body has no parts; send each object as a part of its own")
        try:
            stored = await asyncio.to_thread(storing.store_all, archive, uploads, study)
        except (SpiculaError, OSError, sqlite3.Error):
            raise Problem(
                503, "disk", "objects cannot be kept: the disk is full, or may not be written", {"Retry-After": "10"}
            ) from None
        digests = [one.sha256 for one in uploads]
        failed = [digest for digest, one in zip(digests, stored, strict=True) if one.failure]
        service.audit.write(request, "store", objects=digests, failed=failed)
        service.metrics.count("instances", len(stored) - len(failed), way="stow", outcome="stored")
        service.metrics.count("instances", len(failed), way="stow", outcome="refused")
        return _json(storing.answer(stored, _base(request), study), storing.status(stored))

    common: dict[str, Any] = {"methods": ["POST"], "response_class": Response, "responses": _STORED}
    routes.add_api_route("/studies", store, name="store", openapi_extra=_SENT, **common)
    extra = {**_SENT, "parameters": _named(_STUDY)}
    routes.add_api_route(_STUDY, store, name="store in study", openapi_extra=extra, **common)


def _check_sent(request: Request) -> None:
    from python_multipart.multipart import parse_options_header

    name, options = parse_options_header(request.headers.get("content-type", ""))
    kind = options.get(b"type", media.DICOM.encode()).decode("latin-1").lower()
    if name.lower() != media.RELATED.encode() or kind != media.DICOM:
        asked = f'{media.RELATED}; type="{media.DICOM}"'
        raise Problem(415, "media-type", f"send objects as {asked}", {"Accept": asked})


def _searching(service: Service, level: str) -> Callable[..., Any]:
    async def search(request: Request) -> Response:
        """Search what is stored (QIDO-RS)."""
        archive = archive_of(service)
        media.want(request.headers.get("accept", ""), media.JSON, "application/json")
        within = {_STUDY_UID: "study", _SERIES_UID: "series"}
        uids = {key: request.path_params[name] for key, name in within.items() if name in request.path_params}
        asked = searching.parse(level, request.query_params.multi_items(), uids)
        found, has_more = await asyncio.to_thread(searching.search, archive.index, asked, _base(request))
        service.audit.write(request, "retrieve", did="searched", found=len(found))
        headers = {}
        if asked.is_fuzzy:
            headers["Warning"] = '299 spicula "fuzzymatching is not supported; values were matched as they are"'
        elif has_more:
            headers["Warning"] = '299 spicula "there are more results; ask for them with offset"'
        return _json(found, 200, headers)

    return search


def _retrieving(service: Service) -> Callable[..., Any]:
    async def retrieve(request: Request) -> Response:
        """Retrieve objects, byte for byte as they came (WADO-RS)."""
        archive = archive_of(service)
        instances = await _instances(request, archive)
        is_single = retrieving.check_accepted(request.headers.get("accept", ""), instances)
        await _audit(request, service, instances, "objects")
        if is_single:
            path = await asyncio.to_thread(_existing, archive, instances[0])
            return FileResponse(path, media_type=f"{media.DICOM}; transfer-syntax={instances[0].syntax}")
        paths = [(one.syntax, await asyncio.to_thread(_existing, archive, one)) for one in instances]
        boundary = media.new_boundary()
        return StreamingResponse(retrieving.objects(boundary, paths), media_type=_related(media.DICOM, boundary))

    return retrieve


def _describing(service: Service) -> Callable[..., Any]:
    async def describe(request: Request) -> Response:
        """Return the headers of objects, without large binary values (WADO-RS)."""
        archive = archive_of(service)
        media.want(request.headers.get("accept", ""), media.JSON, "application/json")
        instances = await _instances(request, archive)
        await _audit(request, service, instances, "metadata")
        return StreamingResponse(_headers(archive, instances), media_type=media.JSON)

    return describe


async def _headers(archive: Archive, instances: Sequence[Instance]) -> AsyncIterator[str]:
    """Yield a list in JSON, header by header: those of a study can be large."""
    before = "["
    for one in instances:
        if header := await asyncio.to_thread(archive.index.header, one.id):
            yield before + json.dumps(header)
            before = ","
    yield "]" if before == "," else "[]"


def _add_frames(routes: APIRouter, service: Service) -> None:
    path = _PLACES[-1] + "/frames/{frames}"
    parameters = [*_named(path), {"name": "frames", "in": "path", "required": True, "schema": {"type": "string"}}]

    @routes.get(path, response_class=Response, responses=_FRAMES, openapi_extra={"parameters": parameters})
    async def frames(request: Request) -> Response:
        """Retrieve frames of an object as they are stored (WADO-RS)."""
        archive = archive_of(service)
        numbers = retrieving.frame_numbers(request.path_params["frames"])
        (instance,) = await _instances(request, archive)
        kind = retrieving.frame_type(request.headers.get("accept", ""), instance.syntax)
        file = await asyncio.to_thread(_existing, archive, instance)
        await _audit(request, service, [instance], "frames")
        await asyncio.to_thread(retrieving.frame, file, max(numbers))  # what is not there is said at once
        boundary = media.new_boundary()
        body = retrieving.frames(boundary, file, numbers, kind)
        return StreamingResponse(body, media_type=_related(kind.partition(";")[0], boundary))


async def _instances(request: Request, archive: Archive) -> list[Instance]:
    """Return the objects that a path names, at least one."""
    study, series, instance = (request.path_params.get(name) for name in ("study", "series", "instance"))
    found = await asyncio.to_thread(archive.index.instances, study or "", series, instance)
    if not found:
        raise Problem(404, "no-object", "there is no such study, series or object here")
    return found


def _existing(archive: Archive, instance: Instance) -> Path:
    path = archive.path(instance.digest)
    if not path.is_file():
        raise Problem(404, "gone", "the object is not there any more; results are made anew when an exam is run again")
    return path


async def _audit(request: Request, service: Service, instances: Sequence[Instance], what: str) -> None:
    service.audit.write(request, "retrieve", did=what, objects=[one.digest for one in instances])


def _related(kind: str, boundary: str) -> str:
    return f'{media.RELATED}; type="{kind}"; boundary={boundary}'


def _base(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, media_type=media.JSON)
