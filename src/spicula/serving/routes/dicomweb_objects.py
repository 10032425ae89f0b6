"""What the routes of DICOMweb share: which objects a path names, what is said of answers, and what is noted."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import Request

from spicula.serving.dicomweb import media
from spicula.serving.dicomweb.archive import Archive
from spicula.serving.dicomweb.index import Instance
from spicula.serving.problems import Problem
from spicula.serving.service import Service

PREFIX = "/dicomweb"


def content(*media_types: str) -> dict[str, Any]:
    """Return what OpenAPI says of bodies of these types."""
    schema = {"type": "string", "format": "binary"}
    return {name: {"schema": {} if name == media.JSON else schema} for name in media_types}


def named(path: str) -> list[dict[str, Any]]:
    """Return what OpenAPI says of the parameters in a path."""
    names = [word.partition("}")[0] for word in path.split("{")[1:]]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


async def objects_of(request: Request, archive: Archive) -> list[Instance]:
    """Return the objects that a path names, at least one.

    Raises:
        Problem: 404, there are none.
    """
    study, series, instance = (request.path_params.get(name) for name in ("study", "series", "instance"))
    found = await asyncio.to_thread(archive.index.instances, study or "", series, instance)
    if not found:
        raise Problem(404, "no-object", "there is no such study, series or object here")
    return found


def existing(archive: Archive, instance: Instance) -> Path:
    """Return the file of an object.

    Raises:
        Problem: 404, it is lost.
    """
    path = archive.path(instance.digest)
    if not path.is_file():
        raise Problem(404, "gone", "the object is not there any more; results are made anew when an exam is run again")
    return path


def accept_of(request: Request) -> str:
    """Return what a client accepts: the query parameter `accept`, else the header (PS3.18 section 8.3.3.1)."""
    return request.query_params.get("accept") or request.headers.get("accept", "")


async def audit(request: Request, service: Service, instances: Sequence[Instance], what: str) -> None:
    """Note what was given out, of which objects."""
    service.audit.write(request, "retrieve", did=what, objects=[one.digest for one in instances])


def related(kind: str, boundary: str) -> str:
    """Return the Content-Type of a body of parts."""
    return f'{media.RELATED}; type="{kind}"; boundary={boundary}'


def base_of(request: Request) -> str:
    """Return the address of the service's DICOMweb as the client knows it, without a slash at its end.

    Some clients (dicomweb-client) name the host without its port. Who asks for our own address, and not through a
    proxy, asks at our own port.
    """
    url, server = request.base_url, request.scope.get("server")
    is_direct = not any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host"))
    if url.port is None and server is not None and url.hostname == server[0] and is_direct:
        url = url.replace(port=server[1])
    return f"{str(url).rstrip('/')}{PREFIX}"
