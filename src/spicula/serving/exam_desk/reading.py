"""What was sent, as one exam: intake reads it as it reads any folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spicula.exams import intake
from spicula.exams.types import ExamInput


def read(exam: str, folder: Path, description: Mapping[str, Any]) -> ExamInput:
    """Return the exam that was sent; one that is none is refused, with the reasons.

    Args:
        exam: its id.
        folder: of its files.
        description: what `uploads.gather` said of them.

    Raises:
        OSError: the files cannot be read.
    """
    origin = intake.origin_of(folder)
    found = intake.read_listing(origin, origin.listing(), intake.Known())
    said = [f"{_called(one['path'], description)}: {one['reason']}" for one in found.problems]
    notes = tuple(description["notes"])
    if len(found.exams) == 1:
        one = found.exams[0]
        refusal = "; ".join([one.refusal, *said]) if one.refusal is not None else None
        return replace(one, exam_id=exam, refusal=refusal, notes=(*notes, *one.notes, *said))
    if found.exams:
        reason = (
            f"the files are of {len(found.exams)} exams, by their studies or names; send each exam by itself,"
            " as DICOM files or as images that are named by their view"
        )
    else:
        reason = "none of the files is an image of a four-view exam"
    return ExamInput(exam, (), "; ".join([reason, *said]), notes)


def _called(path: str, description: Mapping[str, Any]) -> str:
    """Return how a file is called where people read it: by its view, else by its number; never as its sender did."""
    for one in description["files"]:
        if path.endswith(one["name"]):
            return f"file {one['number']} ({one['view']})" if one["view"] else f"file {one['number']}"
    return "a file"
