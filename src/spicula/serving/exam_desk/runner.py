"""The process that runs exams: it takes them off the queue, and writes how far they are and what came of them.

Started as `python -m spicula.serving.exam_desk.runner`. In: a line of JSON, see `Setting`; it ends when the input ends.
Out: ["ready", {...}] when models are loaded, ["failed", message] when it cannot go on. The queue is a folder, so
nothing is lost when it is killed. Of several runners in one workspace one works, and the others wait for its end.
"""

import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypedDict, cast

from spicula import exams, files
from spicula.errors import SpiculaError
from spicula.exams import driver, models
from spicula.exams.artefacts import Artefacts
from spicula.exams.ledger import Result
from spicula.exams.outputs.detail import detail_of
from spicula.exams.steps import Step
from spicula.exams.types import ExamInput
from spicula.progress import say
from spicula.serving.exam_desk import reading
from spicula.serving.exam_desk.following import Book, Follower
from spicula.serving.exam_desk.incoming import Entry, Incoming, now
from spicula.serving.exam_desk.keeping import KeptEngine, StepState, WarmEngine

#: Exams that are run together. More would keep workers no busier, and make the ones that come next wait longer.
MOST_EXAMS = 8

#: An exam whose files ended the process that read them so often is not read again.
MOST_READS = 3

#: How often the runner looks what others ran in the workspace, seconds.
_FOLLOW_SECONDS = 2.0
#: How long the queue is not looked at when it was empty.
_IDLE_SECONDS = 0.2


class Setting(TypedDict):
    """What a runner is told."""

    incoming: str  # folder, see `incoming.Incoming`
    workspace: str
    bundle: str | None  # folder of a four-view classifier
    own: list[str]  # folders of bundles that Spicula trained
    precision: str
    device: str
    streams: int | None
    cpu_workers: int | None


class _Book(Book):
    """A ledger that tells, after every commit, of which exams it was given results."""

    tell: Callable[[Sequence[str]], None]

    def commit(self, results: Sequence[Result], steps: Mapping[str, Step], run: str, engine: str) -> int:
        """Keep results, see `Ledger.commit`."""
        written = super().commit(results, steps, run, engine)
        self.tell(list(dict.fromkeys(result.record["exam"] for result in results)))
        return written


@dataclass
class _Exam:
    """An exam that is run."""

    entry: Entry
    progress: dict[str, Any]


