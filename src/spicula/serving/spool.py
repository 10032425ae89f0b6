"""The private folder in which uploads lie while their request lasts."""

import fcntl
import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "spicula-serve-"


class Spool:
    """A temporary folder that nobody else can read; files in it have names of ours.

    It is made when the first file is asked for, and removed by `close`. What a service that was killed left behind
    goes when the next one makes its own: a folder whose lock nobody holds has no service.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = -1
        self._numbers = itertools.count()

    def path(self) -> Path:
        """Return a path in the folder at which nothing is."""
        if self._folder is None:
            _remove_abandoned(Path(tempfile.gettempdir()))
            folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # its mode is 0700
            self._lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._folder = folder
        return self._folder / f"{next(self._numbers)}"

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder = None


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another's, or gone meanwhile
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
