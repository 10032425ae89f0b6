"""Pictures and documents of exams, each with an ETag by its content."""

import asyncio
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from spicula.serving.exam_desk import desk_of
from spicula.serving.exam_desk.answers import Target, View
from spicula.serving.problems import Problem
from spicula.serving.service import Service

_Size = Annotated[
    Literal["256", "512", "1024", "2048", "4096"] | None, Query(description="longest side at most, in pixels")
]
_Number = Annotated[int, Query(ge=1, le=100, description="which of several images of the view")]
_Threshold = Annotated[float | None, Query(ge=0.01, le=1, description="of segmentations, counted in hundredths")]

#: The report has its style and script in it. Its own policy, inside of it, allows that script alone, by its digest.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-modals; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_DICOM, _ZIP, _PNG = "application/dicom", "application/zip", "image/png"


def _binary(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of a file as an answer."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    content = dict.fromkeys(media_types, schema)
    return {200: {"description": "the file", "content": content}, 304: {"description": "it has not changed"}}


def add(routes: APIRouter, service: Service) -> None:
    """Add the routes of pictures and documents to those of exams."""
    _add_pictures(routes, service)
    _add_documents(routes, service)


def _add_pictures(routes: APIRouter, service: Service) -> None:
    @routes.get("/{exam}/views/{view}/image", response_class=Response, responses=_binary(_PNG))
    async def image(
        request: Request,
        exam: str,
        view: View,
        *,
        part: Annotated[Literal["crop", "whole"], Query(description="the breast, or the whole image")] = "crop",
        size: _Size = None,
        number: _Number = 1,
    ) -> Response:
        """Return an image as a grey PNG of 16 bits, as it is stored, dark to bright."""
        task = {"what": "image", "part": part, "size": int(size) if size else None}
        path = await desk_of(service).picture(exam, view, number, task)
        return await _answer(request, service, path, _PNG)

    @routes.get("/{exam}/views/{view}/heatmap", response_class=Response, responses=_binary(_PNG))
    async def heatmap(
        request: Request,
        exam: str,
        view: View,
        *,
        target: Target = "malignant",
        form: Annotated[Literal["grey", "layer"], Query(description="8 bits of grey, or RGBA to lay over")] = "grey",
        size: _Size = None,
        number: _Number = 1,
    ) -> Response:
        """Return a heatmap of the breast, which lies over the image with part=crop of the same size.

        Grey: 255 where the probability is 1. Layer: red or green, as opaque as it is probable, clear over background.
        """
        task = {"what": "heatmap", "target": target, "form": form, "size": int(size) if size else None}
        path = await desk_of(service).picture(exam, view, number, task)
        return await _answer(request, service, path, _PNG)


def _add_documents(routes: APIRouter, service: Service) -> None:
    @routes.get("/{exam}/report.html", response_class=Response, responses=_binary("text/html"))
    async def report(request: Request, exam: str) -> Response:
        """Return a page with everything, which needs nothing else."""
        path = await desk_of(service).report(exam)
        headers = {"Content-Security-Policy": _REPORT_POLICY}
        return await _answer(request, service, path, "text/html; charset=utf-8", headers)

    @routes.get("/{exam}/sr.dcm", response_class=Response, responses=_binary(_DICOM))
    async def structured_report(request: Request, exam: str) -> Response:
        """Return the scores as a DICOM Structured Report of the study."""
        found = await desk_of(service).dicom(exam)
        return await _answer(request, service, found["report"], _DICOM, _called(exam, "report.dcm"))

    @routes.get("/{exam}/sc.dcm", response_class=Response, responses=_binary(_DICOM, _ZIP))
    async def secondary_captures(
        request: Request, exam: str, view: View | None = None, number: _Number = 1
    ) -> Response:
        """Return pictures of the heatmaps as DICOM: of one image where a view is named, else all of them as a zip."""
        found = await desk_of(service).dicom(exam)
        return await _objects(request, service, _of_kind(found, "heatmap"), view, number)

    @routes.get("/{exam}/seg.dcm", response_class=Response, responses=_binary(_DICOM, _ZIP))
    async def segmentations(
        request: Request, exam: str, view: View | None = None, number: _Number = 1, threshold: _Threshold = None
    ) -> Response:
        """Return the heatmaps as DICOM Segmentations at a threshold, by default that of the bundle; see sc.dcm."""
        found = await desk_of(service).dicom(exam, None if threshold is None else round(threshold, 2))
        return await _objects(request, service, _of_kind(found, "segmentation"), view, number)


def _of_kind(found: Mapping[str, Path], kind: str) -> dict[str, Path]:
    """Return the objects of a kind, in the order of their images."""
    wanted = [name for name in found if name.startswith(f"{kind}-")]
    if not wanted and kind == "segmentation":
        raise Problem(
            409,
            "no-segmentation",
            "there are no segmentations: the exam has no heatmaps, or the bundle states no threshold for them; give "
            "one with threshold=0.5",
        )
    if not wanted:
        raise Problem(409, "no-heatmap", "the exam has no heatmaps")
    return {name: found[name] for name in sorted(wanted, key=lambda name: int(name.rpartition("-")[2]))}


async def _objects(
    request: Request, service: Service, wanted: Mapping[str, Path], view: str | None, number: int
) -> Response:
    exam = request.path_params["exam"]
    kind = next(iter(wanted)).partition("-")[0]
    if view is None:
        path, digest = await asyncio.to_thread(_zipped, service, wanted)
        request.state.closing.callback(path.unlink, missing_ok=True)
        headers = {"ETag": f'"{digest}"', **_called(exam, f"{kind}s.zip")}
        return await _answer(request, service, path, _ZIP, headers)
    of_view = [path for name, path in wanted.items() if name.startswith(f"{kind}-{view}-")]
    if number > len(of_view):
        raise Problem(404, "no-view", "the exam has no such image of this view with a heatmap")
    return await _answer(request, service, of_view[number - 1], _DICOM, _called(exam, f"{kind}-{view}.dcm"))


async def _answer(
    request: Request, service: Service, path: Path, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a file, or 304 where the client has it."""
    from spicula.serving.exam_desk.results import digest_in

    sent = {"Cache-Control": "private, no-cache", **(headers or {})}
    etag = sent["ETag"] = sent.get("ETag") or f'"{digest_in(path)}"'
    known = request.headers.get("if-none-match", "").split(",")
    if etag in [one.strip().removeprefix("W/") for one in known]:
        return Response(status_code=304, headers=sent)
    try:
        status = await asyncio.to_thread(path.stat)
    except OSError:
        raise Problem(409, "gone", "the exam is being run again; ask when it is done") from None
    exam = request.path_params["exam"]
    what = request.scope["route"].path.rpartition("}/")[2]
    images = await desk_of(service).digest(exam)
    service.audit.write(request, "retrieve", exam=exam, images=images, what=what, content=etag.strip('"'))
    return FileResponse(path, media_type=media_type, headers=sent, stat_result=status)


def _called(exam: str, name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{exam[:8]}-{name}"'}


def _zipped(service: Service, members: Mapping[str, Path]) -> tuple[Path, str]:
    """Return a zip of files, the same bytes for the same files, and what tells it apart from others."""
    from spicula.serving.exam_desk.results import digest_in

    path = service.spool.path()
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.dcm"), member.read_bytes())
    text = "\n".join(f"{name} {digest_in(member)}" for name, member in members.items())
    return path, hashlib.sha256(text.encode()).hexdigest()
