"""Progress of work that goes in batches, counted in images."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from spicula.progress import progress

T = TypeVar("T")


def by_image(batches: Iterable[T], sizes: Sequence[int], what: str) -> Iterator[T]:
    """Yield batches, showing how many images are done and how many a second.

    Args:
        batches: what to walk through.
        sizes: images in each.
        what: what is being done, as the line's first words.
    """
    ticks = progress(range(sum(sizes)), what, "images")
    next(ticks, None)  # starts the clock before the first batch
    for batch, size in zip(batches, sizes, strict=True):
        yield batch
        for _ in range(size):
            next(ticks, None)
