"""Looking at many files at once, for most of the time is spent waiting for the disk or the network."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_threads(look: Callable[[str], T], paths: Sequence[str], chunk: int, threads: int | None = None) -> Iterator[T]:
    """Yield what `look` returns for each path, in the given order.

    Args:
        look: is called from several threads.
        paths: of the files.
        chunk: paths that a thread takes at a time.
        threads: how many there are; None: by the cores.
    """

    def several(some: Sequence[str]) -> list[T]:
        return [look(path) for path in some]

    pool = ThreadPoolExecutor(threads or min(16, 2 * (os.cpu_count() or 1)))
    try:
        for done in pool.map(several, (paths[at : at + chunk] for at in range(0, len(paths), chunk))):
            yield from done
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interrupt does not wait for the rest
