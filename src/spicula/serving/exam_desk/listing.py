"""All exams of a folder in a list, kept in memory: what is finished is read once."""

from collections.abc import Sequence
from typing import Literal

from spicula.serving.exam_desk.answers import ExamSummary, Status
from spicula.serving.exam_desk.incoming import Incoming
from spicula.serving.exam_desk.telling import predictions_of

Order = Literal["time", "score"]


class Exams:
    """Summaries of all exams.

    Args:
        incoming: the exams.
    """

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._times: dict[str, str] = {}
        self._known: dict[str, tuple[int, ExamSummary]] = {}

    def status(self, exam: str) -> Status:
        """Return how an exam stands that is there."""
        return self._status(exam, {entry.exam for entry in self._incoming.queue()})

    def find(
        self, text: str, statuses: Sequence[str], order: Order, offset: int, count: int
    ) -> tuple[list[ExamSummary], int]:
        """Return some exams, and how many there are of the kind.

        Args:
            text: what their ids begin with; "" for all.
            statuses: that they may have; none for all.
            order: "time": the one that came last first; "score": the highest first, those without one last.
            offset: how many to pass over.
            count: how many to return.
        """
        queued = {entry.exam for entry in self._incoming.queue()}
        there = set(self._incoming.ids())
        for gone in self._times.keys() - there:
            self._times.pop(gone, None)
            self._known.pop(gone, None)
        found = [self._summary(exam, queued) for exam in there if exam.startswith(text)]
        chosen = [one for one in found if one is not None and (not statuses or one.status in statuses)]
        chosen.sort(key=lambda one: (one.time, one.id), reverse=True)
        if order == "score":
            chosen.sort(key=lambda one: -1.0 if one.score is None else one.score, reverse=True)
        return chosen[offset : offset + count], len(chosen)

    def _status(self, exam: str, queued: set[str]) -> Status:
        if exam in queued:
            return "running" if self._incoming.progress(exam) else "waiting"
        status: Status = self._incoming.result(exam).get("status", "waiting")
        return status

    def _summary(self, exam: str, queued: set[str]) -> ExamSummary | None:
        if exam not in self._times:
            description = self._incoming.description(exam)
            if not description:
                return None  # removed meanwhile
            self._times[exam] = description["time"]
        if exam in queued:
            status: Status = "running" if self._incoming.progress(exam) else "waiting"
            return _summary(exam, status, self._times[exam])
        stamp = self._incoming.stamp(exam)
        if not stamp:
            return None  # cut short while it was accepted: nobody was told of it
        known = self._known.get(exam)
        if known is None or known[0] != stamp:
            result = self._incoming.result(exam)
            one = _summary(exam, result["status"], self._times[exam])
            one.finished, one.predictions = result["finished"], predictions_of(result)
            malignant = [prediction.score for prediction in one.predictions if prediction.target == "malignant"]
            one.score = max(malignant, default=None)
            known = self._known[exam] = (stamp, one)
        return known[1]


def _summary(exam: str, status: Status, time: str) -> ExamSummary:
    return ExamSummary(id=exam, status=status, time=time, finished=None, score=None, predictions=[])
