"""The same figures in parts of the test side: by magnification, density, view and whatever else the Index has."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from spicula.evaluation.metrics import Bools

#: What subgroups are made by, in this order.
COLUMNS = (
    "magnification",
    "density",
    "subtype",
    "view",
    "laterality",
    "birads",
    "manufacturer",
    "age",
)

#: The value of images for which the Index has none.
NOT_KNOWN = "not known"

#: Lower ends of the age bands, in years.
AGES = (40, 50, 60, 70)


def subgroups(index: pa.Table) -> Iterator[tuple[str, str, Bools]]:
    """Yield (column, value, mask over rows) for each subgroup of the columns that have at least two known values.

    Args:
        index: the rows to divide, in the order of the masks.
    """
    for column in COLUMNS:
        words = [_word(column, value) for value in index[column].to_pylist()]
        known = sorted({word for word in words if word is not None}, key=_natural)
        if len(known) < 2:
            continue
        for value in [*known, *([NOT_KNOWN] if None in words else [])]:
            wanted = None if value == NOT_KNOWN else value
            yield column, value, np.array([word == wanted for word in words], dtype=np.bool_)


def _word(column: str, value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if column == "magnification":
        return f"{value:g}x"
    if column == "age":
        return _age_band(value)
    return str(value)


def _age_band(years: float) -> str:
    if years < AGES[0]:
        return f"under {AGES[0]}"
    lower = max(edge for edge in AGES if edge <= years)
    return f"{lower} and over" if lower == AGES[-1] else f"{lower} to {lower + 9}"


def _natural(word: str) -> tuple[float, str]:
    """Sort "40x" before "100x", "4" before "4A", "under 40" before "40 to 49", and words by the alphabet."""
    if word.startswith("under"):
        return (-1.0, word)
    number = re.match(r"\d+(\.\d+)?", word)
    return (float(number[0]) if number else math.inf, word)
