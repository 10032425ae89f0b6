"""Exams as they arrive in a folder or bucket: which are whole, which are waited for, and which are no longer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spicula.exams import intake
from spicula.exams.intake import Known, Listing, Problem
from spicula.exams.types import VIEWS, ExamInput

STILL_WRITTEN = "files beside it are still being written"


@dataclass(frozen=True)
class Patience:
    """How long exams are waited for.

    Attributes:
        settle: a file whose size and time (or an object whose version) did not change for so many seconds is whole.
        timeout: an exam that got no further image for so many seconds is handed on with the views that it has.
        single_image: exams of which views are missing are whole.
    """

    settle: float = 10.0
    timeout: float = 600.0
    single_image: bool = False


@dataclass
class _Pending:
    """An exam that was not yet handed on as it is now, since when it is so, and how it is told from others."""

    exam: ExamInput
    since: float
    signature: int


@dataclass
class State:
    """What is remembered from one look at a folder to the next. A fresh one takes all exams for new.

    Attributes:
        known: facts of the files, so that only changed ones are read.
        seen: path -> size, stamp (see `intake.Listing`) and since when both are so.
        handed: exam_id -> signature of what was handed on, and the exam.
        pending: exam_id -> what was not.
    """

    known: Known = field(default_factory=Known)
    seen: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    handed: dict[str, tuple[int, ExamInput]] = field(default_factory=dict)
    pending: dict[str, _Pending] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)  # exam_id -> folder of all its images, ends with /
    read: int | None = None  # what the settled files were when they were last read, and all could be
    problems: list[Problem] = field(default_factory=list)  # of that reading
    told: set[tuple[str, str]] = field(default_factory=set)  # path and reason of those that there were last time

    def hand_on(self, exams: Sequence[ExamInput]) -> None:
        """Remember that these were handed on, as `scan` gave them."""
        for exam in exams:
            self.handed[exam.exam_id] = (self.pending.pop(exam.exam_id).signature, exam)


@dataclass(frozen=True)
class Scan:
    """What one look at a folder found.

    Attributes:
        arrived: whole exams that are new, or changed since they were handed on.
        refused: exams that are handed on with the reason why they get no score.
        waiting: exam_id -> what is waited for.
        problems: path and reason of files that cannot be used, each told once until it is gone.
    """

    arrived: list[ExamInput]
    refused: list[ExamInput]
    waiting: dict[str, str]
    problems: list[Problem]


def scan(source: Path | str, state: State, now: float, patience: Patience) -> Scan:
    """Look at a folder or bucket once.

    Args:
        source: a folder or an address with the exams, each in a folder of its own or several in one; with files that
            are being written.
        state: of the last look; it is brought up to date, but for `State.hand_on`.
        now: seconds, of any clock that does not go back.
        patience: how long to wait.

    Raises:
        UsageError: there is no such bucket.
        SpiculaError: the folder or bucket cannot be listed, or the bucket not be read.
    """
    origin = intake.origin_of(source)
    listing = origin.listing()
    settled, restless = _settled(listing, state, now, patience.settle)
    of_files = hash((tuple(settled.paths), settled.sizes.tobytes(), settled.stamps.tobytes()))
    if of_files != state.read:
        found = intake.read_listing(origin, settled, state.known, single_image=patience.single_image)
        _compare(origin.place, found.exams, state, now)
        state.read, state.problems = None if found.is_passing else of_files, found.problems
    unusable = [problem for problem in listing.problems if not intake.is_temporary(problem["path"])]
    result = Scan([], [], {}, _untold(unusable + state.problems, state))
    for exam_id, pending in state.pending.items():
        exam = pending.exam
        waits = _waits_for(exam, restless, state, now - pending.since, patience)
        if waits:
            result.waiting[exam_id] = waits
        elif exam.refusal is None:
            result.arrived.append(exam)
        elif _missing(exam) and not patience.single_image:
            result.refused.append(replace(exam, refusal=f"{exam.refusal} after {patience.timeout:g} s"))
        else:
            result.refused.append(exam)
    return result


def _settled(listing: Listing, state: State, now: float, settle: float) -> tuple[Listing, list[str]]:
    """Return the files that did not change for a while, and the paths of the others."""
    seen, places, restless = {}, [], []
    for place, (path, size, stamp) in enumerate(
        zip(listing.paths, listing.sizes.tolist(), listing.stamps.tolist(), strict=True)
    ):
        before = state.seen.get(path)
        since = before[2] if before and before[:2] == (size, stamp) else now
        seen[path] = (size, stamp, since)
        if now - since >= settle:
            places.append(place)
        else:
            restless.append(path)
    state.seen = seen
    return listing.select(places), restless


def _compare(place: str, exams: Sequence[ExamInput], state: State, now: float) -> None:
    """Find out which exams are not as they were handed on."""
    pending = {}
    state.folders = {exam.exam_id: _folder_of(exam, place) for exam in exams}
    for exam in exams:
        signature = hash((exam.images, exam.refusal))
        if state.handed.get(exam.exam_id, (None,))[0] == signature:
            continue
        before = state.pending.get(exam.exam_id)
        since = before.since if before and before.signature == signature else now
        pending[exam.exam_id] = _Pending(exam, since, signature)
    state.pending = pending
    state.handed = {exam_id: handed for exam_id, handed in state.handed.items() if exam_id in state.folders}


def _folder_of(exam: ExamInput, place: str) -> str:
    """Return the deepest folder that holds all images of an exam, relative and with a slash behind it; "" for all."""
    if not exam.images:
        return "\0"  # below which nothing lies
    folders = [image.path.removeprefix(f"{place}/").rpartition("/")[0] for image in exam.images]
    common = os.path.commonpath(folders)
    return f"{common}/" if common else ""


def _waits_for(exam: ExamInput, restless: Sequence[str], state: State, age: float, patience: Patience) -> str | None:
    if restless and _is_written_beside(exam, restless, state):
        return STILL_WRITTEN
    missing = _missing(exam)
    if missing and not patience.single_image and age < patience.timeout:
        return f"no {', '.join(missing)} yet"
    return None


def _is_written_beside(exam: ExamInput, restless: Sequence[str], state: State) -> bool:
    """Say whether files are being written in the exam's own folder. A folder of several exams is nobody's own."""
    own = state.folders[exam.exam_id]
    if not any(path.startswith(own) for path in restless):
        return False
    return not any(other.startswith(own) for exam_id, other in state.folders.items() if exam_id != exam.exam_id)


def _missing(exam: ExamInput) -> list[str]:
    there = {image.view for image in exam.images}
    return [view for view in VIEWS if view not in there]


def _untold(problems: Sequence[Problem], state: State) -> list[Problem]:
    before, state.told = state.told, {(one["path"], one["reason"]) for one in problems}
    return [one for one in problems if (one["path"], one["reason"]) not in before]
