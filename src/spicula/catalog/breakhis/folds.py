"""The official protocol of BreakHis: five fold files that say of each image whether it trains or tests.

A line is `filename|magnification|fold|train or test`; the files are dsfold1.txt to dsfold5.txt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.catalog.tree import Rejection, reject
from spicula.errors import UsageError

FOLDS = (1, 2, 3, 4, 5)
SIDES = ("train", "test")


@dataclass(frozen=True)
class Folds:
    """One official fold.

    Attributes:
        name: the file's name, for messages.
        fold: its number, 1 to 5.
        sides: "train" or "test" for each image_id.
        rejected: lines that could not be read.
    """

    name: str
    fold: int
    sides: dict[str, str]
    rejected: tuple[Rejection, ...]


def read(path: Path | None, fold: Any) -> Folds | None:
    """Read one fold from its file, or from the folder of fold files; nothing when no path is given.

    Raises:
        UsageError: a fold without a file, or without a number where there are several; a file that is not one.
    """
    if path is None:
        if fold is not None:
            raise UsageError(f"breakhis: the option fold = {fold} needs folds_file, the file dsfold{fold}.txt")
        return None
    fold = _number(fold)
    if path.is_dir():
        if fold is None:
            raise UsageError(f"breakhis: {path} is a folder; say which fold of it, with the option fold = 1 to 5")
        path = path / f"dsfold{fold}.txt"
    if not path.is_file():
        raise UsageError(f"breakhis: no fold file {path}")
    return _parse(path, fold)


def _number(fold: Any) -> int | None:
    if fold is not None and str(fold) not in map(str, FOLDS):
        raise UsageError(f"breakhis: the option fold is {fold!r}, not one of {FOLDS}")
    return None if fold is None else int(fold)


def _parse(path: Path, fold: int | None) -> Folds:
    by_fold: dict[int, dict[str, str]] = {}
    rejected = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = [word.strip() for word in line.split("|")]
        if not line.strip():
            continue
        if len(words) != 4 or words[2] not in map(str, FOLDS) or words[3] not in SIDES:
            reason = "is not filename|magnification|fold|train or test"
            rejected.append(reject(path.name, f"line {number}: {reason}, in {line[:80]!r}"))
        else:
            by_fold.setdefault(int(words[2]), {})[words[0].removesuffix(".png")] = words[3]
    if not by_fold:
        raise UsageError(f"breakhis: {path} is no fold file: no line is filename|magnification|fold|train or test")
    if fold is None and len(by_fold) > 1:
        raise UsageError(f"breakhis: {path} holds the folds {sorted(by_fold)}; say which, with the option fold")
    chosen = fold if fold is not None else next(iter(by_fold))
    if chosen not in by_fold:
        raise UsageError(f"breakhis: {path} holds the folds {sorted(by_fold)}, not fold {chosen}")
    return Folds(path.name, chosen, by_fold[chosen], tuple(rejected))


def assign(rows: Sequence[dict[str, Any]], folds: Folds) -> list[Rejection]:
    """Write the fold's sides to the rows' `split`, patient by patient.

    A patient on both sides keeps only the test images: those stay as published, and the training images that would
    leak into them get no split. What does not match is reported, in one row of each kind.
    """
    for row in rows:
        row["split"] = folds.sides.get(row["image_id"])
    unlisted = sum(row["split"] is None for row in rows)
    absent = len(folds.sides) - (len(rows) - unlisted)
    rejected = list(folds.rejected)
    tested = {row["patient_id"] for row in rows if row["split"] == "test"}
    leaking = [row for row in rows if row["split"] == "train" and row["patient_id"] in tested]
    for row in leaking:
        row["split"] = None
    if leaking:
        patients = ", ".join(sorted({row["patient_id"] for row in leaking}))
        rejected.append(
            reject(
                folds.name,
                f"fold {folds.fold} has the patient {patients} in train and in test; "
                f"{len(leaking)} training images get no split",
            )
        )
    if unlisted:
        rejected.append(reject(folds.name, f"does not list {unlisted} of the images, which get no split"))
    if absent:
        rejected.append(reject(folds.name, f"lists {absent} images that are not there"))
    return rejected
