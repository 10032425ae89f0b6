"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

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
