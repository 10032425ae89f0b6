"""Tokens: who may ask. Kept as SHA-256 in memory alone, compared in constant time over all of them.

A file has a NAME and a TOKEN in each line, and comments after #; SPICULA_TOKENS has NAME:TOKEN,NAME:TOKEN. A name may
have several tokens, so that one can follow another without a gap.
"""

import hashlib
import hmac
import os
import re
import stat
from pathlib import Path

from spicula.errors import UsageError

VARIABLE = "SPICULA_TOKENS"
#: 16 characters of hexadecimal are 64 bits: at 200 guesses a second, 10^9 years.
SHORTEST = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # it stands in the log and in the audit log
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # token68 of RFC 9110, section 11.2


class Tokens:
    """The tokens of a service.

    Args:
        path: their file; None: SPICULA_TOKENS; without both there are none, and everybody is "local".

    Raises:
        UsageError: a line is no name and token, a token is too short or given twice, the file is missing, empty, or
            readable by others.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._digests: tuple[tuple[bytes, str], ...] = ()
        self.read()

    def __bool__(self) -> bool:
        return bool(self._digests)

    def read(self) -> None:
        """Read them again; where that fails, those that were read before stay. Raises as the constructor does."""
        if self._path is not None:
            pairs = _pairs_of_file(self._path)
        else:
            words = [word.strip() for word in os.environ.get(VARIABLE, "").split(",")]
            pairs = [(VARIABLE, *word.partition(":")[::2]) for word in words if word]
        self._digests = _digests(pairs)

    def who(self, token: str) -> str | None:
        """Return the name that a token belongs to; None where it is nobody's."""
        given = hashlib.sha256(token.encode(errors="replace")).digest()
        found = None
        for digest, name in self._digests:
            if hmac.compare_digest(digest, given):
                found = name
        return found


def _pairs_of_file(path: Path) -> list[tuple[str, str, str]]:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--tokens {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"--tokens {path} is no text; each line is a NAME and a TOKEN") from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise UsageError(f"--tokens {path} can be read or changed by others; chmod 600 {path}")
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise UsageError(f"--tokens {path}, line {number}: a NAME and a TOKEN are needed, found {len(words)} words")
        pairs.append((f"--tokens {path}, line {number}", words[0], words[1]))
    if not pairs:
        raise UsageError(f"--tokens {path} has no tokens; each line is a NAME and a TOKEN")
    return pairs


def _digests(pairs: list[tuple[str, str, str]]) -> tuple[tuple[bytes, str], ...]:
    found: dict[bytes, str] = {}
    for where, name, token in pairs:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{where}: a name has letters, digits, _ . - and at most 64 of them")
        if len(token) < SHORTEST or not _TOKEN.fullmatch(token):
            raise UsageError(
                f"{where}: the token of {name} has fewer than {SHORTEST} characters, or others than letters, digits "
                "and - . _ ~ + /; make one with: openssl rand -hex 32"
            )
        digest = hashlib.sha256(token.encode()).digest()
        if digest in found:
            raise UsageError(f"{where}: the token of {name} was given before, to {found[digest]}")
        found[digest] = name
    return tuple(found.items())
