"""Exams that others ran in the same workspace: what the ledger has of them, as rows that a list is made of quickly.

The runner does this whenever it has a moment, and reads only what was committed since the last time. The rows lie in a
table of SQLite beside the exams that were sent; `listing` reads it.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from spicula.exams.ledger import Ledger
from spicula.exams.ledger.planning import latest
from spicula.serving.exam_desk.listing import LEDGER

_SIDES = {"L": "left", "R": "right"}
_SENT = "^[0-9a-f]{32}$"
#: Exams that are turned into rows at a time.
_CHUNK = 2000
#: Up to so many exams are looked for by name; for more the columns are read whole.
_FEW = 1000
_DIGITS = 7  # of scores, as `outputs.detail` tells them


class Book(Ledger):
    """A ledger that tells what was committed to it since.

    It is opened as `Ledger` is.
    """

    def commits(self) -> dict[str, int]:
        """Look at the tables, and return the number of the last commit to each."""
        self._refresh()
        return {name: table.commits for name, table in self._tables.items()}

    def rows(self, name: str, columns: Sequence[str], where: ds.Expression | None = None) -> pa.Table:
        """Return columns of a table, as it was when it was last looked at."""
        return self._tables[name].read(columns, where)


def id_of(name: str) -> str:
    """Return what an exam of the ledger is called in addresses: names in the ledger can have any characters."""
    return sha256(f"ledger:{name}".encode()).hexdigest()[:32]


class Follower:
    """Keeps the table up to date; one at a time in a folder.

    Args:
        book: the ledger.
        place: folder of the exams that were sent; those are not in the table.
    """

    def __init__(self, book: Book, place: Path) -> None:
        self._book, self._place = book, place
        self._chunks: Iterator[list[tuple[Any, ...]]] | None = None
        self._commits: dict[str, int] = {}

    def look(self) -> bool:
        """Take in some of what was committed since the last time; return whether there is more.

        What is under way is soon done, so that whoever calls this has other things to do in between.

        Raises:
            SpiculaError: the ledger cannot be read.
            sqlite3.Error: the table cannot be written.
        """
        with closing(sqlite3.connect(self._place / LEDGER, isolation_level=None, timeout=30)) as base:
            if self._chunks is None:
                seen = dict(base.execute("SELECT what, number FROM seen").fetchall())
                self._commits = self._book.commits()
                if all(seen.get(name, 0) >= self._commits[name] for name in ("exams", "steps")):
                    return False
                self._chunks = self._rows(sorted(self._touched(seen)))
            chunks, self._chunks = self._chunks, None  # where this fails, all is looked at again
            rows = next(chunks, None)
            base.execute("BEGIN IMMEDIATE")
            if rows is None:
                base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", list(self._commits.items()))
            else:
                base.executemany("INSERT OR REPLACE INTO exams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._chunks = chunks
            base.execute("COMMIT")  # what is not committed is gone when the connection is closed
        return rows is not None

    def _touched(self, seen: Mapping[str, int]) -> set[str]:
        found: set[str] = set()
        for name in ("exams", "steps"):
            since = ds.field("commit") > seen.get(name, 0)
            found |= set(pc.unique(self._book.rows(name, ["exam_id", "commit"], since)["exam_id"]).to_pylist())
        return found

    def _rows(self, touched: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        where = ds.field("exam_id").isin(touched) if len(touched) <= _FEW else None
        exams = latest(self._book.rows("exams", ["exam_id", "time", "refusal", "run", "commit"], where), "exam_id")
        columns = ["exam_id", "step", "key", "status", "run", "time", "commit"]
        steps = self._book.rows("steps", columns, where)
        place = pc.binary_join_element_wise(steps["exam_id"], steps["step"], "\n")
        steps = latest(steps.append_column("place", place), "place")
        columns = ["exam_id", "key", "step", "model", "side", "target", "score"]
        scores = self._book.rows("predictions", columns, where)
        scores = scores.filter(pc.is_in(scores["key"], value_set=steps["key"].combine_chunks()))
        configurations = self._configurations()
        mine = self._sent_here(touched)
        for start in range(0, len(touched), _CHUNK):
            chunk = [name for name in touched[start : start + _CHUNK] if name not in mine]
            parts = [_by_exam(table, chunk) for table in (exams, steps, scores)]
            yield [
                _row(parts[0][name][-1], parts[1].get(name, []), parts[2].get(name, []), configurations)
                for name in chunk
                if name in parts[0]
            ]

    def _configurations(self) -> dict[str, list[str]]:
        """Return the names of the steps of every run."""
        rows = self._book.rows("runs", ["run", "event", "configuration"], ds.field("event") == "began").to_pylist()
        known: dict[str, list[str]] = {}
        for text in {row["configuration"] for row in rows}:
            known[text] = [step["name"] for step in json.loads(text)]
        return {row["run"]: known[row["configuration"]] for row in rows}

    def _sent_here(self, touched: Sequence[str]) -> set[str]:
        """Return which of the exams were sent to the service: those whose images came in here."""
        names = [name for name in touched if re.match(_SENT, name)]
        if not names:
            return set()
        where = ds.field("exam_id").isin(names) if len(names) <= _FEW else None
        rows = self._book.rows("exams", ["exam_id", "images"], where)
        rows = rows.filter(pc.match_substring_regex(rows["exam_id"], _SENT))
        here = str(self._place.absolute())
        return {
            row["exam_id"]
            for row in rows.to_pylist()
            if not row["images"] or row["images"][0]["path"].startswith(f"{here}/")
        }


def _by_exam(table: pa.Table, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.filter(pc.is_in(table["exam_id"], value_set=pa.array(names, pa.string()))).to_pylist():
        found.setdefault(row["exam_id"], []).append(row)
    return found


def _row(
    exam: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]],
    configurations: Mapping[str, Sequence[str]],
) -> tuple[Any, ...]:
    """Return the row of an exam, as the run left it that did something for it last."""
    last = max(steps, key=lambda row: row["commit"], default=None)
    run = exam["run"] if last is None else last["run"]
    wanted = configurations.get(run, [row["step"] for row in steps])
    states = {row["step"]: row["status"] for row in steps if row["step"] in wanted}
    status = _status(exam["refusal"], states, wanted)
    keys = {row["key"] for row in steps if row["step"] in wanted and row["status"] == "ok"}
    told = [
        {
            "model": row["model"],
            "side": _SIDES.get(row["side"], row["side"]),
            "target": row["target"],
            "score": round(row["score"], _DIGITS),
        }
        for row in scores
        if row["key"] in keys and status != "refused"
    ]
    told.sort(key=lambda one: (one["model"], one["side"], one["target"]))
    ended = exam["time"] if last is None else max(exam["time"], last["time"])
    return (
        id_of(exam["exam_id"]),
        exam["exam_id"],
        run,
        f"{exam['commit']}-{0 if last is None else last['commit']}",
        _iso(exam["time"]),
        None if status == "waiting" else _iso(ended),
        status,
        max((one["score"] for one in told if one["target"] == "malignant"), default=-1.0),
        json.dumps(told),
    )


def _status(refusal: str | None, states: Mapping[str, str], wanted: Sequence[str]) -> str:
    if refusal is not None:
        return "refused"
    for state in ("failed", "refused"):
        if state in states.values():
            return state
    return "done" if wanted and all(states.get(step) == "ok" for step in wanted) else "waiting"


def _iso(time: Any) -> str:
    text: str = time.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
