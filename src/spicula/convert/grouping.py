"""Which images share a shard: decided by what the images are, never by when or where they were converted."""

import hashlib
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def group(names: Sequence[str], sizes: Sequence[int], limit: int) -> list[range]:
    """Cut a sequence of images into shards of at most `limit` bytes.

    Where a shard is full between half and all of the limit, it is cut after the image whose name has the smallest
    SHA-256. Cuts are thus tied to images and not to positions: after an image that is new, gone or of another size,
    the next cuts soon fall where they were (content-defined chunking), and only the shards near it change.

    Args:
        names: (N,) of the images, all different, in the order in which they are to be stored.
        sizes: (N,) bytes that each image takes in a shard.
        limit: bytes that a shard may have. An image that is larger has a shard of its own.

    Returns:
        The positions of each shard's images; together 0 to N - 1, in order.
    """
    ends = list(itertools.accumulate(sizes))
    order = [hashlib.sha256(name.encode()).digest() for name in names]
    shards = []
    start = 0
    while start < len(names):
        before = ends[start - 1] if start else 0
        # images `start` to `last - 1` fit; the cut comes after one of `first` to `last - 1`
        last = max(start + 1, bisect_right(ends, before + limit))
        first = min(last - 1, bisect_left(ends, before + limit / 2))
        stop = last if last == len(names) else 1 + min(range(first, last), key=order.__getitem__)
        shards.append(range(start, stop))
        start = stop
    return shards
