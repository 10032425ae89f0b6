"""The ledger of a workspace: what came in, what was done with it, and what is left to do.

Four Delta tables (see `tables`) lie in the workspace: a folder, `s3://` or `gs://`. Rows are only ever added. A result
stands under its input key (`steps.key_of`), so what is left to do is the set of exams whose wanted key has no row.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

import spicula
from spicula.errors import SpiculaError, UsageError
from spicula.exams.ledger import compare, planning, storage, tables, writing
from spicula.exams.ledger import history as past
from spicula.exams.ledger.configurations import Run, last_run
from spicula.exams.ledger.left import LeftExam, LeftExams, Plan
from spicula.exams.ledger.planning import Count, latest, settled
from spicula.exams.ledger.storage import Table
from spicula.exams.ledger.writing import Result
from spicula.exams.steps import Step
from spicula.exams.types import ExamInput
from spicula.stores import is_remote, place_of

__all__ = ["Count", "Ledger", "LeftExam", "LeftExams", "Plan", "Result", "Run"]

#: Stands in the tables' descriptions.
DESCRIPTION = "Spicula exam ledger 1"

#: Commits of this process between two looks at how many small files there are.
TIDY_EVERY = 32


class Ledger:
    """The ledger of one workspace. Any number of processes may read and write it at once.

    `Ledger.open` opens one. All times are UTC.
    """

    def __init__(self, place: str, options: dict[str, str]) -> None:
        self.place = place
        self._tables = {name: Table(f"{place}/{name}", schema, options) for name, schema in tables.TABLES.items()}
        self._final = writing.Keys(self._tables["steps"], ds.field("status") != "failed")
        self._scored = writing.Keys(self._tables["predictions"])
        self._commits = 0
        # what is to be noted of runs that wrote nothing so far
        self._waiting: dict[str, dict[str, Any]] = {}
        # the last walk over all exams, and what it was asked: status and problems are mostly asked for together
        self._walked: tuple[Any, planning.Walk] | None = None

    @classmethod
    def open(
        cls,
        workspace: str | Path,
        create: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> "Ledger":
        """Open the ledger of a workspace.

        Args:
            workspace: folder, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
            create: make one where there is none.
            storage_options: for object stores, as Delta Lake names them; the environment says the rest.

        Raises:
            UsageError: there is none (and `create` is false), the address is of another kind, or its path has
                characters that Delta tables cannot do with.
            SpiculaError: the folder holds something else, or cannot be read or written.
        """
        place = place_of(workspace)
        storage.check_path(place)
        options = storage.options_for(place, storage_options)
        # the last one that is made: where it is, all are
        if not storage.exists(f"{place}/{list(tables.TABLES)[-1]}", options):
            if not create:
                raise UsageError(
                    f"no workspace at {place}; make one with: spicula exams run DIR --workspace {place} --bundle BUNDLE"
                )
            _check_empty(place)
            for name, schema in tables.TABLES.items():
                storage.create(f"{place}/{name}", schema, DESCRIPTION, options)
        return cls(place, options)

    # writing

    def begin_run(self, steps: Sequence[Step], engine: str, started_by: str = "", wait: bool = False) -> str:
        """Note that a run begins.

        Args:
            steps: its configuration.
            engine: its name.
            started_by: the command, in words that name no patient.
            wait: note it only before the first other thing that the run writes, or when `note_begin` or `end_run` is
                called: a run that finds nothing to do is one commit then, and one that is killed before it wrote
                anything leaves nothing.

        Returns:
            The run's id.
        """
        run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{token_hex(4)}"
        began = {"event": "began", "engine": engine, "started_by": started_by}
        self._waiting[run] = began | {"configuration": tables.as_text([step.as_json() for step in steps])}
        if not wait:
            self.note_begin(run)
        return run

    def note_begin(self, run: str) -> None:
        """Note that a run begins, unless that is done; and put small files together where there are many."""
        if run in self._waiting:
            self._tidy(self._tables)
            self._note(run, self._waiting[run])
            del self._waiting[run]

    def end_run(self, run: str, summary: Mapping[str, Any]) -> None:
        """Note that a run ended, with what it did, as JSON values."""
        ended = {"event": "ended", "summary": tables.as_text(dict(summary))}
        if run not in self._waiting:
            self._note(run, ended)
            return
        self._tidy(["runs"])
        self._note(run, self._waiting[run], ended)
        del self._waiting[run]

    def add_exams(self, exams: Sequence[ExamInput], run: str) -> int:
        """Take in exams; those that are there and unchanged write nothing.

        Returns:
            How many rows were written.

        Raises:
            SpiculaError: two exams have one id.
        """
        ids = [exam.exam_id for exam in exams]
        if len(set(ids)) < len(ids):
            twice = next(exam for number, exam in enumerate(ids) if exam in ids[:number])
            raise SpiculaError(f"exam {twice} was given twice; give every exam an id of its own")
        states = [writing.state_of(exam) for exam in exams]
        table = self._tables["exams"]

        def new() -> list[int]:
            there = latest(table.read(["exam_id", "state", "commit"]), "exam_id")
            known = dict(zip(there["exam_id"].to_pylist(), there["state"].to_pylist(), strict=True))
            return [number for number, exam in enumerate(ids) if known.get(exam) != states[number]]

        def rows() -> pa.Table:
            numbers = new()
            return writing.exam_rows([exams[n] for n in numbers], [states[n] for n in numbers], run)

        table.refresh()
        if run in self._waiting and new():  # not in `rows`: it looks at the table anew, which `append` must not miss
            self.note_begin(run)
        return table.append(rows)

    def commit(self, results: Sequence[Result], steps: Mapping[str, Step], run: str, engine: str) -> int:
        """Keep results: scores first, then the results themselves, each in one atomic commit.

        What the ledger has already is not written again, whoever wrote it: a key has one result that is ok or refused,
        and its scores once. So it does no harm to be killed in between, or to commit something twice.

        Args:
            results: what became of steps.
            steps: the configuration, by name.
            run: its id.
            engine: its name.

        Returns:
            How many results were new.

        Raises:
            ValueError: a result does not fit its step.
            SpiculaError: the workspace cannot be written.
        """
        writing.check(results, steps)
        self.note_begin(run)
        unique = writing.one_a_key(results)
        rows = writing.step_rows(unique, steps, run, engine)
        scores = writing.prediction_rows(unique, steps, run)
        if scores.num_rows:
            self._tables["predictions"].append(
                lambda: writing.not_in(scores, "key", self._scored.now() | self._final.now())
            )
        written = self._tables["steps"].append(lambda: writing.not_in(rows, "key", self._final.now()))
        self._commits += 1
        if self._commits % TIDY_EVERY == 0:
            for name in ("steps", "predictions"):
                self._tables[name].tidy()
        return written

    # what is left

    def plan(
        self,
        steps: Sequence[Step],
        exam_ids: Sequence[str] | None = None,
        retry_failed: bool = False,
        refused: Collection[str] | None = None,
        also: Collection[str] = (),
    ) -> Plan:
        """Find out what a configuration leaves to do.

        Args:
            steps: the configuration, each step after those that it reads from.
            exam_ids: the exams that are meant; all when None.
            retry_failed: run steps again that failed.
            refused: the exams that intake refused; None: as the last row of each says, whichever run wrote it.
            also: exams that are left even where nothing of them is: something that was made for them is lost.

        Raises:
            UsageError: one of `exam_ids` is not in the ledger.
        """
        self._refresh()
        found = self._walk(steps, exam_ids, retry_failed, refused)
        asked = pc.is_in(found.exams["exam_id"], value_set=pa.array(list(also), pa.string()))
        ids = found.exams["exam_id"].filter(pc.or_(asked, pa.array(planning.to_do(found))))
        exams, results = tables.EXAMS.empty_table(), tables.STEPS.empty_table()
        if len(ids):
            mine = ds.field("exam_id").isin(ids.combine_chunks())
            exams = latest(self._tables["exams"].read(["exam_id", "digest", "images", "commit"], mine), "exam_id")
            results = settled(self._tables["steps"].read(["exam_id", "key", "status", "outputs", "commit"], mine))
        return Plan(LeftExams(exams, results), self._count(found, steps))

    def outputs(self, steps: Sequence[Step], exam_ids: Sequence[str] | None = None) -> pa.Table:
        """Return the digests of the output manifests that a configuration leads to.

        Args:
            steps: see `plan`.
            exam_ids: see `plan`.

        Returns:
            exam_id, and a column for every step, null where the step is not done.
        """
        self._refresh()
        found = self._walk(steps, exam_ids)
        return pa.table({"exam_id": found.exams["exam_id"], **found.outputs})

    def status(self, steps: Sequence[Step] | None = None) -> dict[str, Any]:
        """Return how the workspace stands.

        Args:
            steps: the configuration; that of the last run when None.

        Returns:
            `workspace`; `exams`; `refused`: exams that intake refused; `run`: the last run, or None; `steps`: step ->
            its exams by state, see `Count`.
        """
        self._refresh()
        run = last_run(self._tables["runs"])
        wanted = steps if steps is not None else run.steps if run else ()
        found = self._walk(wanted)
        return {
            "workspace": self.place,
            "exams": found.exams.num_rows,
            "refused": found.exams.num_rows - found.exams["refusal"].null_count,
            "run": run.as_json() if run else None,
            "steps": {name: vars(count) for name, count in self._count(found, wanted).items()},
        }

    def problems(self, steps: Sequence[Step] | None = None) -> list[dict[str, Any]]:
        """Return what was refused or failed, with the reason: exam_id, step ("intake" there), status, error, attempts.

        Args:
            steps: the configuration; that of the last run when None.
        """
        self._refresh()
        found = self._walk(self._wanted(steps))
        refused = found.exams.filter(pc.is_valid(found.exams["refusal"]))
        rows = [
            {"exam_id": exam["exam_id"], "step": "intake", "status": "refused", "error": exam["refusal"], "attempts": 1}
            for exam in refused.to_pylist()
        ]
        for name, state in found.states.items():
            lost = (state == planning.REFUSED) | (state == planning.FAILED)
            keys = found.keys[name].filter(pa.array(lost))
            if len(keys):
                columns = ["exam_id", "step", "status", "error", "attempts", "key", "commit"]
                mine = settled(self._tables["steps"].read(columns, ds.field("key").isin(keys)))
                rows += mine.select(columns[:5]).sort_by("exam_id").to_pylist()
        return rows

    # what was done

    def read(self, name: str) -> pa.Table:
        """Return a whole table, see `tables`, in the order in which its rows were committed."""
        table = self._tables[name]
        table.refresh()
        return table.read(table.schema.names).sort_by("commit")

    def history(self, exam_id: str) -> list[dict[str, Any]]:
        """Return all that happened to an exam, see `history.history`.

        Raises:
            UsageError: the ledger has no such exam.
        """
        self._refresh()
        return past.history(self._of_exam("exams", exam_id), self._of_exam("steps", exam_id))

    def show(self, exam_id: str, as_of: datetime | None = None, steps: Sequence[Step] | None = None) -> dict[str, Any]:
        """Return how an exam stands, or stood, with the configuration of the last run until then.

        Args:
            exam_id: the exam.
            as_of: the time, UTC where it names no zone; now when None.
            steps: another configuration than that.

        Returns:
            As `history.show`, with `as_of` and `run`: that run, or None.

        Raises:
            UsageError: the ledger has, or had, no such exam.
        """
        self._refresh()
        time = None if as_of is None else past.as_utc(as_of)
        exams = past.until(self._of_exam("exams", exam_id), time)
        if not exams.num_rows:
            raise UsageError(f"exam {exam_id} was not there at {time:%Y-%m-%d %H:%M:%S} UTC; see: exams history")
        run = last_run(self._tables["runs"], time)
        results = past.until(self._of_exam("steps", exam_id), time)
        predictions = past.until(self._of_exam("predictions", exam_id), time)
        wanted = steps if steps is not None else run.steps if run else ()
        shown = past.show(exams, results, predictions, wanted)
        return {"as_of": time, "run": run.as_json() if run else None, **shown}

    def configuration(self, as_of: datetime | None = None) -> tuple[Step, ...]:
        """Return the steps of the last run, until a time where one is given; none when there is no run."""
        self._tables["runs"].refresh()
        run = last_run(self._tables["runs"], None if as_of is None else past.as_utc(as_of))
        return run.steps if run else ()

    def predictions(self, model: str | None = None) -> pa.Table:
        """Return the long table of predictions: columns as in `compare.LONG`, by exam, model, side and target.

        Args:
            model: see `diff`; None: all models of the last run's configuration, for the exams as they are now.
        """
        self._refresh()
        rows = self._tables["predictions"].read(tables.PREDICTIONS.names)
        if model is not None:
            return compare.ordered(compare.of_model(rows, compare.choose(model, compare.models(rows))))
        steps = self._wanted(None)
        found = self._walk(steps)
        keys = [
            found.keys[step.name].filter(pa.array(found.states[step.name] == planning.DONE))
            for step in steps
            if step.model is not None
        ]
        wanted = pa.chunked_array(keys, pa.string())
        return compare.ordered(rows.filter(pc.is_in(rows["key"], value_set=wanted)))

    def diff(self, model_a: str, model_b: str) -> pa.Table:
        """Return how the scores of two models differ, see `compare.differences`. The last scores of every exam count.

        Args:
            model_a: the name of a model, the name of its step, at least four digits from the beginning of its digest or
                of its bundle's, or NAME@DIGEST.
            model_b: the other one.

        Raises:
            UsageError: no model is called so, or several are.
        """
        self._refresh()
        rows = self._tables["predictions"].read(tables.PREDICTIONS.names)
        known = compare.models(rows)
        return compare.differences(
            *(compare.of_model(rows, compare.choose(model, known)) for model in (model_a, model_b))
        )

    # helpers

    def _refresh(self) -> None:
        for table in self._tables.values():
            table.refresh()

    def _tidy(self, names: Iterable[str]) -> None:
        for name in names:
            self._tables[name].refresh()
            self._tables[name].tidy(sweep=True)

    def _note(self, run: str, *events: Mapping[str, Any]) -> None:
        rows = [{"run": run, "spicula": spicula.__version__, **event} for event in events]
        self._tables["runs"].append(lambda: writing.rows_of(rows, tables.RUNS))

    def _wanted(self, steps: Sequence[Step] | None) -> Sequence[Step]:
        if steps is not None:
            return steps
        run = last_run(self._tables["runs"])
        return run.steps if run else ()

    def _walk(
        self,
        steps: Sequence[Step],
        exam_ids: Sequence[str] | None = None,
        retry_failed: bool = False,
        refused: Collection[str] | None = None,
    ) -> planning.Walk:
        asked = (self._tables["exams"].commits, self._tables["steps"].commits, [step.as_json() for step in steps])
        everything = exam_ids is None and refused is None and not retry_failed
        if everything and self._walked is not None and self._walked[0] == asked:
            return self._walked[1]
        exams = latest(self._tables["exams"].read(["exam_id", "digest", "refusal", "commit"]), "exam_id")
        if exam_ids is not None:
            rows = pc.index_in(pa.array(exam_ids, pa.string()), value_set=exams["exam_id"].combine_chunks())
            if rows.null_count:
                raise UsageError(f"the workspace has no exam {exam_ids[rows.is_null().index(True).as_py()]}")
            exams = exams.take(pa.array(np.unique(rows)))
        if refused is not None:
            exams = planning.with_refused(exams, refused)
        results = settled(self._tables["steps"].read(["step", "key", "status", "outputs", "commit"]))
        found = planning.walk(exams, results, steps, retry_failed)
        self._walked = (asked, found) if everything else None
        return found

    def _count(self, found: planning.Walk, steps: Sequence[Step]) -> dict[str, Count]:
        columns = ["exam_id", "images", "models", "version", "parameters", "commit"]
        last = {
            name: latest(self._tables["steps"].read(columns, ds.field("step") == name), "exam_id")
            for name in planning.without_result(found)
        }
        return planning.count(found, steps, last)

    def _of_exam(self, name: str, exam_id: str) -> pa.Table:
        table = self._tables[name]
        rows = table.read(table.schema.names, ds.field("exam_id") == exam_id)
        if name == "exams" and not rows.num_rows:
            raise UsageError(f"{self.place} has no exam {exam_id}")
        return rows


def _check_empty(place: str) -> None:
    """Refuse a folder that holds something else than artefacts, and tables that were being made when a kill came."""
    if is_remote(place):
        return
    folder = Path(place)
    if folder.exists() and not folder.is_dir():
        raise SpiculaError(f"{place} is a file; a workspace is a folder")
    ours = {*tables.TABLES, "artefacts", "intake", "incoming"}
    others = sorted(path.name for path in folder.glob("*") if path.name not in ours and not path.name.startswith("."))
    if others:
        raise SpiculaError(f"{place} holds something else ({others[0]}); choose an empty folder as the workspace")
