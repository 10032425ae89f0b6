"""The exams of a service: what comes in, how far it is, and what came out."""

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula.errors import SpiculaError
from spicula.serving.problems import Problem, beyond
from spicula.serving.service import Service

if TYPE_CHECKING:
    from spicula.serving.exam_desk.answers import AcceptedExam, ExamAnswer, ExamList, Status
    from spicula.serving.exam_desk.incoming import Accepted
    from spicula.serving.exam_desk.listing import Span
    from spicula.serving.exam_desk.shelf import Shelf
    from spicula.serving.exam_desk.uploads import Sent

#: How often the service looks which exams have been finished, to count them.
_COUNT_SECONDS = 1.0


class Desk:
    """The exams of a service. Other parts of it (DICOMweb) hand in exams and take out results here as well.

    Args:
        service: which.
        bundle: folder of the four-view classifier; None: there is none.
        own: folders of bundles that Spicula trained on mammograms.

    Raises:
        UsageError: the workspace's address is odd.
        OSError: the folder of exams cannot be made.
    """

    def __init__(self, service: Service, bundle: Path | None, own: Sequence[Path]) -> None:
        from spicula.serving.exam_desk.incoming import Incoming, place_of
        from spicula.serving.exam_desk.listing import Exams
        from spicula.serving.exam_desk.results import Making
        from spicula.serving.exam_desk.supervising import Supervisor

        settings = service.settings
        workspace = settings.workspace or str(_usual_workspace())
        self._service = service
        self.incoming = Incoming(place_of(workspace))
        self.incoming.open()
        self._listing = Exams(self.incoming)
        self._making = Making(workspace, service.limits)
        self.runner = Supervisor(
            {
                "incoming": str(self.incoming.place.absolute()),
                "workspace": workspace,
                "bundle": None if bundle is None else str(bundle.absolute()),
                "own": [str(folder.absolute()) for folder in own],
                "precision": settings.precision,
                "device": "cuda" if settings.provider == "cuda" else "cpu",
                "streams": settings.workers,
                "cpu_workers": None,
            }
        )
        self._counting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the runner, and wait until its models are loaded.

        Raises:
            SpiculaError: it cannot start.
        """
        await self.runner.start()
        self._service.metrics.watch("exams_waiting", lambda: len(self.incoming.queue()))
        self._counting = asyncio.create_task(self._count())

    async def close(self) -> None:
        """End all processes; what waits is run when the service starts again."""
        if self._counting is not None:
            self._counting.cancel()
        await self._making.close()
        await self.runner.close()
        self._listing.close()

    # what comes in

    async def take(self, sent: Sequence["Sent"]) -> "Accepted":
        """Take in the files of one exam. When this returns they are on the disk, and will be run.

        Args:
            sent: its files, which are moved away: DICOM files of one study, images that are named by their view, or
                archives of either.

        Raises:
            Problem: there are no files, an archive is refused, the queue is full, or the disk is.
        """
        if not sent:
            raise Problem(422, "no-images", "the form has no file; send the images of an exam as files named `file`")
        try:
            return await asyncio.to_thread(self._take, sent)
        except (OSError, SpiculaError):
            raise Problem(
                503, "disk", "the exam cannot be kept: the disk is full, or may not be written", {"Retry-After": "10"}
            ) from None

    def _take(self, sent: Sequence["Sent"]) -> "Accepted":
        from spicula.serving.exam_desk.incoming import FullError
        from spicula.serving.exam_desk.uploads import gather

        limits = self._service.limits
        most = limits["exam-queue"]
        full = beyond("exam-queue", most, "{value} exams wait already; send it again later")
        if len(self.incoming.queue()) >= most:  # before it is unpacked
            raise full
        with self.incoming.room() as room:
            description = gather(sent, room, limits)
            try:
                accepted = self.incoming.accept(room, description, most, self.runner.about.get("configuration", ""))
            except FullError:
                raise full from None
        if not accepted.is_known:
            self._service.metrics.count("exams", outcome="accepted")
        return accepted

    async def remove(self, exam: str) -> None:
        """Remove an exam: its files, its result, and all that was made of it. The ledger keeps what was computed.

        Raises:
            Problem: 404 there is none, 409 it is being run.
        """
        if not self.incoming.description(exam):
            if self._listing.of_ledger(exam):
                raise Problem(409, "in-ledger", "the exam was not sent to this service; the ledger keeps what it has")
            raise Problem(404, "no-exam", "there is no such exam")
        if not await asyncio.to_thread(self.incoming.remove, exam):
            raise Problem(409, "running", "the exam is being run; remove it when it is done", {"Retry-After": "5"})

    # what comes out

    def accepted(self, accepted: "Accepted") -> "AcceptedExam":
        """Return what is said to whoever sent an exam."""
        from spicula.serving.exam_desk.answers import AcceptedExam
        from spicula.serving.exam_desk.telling import links_of

        exam = accepted.exam
        result = {} if accepted.is_queued else self.incoming.result(exam)
        links = links_of(exam, self.incoming.description(exam), result)
        return AcceptedExam(id=exam, status=self._listing.status(exam), is_known=accepted.is_known, links=links)

    async def answer(self, exam: str) -> "ExamAnswer":
        """Return how far an exam is, and what came out of it.

        Raises:
            Problem: there is none, or the ledger has lost what was made of it.
        """
        shelf = await self._shelf(exam)
        return await asyncio.to_thread(self._answer, exam, shelf)

    def _answer(self, exam: str, shelf: "Shelf") -> "ExamAnswer":
        from spicula.serving.exam_desk.telling import answer

        told = None if self._is_sent(exam, shelf) else self._listing.of_ledger(exam)
        status: Status = self._listing.status(exam) if told is None else shelf.result()["status"]
        is_queued = told is None and status in ("waiting", "running")
        ids = [entry.exam for entry in self.incoming.queue()] if is_queued else []
        return answer(
            exam,
            status,
            shelf.description(),
            progress=shelf.progress() if is_queued else {},
            result={} if is_queued else shelf.result(),
            steps=self.runner.about.get("steps", ()),
            ahead=ids.index(exam) if exam in ids else 0,
            name=told[0] if told else None,
        )

    def find(
        self, text: str, statuses: Sequence["Status"], order: Any, offset: int, count: int, *, span: "Span"
    ) -> "ExamList":
        """Return some exams, see `listing.Exams.find`."""
        from spicula.serving.exam_desk.answers import ExamList

        found, total = self._listing.find(text, statuses, order, offset, count, span=span)
        return ExamList(exams=found, total=total, offset=offset)

    async def digest(self, exam: str) -> str:
        """Return the digest over an exam's images, for the audit log.

        Raises:
            Problem: there is no such exam.
        """
        return str((await self._shelf(exam)).description()["digest"])

    async def picture(self, exam: str, view: str, number: int, task: dict[str, Any]) -> Path:
        """Return the file of a picture of an image.

        Args:
            exam: its id.
            view: of the image.
            number: from 1: which of several images of the view.
            task: see `making.Task`: `what`, and what belongs to it.

        Raises:
            Problem: there is no such exam or image, or no such picture of it.
        """
        from spicula.serving.exam_desk.telling import image_name

        shelf = await self._shelf(exam)
        name = image_name(self._detail(exam, shelf), view, number)
        if name is None:
            raise Problem(404, "no-view", "the exam has no such image of this view")
        words = [str(task[key]) for key in ("what", "part", "target", "form", "size") if key in task]
        stem = "-".join([view, str(number), *words])
        (path,) = await self._making.files(shelf, stem, {**task, "image": name})
        return path

    async def report(self, exam: str) -> Path:
        """Return the file of an exam's page.

        Raises:
            Problem: there is no such exam, or it is not finished.
        """
        shelf = await self._shelf(exam)
        self._detail(exam, shelf)
        (path,) = await self._making.files(shelf, "report", {"what": "report"})
        return path

    async def dicom(self, exam: str, threshold: float | None = None) -> dict[str, Path]:
        """Return the files of an exam's results as DICOM.

        Args:
            exam: its id.
            threshold: of segmentations; None: that of the bundle, or none are made.

        Returns:
            "report", "heatmap-VIEW-N" and "segmentation-VIEW-N" -> file.

        Raises:
            Problem: there is no such exam, it is not finished, has no scores, or came as other files than DICOM.
        """
        shelf = await self._shelf(exam)
        self._detail(exam, shelf)
        if any(one["kind"] != "dicom" for one in shelf.description()["files"]):
            raise Problem(
                409, "not-dicom", "the exam did not come as DICOM files: there is no study to put results beside"
            )
        stem = "dicom" if threshold is None else f"dicom-{round(threshold * 100):d}"
        paths = await self._making.files(shelf, stem, {"what": "dicom", "threshold": threshold})
        return {path.name.split(".")[1]: path for path in paths}

    # helpers

    async def _shelf(self, exam: str) -> "Shelf":
        """Return the folder of an exam that was sent, or of one of the ledger, whose result is fetched from there.

        Raises:
            Problem: there is no such exam, or it cannot be fetched.
        """
        shelf = self.incoming.shelf(exam)
        if await asyncio.to_thread(shelf.description):
            return shelf
        told = await asyncio.to_thread(self._listing.of_ledger, exam)
        if told is None:
            raise Problem(404, "no-exam", "there is no such exam")
        shelf = self._listing.shelf(exam)
        await self._making.take_in(shelf, *told)
        return shelf

    def _is_sent(self, exam: str, shelf: "Shelf") -> bool:
        return shelf == self.incoming.shelf(exam)

    def _detail(self, exam: str, shelf: "Shelf") -> dict[str, Any]:
        """Return the result of an exam, see `outputs.detail.ExamDetail`."""
        status = self._listing.status(exam) if self._is_sent(exam, shelf) else shelf.result().get("status", "waiting")
        if status in ("waiting", "running"):
            raise Problem(409, "not-finished", f"the exam is {status}; ask again when it is done", {"Retry-After": "2"})
        detail: dict[str, Any] | None = shelf.result()["detail"]
        if detail is None:
            raise Problem(409, "no-result", "the exam failed before anything was made of it; see its reasons")
        return detail

    async def _count(self) -> None:
        """Count the exams that are finished."""
        before: set[str] = set()
        while True:
            now = {entry.exam for entry in await asyncio.to_thread(self.incoming.queue)}
            for exam in before - now:
                result = await asyncio.to_thread(self.incoming.result, exam)
                if result:
                    self._service.metrics.count("exams", outcome=result["status"])
                    began, ended = (datetime.fromisoformat(result[key]) for key in ("started", "finished"))
                    self._service.metrics.seconds("exam_seconds", (ended - began).total_seconds())
            before = now
            await asyncio.sleep(_COUNT_SECONDS)


def _usual_workspace() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "spicula" / "serve"
