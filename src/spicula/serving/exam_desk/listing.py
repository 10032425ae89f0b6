"""All exams in a list: those that were sent, kept in memory, and those of the ledger, in the table of `following`."""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spicula.serving.exam_desk.answers import ExamSummary, Prediction, Status
from spicula.serving.exam_desk.incoming import Incoming
from spicula.serving.exam_desk.shelf import Shelf
from spicula.serving.exam_desk.telling import predictions_of

Order = Literal["time", "score"]
#: Name of the table's file in the folder of exams that were sent.
LEDGER = "ledger.sqlite"

#: Changes that are older than this are seen in the times of folders, which the system counts in steps.
_SETTLED_NS = 10**9

_COLUMNS = "id, name, time, finished, status, rank, predictions"
_ORDERS = {"time": "time DESC, id DESC", "score": "rank DESC, time DESC, id DESC"}
_LEDGER_SCHEMA = """
CREATE TABLE IF NOT EXISTS exams (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, run TEXT NOT NULL, version TEXT NOT NULL, time TEXT NOT NULL,
    finished TEXT, status TEXT NOT NULL, rank REAL NOT NULL, predictions TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON exams (time DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_rank ON exams (rank DESC, time DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_status ON exams (status, time DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_name ON exams (name COLLATE NOCASE);
CREATE TABLE IF NOT EXISTS seen (what TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""
_SCHEMA = """
CREATE TABLE sent (
    id TEXT PRIMARY KEY, name TEXT, time TEXT NOT NULL, finished TEXT, status TEXT NOT NULL, rank REAL NOT NULL,
    predictions TEXT NOT NULL, stamp INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sent_by_time ON sent (time DESC, id DESC);
CREATE INDEX sent_by_rank ON sent (rank DESC, time DESC, id DESC);
CREATE INDEX sent_by_status ON sent (status, time DESC, id DESC);
"""


@dataclass(frozen=True)
class Span:
    """When exams came, and how they scored; None: without a bound.

    Attributes:
        since: the first time, as exams tell theirs.
        until: the first time after it.
        least: the lowest malignant score, the highest of an exam.
        most: the highest; an exam without a score is in no range.
    """

    since: str | None = None
    until: str | None = None
    least: float | None = None
    most: float | None = None

    def conditions(self) -> tuple[list[str], list[Any]]:
        """Return conditions of SQL, at least one, and their values."""
        least = 0.0 if self.least is None and self.most is not None else self.least
        bounds = (("time >= ?", self.since), ("time < ?", self.until), ("rank >= ?", least), ("rank <= ?", self.most))
        given = [(sql, value) for sql, value in bounds if value is not None]
        return ["1", *(sql for sql, _ in given)], [value for _, value in given]


EVERYTHING = Span()


def make_ledger_table(path: Path) -> None:
    """Make the empty table of exams of the ledger where there is none.

    Raises:
        sqlite3.Error: it cannot be made.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.executescript(_LEDGER_SCHEMA)


class Exams:
    """Summaries of all exams; any thread may ask.

    Args:
        incoming: the exams that were sent; its folder has the table of those of the ledger.

    Raises:
        sqlite3.Error: that cannot be read.
    """

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._lock = threading.Lock()
        self._times: dict[str, str] = {}
        self._seen = 0
        self._base = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._base.executescript(_SCHEMA)
        make_ledger_table(incoming.place / LEDGER)
        self._base.execute("ATTACH ? AS ledger", (str(incoming.place / LEDGER),))

    def close(self) -> None:
        """Close the tables."""
        with self._lock:
            self._base.close()

    def status(self, exam: str) -> Status:
        """Return how an exam stands that was sent."""
        return self._status(exam, {entry.exam for entry in self._incoming.queue()})

    def of_ledger(self, exam: str) -> tuple[str, str, str] | None:
        """Return name, run and version of an exam of the ledger; None where there is none of this id."""
        with self._lock:
            asked = "SELECT name, run, version FROM ledger.exams WHERE id = ?"
            found: tuple[str, str, str] | None = self._base.execute(asked, (exam,)).fetchone()
        return found

    def shelf(self, exam: str) -> Shelf:
        """Return the folder of an exam of the ledger."""
        return Shelf(self._incoming.place / "ledger" / exam)

    def find(
        self, text: str, statuses: Sequence[str], order: Order, offset: int, count: int, *, span: Span = EVERYTHING
    ) -> tuple[list[ExamSummary], int]:
        """Return some exams, and how many there are of the kind.

        Args:
            text: what their ids, or their names in the ledger in any case, begin with; "" for all.
            statuses: that they may have; none for all.
            order: "time": the one that came last first; "score": the highest first, those without one last.
            offset: how many to pass over.
            count: how many to return.
            span: when they came, and how they scored.
        """
        conditions, values = span.conditions()
        if text:
            ends = text + "\U0010ffff"
            conditions.append("(id >= ? AND id < ? OR name COLLATE NOCASE >= ? AND name COLLATE NOCASE < ?)")
            values += [text, ends] * 2
        if statuses:
            conditions.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += statuses
        where = " AND ".join(conditions)
        with self._lock:
            self._take_in()
            counts = [
                self._base.execute(f"SELECT COUNT(*) FROM {table} WHERE {where}", values).fetchone()[0]
                for table in ("sent", "ledger.exams")
            ]
            rows = self._base.execute(
                f"SELECT {_COLUMNS}, 'sent' FROM sent WHERE {where} UNION ALL "
                f"SELECT {_COLUMNS}, 'ledger' FROM ledger.exams WHERE {where} "
                f"ORDER BY {_ORDERS[order]} LIMIT ? OFFSET ?",
                (*values, *values, count, offset),
            ).fetchall()
        return [_summary(row) for row in rows], sum(counts)

    def _status(self, exam: str, queued: set[str]) -> Status:
        if exam in queued:
            return "running" if self._incoming.progress(exam) else "waiting"
        status: Status = self._incoming.result(exam).get("status", "waiting")
        return status

    def _take_in(self) -> None:
        """Bring the table of exams that were sent up to date: what is finished is read once."""
        queued = {entry.exam for entry in self._incoming.queue()}
        changed = self._incoming.changed()
        if not queued and changed == self._seen and time.time_ns() - changed > _SETTLED_NS:
            return
        self._seen = 0 if queued else changed
        there = set(self._incoming.ids())
        known = dict(self._base.execute("SELECT id, stamp FROM sent").fetchall())
        self._base.execute("BEGIN")
        for gone in known.keys() - there:
            self._times.pop(gone, None)
            self._base.execute("DELETE FROM sent WHERE id = ?", (gone,))
        for exam in there:
            stamp = 0 if exam in queued else self._incoming.stamp(exam)
            if exam in queued or not stamp or known.get(exam) != stamp:
                self._put(exam, stamp, is_queued=exam in queued)
        self._base.execute("COMMIT")

    def _put(self, exam: str, stamp: int, *, is_queued: bool) -> None:
        if exam not in self._times:
            description = self._incoming.description(exam)
            if not description:
                return  # removed meanwhile
            self._times[exam] = description["time"]
        result: dict[str, Any] = {}
        if is_queued:
            status = "running" if self._incoming.progress(exam) else "waiting"
        else:
            result = self._incoming.result(exam) if stamp else {}
            if not result:  # cut short while it was accepted: nobody was told of it
                self._base.execute("DELETE FROM sent WHERE id = ?", (exam,))
                return
            status = result["status"]
        predictions = predictions_of(result)
        rank = max((one.score for one in predictions if one.target == "malignant"), default=-1.0)
        told = json.dumps([one.model_dump() for one in predictions])
        row = (exam, None, self._times[exam], result.get("finished"), status, rank, told, stamp)
        self._base.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _summary(row: Sequence[Any]) -> ExamSummary:
    exam, name, came, finished, status, rank, predictions, origin = row
    return ExamSummary(
        id=exam,
        origin=origin,
        name=name,
        status=status,
        time=came,
        finished=finished,
        score=rank if rank >= 0 else None,
        predictions=[Prediction(**one) for one in json.loads(predictions)],
    )