class Runner:
    """Runs exams of a queue.

    Args:
        setting: see there.

    Raises:
        UsageError: there is no model, or a setting is odd.
        SpiculaError: a bundle is refused, or the workspace cannot be made.
    """

    def __init__(self, setting: Setting) -> None:
        self._incoming = Incoming(Path(setting["incoming"]))
        bundle = None if setting["bundle"] is None else Path(setting["bundle"])
        own = [Path(folder) for folder in setting["own"]]
        used = models.load(bundle, own, precision=setting["precision"])  # type: ignore[arg-type]
        self._steps = models.steps_of(used)
        self.configuration = files.sha256_json([[step.code(), step.bundle] for step in self._steps])
        self._options = exams.EngineOptions(
            device=setting["device"],  # type: ignore[arg-type]
            cpu_workers=setting["cpu_workers"],
            streams=setting["streams"],
        )
        self._book = cast("_Book", _Book.open(setting["workspace"], create=True))
        self._book.tell = self._finish_those_that_are
        self._artefacts = Artefacts(f"{self._book.place}/artefacts")
        workers = exams.setting_of(self._book.place, used, self._options)
        self._engine = KeptEngine(lambda: cast("WarmEngine", exams.engine_of(self._options, workers)), self._tell)
        self._exams: dict[str, _Exam] = {}
        self._follower = Follower(self._book, self._incoming.place)
        self._followed, self._is_behind = -_FOLLOW_SECONDS, False

    def about(self) -> dict[str, Any]:
        """Return what the service is told: `configuration`, and the steps with their models."""
        return {"configuration": self.configuration, "steps": [step.as_json() for step in self._steps]}

    def warm_up(self) -> None:
        """Start the workers and wait until they have loaded the models.

        Raises:
            SpiculaError: they cannot.
        """
        self._engine.start()
        while not self._engine.is_ready:
            self._engine.wait(_IDLE_SECONDS)

    def turn(self) -> None:
        """Run what waits, or look after the workers for a moment.

        Raises:
            SpiculaError: nothing can be run: the disk is full, or workers cannot start.
        """
        entries = self._incoming.take(MOST_EXAMS)
        if entries:
            self._run(entries)
        else:
            self._engine.start()
            self._engine.wait(_IDLE_SECONDS)
        self._follow()

    def close(self) -> None:
        """End the workers."""
        self._engine.close()

    def _follow(self) -> None:
        """Look now and then what others ran in the workspace."""
        if not self._is_behind and time.monotonic() - self._followed < _FOLLOW_SECONDS:
            return
        try:
            self._is_behind = self._follower.look()
        except sqlite3.Error as error:  # what was sent is run all the same
            say(f"the list of the ledger's exams cannot be written ({type(error).__name__})")
        self._followed = time.monotonic()

    def _run(self, entries: Sequence[Entry]) -> None:
        try:
            self._run_all(entries)
        except (SpiculaError, OSError):
            raise
        except Exception as error:  # an odd exam must not hold up the others for ever
            say(f"running {len(entries)} exams failed: {type(error).__name__}")
            self._engine.close()
            if len(self._exams) == 1:
                self._give_up(next(iter(self._exams)), f"it cannot be run ({type(error).__name__})")
            for one in [exam.entry for exam in self._exams.values()]:
                self._run([one])

    def _run_all(self, entries: Sequence[Entry]) -> None:
        self._exams = {one.exam: _Exam(one, self._incoming.progress(one.exam) or _begun()) for one in entries}
        inputs = [found for one in list(self._exams.values()) if (found := self._read(one)) is not None]
        if not inputs:
            return
        repeated = entries[0].is_repeated
        driver.bring_up_to_date(
            self._book,
            inputs,
            self._steps,
            lambda: self._engine,
            self._options.name,
            retry_failed=repeated,
            check_artefacts=repeated,
        )
        for exam in list(self._exams):
            self._finish(exam, is_last=True)

    # before

    def _read(self, exam: _Exam) -> ExamInput | None:
        """Return an exam as intake reads it; None where that goes wrong, which is its end."""
        name = exam.entry.exam
        reads = exam.progress.get("reads", 0)
        if reads >= MOST_READS:
            self._give_up(name, f"the process that read its files ended {reads} times; they are not read again")
            return None
        self._incoming.tell_progress(name, exam.progress | {"reads": reads + 1})
        try:
            found = reading.read(name, self._incoming.images(name), self._incoming.description(name))
        except Exception as error:  # an odd exam must not hold up the others
            say(f"exam {name} cannot be read: {type(error).__name__}")
            self._give_up(name, f"its files cannot be read ({type(error).__name__})")
            return None
        exam.progress["reads"] = 0
        self._incoming.tell_progress(name, exam.progress)
        return found

    # while it runs

    def _tell(self, exam: str, step: str, state: StepState) -> None:
        if exam in self._exams:
            self._exams[exam].progress["steps"][step] = state
            self._incoming.tell_progress(exam, self._exams[exam].progress)

    def _finish_those_that_are(self, exams: Sequence[str]) -> None:
        for exam in exams:
            if exam in self._exams:
                self._finish(exam, is_last=False)
        self._follow()

    # after

    def _finish(self, exam: str, *, is_last: bool) -> None:
        """Write what came out of an exam, when nothing is left to do."""
        if not is_last:
            states = [step["state"] for step in self._book.show(exam, steps=self._steps)["steps"]]
            if "left" in states:
                return
        try:
            detail = detail_of(self._book, self._artefacts, exam, steps=self._steps)
        except SpiculaError as error:
            say(f"exam {exam}: {error}")
            self._give_up(exam, "what was made of it is lost or damaged; send it again, and it is made again")
            return
        status = {"ok": "done"}.get(detail["status"], detail["status"])
        if status == "incomplete":
            self._give_up(exam, f"it was not run to the end; send it again ({'; '.join(detail['reasons'])})")
            return
        self._end(exam, status, detail["reasons"], dict(detail))

    def _give_up(self, exam: str, reason: str) -> None:
        self._end(exam, "failed", [reason], None)

    def _end(self, exam: str, status: str, reasons: Sequence[str], detail: dict[str, Any] | None) -> None:
        one = self._exams.pop(exam)
        self._incoming.finish(
            one.entry,
            {
                "status": status,
                "reasons": list(reasons),
                "started": one.progress["started"],
                "finished": now(),
                "configuration": self.configuration,
                "steps": [step.as_json() for step in self._steps],
                "detail": detail,
            },
        )


def _begun() -> dict[str, Any]:
    return {"started": now(), "steps": {}}


def main() -> None:
    """Run exams until the input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code prints

    def tell(*message: Any) -> None:
        with suppress(BrokenPipeError):
            out.write(json.dumps(message) + "\n")
            out.flush()

    stream = os.fdopen(os.dup(0), encoding="utf-8")
    setting: Setting = json.loads(stream.readline())
    threading.Thread(target=_end_with, args=(stream,), daemon=True).start()
    runner = None
    try:
        runner = Runner(setting)
        runner.warm_up()
        tell("ready", runner.about())
        _work(runner, Path(setting["incoming"]) / "runner.lock")
    except SpiculaError as error:
        tell("failed", str(error))
    except OSError as error:
        tell("failed", f"{error.filename or setting['incoming']}: {error.strerror or error}")
    finally:
        if runner is not None:
            runner.close()
    sys.exit(1)


def _work(runner: Runner, lock: Path) -> NoReturn:
    """Work whenever no other runner does."""
    while True:
        with ExitStack() as held:
            try:
                held.enter_context(files.locked(lock, "another runner works here"))
            except SpiculaError:
                time.sleep(1.0)
                continue
            while True:
                runner.turn()


def _end_with(stream: Any) -> None:
    """End this process when the service is gone; its workers end with it."""
    while stream.readline():
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
