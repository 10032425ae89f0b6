"""What one file is and says: a DICOM mammogram by its header, or any other image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spicula import headers
from spicula.catalog import pacs
from spicula.catalog.build import COLUMNS, facts_of
from spicula.errors import RejectedImageError
from spicula.exams.intake.origins import Origin
from spicula.exams.intake.threads import in_threads
from spicula.headers.dicom import is_dicom
from spicula.headers.opening import opened
from spicula.progress import progress

_HEAD_BYTES = 132  # preamble and magic number (PS3.10 7.1)
#: How reasons begin that can be gone next time without the file having changed.
_PASSING = ("cannot be opened", "cannot be read")

Row = dict[str, Any]


def read_many(origin: Origin, paths: Sequence[str]) -> Iterator[list[Row]]:
    """Yield for each path the rows of its file, in the given order: parsing and hashing overlap in threads.

    Args:
        origin: where the files are.
        paths: relative to it.

    Raises:
        SpiculaError: an object store failed.
    """
    results = in_threads(lambda path: read(origin, path), paths, origin.chunk, origin.threads)
    return progress(results, "reading headers and digests", "files", total=len(paths))


def read(origin: Origin, path: str) -> list[Row]:
    """Return the rows of a file: one an image; without an image one with the reason.

    A row has `kind` ("dicom" or "image"), `path`, `reasons`, and columns of the Index; of an image that is no DICOM
    these are the size, depth and digest alone, for which exam it belongs to is said by its name or a list.

    Raises:
        SpiculaError: an object store failed.
    """
    try:
        with origin.file(path) as file:
            return _read_file(file, path)
    except RejectedImageError as error:
        return [_unusable("image", path, [str(error)])]


def _read_file(file: Path, path: str) -> list[Row]:
    with opened(file) as stream:
        kind = "dicom" if is_dicom(stream.read(_HEAD_BYTES)) else "image"
    if kind == "dicom":
        return _read_dicom(file, path)
    facts = facts_of(file)
    if isinstance(facts, str):
        return [_unusable(kind, path, [facts])]
    return [{"kind": kind, "path": path, "reasons": [], **dict(zip(COLUMNS, facts, strict=True))}]


def is_passing(reason: str) -> bool:
    """Say whether a reason can be gone next time without the file having changed: it could not be opened, or read."""
    return reason.startswith(_PASSING)


def _read_dicom(file: Path, path: str) -> list[Row]:
    try:
        rows, reasons = pacs.read_file(file.parent, path, headers.read_dicom(file))
    except RejectedImageError as error:
        return [_unusable("dicom", path, [str(error)])]
    if not rows:
        return [_unusable("dicom", path, reasons)]
    facts = facts_of(file)
    if isinstance(facts, str):
        return [_unusable("dicom", path, [facts])]
    described = dict(zip(COLUMNS, facts, strict=True))
    return [{"kind": "dicom", "lesions": [], "reasons": reasons, **row, **described} for row in rows]


def _unusable(kind: str, path: str, reasons: list[str]) -> Row:
    return {"kind": kind, "path": path, "reasons": reasons}
