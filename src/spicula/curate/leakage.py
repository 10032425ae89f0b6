"""Whether a split leaks: a patient, an exam or an identical file that stands on two sides."""

from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa

from spicula.curate.strata import sides_of
from spicula.errors import SpiculaError

#: One row for each thing that stands on several sides.
SHARED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # patient_id, exam_id, or the file's SHA-256
        pa.field("sides", pa.list_(pa.string()), nullable=False),  # train, val, test; or fold 0, fold 1, ...
        pa.field("images", pa.list_(pa.string()), nullable=False),  # image_id of the first image on each side
    ]
)

_NAMED = 3


@dataclass(frozen=True)
class Leakage:
    """What stands on more than one side of a split.

    Attributes:
        problems: one sentence for each kind of leak; empty when there is none. They name images, not patients, so
            that no patient's identity reaches a log.
        shared_patients: SHARED, one row for each patient on several sides.
        shared_exams: SHARED, one row for each exam on several sides.
        shared_images: SHARED, one row for each file content (SHA-256) on several sides.
    """

    problems: list[str]
    shared_patients: pa.Table
    shared_exams: pa.Table
    shared_images: pa.Table


def check_leakage(index: pa.Table) -> Leakage:
    """Compare the sides of a divided Index (its `split`, or its `fold` where it has no `split`).

    Null ids and rows without a side take no part.
    """
    kinds = (("patient", "patient_id"), ("exam", "exam_id"), ("identical image", "sha256"))
    tables = [_shared(index, column) for _, column in kinds]
    problems = [_sentence(what, table) for (what, _), table in zip(kinds, tables, strict=True) if len(table)]
    return Leakage(problems, *tables)


def refuse_leakage(index: pa.Table) -> None:
    """Fail when a patient, an exam or an identical image stands on two sides.

    Raises:
        SpiculaError: the split leaks; the message counts and names the first images concerned.
    """
    problems = check_leakage(index).problems
    if problems:
        raise SpiculaError(
            f"the split leaks: {'; '.join(problems)}. Split by patient, or correct the ids, or remove the copies"
        )


def _shared(index: pa.Table, column: str) -> pa.Table:
    """Return, as SHARED, the values of a column that stand on several sides, in order of their first row."""
    first_image: dict[str, dict[str, str]] = defaultdict(dict)
    for value, side, image in zip(
        index[column].to_pylist(), sides_of(index), index["image_id"].to_pylist(), strict=True
    ):
        if value is not None and side is not None:
            first_image[value].setdefault(side, image)
    rows = [
        {"id": value, "sides": list(images), "images": list(images.values())}
        for value, images in first_image.items()
        if len(images) > 1
    ]
    return pa.Table.from_pylist(rows, schema=SHARED)


def _sentence(what: str, table: pa.Table) -> str:
    examples = [
        " and ".join(f"{image} ({side})" for image, side in zip(row["images"][:2], row["sides"][:2], strict=True))
        for row in table.slice(0, _NAMED).to_pylist()
    ]
    more = f", and {len(table) - _NAMED} more" if len(table) > _NAMED else ""
    stand = f"{what}s stand" if len(table) > 1 else f"{what} stands"
    return f"{len(table)} {stand} on two sides: {', '.join(examples)}{more}"
