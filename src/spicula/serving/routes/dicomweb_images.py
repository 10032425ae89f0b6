"""DICOMweb for viewers: frames, bulk data, rendered pictures and thumbnails (PS3.18 section 10.4)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from spicula.serving.dicomweb import archive_of, bulk, media, rendering, rendering_of, retrieving, viewing
from spicula.serving.dicomweb.archive import Archive
from spicula.serving.dicomweb.index import Instance
from spicula.serving.routes.dicomweb_objects import accept_of, audit, content, existing, named, objects_of, related
from spicula.serving.service import Service

_Route = Callable[[Request], Awaitable[Response]]


def _answers(what: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": what, "content": content(*media_types)}}


_FRAMES = _answers("frames as they are stored, or uncompressed", media.RELATED, media.BYTES, "image/*")
_BULK = _answers("a value in bytes", media.BYTES, media.RELATED, "image/*")
_PICTURES = _answers("pictures of 8 bits", *viewing.KINDS, media.RELATED) | {
    304: {"description": "they have not changed"}
}
_PICTURE = _answers("a picture of 8 bits", *viewing.KINDS) | {304: {"description": "it has not changed"}}


def _query(name: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string", "maxLength": 200}, "description": example}


_VIEWPORT = _query("viewport", "WIDTH,HEIGHT in which the picture fits")
_VIEWING = [
    _query("viewport", "WIDTH,HEIGHT or WIDTH,HEIGHT,LEFT,TOP,WIDTH,HEIGHT"),
    _query("window", "CENTER,WIDTH,FUNCTION: linear, linear-exact, sigmoid"),
    {"name": "quality", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
]


def add(routes: APIRouter, service: Service, places: Sequence[str]) -> None:
    """Add these routes.

    Args:
        routes: of DICOMweb.
        service: the service.
        places: paths of a study, of its series and of their instances.
    """
    instance = places[-1]

    def add_one(path: str, route: _Route, name: str, answers: dict[int | str, dict[str, Any]], *query: Any) -> None:
        routes.add_api_route(
            path,
            route,
            methods=["GET"],
            name=name,
            response_class=Response,
            responses=answers,
            openapi_extra={"parameters": [*named(path), *query]},
        )

    add_one(instance + "/frames/{frames}", _frames(service), "frames", _FRAMES)
    add_one(instance + "/bulkdata/{attribute}", _bulkdata(service), "bulk data", _BULK)
    for path in (instance, instance + "/frames/{frames}"):
        what = path.rpartition("{")[2].strip("}")
        add_one(f"{path}/rendered", _rendered(service), f"rendered {what}", _PICTURES, *_VIEWING)
    for path in (*places, instance + "/frames/{frames}"):
        what = path.rpartition("{")[2].strip("}")
        add_one(f"{path}/thumbnail", _thumbnail(service), f"thumbnail of {what}", _PICTURE, _VIEWPORT)


def _frames(service: Service) -> _Route:
    async def frames(request: Request) -> Response:
        """Retrieve frames of an object, as they are stored or without their compression (WADO-RS)."""
        archive = archive_of(service)
        numbers = retrieving.frame_numbers(request.path_params["frames"])
        (instance,) = await objects_of(request, archive)
        await audit(request, service, [instance], "frames")
        return await _of_frames(request, service, archive, instance, numbers)

    return frames


async def _of_frames(
    request: Request, service: Service, archive: Archive, instance: Instance, numbers: list[int]
) -> Response:
    form = retrieving.frame_form(accept_of(request), instance.syntax, len(numbers))
    path = await asyncio.to_thread(existing, archive, instance)
    get: Callable[[int], Awaitable[bytes]]
    if form.is_decoded:
        header = await asyncio.to_thread(archive.index.header, instance.id)
        retrieving.check_there(max(numbers), rendering.frames_of(header))
        rendering.check_values(header)
        get = partial(rendering_of(service).values, path)
    else:
        await asyncio.to_thread(retrieving.frame, path, max(numbers))  # what is not there is said at once
        get = _stored(path)
    first = await get(numbers[0])
    if form.is_single:
        return Response(first, media_type=form.kind)
    boundary = media.new_boundary()
    body = retrieving.frames(boundary, first, numbers, form.kind, get)
    return StreamingResponse(body, media_type=related(form.kind.partition(";")[0], boundary))


def _stored(path: Path) -> Callable[[int], Awaitable[bytes]]:
    async def get(number: int) -> bytes:
        return await asyncio.to_thread(retrieving.frame, path, number)

    return get


def _bulkdata(service: Service) -> _Route:
    async def bulkdata(request: Request) -> Response:
        """Retrieve a value that is too large for the metadata, or the pixels, as a BulkDataURI names them (WADO-RS)."""
        archive = archive_of(service)
        (instance,) = await objects_of(request, archive)
        await audit(request, service, [instance], "bulkdata")
        way = request.path_params["attribute"]
        header = await asyncio.to_thread(archive.index.header, instance.id)
        # of objects that an earlier version stored the header names no pixels
        if way not in bulk.ways(header) | {bulk.PIXELS}:
            raise bulk.no_such()
        path = await asyncio.to_thread(existing, archive, instance)
        if way != bulk.PIXELS:
            return _bytes(request, await asyncio.to_thread(bulk.read, path, way))
        if retrieving.is_native(instance.syntax):
            return _bytes(request, await asyncio.to_thread(retrieving.pixels, path))
        numbers = list(range(1, max(1, rendering.frames_of(header)) + 1))
        return await _of_frames(request, service, archive, instance, numbers)

    return bulkdata


def _bytes(request: Request, data: bytes) -> Response:
    for one in media.accepted(accept_of(request)):
        asked = media.related_type(one)
        if not media.matches(asked or one.name, media.BYTES):
            continue
        if asked is None:
            return Response(data, media_type=media.BYTES)
        boundary = media.new_boundary()
        head = f"\r\n--{boundary}\r\nContent-Type: {media.BYTES}\r\nContent-Location: {request.url}\r\n\r\n"
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        return Response(body, media_type=related(media.BYTES, boundary))
    raise media.not_acceptable(media.BYTES, f'{media.RELATED}; type="{media.BYTES}"')


def _rendered(service: Service) -> _Route:
    async def rendered(request: Request) -> Response:
        """Return a picture of an object or of its frames, as a workstation shows it (WADO-RS)."""
        archive = archive_of(service)
        asked, passed_over = viewing.parse(request.query_params.multi_items(), is_thumbnail=False)
        (instance,), numbers = await objects_of(request, archive), [1]
        _, frames = await asyncio.to_thread(rendering.image_of, archive, [instance])
        if "frames" in request.path_params:
            numbers = retrieving.frame_numbers(request.path_params["frames"])
            retrieving.check_there(max(numbers), frames)
            frames = 1
        kind, has_parts = _picture_kind(request, len(numbers))
        await audit(request, service, [instance], "rendered")
        warning = viewing.warning_of(passed_over, frames)
        return await _pictures(request, service, _Pictures(instance, numbers, kind, asked, has_parts, warning))

    return rendered


def _thumbnail(service: Service) -> _Route:
    async def thumbnail(request: Request) -> Response:
        """Return a small picture: of a study and a series that of its first image (WADO-RS)."""
        archive = archive_of(service)
        asked, passed_over = viewing.parse(request.query_params.multi_items(), is_thumbnail=True)
        instance, frames = await asyncio.to_thread(rendering.image_of, archive, await objects_of(request, archive))
        numbers = retrieving.frame_numbers(request.path_params.get("frames", "1"))[:1]
        retrieving.check_there(numbers[0], frames)
        kind = media.want(accept_of(request), *viewing.KINDS)
        await audit(request, service, [instance], "thumbnail")
        warning = viewing.warning_of(passed_over, 1)
        return await _pictures(request, service, _Pictures(instance, numbers, kind, asked, False, warning))

    return thumbnail


def _picture_kind(request: Request, count: int) -> tuple[str, bool]:
    """Return as what pictures come, and whether as parts."""
    for one in media.accepted(accept_of(request)):
        asked = media.related_type(one)
        has_parts = asked is not None or (one.name == "*/*" and count > 1)
        if count > 1 and not has_parts:
            continue
        for kind in viewing.KINDS:
            if media.matches(asked or one.name, kind):
                return kind, has_parts
    offered = [f'{media.RELATED}; type="{kind}"' for kind in viewing.KINDS]
    raise media.not_acceptable(*(viewing.KINDS if count == 1 else ()), *offered)


@dataclass(frozen=True)
class _Pictures:
    """Pictures that are asked for: of which frames, as what, and with which header of warning."""

    instance: Instance
    numbers: list[int]
    kind: str
    viewing: viewing.Viewing
    has_parts: bool
    warning: dict[str, str]


async def _pictures(request: Request, service: Service, asked: _Pictures) -> Response:
    etag = rendering.tag_of(asked.instance, asked.numbers, asked.kind, asked.viewing)
    sent = {"Cache-Control": "private, no-cache", "ETag": etag, **asked.warning}
    if etag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=sent)
    path: Path = await asyncio.to_thread(existing, archive_of(service), asked.instance)

    async def get(number: int) -> bytes:
        return await rendering_of(service).picture(path, number, asked.kind, asked.viewing)

    first = await get(asked.numbers[0])
    if not asked.has_parts:
        return Response(first, media_type=asked.kind, headers=sent)
    boundary = media.new_boundary()
    body = retrieving.frames(boundary, first, asked.numbers, asked.kind, get)
    return StreamingResponse(body, media_type=related(asked.kind, boundary), headers=sent)
