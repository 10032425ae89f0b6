"""Exams: sent, listed, and told of. Their pictures and documents are in `exam_files`."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from spicula.serving import dicomweb, forms
from spicula.serving.exam_desk import desk_of
from spicula.serving.exam_desk.answers import AcceptedExam, ExamAnswer, ExamList, Status
from spicula.serving.problems import Problem
from spicula.serving.routes import exam_files
from spicula.serving.service import Service

#: Exams that a list has at most.
MOST_LISTED = 200

_FILES = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
            },
        }
    }
}


def router(service: Service) -> APIRouter:
    """Return the routes of exams, those of their pictures and documents included."""
    routes = APIRouter(prefix="/v1/exams", tags=["exams"])

    @routes.post("", status_code=202, openapi_extra={"requestBody": {"required": True, "content": _FILES}})
    async def send(request: Request) -> AcceptedExam:
        """Send an exam: four views (PNG or TIFF of 16 bits, named by their view), DICOM files, or a zip of either.

        The answer comes at once, with an id. The same images again are the same exam.
        """
        from spicula.serving.exam_desk.uploads import Sent

        desk = desk_of(service)
        uploads = await forms.read(request, service)
        sent = [Sent(one.path, one.filename or "", one.sha256, one.bytes) for one in uploads]
        answer = await asyncio.to_thread(desk.accepted, await desk.take(sent))
        digests = [one.sha256 for one in uploads]
        images = await desk.digest(answer.id)
        service.audit.write(request, "exam", did="sent", exam=answer.id, images=images, files=digests)
        return answer

    @routes.get("")
    async def find(
        request: Request,
        *,
        q: Annotated[str, Query(max_length=32, description="what the id begins with, or the name in the ledger")] = "",
        status: Annotated[list[Status] | None, Query(max_length=5, description="only exams that stand so")] = None,
        sort: Annotated[
            Literal["time", "score"], Query(description="newest or highest malignant score first")
        ] = "time",
        since: Annotated[datetime | None, Query(description="only exams that came then or later")] = None,
        until: Annotated[datetime | None, Query(description="only exams that came before then")] = None,
        least: Annotated[
            float | None, Query(ge=0, le=1, description="lowest malignant score, the highest of an exam")
        ] = None,
        most: Annotated[float | None, Query(ge=0, le=1, description="highest malignant score")] = None,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
    ) -> ExamList:
        """List exams."""
        from spicula.serving.exam_desk.listing import Span

        span = Span(_stamp(since), _stamp(until), least, most)
        find = desk_of(service).find
        found = await asyncio.to_thread(find, q, status or (), sort, offset=offset, count=limit, span=span)
        scored = [one.id for one in found.exams if one.predictions]
        if scored:
            service.audit.write(request, "exam", did="listed", exams=scored)
        return found

    @routes.get("/{exam}")
    async def show(request: Request, exam: str) -> ExamAnswer:
        """Tell how far an exam is, and what came out of it."""
        desk = desk_of(service)
        found = await desk.answer(exam)
        if found.finished is not None:
            service.audit.write(
                request,
                "exam",
                did="answered",
                exam=exam,
                images=await desk.digest(exam),
                status=found.status,
                models=[one.model_dump() for one in found.models],
                predictions=[one.model_dump() for one in found.predictions],
            )
        return found

    @routes.delete("/{exam}", status_code=204)
    async def remove(request: Request, exam: str) -> Response:
        """Remove an exam with its images and results; one that is being run is to be waited for.

        The ledger keeps what was computed. Of an exam that came as a study over DICOMweb or C-STORE, the study stays,
        and our results go from it.
        """
        desk = desk_of(service)
        digest = await desk.digest(exam)
        await desk.remove(exam)
        await dicomweb.forget(service, exam)
        service.audit.write(request, "exam", did="removed", exam=exam, images=digest)
        return Response(status_code=204)

    exam_files.add(routes, service)
    return routes


def _stamp(time: datetime | None) -> str | None:
    """Return a time as exams have it; one without a zone is UTC."""
    if time is None:
        return None
    known = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    try:
        return known.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:  # the year 0 or 10000 once in UTC
        raise Problem(422, "time", "since and until must lie in the years 1 to 9999, in UTC") from None
