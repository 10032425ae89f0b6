"""DICOMDIR: which of the files on a medium belong to it (PS3.10 section 8, PS3.3 annex F)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spicula import headers
from spicula.catalog.dicom_header import sequence, text, texts
from spicula.catalog.tree import Rejection, reject
from spicula.errors import RejectedImageError

NAME = "DICOMDIR"
#: Largest DICOMDIR that is read, in bytes: about 100,000 images.
MAX_BYTES = 2**26
# PS3.10 8.2: 8 components of 8 capital letters, digits and underscores; programs in use write longer ones, and dots.
_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_MAX_COMPONENTS = 8


@dataclass
class _Medium:
    """A folder with a DICOMDIR: what lies below it, and what its records name."""

    path: str
    files: dict[str, str] = field(default_factory=dict)  # name in capitals, relative to the medium -> path


def folder_of(path: Path) -> Path:
    """Return the folder of a DICOMDIR; any other path as it is."""
    return path.parent if path.name.upper() == NAME and path.is_file() else path


def select(
    folder: Path, paths: Iterable[str], elsewhere: Mapping[str, Path] | None = None
) -> tuple[list[str], list[Rejection]]:
    """Return the files to read: below a DICOMDIR those that it names, elsewhere all.

    The names that a DICOMDIR gives are only looked up among the files that were listed; none becomes a path. Where a
    DICOMDIR cannot be read, its folder is taken as one without.

    Args:
        folder: the root.
        paths: every file below it, relative to it.
        elsewhere: path -> the file to read instead, of DICOMDIRs that are no files of the folder.

    Returns:
        Paths in the given order, without the DICOMDIRs, and what is wrong with these.
    """
    paths = list(paths)
    media = {path[: -len(NAME)]: _Medium(path) for path in paths if _name(path) == NAME}
    rejected: list[Rejection] = []
    named: dict[str, set[str]] = {}
    plain: list[str] = []
    for path in paths:
        prefix = _prefix_of(path, media)
        if _name(path) == NAME:
            continue
        if prefix is None:
            plain.append(path)
        else:
            media[prefix].files[path[len(prefix) :].upper()] = path
    for prefix, medium in media.items():
        found, problems = _read((elsewhere or {}).get(medium.path, folder / medium.path), medium)
        rejected += problems
        if found is not None:
            named[prefix] = found
            others = len(medium.files) - len(found)
            if others:
                reason = f"does not name {others} of the files beside and below it; to read these, move it away"
                rejected.append(reject(medium.path, reason))
    kept = set(plain).union(*(named.get(prefix, set(medium.files.values())) for prefix, medium in media.items()))
    return [path for path in paths if path in kept], rejected


def _name(path: str) -> str:
    return path.rpartition("/")[2].upper()


def _prefix_of(path: str, media: dict[str, _Medium]) -> str | None:
    """Return the folder of the nearest DICOMDIR above a path, with its slash; None where there is none."""
    folder = path.rpartition("/")[0]
    while media:
        prefix = f"{folder}/" if folder else ""
        if prefix in media:
            return prefix
        if not folder:
            return None
        folder = folder.rpartition("/")[0]
    return None


def _read(file: Path, medium: _Medium) -> tuple[set[str] | None, list[Rejection]]:
    """Return the files that a DICOMDIR names, or None when it cannot be read; and what is wrong with it."""
    try:
        directory = headers.read_dicom(file, longest=MAX_BYTES)
    except RejectedImageError as error:
        return None, [reject(medium.path, f"{error}; all files of its folder are read instead")]
    records = sequence(directory, "DirectoryRecordSequence")
    if not records:
        return None, [reject(medium.path, "names no files; all files of its folder are read instead")]
    found: set[str] = set()
    rejected = []
    for number, record in enumerate(records, start=1):
        components = texts(record, "ReferencedFileID")
        if not components or text(record, "RecordInUseFlag") == "0":  # no file of its own; deleted (PS3.3 F.3.2.2)
            continue
        if len(components) > _MAX_COMPONENTS or not all(_COMPONENT.fullmatch(one) for one in components):
            rejected.append(reject(medium.path, f"record {number} names a file in a way that is none of DICOM's"))
            continue
        path = medium.files.get("/".join(components).upper())
        if path is None:
            rejected.append(reject(medium.path, f"record {number} names a file that is not there"))
        else:
            found.add(path)
    return found, rejected
