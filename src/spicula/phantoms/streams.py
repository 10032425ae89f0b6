"""Random numbers: one independent stream for each thing that is drawn, so that adding one thing changes no other."""

import zlib

import numpy as np


def stream(*key: int | str) -> np.random.Generator:
    """Return the generator that belongs to `key`, for example `(seed, exam number, "L", "CC", "noise")`.

    The same key gives the same numbers; keys that differ anywhere give independent ones. Whole numbers must not be
    negative.
    """
    return np.random.default_rng([zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key])
