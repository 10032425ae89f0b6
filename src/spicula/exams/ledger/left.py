"""The plan of a run: exams with something left to do, and counts of all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spicula.exams.ledger.planning import Count

#: Exams that are Python objects at a time.
CHUNK = 1000


@dataclass(frozen=True)
class LeftExam:
    """An exam with something left to do.

    Attributes:
        exam_id: of the exam.
        digest: of its images.
        images: `ImageFile.as_json()` values.
        known: key -> (status, digest of the output manifest) of all results that the ledger has of this exam, whatever
            the configuration; so hits are found as the exam's keys become known.
    """

    exam_id: str
    digest: str
    images: list[dict[str, Any]]
    known: dict[str, tuple[str, str | None]]


class LeftExams:
    """The exams with something left to do, in the order in which they came to the ledger.

    They are made as they are walked through, for there can be many.

    Args:
        exams: exam_id, digest and images, one row an exam.
        results: exam_id, key, status and outputs of these exams, one row a key.
    """

    def __init__(self, exams: pa.Table, results: pa.Table) -> None:
        self._exams = exams
        owner = pc.index_in(results["exam_id"], value_set=exams["exam_id"].combine_chunks()).to_numpy()
        order = np.argsort(owner, kind="stable")
        self._results = results.select(["key", "status", "outputs"]).take(pa.array(order))
        self._starts = np.searchsorted(owner[order], np.arange(exams.num_rows + 1))

    def __len__(self) -> int:
        return int(self._exams.num_rows)

    def __iter__(self) -> Iterator[LeftExam]:
        for start in range(0, len(self), CHUNK):
            exams = self._exams.slice(start, CHUNK).to_pylist()
            ends = (self._starts[start : start + len(exams) + 1] - self._starts[start]).tolist()
            rows = self._results.slice(self._starts[start], ends[-1])
            results = list(zip(*(rows[name].to_pylist() for name in ("key", "status", "outputs")), strict=True))
            for number, exam in enumerate(exams):
                mine = results[ends[number] : ends[number + 1]]
                known = {key: (status, outputs) for key, status, outputs in mine}
                yield LeftExam(exam["exam_id"], exam["digest"], exam["images"], known)


@dataclass(frozen=True)
class Plan:
    """What a configuration leaves to do.

    Attributes:
        left: exams with a step that can be run now.
        counts: step -> its exams by state.
    """

    left: LeftExams
    counts: dict[str, Count]
