"""Standard error that nobody has to wait for: lines stand in a queue, and a thread writes them.

Whoever writes to a pipe that nobody reads, to a stopped terminal or to a disk that hangs waits for ever, and with it an
event loop. While a service runs, `sys.stderr` is a `Lines`: what does not fit its queue is left out, counted, and told
in a line of its own as soon as lines are taken again.
"""

import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from spicula.serving.metrics import Metrics

#: Lines that wait: some 1.3 MB, and more than a minute of the requests that one token may make by default.
MOST_LINES = 10_000
#: Lines that are written together.
_TOGETHER = 100
#: At the end of the service, for what still waits.
_LAST_SECONDS = 2.0


class Lines(io.TextIOBase):
    """A text stream whose `write` returns at once.

    Args:
        to: descriptor of the file that lines go to.
        metrics: count the lines that were left out.
        most: lines that wait.
    """

    def __init__(self, to: int, metrics: Metrics, most: int = MOST_LINES) -> None:
        self._to, self._metrics, self._most = to, metrics, most
        self._waiting: deque[str | int] = deque()  # a number: so many lines are missing in that place
        self._lost = 0
        self._is_refused = self._is_closing = False
        self._changed = threading.Condition()
        self._begun = threading.local()  # a line can come in pieces: print writes its end by itself
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._to

    def isatty(self) -> bool:
        """Return whether lines go to a terminal."""
        return os.isatty(self._to)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Put the lines that text completes into the queue, or leave them out where it is full."""
        whole, end, rest = (getattr(self._begun, "text", "") + text).rpartition("\n")
        self._begun.text = rest
        if end:
            with self._changed:
                self._put(whole + end)
        return len(text)

    def finish(self, seconds: float = _LAST_SECONDS) -> None:
        """End the thread when all is written, but wait no longer than so many seconds for it."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _put(self, line: str) -> None:
        if len(self._waiting) >= self._most:
            self._lost += 1
            self._metrics.count("log_lines_lost")
            return
        if not self._waiting:
            self._changed.notify()
        if self._lost:
            self._waiting.append(self._lost)
            self._lost = 0
        self._waiting.append(line)

    def _work(self) -> None:
        while lines := self._next():
            text = "".join(line if isinstance(line, str) else _missing(line) for line in lines)
            self._is_refused = not self._is_written(text.encode(errors="backslashreplace"))
            if self._is_refused:
                with self._changed:
                    self._lost += sum(1 if isinstance(line, str) else line for line in lines)
                    self._metrics.count("log_lines_lost", sum(isinstance(line, str) for line in lines))

    def _next(self) -> list[str | int]:
        """Wait for lines, and take some; none at the end."""
        with self._changed:
            while True:
                if self._waiting:
                    return [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
                if self._lost and not self._is_refused:
                    lost, self._lost = self._lost, 0
                    return [lost]
                if self._is_closing:
                    return []
                self._changed.wait()

    def _is_written(self, data: bytes) -> bool:
        """Write, however long it takes; return False where that cannot be."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                select.select([], [self._to], [])
            except OSError:  # its reader is gone, or the disk is full
                return False
        return True


def _missing(count: int) -> str:
    return f"{count} lines of the log are missing here: they were not taken in time\n"


@contextmanager
def standard_error(metrics: Metrics) -> Iterator[None]:
    """Let `sys.stderr` be a `Lines`, as long as the block lasts.

    Args:
        metrics: count the lines that were left out.
    """
    before = sys.stderr
    try:
        lines = Lines(before.fileno(), metrics)
    except (AttributeError, OSError):  # there is none, or it is no file
        yield
        return
    before.flush()
    sys.stderr = cast("TextIO", lines)
    try:
        yield
    finally:
        sys.stderr = before
        lines.finish()
