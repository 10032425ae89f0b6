"""The audit log: who had what answered by which model, a line of JSON each. No pixels, no names.

Lines are appended (O_APPEND) and handed to the system one by one; they are not synced, so that a power cut can cost the
last ones. The file may be renamed at any time (logrotate): the next line goes into a new one. An answer whose line
cannot be written is not given.
"""

import json
import logging
import os
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request

from spicula.errors import SpiculaError
from spicula.serving.metrics import Metrics
from spicula.serving.problems import Problem

EVENTS = ("predict", "infer", "exam", "store", "retrieve")
#: A line has some 400 bytes: 160,000 of them, which a text editor still opens.
FILE_BYTES = 64 * 2**20
#: Files kept beside the newest, .1 to .9: 1.5 million answers.
KEPT = 9

_log = logging.getLogger("spicula.serving")


class Audit:
    """An audit log.

    Args:
        path: its file; None: nothing is written.
        metrics: count lines that could not be written.
        file_bytes: a file of that size is renamed, see `KEPT`.
    """

    def __init__(self, path: Path | None, metrics: Metrics, file_bytes: int = FILE_BYTES) -> None:
        self._path, self._metrics, self._file_bytes = path, metrics, file_bytes
        self._lock = threading.Lock()
        self._handle = -1
        self._is_failing = self._is_torn = False

    def open(self) -> None:
        """See that lines can be written.

        Raises:
            SpiculaError: they cannot.
        """
        if self._path is None:
            return
        try:
            with self._lock:
                self._ready(self._path)
        except OSError as error:
            raise SpiculaError(f"--audit {self._path}: {error.strerror}; check the folder and its rights") from error

    def write(self, request: Request | None, event: str, **values: Any) -> None:
        """Write a line: time, event, who, id of the request, and values.

        Args:
            request: whose answer it is; None where a peer has no HTTP: `who` is then among the values.
            event: one of `EVENTS`.
            values: digests of inputs, name, version and digest of models, the answer; never pixels, names, ids of
                DICOM, or file names of clients.

        Raises:
            Problem: 503, it cannot be written: the answer is not to be given.
        """
        assert event in EVENTS, event
        if self._path is None:
            return
        line: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        line["event"] = event
        if request is not None:
            line |= {"who": request.state.who, "request": request.state.request_id}
        data = json.dumps(line | values, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            with self._lock:
                self._append(self._path, data)
        except OSError as error:
            self._metrics.count("audit_errors")
            if not self._is_failing:
                _log.error("audit log: %s; no predictions are answered until it can be written", error.strerror)
            self._is_failing = True
            raise Problem(
                503, "audit", "the audit log cannot be written, so nothing is answered", {"Retry-After": "10"}
            ) from None
        self._is_failing = False

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._let_go()

    def _append(self, path: Path, data: bytes) -> None:
        if self._ready(path) + len(data) > self._file_bytes:
            self._rotate(path)
            self._ready(path)
        if self._is_torn:  # the last line was cut by a full disk: this one begins on a line of its own
            data = b"\n" + data
        written = os.write(self._handle, data)
        self._is_torn = written != len(data)
        if self._is_torn:
            raise OSError(0, "the disk is full")

    def _ready(self, path: Path) -> int:
        """Have the file open that bears the name now; return its size."""
        if self._handle >= 0:
            here = os.fstat(self._handle)
            with suppress(FileNotFoundError):
                there = path.stat()
                if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                    return here.st_size
            self._let_go()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        state = os.fstat(self._handle)
        if not stat.S_ISREG(state.st_mode):
            return 0  # a pipe, or /dev/stdout of a container: whoever reads it keeps it
        return state.st_size

    def _rotate(self, path: Path) -> None:
        if not path.is_file():
            return
        self._let_go()
        for number in range(KEPT - 1, 0, -1):
            with suppress(FileNotFoundError):
                path.with_name(f"{path.name}.{number}").replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))

    def _let_go(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
