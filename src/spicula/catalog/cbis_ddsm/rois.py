"""Which of a lesion's two files is the mask and which the cropped image: decided from the files.

The tables' two columns are exchanged in many rows, and the two files often share one series. Three things tell them
apart: the series description; the size, since a mask is as large as its mammogram; and the values, since a mask has
two. They must agree.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spicula.catalog import native
from spicula.catalog.cbis_ddsm.files import File
from spicula.catalog.tree import Rejection, reject
from spicula.errors import RejectedImageError
from spicula.progress import progress

_WORDS = {"full": "full mammogram", "crop": "cropped image", "mask": "mask"}


@dataclass(frozen=True)
class Values:
    """What a look at a file's values found (`spicula.catalog.native`).

    Attributes:
        count: how many different ones there are; None where the pixel data is compressed.
        any_set: whether one of them is not zero.
    """

    count: int | None
    any_set: bool


@dataclass(frozen=True)
class Roi:
    """The files of one lesion, told apart.

    Attributes:
        mask: the mask; None where it is not there or could not be told.
        crop: the cropped image; likewise.
        placed: the mask, where it can be laid over the mammogram: that is there, of the same size, and the mask not
            empty.
        misfit: why it cannot, where both are there.
        rejected: files that could not be told, and why.
    """

    mask: File | None = None
    crop: File | None = None
    placed: File | None = None
    misfit: str = ""
    rejected: list[Rejection] = field(default_factory=list)


def look_at(root: Path, paths: Sequence[str]) -> dict[str, Values | str]:
    """Look at the values of files, in threads; for one that cannot be read, the reason."""

    def one(path: str) -> Values | str:
        try:
            look = native.look(root / path)
        except RejectedImageError as error:
            return str(error)
        if look is None:
            return Values(None, True)
        return Values(len(look.values), bool(look.values.any()))

    def results() -> Iterator[Values | str]:
        pool = ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)))
        try:
            yield from pool.map(one, paths)
        finally:
            pool.shutdown(cancel_futures=True)  # so that an interrupt does not wait for the rest

    return dict(zip(paths, progress(results(), "telling masks from crops", "files", len(paths)), strict=True))


def decide(name: str, image: File | None, files: Sequence[File], looks: Mapping[str, Values | str]) -> Roi:
    """Tell the mask from the cropped image.

    Args:
        name: of the lesion, for messages.
        image: its full mammogram, if that is there.
        files: of its one or two series.
        looks: what their values are.
    """
    rejected: list[Rejection] = []
    kinds: dict[str, str | None] = {}
    for file in files:
        look = looks[file.path]
        evidence = {} if isinstance(look, str) else _evidence(file, image, look)
        if isinstance(look, str):
            rejected.append(reject(file.path, look))
        elif len(evidence) > 1 or "full" in evidence:
            rejected.append(reject(file.path, _contradiction(name, evidence)))
        else:
            kinds[file.path] = next(iter(evidence), None)
    problem = _complete(kinds, len(files))
    if problem:
        return Roi(rejected=rejected + [reject(path, f"{problem} of lesion {name}: not used") for path in kinds])
    by_kind = {kinds[file.path]: file for file in files if file.path in kinds}
    mask = by_kind.get("mask")
    misfit = _misfit(mask, image, looks) if mask and image else ""
    return Roi(mask, by_kind.get("crop"), mask if image and not misfit else None, misfit, rejected)


def same_film(root: Path, first: File, second: File) -> bool:
    """Say whether two files show the same film: the same size, and the same values in every row looked at."""
    if not first.has_size_of(second):
        return False
    try:
        looks = native.look(root / first.path), native.look(root / second.path)
    except RejectedImageError:
        return False
    return looks[0] is not None and looks[1] is not None and np.array_equal(looks[0].rows, looks[1].rows)


def _evidence(file: File, image: File | None, look: Values) -> dict[str, list[str]]:
    """Return what the file is by each sign that says something: kind -> signs. The size speaks for a mask alone."""
    signs: list[tuple[str | None, str]] = [
        (file.kind, "its series description"),
        ("mask" if image and file.has_size_of(image) else None, "its size, that of the mammogram"),
    ]
    if look.count is not None:
        signs.append(("mask" if look.count <= 2 else "crop", f"its values ({_number(look.count)})"))
    evidence: dict[str, list[str]] = {}
    for kind, sign in signs:
        if kind:
            evidence.setdefault(kind, []).append(sign)
    return evidence


def _number(count: int) -> str:
    return "one" if count == 1 else "two" if count == 2 else "more than two"


def _contradiction(name: str, evidence: Mapping[str, Iterable[str]]) -> str:
    words = [f"a {_WORDS[kind]} by {' and '.join(signs)}" for kind, signs in evidence.items()]
    return f"a file of lesion {name}, but {', '.join(words)}: not used"


def _complete(kinds: dict[str, str | None], count: int) -> str:
    """Conclude from one of two files on the other; return what is wrong with all of them together, or nothing.

    Args:
        kinds: by path, of the files that can be used; what can be concluded is filled in.
        count: of all files of the lesion.
    """
    told = [kind for kind in kinds.values() if kind]
    if count > 2:
        return f"one of {count} files, not a mask and a cropped image,"
    if len(kinds) == 2 and len(told) == 1:
        other = "crop" if told[0] == "mask" else "mask"
        kinds.update({path: kind or other for path, kind in kinds.items()})
    if None in kinds.values():
        return "nothing says whether it is the mask or the cropped image"
    if len(kinds) == 2 and told[:1] == told[1:]:
        return f"one of two files that both look like the {_WORDS[told[0]]}"
    return ""


def _misfit(mask: File, image: File, looks: Mapping[str, Values | str]) -> str:
    look = looks[mask.path]
    if isinstance(look, Values) and not look.any_set:
        return "an empty mask: its lesion is unlocated"
    if mask.has_size_of(image):
        return ""
    return (
        f"a mask of {mask.width} x {mask.height} pixels, but its mammogram has {image.width} x {image.height}:"
        " its lesion is unlocated"
    )
