"""Pseudonyms: the same for the same person, study or image every time, and linked to them by one private file alone.

A pseudonym is a keyed digest (HMAC-SHA-256, RFC 2104) of what it stands for, so that several processes, runs and
machines with the same key file agree without asking each other, and nobody without it can compute one from a known id.
"""

import base64
import hashlib
import hmac
import os
import secrets
import sqlite3
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from spicula.errors import SpiculaError, UsageError

#: What a pseudonym can stand for, and the letter that it starts with; UIDs look like UIDs instead.
Kind = Literal["patient", "exam", "image", "uid"]
_LETTERS = {"patient": "P", "exam": "E", "image": "I"}
_FORMAT = "spicula-key-1"


class Pseudonyms:
    """The pseudonyms of one key file.

    The file is an SQLite database that only its owner can read: a secret, and every link from a pseudonym to what it
    stands for. A link is on disk before the pseudonym is given out, so that no output ever lacks its link.

    Attributes:
        path: the key file.
    """

    def __init__(self, path: Path) -> None:
        """Open a key file.

        Args:
            path: made, with a new secret, when there is none.

        Raises:
            UsageError: it is not a key file, or others can read it.
            SpiculaError: it cannot be read or made.
        """
        self.path = Path(path)
        if not _exists(self.path):
            _create(self.path)
        _check_file(self.path)
        with self._open() as database:
            row = database.execute("SELECT value FROM facts WHERE name = 'secret'").fetchone()
        if row is None:
            raise UsageError(self._refusal())
        self._secret = bytes.fromhex(row[0])
        self._known: set[tuple[Kind, str]] = set()

    @classmethod
    def open(cls, path: Path) -> "Pseudonyms":
        """Open a key file that there is.

        Raises:
            UsageError: there is none, it is not a key file, or others can read it.
            SpiculaError: it cannot be read.
        """
        if not _exists(Path(path)):
            raise UsageError(f"no key file {path}; it is the one that was given to spicula convert --key-file")
        return cls(path)

    def of(self, kind: Kind, original: str) -> str:
        """Return the pseudonym of an id, and keep the link.

        Args:
            kind: what the id is of.
            original: the id.

        Returns:
            A letter, a hyphen and 16 letters or digits (80 bits); for "uid" a UID below 2.25 (PS3.5 B.2).

        Raises:
            SpiculaError: the key file cannot be written.
        """
        return self.of_all([(kind, original)])[0]

    def of_all(self, ids: list[tuple[Kind, str]]) -> list[str]:
        """Return the pseudonyms of several ids, whose links are written in one go; see `of`."""
        made = [(kind, self._compute(kind, original), original) for kind, original in ids]
        new = [link for link in made if (link[0], link[2]) not in self._known]
        if new:
            with self._open() as database:
                database.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", new)
            self._known.update((kind, original) for kind, _, original in new)
        return [pseudonym for _, pseudonym, _ in made]

    def original_of(self, pseudonym: str) -> str | None:
        """Return what a pseudonym stands for; None when this key file never gave it out."""
        with self._open() as database:
            row = database.execute("SELECT original FROM links WHERE pseudonym = ?", (pseudonym,)).fetchone()
        return None if row is None else str(row[0])

    def _compute(self, kind: Kind, original: str) -> str:
        digest = hmac.new(self._secret, f"{kind}:{original}".encode(), hashlib.sha256).digest()
        if kind == "uid":
            return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
        return f"{_LETTERS[kind]}-{base64.b32encode(digest[:10]).decode()}"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with _connect(self.path) as database:
            try:
                database.execute("SELECT 1 FROM facts WHERE name = 'format' AND value = ?", (_FORMAT,)).fetchone()[0]
            except (sqlite3.DatabaseError, TypeError) as error:
                if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                    raise
                raise UsageError(self._refusal()) from error
            yield database

    def _refusal(self) -> str:
        return f"{self.path} is not a key file of Spicula; name another, or none that exists"


def _create(path: Path) -> None:
    """Make a key file; of several processes that do so at once, one wins and the others take its file."""
    temporary = path.with_name(f".part-{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            with _connect(temporary) as database:
                database.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
                database.execute(
                    "CREATE TABLE links (kind TEXT NOT NULL, pseudonym TEXT NOT NULL, original TEXT NOT NULL,"
                    " PRIMARY KEY (kind, pseudonym))"
                )
                facts = [("format", _FORMAT), ("secret", secrets.token_hex(32))]
                database.executemany("INSERT INTO facts VALUES (?, ?)", facts)
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        raise SpiculaError(f"cannot make the key file {path}: {error.strerror}; check the folder's rights") from error


def _exists(path: Path) -> bool:
    with _usable(path):
        return path.exists()


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpiculaError(f"cannot use the key file {path}: {error.strerror}; check its rights") from error


def _check_file(path: Path) -> None:
    """Refuse what is no file, and a key file that other users can read: it undoes what the pseudonyms are for."""
    with _usable(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise UsageError(f"the key file {path} is not a file; name another, or none that exists")
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"the key file {path} can be read by others; make it private with: chmod 600 {path}")


@contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        database = sqlite3.connect(path, timeout=60)
        try:
            with database:
                yield database
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        raise SpiculaError(f"cannot use the key file {path}: {error}") from error
