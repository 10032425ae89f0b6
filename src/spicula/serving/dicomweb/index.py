"""Which objects are there, and what they can be found by: a table of SQLite beside the objects."""

import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.serving.dicomweb.reading import KEYS, Found, is_mammogram

_COLUMNS = ", ".join(f"{keyword} TEXT NOT NULL" for keyword in KEYS)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS instances (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL, bytes INTEGER NOT NULL, content TEXT NOT NULL,
    syntax TEXT NOT NULL, view TEXT NOT NULL, is_ours INTEGER NOT NULL, header BLOB NOT NULL, {_COLUMNS}
);
CREATE UNIQUE INDEX IF NOT EXISTS by_instance ON instances (SOPInstanceUID);
CREATE INDEX IF NOT EXISTS by_study ON instances (StudyInstanceUID, SeriesInstanceUID);
CREATE INDEX IF NOT EXISTS by_patient ON instances (PatientID);
CREATE INDEX IF NOT EXISTS by_date ON instances (StudyDate);
CREATE INDEX IF NOT EXISTS by_digest ON instances (digest);
CREATE TABLE IF NOT EXISTS studies (
    study TEXT PRIMARY KEY, changed REAL NOT NULL, is_new INTEGER NOT NULL, exam TEXT NOT NULL, stamp INTEGER NOT NULL
);
"""
_ROW = "id, digest, bytes, syntax, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, SOPClassUID"


@dataclass(frozen=True)
class Instance:
    """An object that is there.

    Attributes:
        id: ours, in the order in which they came.
        digest: SHA-256 of its file.
        bytes: size of its file.
        syntax: UID of its transfer syntax.
        study: UID.
        series: UID.
        instance: UID.
        sop_class: UID.
    """

    id: int
    digest: str
    bytes: int
    syntax: str
    study: str
    series: str
    instance: str
    sop_class: str


@dataclass(frozen=True)
class Study:
    """A study with mammograms.

    Attributes:
        uid: of the study.
        changed: when its last mammogram came, seconds since 1970.
        exam: the exam that was made of it last; "" for none.
        stamp: of the exam's result that is stored beside it; 0 for none.
    """

    uid: str
    changed: float
    exam: str
    stamp: int


@dataclass(frozen=True)
class Condition:
    """What rows are to fulfil.

    Attributes:
        sql: with a ? for each value.
        values: in their order.
    """

    sql: str
    values: tuple[str, ...]


class ConflictError(Exception):
    """Another object has the same SOP Instance UID."""


class Index:
    """The table; any thread may use it.

    Args:
        path: its file, which is made.

    Raises:
        sqlite3.Error: it cannot be opened or made.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.executescript(_SCHEMA)

    def close(self) -> None:
        """Close it."""
        with self._lock:
            self._base.close()

    def add(self, found: Found, digest: str, size: int, *, is_ours: bool = False) -> bool:
        """Add an object whose file is in its place; return False where it is there already.

        Args:
            found: what was read of it.
            digest: SHA-256 of its file.
            size: of its file, in bytes.
            is_ours: it is a result.

        Raises:
            ConflictError: another object has its UID.
        """
        uid, study = found.keys["SOPInstanceUID"], found.keys["StudyInstanceUID"]
        header = zlib.compress(json.dumps(found.header).encode())
        values = [digest, size, found.content, found.syntax, found.view, is_ours, header, *found.keys.values()]
        names = ", ".join(("digest", "bytes", "content", "syntax", "view", "is_ours", "header", *KEYS))
        with self._changing() as base:
            known = base.execute(
                "SELECT content, StudyInstanceUID FROM instances WHERE SOPInstanceUID = ?", (uid,)
            ).fetchone()
            if known is not None:
                if known != (found.content, study):
                    raise ConflictError
                # a study whose exam was removed, or came to nothing, is tried again when it is sent again
                base.execute(
                    "UPDATE studies SET changed = ?, is_new = 1 WHERE study = ? AND exam = '' AND is_new = 0",
                    (time.time(), study),
                )
                return False
            base.execute(f"INSERT INTO instances ({names}) VALUES ({', '.join('?' * len(values))})", values)
            if is_mammogram(found.keys) and not is_ours:
                base.execute(
                    "INSERT INTO studies VALUES (?, ?, 1, '', 0) ON CONFLICT (study) DO UPDATE SET "
                    "changed = excluded.changed, is_new = 1",
                    (study, time.time()),
                )
        return True

    # exams of studies

    def new(self) -> list[Study]:
        """Return the studies whose mammograms are not yet an exam."""
        return self._studies("is_new = 1")

    def with_exams(self) -> list[Study]:
        """Return the studies that are exams."""
        return self._studies("exam != ''")

    def mammograms(self, study: str) -> list[tuple[Instance, str]]:
        """Return the mammograms of a study, each with its view."""
        asked = f"SELECT {_ROW}, view FROM instances WHERE StudyInstanceUID = ? AND Modality = 'MG' AND is_ours = 0"
        return [(Instance(*row[:-1]), row[-1]) for row in self._all(f"{asked} ORDER BY id", (study,))]

    def took(self, study: Study, exam: str) -> None:
        """Note which exam was made of a study; where an image has come meanwhile, it is new again."""
        with self._changing() as base:
            base.execute(
                "UPDATE studies SET is_new = (changed != ?), stamp = CASE exam WHEN ? THEN stamp ELSE 0 END, exam = ? "
                "WHERE study = ?",
                (study.changed, exam, exam, study.uid),
            )

    def forget(self, exam: str) -> list[str]:
        """Note that an exam is there no more; return the studies that it was made of."""
        with self._changing() as base:
            rows = base.execute("SELECT study FROM studies WHERE exam = ?", (exam,)).fetchall()
            base.execute("UPDATE studies SET exam = '', stamp = 0 WHERE exam = ?", (exam,))
            return [row[0] for row in rows]

    def settled(self, study: Study, stamp: int) -> bool:
        """Note of which result what is stored beside a study is; return False where it is of another exam by now."""
        with self._changing() as base:
            asked = "UPDATE studies SET stamp = ? WHERE study = ? AND exam = ?"
            return bool(base.execute(asked, (stamp, study.uid, study.exam)).rowcount)

    def remove_results(self, study: str, kept: Sequence[str]) -> list[str]:
        """Remove results of a study that are no longer true.

        Args:
            study: its UID.
            kept: digests of those that are.

        Returns:
            Digests of files that nothing needs any more.
        """
        with self._changing() as base:
            rows = base.execute(
                "SELECT id, digest FROM instances WHERE StudyInstanceUID = ? AND is_ours = 1", (study,)
            ).fetchall()
            gone = [row for row in rows if row[1] not in kept]
            base.executemany("DELETE FROM instances WHERE id = ?", [(row[0],) for row in gone])
            return [row[1] for row in gone if not self._is_there(row[1])]

    # what is there

    def find(
        self, level: str, conditions: Sequence[Condition], offset: int, count: int
    ) -> list[tuple[Instance, dict[str, Any]]]:
        """Return the first object of each study, of each series, or each object, with its header.

        Args:
            level: the keyword of its UID.
            conditions: that it fulfils.
            offset: how many to pass over.
            count: how many to return at most.
        """
        assert level in KEYS
        where = " AND ".join(one.sql for one in conditions) or "1"
        values = [value for one in conditions for value in one.values]
        rows = self._all(
            f"SELECT {_ROW}, header FROM instances WHERE id IN (SELECT MIN(id) FROM instances WHERE {where} "
            f"GROUP BY {level} ORDER BY MIN(id) LIMIT ? OFFSET ?) ORDER BY id",
            (*values, count, offset),
        )
        return [(Instance(*row[:-1]), _header(row[-1])) for row in rows]

    def under(self, level: str, uid: str) -> tuple[int, int, list[str]]:
        """Return how many series and objects a study or a series has, and their modalities.

        Args:
            level: the keyword of the UID.
            uid: of the study or series.
        """
        assert level in KEYS
        rows = self._all(
            f"SELECT Modality, COUNT(*), SeriesInstanceUID FROM instances WHERE {level} = ? "
            "GROUP BY SeriesInstanceUID, Modality ORDER BY MIN(id)",
            (uid,),
        )
        modalities = list(dict.fromkeys(row[0] for row in rows if row[0]))
        return len({row[2] for row in rows}), sum(row[1] for row in rows), modalities

    def instances(self, study: str, series: str | None = None, instance: str | None = None) -> list[Instance]:
        """Return the objects of a study, of a series, or the one of a UID."""
        asked, values = f"SELECT {_ROW} FROM instances WHERE StudyInstanceUID = ?", [study]
        for column, uid in (("SeriesInstanceUID", series), ("SOPInstanceUID", instance)):
            if uid is not None:
                asked += f" AND {column} = ?"
                values.append(uid)
        return [Instance(*row) for row in self._all(f"{asked} ORDER BY id", values)]

    def has(self, digest: str) -> bool:
        """Whether an object has this file."""
        return bool(self._all("SELECT 1 FROM instances WHERE digest = ?", (digest,)))

    def header(self, id: int) -> dict[str, Any]:
        """Return the header of an object as DICOM JSON; {} where it is gone."""
        rows = self._all("SELECT header FROM instances WHERE id = ?", (id,))
        return _header(rows[0][0]) if rows else {}

    # helpers

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def _all(self, asked: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            return self._base.execute(asked, values).fetchall()

    def _is_there(self, digest: str) -> bool:
        return self._base.execute("SELECT 1 FROM instances WHERE digest = ?", (digest,)).fetchone() is not None

    def _studies(self, condition: str) -> list[Study]:
        asked = f"SELECT study, changed, exam, stamp FROM studies WHERE {condition} ORDER BY changed"
        return [Study(*row) for row in self._all(asked, ())]


def _header(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(data))
    return found
