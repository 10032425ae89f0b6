"""Watching: exams are picked up as they arrive in a folder or bucket, and models as they are put into a folder.

They are looked at again and again, which works on network shares and in object stores as well. What was done stands in
the ledger: after a restart everything is handed on once more, and nothing is done again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spicula import stores
from spicula.errors import SpiculaError, UsageError
from spicula.exams.intake import Known, Problem
from spicula.exams.types import ExamInput
from spicula.exams.watching.exams import Patience, Scan, State, scan
from spicula.exams.watching.models import ModelScan, ModelState, hand_on_models, scan_models
from spicula.progress import say

__all__ = ["Arrivals", "ModelState", "Patience", "Scan", "State", "hand_on_models", "scan", "scan_models", "watch"]

#: Lines that one look at a folder writes of each kind, at most; the rest are counted.
MOST_LINES = 20

#: Longest time between two looks at `stop`, in seconds.
_NAP = 0.2


@dataclass(frozen=True)
class Arrivals:
    """What is new since the last time, and what there is.

    Attributes:
        exams: new or changed exams; refused ones have a reason.
        models: folders of new bundles, or of bundles that were replaced.
        present: all exams that were handed on, with the new ones: those that a new model is for.
        bundles: folders of all bundles in the folder of models.
        problems: path and reason of files that are newly found to be of no use.
    """

    exams: list[ExamInput]
    models: list[Path]
    present: list[ExamInput]
    bundles: list[Path]
    problems: list[Problem]


def watch(
    source: Path | str,
    handle: Callable[[Arrivals], None],
    *,
    models: Path | None = None,
    patience: Patience | None = None,
    every: float = 10.0,
    known: Known | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Hand on exams and models as they arrive, until `stop` says so or Ctrl-C is pressed.

    What `handle` fails at with a SpiculaError is said and handed on again at the next look, so that a store that is out
    of reach for a while ends nothing.

    Args:
        source: where exams arrive: a folder, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
        handle: is called with what arrived.
        models: where bundles are put, each in a folder of its own.
        patience: how long exams are waited for.
        every: seconds from one look to the next.
        known: what is known of the source from the last time.
        stop: whether to end; asked several times a second.

    Raises:
        UsageError: there is no such folder or bucket, or `handle` raised it.
    """
    if not stores.is_remote(str(source)) and not Path(source).is_dir():
        raise UsageError(f"no folder {source} to watch; make it, or mount it")
    watcher = _Watcher(source, handle, models, patience or Patience(), State(known or Known()))
    say(f"watching {source}; end with Ctrl-C")
    trouble = ""  # said once, as long as it lasts
    try:
        while not stop():
            try:
                watcher.look()
                trouble = ""
            except UsageError:
                raise
            except SpiculaError as error:
                if str(error) != trouble:
                    say(f"spicula: {error}; trying again every {every:g} s")
                trouble = str(error)
            _pause(every, stop)
    except KeyboardInterrupt:
        pass
    say(f"no longer watching {source}")


@dataclass
class _Watcher:
    """What is watched, what is done with it, and what is remembered."""

    source: Path | str
    handle: Callable[[Arrivals], None]
    models: Path | None
    patience: Patience
    state: State
    of_models: ModelState = field(default_factory=ModelState)
    told: tuple[list[ExamInput], list[Path]] = ([], [])  # exams and models that were said to have come last time

    def look(self) -> None:
        """Look once, and hand on what is new."""
        now, state = time.monotonic(), self.state
        found = scan(self.source, state, now, self.patience)
        bundles = ModelScan([], [], [])
        if self.models is not None:
            bundles = scan_models(self.models, self.of_models, now, self.patience.settle)
        exams, problems = found.arrived + found.refused, found.problems + bundles.problems
        if (exams, bundles.arrived) != self.told:  # what was not handed on comes again
            _tell(exams, bundles.arrived)
        self.told = (exams, bundles.arrived)
        _say_some([f"{problem['path']}: {problem['reason']}" for problem in problems], "files that cannot be used")
        if exams or bundles.arrived:
            handed = {exam_id: exam for exam_id, (_, exam) in state.handed.items()}
            present = list({**handed, **{exam.exam_id: exam for exam in exams}}.values())
            self.handle(Arrivals(exams, bundles.arrived, present, bundles.whole, problems))
            state.hand_on(exams)
            hand_on_models(self.of_models, bundles)
            state.known.save()


def _tell(exams: Sequence[ExamInput], models: Sequence[Path]) -> None:
    lines = [
        f"exam {exam.exam_id}: " + (f"refused: {exam.refusal}" if exam.refusal else f"{len(exam.images)} images")
        for exam in exams
    ]
    _say_some(lines, "exams")
    _say_some([f"model {path.name}" for path in models], "models")


def _say_some(lines: Sequence[str], what: str) -> None:
    for line in lines[:MOST_LINES]:
        say("".join(letter if letter.isprintable() else "?" for letter in line))
    if len(lines) > MOST_LINES:
        say(f"and {len(lines) - MOST_LINES} more {what}")


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not stop():
        time.sleep(min(_NAP, left))
