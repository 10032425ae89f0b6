"""Intake: which exams a folder, a bucket or an Index holds, which of their images the classifier can read, and why not.

No converter is asked of anybody: DICOM studies, folders of named images and exam lists are taken as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from spicula import stores
from spicula.catalog.pacs import dicomdir
from spicula.errors import SpiculaError, UsageError
from spicula.exams.intake import content, folder, indexed
from spicula.exams.intake.grouping import group
from spicula.exams.intake.known import Known, place
from spicula.exams.intake.listing import Listing, Problem, is_temporary
from spicula.exams.intake.origins import Origin, origin_of
from spicula.exams.types import ExamInput

__all__ = [
    "Intake",
    "Known",
    "Listing",
    "Origin",
    "Problem",
    "is_temporary",
    "origin_of",
    "place",
    "read",
    "read_listing",
]

#: How reasons of the catalog begin that are about an image which is used all the same.
REMARK = "indexed, but "


@dataclass(frozen=True)
class Intake:
    """What a folder, a bucket or an Index holds.

    Attributes:
        exams: every exam, also those that are refused; in the order in which they were found.
        problems: `path` and `reason` of files and rows that belong to no exam, and of what is odd about others.
        index: the images, an Index (`spicula.index.SCHEMA`), with those that no exam uses.
    """

    exams: list[ExamInput]
    problems: list[Problem]
    index: pa.Table

    @property
    def is_passing(self) -> bool:
        """Whether a file could not be opened or read, which may be otherwise next time though it did not change."""
        return any(content.is_passing(problem["reason"]) for problem in self.problems)


def read(source: Path | str, *, known: Known | None = None, single_image: bool = False) -> Intake:
    """Read exams from an Index, a folder, or a bucket.

    Args:
        source: an Index (.parquet) of any dataset with exams; or a folder (or its DICOMDIR), `s3://BUCKET/PREFIX` or
            `gs://BUCKET/PREFIX` with DICOM studies, exam folders, exam lists, or all of these.
        known: what is known of the source from the last time; it is brought up to date and saved.
        single_image: take exams of which views are missing: images are to get scores of their own.

    Raises:
        UsageError: there is no such folder, bucket or Index, or nothing in it that belongs to an exam; the package that
            reaches the bucket is missing.
        SpiculaError: the Index is none, or the folder or bucket cannot be listed or read.
    """
    known = known if known is not None else Known()
    if isinstance(source, str) and stores.is_remote(source):
        found = _read_remote(stores.place_of(source), known, single_image)
    else:
        found = _read_local(dicomdir.folder_of(Path(source)), known, single_image)
    known.save()
    return found


def _read_local(source: Path, known: Known, single_image: bool) -> Intake:
    if source.is_dir():
        return _read_all(source, known, single_image)
    if source.suffix == ".parquet":
        return _read_index(source, str(source), known, single_image)
    if source.exists():
        raise UsageError(f"{source} is neither a folder nor an Index (.parquet); unpack an archive first")
    raise UsageError(f"nothing at {source}; name a folder of exams, {stores.EXPECTED}, or an Index (.parquet)")


def _read_remote(address: str, known: Known, single_image: bool) -> Intake:
    if not address.endswith(".parquet"):
        return _read_all(address, known, single_image)
    try:
        with stores.fetched(address, ".parquet") as file:
            return _read_index(file, address, known, single_image)
    except FileNotFoundError:
        raise UsageError(f"no Index at {address}") from None
    except OSError as error:
        raise SpiculaError(f"{address}: {error}") from None


def _read_all(source: Path | str, known: Known, single_image: bool) -> Intake:
    origin = origin_of(source)
    found = read_listing(origin, origin.listing(), known, single_image=single_image)
    if not found.exams:
        raise UsageError(_nothing_in(source, found.problems))
    return found


def read_listing(origin: Origin, listing: Listing, known: Known, *, single_image: bool = False) -> Intake:
    """Read exams from files of a folder or bucket; `known` is brought up to date, and not saved.

    Args:
        origin: the folder or bucket, see `origin_of`.
        listing: those of its files that are to be read.
        known: what is known of them.
        single_image: see `read`.

    Raises:
        SpiculaError: an object store failed.
    """
    table, problems = folder.read(origin, listing, known)
    remarks: dict[str, list[str]] = {}
    for problem in problems:
        if problem["reason"].startswith(REMARK):
            remarks.setdefault(problem["path"], []).append(problem["reason"].removeprefix(REMARK))
    exams, lost = group(table, single_image=single_image, unreadable={}, remarks=remarks)
    return Intake(exams, problems + lost, table)


def _nothing_in(source: Path | str, problems: Sequence[Problem]) -> str:
    message = (
        f"no exams in {source}; it should hold DICOM mammograms, or images that are named by their view "
        "(EXAM/L_CC.png, L_MLO.png, R_CC.png, R_MLO.png) or by an exam list; for anything else make an Index with "
        "spicula index, and name that"
    )
    if problems:
        message += f"; {len(problems)} files cannot be used, the first {problems[0]['path']}: {problems[0]['reason']}"
    return message


def _read_index(file: Path, name: str, known: Known, single_image: bool) -> Intake:
    table, unreadable = indexed.read(file, name, known)
    exams, lost = group(table, single_image=single_image, unreadable=unreadable, remarks={})
    if not exams:
        raise UsageError(f"{name} names no exams: none of its {table.num_rows} images has an exam_id")
    return Intake(exams, [{"path": path, "reason": reason} for path, reason in unreadable.items()] + lost, table)
