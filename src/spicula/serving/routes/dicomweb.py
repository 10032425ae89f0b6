"""DICOMweb (PS3.18): studies pushed, searched and retrieved, with the results of their exams among them."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from spicula.errors import SpiculaError
from spicula.serving import forms
from spicula.serving.dicomweb import archive_of, bulk, media, retrieving, searching, storing
from spicula.serving.dicomweb.archive import Archive
from spicula.serving.dicomweb.index import Instance
from spicula.serving.dicomweb.reading import KEYS
from spicula.serving.problems import Problem
from spicula.serving.routes import dicomweb_images
from spicula.serving.routes.dicomweb_objects import (
    PREFIX,
    accept_of,
    audit,
    base_of,
    content,
    existing,
    named,
    objects_of,
    related,
)
from spicula.serving.service import Service

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
#: Available Transfer Syntax UID: in which frames are given out (PS3.18 table 10.6.3-5).
_AVAILABLE_SYNTAX = "00083002"
_PLACES = (_STUDY, _STUDY + _SERIES, _STUDY + _SERIES + _INSTANCE)

_JSON: dict[int | str, dict[str, Any]] = {200: {"description": "DICOM JSON", "content": content(media.JSON)}}
_STORED: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{which} of the objects are kept; the answer names each", "content": content(media.JSON)}
    for status, which in ((200, "all"), (202, "some"), (409, "none"))
}
_FOUND: dict[int | str, dict[str, Any]] = {
    200: {"description": "objects as they are stored", "content": content(media.RELATED, media.DICOM)}
}
_SENT = {"requestBody": {"required": True, "content": content(media.RELATED)}}


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
            openapi_extra={"parameters": [*named(path), *_QUERY]},
        )
    for path in _PLACES:
        what = path.rpartition("{")[2].strip("}")
        extra = {"parameters": named(path)}
        common: dict[str, Any] = {"methods": ["GET"], "response_class": Response, "openapi_extra": extra}
        routes.add_api_route(path, _retrieving(service), name=f"retrieve {what}", responses=_FOUND, **common)
        routes.add_api_route(
            f"{path}/metadata", _describing(service), name=f"metadata of {what}", responses=_JSON, **common
        )
    dicomweb_images.add(routes, service, _PLACES)
    return routes


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
        media.want(accept_of(request), media.JSON, "application/json")
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
        return _json(storing.answer(stored, base_of(request), study), storing.status(stored))

    common: dict[str, Any] = {"methods": ["POST"], "response_class": Response, "responses": _STORED}
    routes.add_api_route("/studies", store, name="store", openapi_extra=_SENT, **common)
    extra = {**_SENT, "parameters": named(_STUDY)}
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
        media.want(accept_of(request), media.JSON, "application/json")
        within = {_STUDY_UID: "study", _SERIES_UID: "series"}
        uids = {key: request.path_params[name] for key, name in within.items() if name in request.path_params}
        asked = searching.parse(level, request.query_params.multi_items(), uids)
        found, has_more = await asyncio.to_thread(searching.search, archive.index, asked, base_of(request))
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
        instances = await objects_of(request, archive)
        is_single = retrieving.check_accepted(accept_of(request), instances)
        await audit(request, service, instances, "objects")
        if is_single:
            path = await asyncio.to_thread(existing, archive, instances[0])
            return FileResponse(path, media_type=f"{media.DICOM}; transfer-syntax={instances[0].syntax}")
        paths = [(one.syntax, await asyncio.to_thread(existing, archive, one)) for one in instances]
        boundary = media.new_boundary()
        return StreamingResponse(retrieving.objects(boundary, paths), media_type=related(media.DICOM, boundary))

    return retrieve


def _describing(service: Service) -> Callable[..., Any]:
    async def describe(request: Request) -> Response:
        """Return the headers of objects; of large values and pixels where they are retrieved (WADO-RS)."""
        archive = archive_of(service)
        media.want(accept_of(request), media.JSON, "application/json")
        instances = await objects_of(request, archive)
        await audit(request, service, instances, "metadata")
        return StreamingResponse(_headers(archive, instances, base_of(request)), media_type=media.JSON)

    return describe


async def _headers(archive: Archive, instances: Sequence[Instance], base: str) -> AsyncIterator[str]:
    """Yield a list in JSON, header by header: those of a study can be large."""
    before = "["
    for one in instances:
        if header := await asyncio.to_thread(archive.index.header, one.id):
            told = {**header, _AVAILABLE_SYNTAX: {"vr": "UI", "Value": [one.syntax]}}
            yield before + json.dumps(bulk.linked(told, searching.address(base, one, _INSTANCE_UID)))
            before = ","
    yield "]" if before == "," else "[]"


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, media_type=media.JSON)
