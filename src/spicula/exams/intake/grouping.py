"""From the rows of an Index to exams: whose images, which views, what is missing, what contradicts itself."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spicula import index
from spicula.catalog import exam_folders
from spicula.exams.intake import scope
from spicula.exams.intake.listing import Problem
from spicula.exams.types import VIEWS, ExamInput, ImageFile

Ints = npt.NDArray[np.int64]

#: Longest name of an image.
_LONGEST_NAME = 100


@dataclass
class _Rows:
    """What is known of each row, as (N,) arrays; -1 stands for none."""

    exam: Ints
    view: Ints
    aside: Ints
    digest: Ints
    frame: Ints
    exams: list[str]
    reasons: list[str]
    names: list[str]
    usable: npt.NDArray[np.bool_]


class _Said:
    """Refusals and notes by exam."""

    def __init__(self) -> None:
        self.refusals: dict[int, list[str]] = defaultdict(list)
        self.notes: dict[int, list[str]] = defaultdict(list)


def group(
    table: pa.Table, *, single_image: bool, unreadable: Mapping[str, str], remarks: Mapping[str, Collection[str]]
) -> tuple[list[ExamInput], list[Problem]]:
    """Put images together to exams, in the order of their first rows.

    Args:
        table: an Index, with the digests of all files that can be read.
        single_image: an exam of some views is not refused: its images get scores of their own.
        unreadable: path -> why a file cannot be read.
        remarks: path -> what is odd about an image that is used all the same.

    Returns:
        Every exam that the Index names, refused ones with the reason, and the rows that belong to none.
    """
    rows, said = _rows(table), _Said()
    problems = _lost(table, rows, said)
    _refuse_mixtures(table, rows, said)
    _refuse_unreadable(table, rows, said, unreadable)
    _set_aside(rows, said)
    _find_copies(rows, said)
    _refuse_missing(rows, said, single_image)
    _note(table, rows, said, remarks)
    return _exams(table, rows, said), problems


def _rows(table: pa.Table) -> _Rows:
    exam, exams = _codes(table["exam_id"])
    view = scope.views(table)
    aside, reasons = scope.asides(table)
    digest, _ = _codes(table["sha256"])
    frame = table["frame"].to_numpy().astype(np.int64)
    usable = (exam >= 0) & (view >= 0) & (aside < 0)
    return _Rows(exam, view, aside, digest, frame, exams, reasons, _names(table, exam), usable)


def _codes(column: Any) -> tuple[Ints, list[Any]]:
    """Return numbers for the values of a column, in the order of their first rows, and the values."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _names(table: pa.Table, exam: Ints) -> list[str]:
    """Return a name for every row, unique within its exam: the last part of its id, of plain characters only."""
    plain = pc.replace_substring_regex(table["image_id"], r"^.*/", "")
    plain = pc.replace_substring_regex(plain, r"[^\pL\pN._-]", "_")
    plain = pc.utf8_slice_codeunits(plain, 0, _LONGEST_NAME)
    codes, _ = _codes(plain)
    names: list[str] = plain.to_pylist()
    order = np.lexsort((codes, exam))
    again = (np.diff(exam[order]) == 0) & (np.diff(codes[order]) == 0) & (exam[order][1:] >= 0)
    ordered = exam[order]
    taken: dict[int, set[str]] = {}
    for row in order[1:][again].tolist():
        of = int(exam[row])
        if of not in taken:
            start, end = np.searchsorted(ordered, [of, of + 1])
            taken[of] = {names[other] for other in order[start:end].tolist()}
        number = 2
        while f"{names[row]}_{number}" in taken[of]:
            number += 1
        names[row] = f"{names[row]}_{number}"
        taken[of].add(names[row])
    return names


