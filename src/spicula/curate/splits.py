"""Who trains, who validates, who tests: whole patients, stratified by target, seeded, and never moved afterwards."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

from spicula.curate.strata import Units, fill, lacking, units_of
from spicula.errors import SpiculaError, UsageError
from spicula.index import SPLITS

#: One fold tests, one validates, and at least one trains.
FEWEST_FOLDS = 3


class SplitSettings(BaseModel):
    """How an Index is divided.

    Attributes:
        unit: what stays whole. "image" is the common mistake (images of one patient on two sides), offered only to
            measure how much it flatters.
        fractions: the shares of train, val and test, which sum to 1; a share of 0 leaves that side empty.
        folds: cross-validation instead: the number of folds, each of which is the test side once.
        official: the archive's own split instead; where it has no val side, patients of the training side are
            taken for it, in the proportion of val to train in `fractions`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["patient", "image"] = "patient"
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    folds: int | None = None
    official: bool = False

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if not all(0.0 <= fraction <= 1.0 for fraction in self.fractions):
            raise ValueError(f"fractions {list(self.fractions)} are not all within 0 to 1")
        if not math.isclose(sum(self.fractions), 1.0, abs_tol=1e-9):
            raise ValueError(f"fractions {list(self.fractions)} sum to {sum(self.fractions):g}, not to 1")
        if self.folds is not None and self.folds < FEWEST_FOLDS:
            raise ValueError(f"folds is {self.folds}; it takes {FEWEST_FOLDS}: one tests, one validates, one trains")
        if self.official and self.folds is not None:
            raise ValueError("official and folds exclude each other: give one of them")
        return self


def assign(index: pa.Table, settings: SplitSettings, seed: int, previous: pa.Table | None = None) -> pa.Table:
    """Return the Index with its `split` column filled, or its `fold` column when `settings.folds` is given.

    Every patient goes to one side with all their images. Sides get their shares of patients with and without a
    positive image, and of images as far as that allows. The order of rows makes no difference.

    Args:
        index: the Index, in any order of rows. Rows whose target is null get no side.
        settings: how to divide it.
        seed: the same seed gives the same division.
        previous: an Index that was divided before: its patients stay where they are, and only new ones are placed.

    Raises:
        SpiculaError: the division cannot be made (too few patients of a class, rows without a patient, no official
            split), or `previous` has a patient on two sides or more folds than are asked for.
    """
    units = units_of(index, settings.unit)
    if settings.official:
        return _official(index, units, settings, seed, previous)
    if settings.folds is not None:
        names: Sequence[Any] = range(settings.folds)
        shares = np.full(settings.folds, 1.0 / settings.folds)
        column, what = "fold", f"a split into {settings.folds} folds"
        way_out = "use fewer folds, or add patients"
    else:
        names, shares, column = SPLITS, np.array(settings.fractions), "split"
        what = f"a split into {_listed([name for name, share in zip(SPLITS, shares, strict=True) if share > 0])}"
        way_out = "add patients, or set a fraction to 0"
    _refuse_too_few(units, settings.unit, int((shares > 0).sum()), what, way_out)
    known = _known_sides(previous, units, column, names)
    sides = fill(units, known, shares, np.random.default_rng(seed))
    for side, target in lacking(units, sides, shares):
        raise SpiculaError(
            f"{column} {names[side]} gets no {settings.unit} with target {target}, because those of the earlier split "
            "are not moved; divide anew without it, or add patients"
        )
    return _with_sides(index, column, [names[side] for side in sides], units)


def parts(index: pa.Table, fold: int | None) -> pa.Table:
    """Return the Index with `split` filled for one fold: that fold tests, the next one validates, the rest train.

    Args:
        index: an Index that was divided by `assign`.
        fold: which fold, from 0; None for an Index divided into train, val and test, which comes back as it is.

    Raises:
        UsageError: there is no such fold, or the Index has folds and none was named.
    """
    folds = index["fold"].to_pylist()
    count = max((value for value in folds if value is not None), default=-1) + 1
    if fold is None:
        if count and index["split"].null_count == len(index):
            raise UsageError(f"the Index is divided into {count} folds: say which one, 0 to {count - 1}")
        return index
    if count < FEWEST_FOLDS:
        raise UsageError(f"fold {fold} was asked for, but the Index has {count or 'no'} folds; divide it into folds")
    if not 0 <= fold < count:
        raise UsageError(f"there is no fold {fold}: the Index has folds 0 to {count - 1}")
    part = {fold: "test", (fold + 1) % count: "val"}
    return _set(index, "split", [None if value is None else part.get(value, "train") for value in folds])


def _official(index: pa.Table, units: Units, settings: SplitSettings, seed: int, previous: pa.Table | None) -> pa.Table:
    usable = [
        split if unit >= 0 else None for split, unit in zip(index["split"].to_pylist(), units.of_row, strict=True)
    ]
    for wanted in ("train", "test"):
        if wanted not in usable:
            raise SpiculaError(
                f"the Index has no official {wanted} side (no usable image with split {wanted!r}); "
                "use fractions or folds instead"
            )
    train, val, _ = settings.fractions
    if "val" not in usable and val > 0:
        in_training = np.array([split == "train" for split in usable])
        sources = units.restricted(in_training)
        shares = np.array([train, val]) / (train + val)
        names = SPLITS[:2]
        _refuse_too_few(
            sources, settings.unit, int((shares > 0).sum()), "an official split without a val side", "add patients"
        )
        known = _known_sides(previous, sources, "split", names, others_too=True)
        sides = fill(sources, known, shares, np.random.default_rng(seed))
        usable = [
            names[sides[unit]] if split == "train" else split
            for split, unit in zip(usable, sources.of_row, strict=True)
        ]
    return _set(_set(index, "split", usable), "fold", [None] * len(index))


def _refuse_too_few(units: Units, unit: str, sides: int, what: str, way_out: str) -> None:
    for target, has in ((1, units.positive), (0, units.negative)):
        count = int(has.sum())
        if count < sides:
            raise SpiculaError(
                f"{what} needs at least {sides} {unit}s with target {target}, there are {count}; {way_out}"
            )


def _known_sides(
    previous: pa.Table | None, units: Units, column: str, names: Sequence[Any], others_too: bool = False
) -> np.ndarray:
    """Return the side (position in `names`) that each unit has in `previous`, or -1: shape (units,), int64."""
    known = np.full(len(units.names), -1, dtype=np.int64)
    if previous is None:
        return known
    position = {name: at for at, name in enumerate(units.names)}
    for name, side in zip(previous[units.column].to_pylist(), previous[column].to_pylist(), strict=True):
        at = position.get(name)
        if at is None or side is None or (others_too and side not in names):
            continue
        if side not in names:
            raise SpiculaError(f"the earlier split has {column} {side}, which is none of the {len(names)} asked for")
        number = names.index(side)
        if known[at] not in (-1, number):
            raise SpiculaError(
                f"the earlier split has one {units.unit} on two sides ({names[known[at]]} and {side}); divide anew"
            )
        known[at] = number
    return known


def _with_sides(index: pa.Table, column: str, sides: Sequence[Any], units: Units) -> pa.Table:
    other = "fold" if column == "split" else "split"
    values = [None if unit < 0 else sides[unit] for unit in units.of_row]
    return _set(_set(index, column, values), other, [None] * len(index))


def _set(index: pa.Table, column: str, values: Sequence[Any]) -> pa.Table:
    at = index.schema.get_field_index(column)
    field = index.schema.field(at)
    return index.set_column(at, field, pa.array(list(values), type=field.type))


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
