"""A PACS's way in and out: what is pushed is kept byte for byte, becomes exams, and is found with their results.

STOW-RS, C-STORE -> archive (files, index) -> exam_desk -> results as DICOM -> archive -> QIDO-RS, WADO-RS
"""

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING

from spicula.errors import SpiculaError, UsageError
from spicula.serving import exam_desk, problems
from spicula.serving.problems import Problem
from spicula.serving.service import Service

if TYPE_CHECKING:
    from spicula.serving.dicomweb.archive import Archive
    from spicula.serving.dicomweb.listener import Listener
    from spicula.serving.dicomweb.rendering import Rendering

__all__ = ["archive_of", "close", "forget", "rendering_of", "start"]

_FOLDER = "dicom"

_log = logging.getLogger("spicula.serving")


class _Room:
    """What runs of this part."""

    def __init__(self, service: Service) -> None:
        from spicula.serving.dicomweb.archive import Archive
        from spicula.serving.dicomweb.rendering import Rendering
        from spicula.serving.dicomweb.studies import Studies

        desk = exam_desk.desk_of(service)
        self.archive = Archive(desk.incoming.place / _FOLDER)
        self.rendering = Rendering(service.spool.path, service.limits)
        self._studies = Studies(self.archive, desk)
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None

    async def start(self, service: Service) -> None:
        if service.settings.dicom_port is not None:
            try:
                from spicula.serving.dicomweb.listener import Listener
            except ModuleNotFoundError:
                raise UsageError("--dicom-port needs pynetdicom: pip install 'spicula[serve]'") from None
            self._listener = await asyncio.to_thread(Listener, service, self.archive)
        self._task = asyncio.create_task(self._studies.run())

    async def close(self) -> None:
        if self._listener is not None:
            await asyncio.to_thread(self._listener.shutdown)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.rendering.close()
        self.archive.close()


async def start(service: Service) -> None:
    """Begin to take studies, where the service has a model for exams.

    Raises:
        SpiculaError: the workspace cannot be written to, or the port of C-STORE is in use.
        UsageError: C-STORE could be reached by anybody.
    """
    if "exams" not in service.parts:
        return
    try:
        room = await asyncio.to_thread(_Room, service)
    except (OSError, sqlite3.Error) as error:
        _log.error("DICOMweb cannot start: %s", problems.traceback_of(error))
        raise SpiculaError("the folder of DICOM studies cannot be written; name another --workspace") from error
    service.parts["dicomweb"] = room
    await room.start(service)


async def close(service: Service) -> None:
    """Take no more studies."""
    room = service.parts.pop("dicomweb", None)
    if room is not None:
        await room.close()


async def forget(service: Service, exam: str) -> None:
    """Remove the results of an exam that was removed from the studies that it was made of, which stay."""
    room = service.parts.get("dicomweb")
    if isinstance(room, _Room):
        await asyncio.to_thread(room.archive.forget, exam)


def archive_of(service: Service) -> "Archive":
    """Return the objects of a service.

    Raises:
        Problem: it takes none.
    """
    return _room_of(service).archive


def rendering_of(service: Service) -> "Rendering":
    """Return what makes pictures of a service's objects.

    Raises:
        Problem: it takes none.
    """
    return _room_of(service).rendering


def _room_of(service: Service) -> _Room:
    room = service.parts.get("dicomweb")
    if not isinstance(room, _Room):
        exam_desk.desk_of(service)  # says why
        raise Problem(503, "starting", "models are loading; try again shortly", {"Retry-After": "1"})
    return room
