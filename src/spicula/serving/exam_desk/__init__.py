"""Exams over HTTP: what is sent becomes an exam of the workspace, a process beside the service runs it.

upload -> uploads (sorted, renamed) -> incoming (on the disk: accepted) -> runner (exams.driver, with its ledger)
                                           |                                  |
telling, listing, results (pictures, DICOM) <------- result, artefacts <------+
                     ^--- following (what others ran in the workspace) <--- ledger
"""

import asyncio
import logging
import sqlite3
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from spicula.errors import SpiculaError, UsageError
from spicula.serving.exam_desk.desk import Desk
from spicula.serving.problems import Problem
from spicula.serving.service import Service

__all__ = ["Desk", "close", "desk_of", "start"]

_MAMMOGRAPHY = "MG"

_log = logging.getLogger("spicula.serving")


async def start(service: Service) -> None:
    """Begin to take exams, where the service has models for them.

    Raises:
        UsageError: there are two four-view classifiers, or there is a C-STORE listener and nothing that reads exams.
        SpiculaError: a bundle is refused, or the workspace cannot be made.
    """
    bundle, own = await asyncio.to_thread(_models, service)
    reads = bundle is not None or (bool(own) and find_spec("deltalake") is not None)
    if not reads and service.settings.dicom_port is not None:
        raise UsageError("--dicom-port needs a model of mammograms and pip install 'spicula[exams]'")
    if not reads and own:
        # bundles of studies answer single images without the extra; who names a four-view classifier wants exams
        _log.warning("exams are not taken, single images are: exams need pip install 'spicula[exams]'")
    if not reads:
        return
    try:
        desk = await asyncio.to_thread(Desk, service, bundle, own)
    except OSError as error:
        raise SpiculaError(f"cannot write {error.filename}: {error.strerror}; name another --workspace") from error
    except sqlite3.Error as error:
        raise SpiculaError(f"the list of exams cannot be kept ({error}); name another --workspace") from error
    service.parts["exams"] = desk
    await desk.start()


async def close(service: Service) -> None:
    """Take no more exams, and end all processes."""
    desk = service.parts.pop("exams", None)
    if desk is not None:
        await desk.close()


def desk_of(service: Service) -> Desk:
    """Return the desk of a service.

    Raises:
        Problem: it has none.
    """
    desk = service.parts.get("exams")
    if desk is None and not service.is_ready:
        raise Problem(503, "starting", "models are loading; try again shortly", {"Retry-After": "1"})
    if not isinstance(desk, Desk):
        raise Problem(
            404,
            "no-exam-model",
            "this service has no model for exams; start it with the bundle of a four-view classifier",
        )
    return desk


def _models(service: Service) -> tuple[Path | None, list[Path]]:
    """Return which of a service's bundles read exams: a four-view classifier, and bundles trained on mammograms."""
    from spicula.bundle import sealed

    folders = [Path(folder) for folder in service.settings.bundles]
    kinds = {folder: sealed.kind_of(folder) for folder in folders}
    four_view = [folder for folder in folders if kinds[folder] == sealed.SCREENING]
    if len(four_view) > 1:
        raise UsageError(f"{four_view[0]} and {four_view[1]} are both four-view classifiers; leave one out")
    own = []
    for folder in folders:
        if kinds[folder] == sealed.STUDY:
            with suppress(KeyError, TypeError):  # who loads it says what is wrong with it
                scope = sealed.read_content(folder, sealed.STUDY)["scope"]
                own += [folder] if _MAMMOGRAPHY in scope["modalities"] else []
    return (four_view[0] if four_view else None), own
