"""Intake: which exams a folder or an Index holds, which of their images the classifier can read, and why not.

No converter is asked of anybody: DICOM studies, folders of named images and exam lists are taken as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from spicula.catalog.pacs import dicomdir
from spicula.errors import UsageError
from spicula.exams.intake import folder, indexed
from spicula.exams.intake.grouping import group
from spicula.exams.intake.known import Known, place
from spicula.exams.intake.listing import Listing, Problem, is_temporary, list_files
from spicula.exams.types import ExamInput

__all__ = ["Intake", "Known", "Listing", "Problem", "is_temporary", "list_files", "place", "read", "read_listing"]

#: How reasons of the catalog begin that are about an image which is used all the same.
REMARK = "indexed, but "

_ADDRESS = re.compile(r"[A-Za-z0-9]{2,}:/")  # s3://bucket, of which a Path keeps one slash


@dataclass(frozen=True)
class Intake:
    """What a folder or an Index holds.

    Attributes:
        exams: every exam, also those that are refused; in the order in which they were found.
        problems: `path` and `reason` of files and rows that belong to no exam, and of what is odd about others.
        index: the images, an Index (`spicula.index.SCHEMA`), with those that no exam uses.
    """

    exams: list[ExamInput]
    problems: list[Problem]
    index: pa.Table


def read(source: Path, *, known: Known | None = None, single_image: bool = False) -> Intake:
    """Read exams from an Index or from a folder.

    Args:
        source: an Index (.parquet) of any dataset with exams; or a folder (or its DICOMDIR) with DICOM studies, exam
            folders, exam lists, or all of these.
        known: what is known of the source from the last time; it is brought up to date and saved.
        single_image: take exams of which views are missing: images are to get scores of their own.

    Raises:
        UsageError: there is no such folder or Index, or nothing in it that belongs to an exam.
        SpiculaError: the Index is none, or the folder cannot be listed.
    """
    source = dicomdir.folder_of(Path(source))
    known = known if known is not None else Known()
    if source.is_dir():
        found = read_listing(source, list_files(source), known, single_image=single_image)
        if not found.exams:
            raise UsageError(_nothing_in(source, found.problems))
    elif source.suffix == ".parquet":
        found = _read_index(source, known, single_image)
        if not found.exams:
            raise UsageError(f"{source} names no exams: none of its {len(found.index)} images has an exam_id")
    elif _ADDRESS.match(str(source)):
        raise UsageError(f"exams are read from folders, not from {source}; mount the bucket, or copy it to a disk")
    elif source.exists():
        raise UsageError(f"{source} is neither a folder nor an Index (.parquet); unpack an archive first")
    else:
        raise UsageError(f"nothing at {source}; name a folder of exams, or an Index (.parquet)")
    known.save()
    return found


def read_listing(root: Path, listing: Listing, known: Known, *, single_image: bool = False) -> Intake:
    """Read exams from files of a folder; `known` is brought up to date, and not saved.

    Args:
        root: the folder.
        listing: those of its files that are to be read.
        known: what is known of them.
        single_image: see `read`.
    """
    table, problems = folder.read(root, listing, known)
    remarks: dict[str, list[str]] = {}
    for problem in problems:
        if problem["reason"].startswith(REMARK):
            remarks.setdefault(problem["path"], []).append(problem["reason"].removeprefix(REMARK))
    exams, lost = group(table, single_image=single_image, unreadable={}, remarks=remarks)
    return Intake(exams, problems + lost, table)


def _nothing_in(source: Path, problems: Sequence[Problem]) -> str:
    message = (
        f"no exams in {source}; it should hold DICOM mammograms, or images that are named by their view "
        "(EXAM/L_CC.png, L_MLO.png, R_CC.png, R_MLO.png) or by an exam list; for anything else make an Index with "
        "spicula index, and name that"
    )
    if problems:
        message += f"; {len(problems)} files cannot be used, the first {problems[0]['path']}: {problems[0]['reason']}"
    return message


def _read_index(source: Path, known: Known, single_image: bool) -> Intake:
    table, unreadable = indexed.read(source, known)
    exams, lost = group(table, single_image=single_image, unreadable=unreadable, remarks={})
    return Intake(exams, [{"path": path, "reason": reason} for path, reason in unreadable.items()] + lost, table)
