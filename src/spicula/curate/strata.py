"""Stratified assignment of units (patients, or images) to sides: the arithmetic behind `splits`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spicula.errors import SpiculaError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

#: How many seeded shuffles are compared for the evenness of images over the sides, and the most places that takes.
SHUFFLES = 200
_MOST_PLACES = 4_000_000


@dataclass(frozen=True)
class Units:
    """What is kept whole when an Index is divided.

    Attributes:
        unit: "patient" or "image".
        column: the Index column that names it.
        names: the units' names, sorted, so that the order of rows makes no difference.
        positive: whether a unit has an image with target 1, shape (units,).
        negative: whether it has an image with target 0, shape (units,).
        images: how many images with target 0 and with target 1 it has, shape (units, 2).
        of_row: each row's unit, shape (rows,); -1 for a row that takes no part.
    """

    unit: str
    column: str
    names: list[str]
    positive: Bools
    negative: Bools
    images: Ints
    of_row: Ints

    def restricted(self, rows: Bools) -> "Units":
        """Return the units that have a row among the chosen ones (a mask over rows)."""
        chosen = rows & (self.of_row >= 0)
        kept, of_chosen = np.unique(self.of_row[chosen], return_inverse=True)
        of_row = np.full(len(self.of_row), -1, dtype=np.int64)
        of_row[chosen] = of_chosen
        return Units(
            self.unit,
            self.column,
            [self.names[at] for at in kept],
            self.positive[kept],
            self.negative[kept],
            self.images[kept],
            of_row,
        )


def units_of(index: pa.Table, unit: str) -> Units:
    """Return the patients (or images) of an Index. Rows without a target take no part.

    Raises:
        SpiculaError: a row with a target has no patient_id and the unit is the patient.
    """
    column = "patient_id" if unit == "patient" else "image_id"
    names, targets = index[column].to_pylist(), index["target"].to_pylist()
    nameless = [
        row
        for row, (name, target) in enumerate(zip(names, targets, strict=True))
        if name is None and target is not None
    ]
    if nameless:
        raise SpiculaError(
            f"{len(nameless)} of {len(names)} images have no patient_id (the first is "
            f"{index['image_id'][nameless[0]].as_py()}), so they cannot be split by patient; index them again with a "
            "patient column or a patient_pattern"
        )
    used = [target is not None for target in targets]
    unique = sorted({name for name, use in zip(names, used, strict=True) if use})
    position = {name: at for at, name in enumerate(unique)}
    of_row = np.array([position[n] if use else -1 for n, use in zip(names, used, strict=True)], dtype=np.int64)
    of_used = of_row[of_row >= 0]
    target_of_used = np.array([target for target in targets if target is not None], dtype=np.int64)
    images = np.bincount(2 * of_used + target_of_used, minlength=2 * len(unique)).reshape(-1, 2).astype(np.int64)
    return Units(unit, column, unique, images[:, 1] > 0, images[:, 0] > 0, images, of_row)


def fill(units: Units, known: Ints, shares: Floats, rng: np.random.Generator) -> Ints:
    """Return a side for every unit.

    Units with both targets are placed first, because they give a side both; then those with target 0 alone; then
    those with target 1 alone, counted together with the first. Within each stratum every side gets its share of
    units; which units those are is the seeded shuffle, of `SHUFFLES`, that spreads the images best.

    Args:
        units: what is placed.
        known: the side of units that are placed already, else -1, shape (units,); they stay.
        shares: each side's share, shape (sides,), summing to 1; a side with share 0 gets none.
        rng: the source of randomness.

    Returns:
        Sides from 0, shape (units,).
    """
    sides = known.copy()
    both = units.positive & units.negative
    strata = ((both, both), (units.negative & ~both, ~units.positive), (units.positive & ~both, units.positive))
    for stratum, counted in strata:
        new = np.flatnonzero(stratum & (sides < 0))
        if not new.size:
            continue
        counts = np.bincount(sides[counted & (sides >= 0)], minlength=len(shares))
        wanted = [target for target, has in ((1, units.positive), (0, units.negative)) if has[new[0]]]
        needy = np.zeros(len(shares), dtype=np.bool_)
        for side, target in lacking(units, sides, shares):
            needy[side] |= target in wanted
        room = _room(counts, shares, new.size, needy)
        there = counted & (sides >= 0)
        placed = _images_on_sides(sides[there], units.images[there], len(shares))
        sides[new] = _evenest(np.repeat(np.arange(len(shares)), room), units.images[new], placed, shares, rng)
    return sides


def lacking(units: Units, sides: Ints, shares: Floats) -> Iterator[tuple[int, int]]:
    """Yield (side, target) for every side with a share that has no unit with that target yet."""
    for target, has in ((1, units.positive), (0, units.negative)):
        present = np.bincount(sides[has & (sides >= 0)], minlength=len(shares)) > 0
        for side in np.flatnonzero((shares > 0) & ~present):
            yield int(side), target


def _room(counts: Ints, shares: Floats, new: int, needy: Bools) -> Ints:
    """Return how many of `new` units go to each side: one to each that needs one, then where most are missing."""
    room = np.zeros(len(shares), dtype=np.int64)
    largest_first = np.argsort(-shares, kind="stable")
    for wanting in (needy, counts == 0):
        for side in largest_first:
            if wanting[side] and shares[side] > 0 and not room[side] and room.sum() < new:
                room[side] = 1
    ideal = shares * (counts.sum() + new)
    for _ in range(new - int(room.sum())):
        missing = np.where(shares > 0, ideal - counts - room, -np.inf)
        room[int(np.argmax(missing))] += 1
    return room


def _evenest(places: Ints, images: Ints, placed: Floats, shares: Floats, rng: np.random.Generator) -> Ints:
    """Return `places` shuffled so that images of each target, with those placed already, come nearest to the shares."""
    even_anyhow = bool(np.all(images == images[0]))
    tries = 1 if even_anyhow else max(1, min(SHUFFLES, _MOST_PLACES // len(places)))
    ideal = np.outer(shares, images.sum(axis=0) + placed.sum(axis=0))
    best, smallest = places, np.inf
    for _ in range(tries):
        shuffled = rng.permutation(places)
        off = np.abs(_images_on_sides(shuffled, images, len(shares)) + placed - ideal)
        error = float(off.max(axis=0).sum())
        if error < smallest:
            best, smallest = shuffled, error
    return best


def _images_on_sides(sides: Ints, images: Ints, count: int) -> Floats:
    """Return how many images with target 0 and 1 each side has: shape (count, 2)."""
    return np.stack([np.bincount(sides, images[:, target], count) for target in (0, 1)], axis=1).astype(np.float64)


def sides_of(index: pa.Table) -> list[Any]:
    """Return each row's side: its `split` where the Index has splits, else its fold as "fold 0", ...; null if none."""
    if index["split"].null_count < len(index):
        splits: Sequence[Any] = index["split"].to_pylist()
        return list(splits)
    return [None if fold is None else f"fold {fold}" for fold in index["fold"].to_pylist()]
