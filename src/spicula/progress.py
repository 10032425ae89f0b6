"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """Print one line to stderr, where logs go; stdout is for results."""
    print(message, file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, unit: str = "images", total: int | None = None) -> Iterator[T]:
    """Yield `items`, showing how far it got, how fast, and how long it will still take.

    Args:
        items: what to walk through.
        what: what is being done, as the line's first words ("decoding").
        unit: what is counted, in the plural.
        total: how many items there are, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, unit=f" {unit}", total=total, leave=False, dynamic_ncols=True)
    else:
        yield from _plain(items, what, unit, total)


def _plain(items: Iterable[T], what: str, unit: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = count / (now - start)
            left = f", {(total - count) / rate:.0f} s left" if total else ""
            say(f"{what}: {count}{f' of {total}' if total else ''} {unit}, {rate:.1f} a second{left}")
    seconds = time.monotonic() - start
    if seconds >= SECONDS_BETWEEN_LINES:
        say(f"{what}: {count} {unit} in {seconds:.0f} s")


_UNITS = ("B", "KB", "MB", "GB", "TB")


def show_bytes(count: float) -> str:
    """Return a number of bytes to read: `163.6 GB`. Units are powers of 1,000."""
    for unit in _UNITS[:-1]:
        if count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def show_seconds(seconds: float) -> str:
    """Return a time to read: `48 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Meter:
    """How far a download got: pieces, bytes, rate, time left. Its methods may be called from several threads.

    Args:
        what: what is being done, as the line's first words.
        unit: what a piece is, in the plural.
        sizes: of all pieces in bytes, each None where it is not known.
    """

    def __init__(self, what: str, unit: str, sizes: Sequence[int | None]) -> None:
        self._what, self._unit = what, unit
        self._pieces, self._done = len(sizes), 0
        # Where a size is not known, the others' average stands in for it.
        known = [size for size in sizes if size is not None]
        self._usual = sum(known) / len(known) if known else 0.0
        self._total = sum(known) + self._usual * (len(sizes) - len(known))
        self._received = 0
        self._finished = 0.0
        self._under_way: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Meter":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=1.0, leave=False, dynamic_ncols=True, bar_format="{desc} {percentage:3.0f}%|{bar}|")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, piece: int, size: int | None) -> None:
        """Say that a piece is under way (again)."""
        with self._lock:
            self._under_way[piece] = (size if size is not None else self._usual, 0.0)

    def add(self, piece: int, count: int) -> None:
        """Say that bytes of a piece arrived."""
        with self._lock:
            self._received += count
            size, received = self._under_way[piece]
            self._under_way[piece] = (size, received + count)

    def end(self, piece: int) -> None:
        """Say that a piece ended, well or badly."""
        with self._lock:
            self._done += 1
            self._finished += self._under_way.pop(piece)[0]

    def show(self) -> None:
        """Show how far it got: a bar on a terminal; elsewhere a line, when the last one is some time ago."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_description_str(self.line(), refresh=False)
            self._bar.n = self._share()
            self._bar.refresh()
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            say(self.line())

    def line(self) -> str:
        """Return how far it got, in one line."""
        seconds = max(time.monotonic() - self._start, 1e-3)
        with self._lock:
            done, received = self._done, self._received
        share = self._share()
        total = f" of {show_bytes(self._total)}" if self._total else ""
        left = f", {show_seconds(seconds / share * (1 - share))} left" if 0 < share < 1 else ""
        return (
            f"{self._what}: {done} of {self._pieces} {self._unit}, {show_bytes(received)}{total}, "
            f"{show_bytes(received / seconds)}/s{left}"
        )

    def _share(self) -> float:
        """Return the share that is done. What is sent packed counts as its size only once it is there."""
        with self._lock:
            if not self._total:
                return self._done / self._pieces if self._pieces else 1.0
            under_way = sum(min(size, received) for size, received in self._under_way.values())
            return min(1.0, (self._finished + under_way) / self._total)