def _lost(table: pa.Table, rows: _Rows, said: _Said) -> list[Problem]:
    """Return the rows that belong to no exam or no view; those of an exam stand in its notes as well."""
    side, view = (~table[name].is_null().to_numpy() for name in ("laterality", "view"))
    problems: dict[tuple[str, str], Problem] = {}
    for row in np.flatnonzero((rows.exam < 0) | ~side | ~view):
        without = [what for what, there in (("side", side[row]), ("view", view[row])) if not there]
        reason = f"names no {' and no '.join(without)}" if without else "belongs to no exam"
        path = table["path"][int(row)].as_py()
        problems.setdefault((path, reason), {"path": path, "reason": reason})
        if rows.exam[row] >= 0:
            said.notes[rows.exam[row]].append(f"{rows.names[row]} is set aside: it {reason}")
    return list(problems.values())


def _refuse_mixtures(table: pa.Table, rows: _Rows, said: _Said) -> None:
    """Refuse exams of several patients, or of several datasets that happen to have an exam of one name each."""
    for column, words in (
        ("patient_id", "its images are of {} patients"),
        ("dataset", "its images are of {} datasets"),
    ):
        of, values = _codes(table[column])
        known = (rows.exam >= 0) & (of >= 0)
        pairs = np.unique(rows.exam[known] * max(len(values), 1) + of[known])
        exams, counts = np.unique(pairs // max(len(values), 1), return_counts=True)
        for exam, count in zip(exams[counts > 1], counts[counts > 1], strict=True):
            said.refusals[exam].append(words.format(count))


def _refuse_unreadable(table: pa.Table, rows: _Rows, said: _Said, unreadable: Mapping[str, str]) -> None:
    """Refuse exams with an image that is not there: without it they would be other exams."""
    if not unreadable:
        return
    paths = table["path"]
    lost = pc.is_in(paths, value_set=pa.array(list(unreadable), pa.string())).to_numpy()
    for row in np.flatnonzero(rows.usable & lost):
        reason = unreadable[paths[int(row)].as_py()]
        said.refusals[rows.exam[row]].append(f"{rows.names[row]} ({VIEWS[rows.view[row]]}): {reason}")


def _set_aside(rows: _Rows, said: _Said) -> None:
    for row in np.flatnonzero((rows.exam >= 0) & (rows.aside >= 0)):
        view = f" ({VIEWS[rows.view[row]]})" if rows.view[row] >= 0 else ""
        said.notes[rows.exam[row]].append(f"{rows.names[row]}{view} is set aside: {rows.reasons[rows.aside[row]]}")


def _find_copies(rows: _Rows, said: _Said) -> None:
    """Use an image once. Where two views are one image, one of them is mislabelled, and nobody can say which."""
    some = np.flatnonzero(rows.usable & (rows.digest >= 0))
    order = some[np.lexsort((some, rows.frame[some], rows.digest[some], rows.exam[some]))]
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for values in (rows.exam, rows.digest, rows.frame):
        same &= np.diff(values[order]) == 0
    for at in np.flatnonzero(same):
        one, other = order[at], order[at + 1]
        exam = rows.exam[one]
        if rows.view[one] == rows.view[other]:
            rows.usable[other] = False
            said.notes[exam].append(
                f"{rows.names[other]} ({VIEWS[rows.view[other]]}) is set aside: a copy of {rows.names[one]}"
            )
        else:
            views = " and ".join(sorted((VIEWS[rows.view[one]], VIEWS[rows.view[other]]), key=VIEWS.index))
            said.refusals[exam].append(f"{views} are the same image: a side or a view is named wrongly")


def _refuse_missing(rows: _Rows, said: _Said, single_image: bool) -> None:
    there = np.zeros((len(rows.exams), len(VIEWS)), dtype=np.bool_)
    there[rows.exam[rows.usable], rows.view[rows.usable]] = True
    lacking = ~there.any(axis=1) if single_image else ~there.all(axis=1)
    if not lacking.any():
        return
    aside: dict[int, dict[str, None]] = defaultdict(dict)
    for row in np.flatnonzero((rows.exam >= 0) & (rows.view >= 0) & (rows.aside >= 0)).tolist():
        if not there[rows.exam[row], rows.view[row]]:
            aside[rows.exam[row]][rows.reasons[rows.aside[row]]] = None
    for exam in np.flatnonzero(lacking).tolist():
        missing = ", ".join(view for view, is_there in zip(VIEWS, there[exam], strict=True) if not is_there)
        why = f" (set aside: {'; '.join(aside[exam])})" if exam in aside else ""
        said.refusals[exam].append(f"no {missing}{why}")


def _note(table: pa.Table, rows: _Rows, said: _Said, remarks: Mapping[str, Collection[str]]) -> None:
    """Note what is odd about images that are used."""
    for flag, words in scope.NOTED.items():
        for row in np.flatnonzero(scope.with_flag(table, flag) & rows.usable):
            said.notes[rows.exam[row]].append(f"{rows.names[row]} ({VIEWS[rows.view[row]]}) {words}")
    if remarks:
        paths = table["path"]
        odd = pc.is_in(paths, value_set=pa.array(list(remarks), pa.string())).to_numpy()
        for row in np.flatnonzero(rows.usable & odd):
            view = VIEWS[rows.view[row]]
            said.notes[rows.exam[row]] += [f"{rows.names[row]} ({view}): {o}" for o in remarks[paths[int(row)].as_py()]]


def _exams(table: pa.Table, rows: _Rows, said: _Said) -> list[ExamInput]:
    some = np.flatnonzero(rows.usable & (rows.digest >= 0))
    order = some[np.lexsort((_ranks(table, rows, some)[some], rows.view[some], rows.exam[some]))]
    images = _images(table, rows, order)
    ends = np.cumsum(np.bincount(rows.exam[order], minlength=len(rows.exams))).tolist()
    exams, start = [], 0
    for exam, (exam_id, end) in enumerate(zip(rows.exams, ends, strict=True)):
        refusal = "; ".join(dict.fromkeys(said.refusals[exam])) if exam in said.refusals else None
        notes = tuple(said.notes[exam]) if exam in said.notes else ()
        exams.append(ExamInput(exam_id, tuple(images[start:end]), refusal, notes))
        start = end
    return exams


def _ranks(table: pa.Table, rows: _Rows, some: Ints) -> Ints:
    """Return the order of images within a view: that of the rows for exam lists, else that of their ids."""
    ranks = np.arange(table.num_rows)
    slot = rows.exam[some] * len(VIEWS) + rows.view[some]
    _, inverse, counts = np.unique(slot, return_inverse=True, return_counts=True)
    several = some[counts[inverse] > 1]
    if len(several):
        subset = table.select(["dataset", "image_id"]).take(several)
        several = several[~_is_listed(subset)]
        ids = table["image_id"].take(several)
        ranks[several[pc.sort_indices(ids).to_numpy()]] = np.arange(len(several))
    return ranks


def _is_listed(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return (N,): which rows come from exam folders, which have an order, and say when they are mirrored."""
    return np.asarray(pc.equal(table["dataset"], exam_folders.DATASET.name).to_numpy(), dtype=np.bool_)


def _images(table: pa.Table, rows: _Rows, order: Ints) -> list[ImageFile]:
    """Return the images of these rows."""
    ordered = table.select(["dataset", "path", "sha256", "flags"]).take(order)
    paths = pc.binary_join_element_wise(index.place_of(table), ordered["path"], "/").to_pylist()
    # the published lists say NO or YES; a header or another dataset says YES or nothing
    unflagged = [False if listed else None for listed in _is_listed(ordered).tolist()]
    mirrored = [
        True if is_mirrored else other
        for is_mirrored, other in zip(scope.with_flag(ordered, "mirrored").tolist(), unflagged, strict=True)
    ]
    views = [VIEWS[view] for view in rows.view[order].tolist()]
    names = [rows.names[row] for row in order.tolist()]
    digests = ordered["sha256"].to_pylist()
    frames = rows.frame[order].tolist()
    return [
        ImageFile(*values)  # name, view, path, sha256, frame, mirrored
        for values in zip(names, views, paths, digests, frames, mirrored, strict=True)
    ]
