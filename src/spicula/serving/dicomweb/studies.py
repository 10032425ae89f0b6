"""Studies that came become exams; what comes out of exams is put beside the images, as objects of the study."""

import asyncio
import logging
import time
from pathlib import Path

from spicula import files
from spicula.serving import problems
from spicula.serving.dicomweb.archive import Archive
from spicula.serving.dicomweb.index import Study
from spicula.serving.exam_desk import Desk
from spicula.serving.exam_desk.uploads import Sent
from spicula.serving.problems import Problem

#: A study with all four standard views becomes an exam when nothing has come for so long, seconds.
COMPLETE_SECONDS = 1.0
#: One with fewer views: a PACS sends one image after the other, and pauses between them are short.
SETTLE_SECONDS = 20.0
_LOOK_SECONDS = 0.5
_VIEWS = frozenset(("L-CC", "R-CC", "L-MLO", "R-MLO"))
#: Problems that pass: the exam is run again, or too much is asked of the service now.
_PASSING = ("gone", "not-finished")

_log = logging.getLogger("spicula.serving")


class Studies:
    """Looks after the studies of an archive.

    Args:
        archive: what came.
        desk: takes exams.
    """

    def __init__(self, archive: Archive, desk: Desk) -> None:
        self._archive, self._desk = archive, desk

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                _log.error("studies cannot be looked after: %s", problems.traceback_of(error))
                await asyncio.sleep(10 * _LOOK_SECONDS)
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Hand over the studies that have come, and take in the results that are there."""
        for study in await asyncio.to_thread(self._ready):
            await self._hand_over(study)
        for study, stamp in await asyncio.to_thread(self._finished):
            await self._take_in(study, stamp)

    def _ready(self) -> list[Study]:
        ready = []
        for study in self._archive.index.new():
            views = {view for _, view in self._archive.index.mammograms(study.uid)}
            if time.time() - study.changed >= (COMPLETE_SECONDS if views >= _VIEWS else SETTLE_SECONDS):
                ready.append(study)
        return ready

    async def _hand_over(self, study: Study) -> None:
        sent: list[Sent] = []
        try:
            await asyncio.to_thread(self._send, study, sent)
            exam = (await self._desk.take(sent)).exam
        except Problem as problem:
            if problem.status >= 500:  # the queue or the disk is full: the study stays new
                return
            _log.error("a study is no exam: %s", problem.code)
            exam = ""
        except FileNotFoundError:
            _log.error("a study is no exam: a file of it is lost")
            exam = ""
        finally:
            for one in sent:
                one.path.unlink(missing_ok=True)
        await asyncio.to_thread(self._archive.index.took, study, exam)

    def _send(self, study: Study, sent: list[Sent]) -> None:
        for one, _ in self._archive.index.mammograms(study.uid):
            sent.append(Sent(self._archive.leaving(one), "", one.digest, one.bytes))

    def _finished(self) -> list[tuple[Study, int]]:
        queued = {entry.exam for entry in self._desk.incoming.queue()}
        stamps = [(study, self._desk.incoming.stamp(study.exam)) for study in self._archive.index.with_exams()]
        return [(study, stamp) for study, stamp in stamps if stamp != study.stamp and study.exam not in queued]

    async def _take_in(self, study: Study, stamp: int) -> None:
        try:
            paths = list((await self._desk.dicom(study.exam)).values()) if stamp else []
        except Problem as problem:
            if problem.status == 503 or problem.code in _PASSING:
                return
            paths = []  # an exam without scores
        await asyncio.to_thread(self._store, study, stamp, paths)

    def _store(self, study: Study, stamp: int, paths: list[Path]) -> None:
        try:
            digests = [files.sha256_file(path) for path in paths]
            self._archive.remove_results(study.uid, digests)
            for path, digest in zip(paths, digests, strict=True):
                if self._archive.store(path, digest, study.uid, is_ours=True).failure:
                    _log.error("a result is left out: its study has another object of the same UID")
        except FileNotFoundError:  # the exam is being run again, or was removed meanwhile
            self._archive.remove_results(study.uid, [])
            return
        if not self._archive.index.settled(study, stamp):
            self._archive.remove_results(study.uid, [])  # it was removed meanwhile
