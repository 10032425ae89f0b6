"""Which images can stand for a standard view of a screening exam, and what is said of the others.

The four-view classifier was made for standard full-field mammograms, for presentation. Whatever else an exam holds is
set aside, so that it neither gets a score nor stands in for a view that is missing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spicula.catalog.pacs.mammograms import RADIOGRAPHS

SIDES, ANGLES = ("L", "R"), ("CC", "MLO")

#: Flags of the Index with which an image is set aside, and what such an image is.
ASIDE: Mapping[str, str] = {
    "for-processing": "for processing, not for presentation",
    "tomosynthesis-slice": "a slice of tomosynthesis",
    "synthetic-2d": "computed from tomosynthesis",
    "specimen": "of a specimen",
    "spot-compression": "a spot compression view",
    "magnification": "a magnification view",
    "implant-displaced": "an implant-displaced view",
    "other-modifier": "a modified view: rolled, tangential, cleavage, biopsy, contrast-enhanced or the like",
    "partial-view": "of a part of the breast",
}
#: Flags of images that are used all the same, and what the exam's notes say of them.
NOTED: Mapping[str, str] = {
    "implant": "shows an implant, of which the classifier's authors say nothing",
    "burned-in-annotation": "has burned-in text, as its header says",
}

_CODE = re.compile(r"[A-Z0-9]{1,16}")


def views(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return (N,): the place of each row's view in `exams.types.VIEWS`, -1 where it is none of them."""
    side = _places(table["laterality"], SIDES)
    angle = _places(table["view"], ANGLES)
    return np.where((side >= 0) & (angle >= 0), angle * len(SIDES) + side, -1)


def asides(table: pa.Table) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return why images are set aside: (N,) numbers of reasons, -1 for none, and the reasons."""
    reasons: list[str] = []
    numbers = np.full(table.num_rows, -1, dtype=np.int64)
    for rows, reason in _found(table):
        numbers[rows & (numbers < 0)] = len(reasons)
        reasons.append(reason)
    return numbers, reasons


def with_flag(table: pa.Table, flag: str) -> npt.NDArray[np.bool_]:
    """Return (N,): which rows have a flag."""
    flags = table["flags"].combine_chunks()
    found = np.zeros(table.num_rows, dtype=np.bool_)
    if len(flags.flatten()):
        is_it = pc.equal(flags.flatten(), flag)
        found[pc.list_parent_indices(flags).filter(is_it).to_numpy()] = True
    return found


def _found(table: pa.Table) -> Iterator[tuple[npt.NDArray[np.bool_], str]]:
    for modality in pc.unique(table["modality"]).to_pylist():
        if modality is not None and modality not in RADIOGRAPHS:
            shown = modality if _CODE.fullmatch(modality) else "odd"
            yield _equal(table["modality"], modality), f"no mammogram: its modality is {shown}"
    for flag, reason in ASIDE.items():
        yield with_flag(table, flag), reason
    for view in pc.unique(table["view"]).to_pylist():
        if view is not None and view not in ANGLES:
            shown = view if _CODE.fullmatch(view) else "another"
            yield _equal(table["view"], view), f"of the view {shown}, not CC or MLO"


def _equal(column: Any, value: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(column, value).fill_null(False).to_numpy(), dtype=np.bool_)


def _places(column: Any, values: tuple[str, ...]) -> npt.NDArray[np.int64]:
    found = pc.index_in(column, value_set=pa.array(values)).fill_null(-1)
    return np.asarray(found.to_numpy(), dtype=np.int64)
