"""What is whole in a target: one record an item, written last, in `.spicula/items`.

What is not whole lies in `.spicula/partial`, in a folder an item.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from spicula import files

#: The folder of our own in a target and in a mirror.
OWN = ".spicula"


@dataclass(frozen=True)
class File:
    """One file of an item.

    Attributes:
        path: relative to the target.
        bytes: its size.
        sha256: of its content, in lower-case hexadecimal.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """An item that is whole.

    Attributes:
        key: of the item.
        place: relative to the target: the folder that holds the files, or the file.
        files: all of them.
        checks: what was checked when it was fetched.
        source: where it came from.
    """

    key: str
    place: str
    files: tuple[File, ...]
    checks: str
    source: Literal["upstream", "mirror"]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def is_file(self) -> bool:
        """Whether the item is one file, at `place`, and no folder."""
        return len(self.files) == 1 and self.files[0].path == self.place

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return asdict(self) | {"files": [asdict(file) for file in self.files]}


def digest(key: str) -> str:
    """Return the name under which an item's record and unfinished files are kept."""
    return hashlib.sha256(key.encode()).hexdigest()


def record_path(root: Path, key: str) -> Path:
    """Return where the record of an item lies, below a target (or a local mirror)."""
    return root / OWN / "items" / f"{digest(key)}.json"


def partial_path(root: Path, key: str) -> Path:
    """Return the folder in which an item is fetched, below a target."""
    return root / OWN / "partial" / digest(key)


def mirror_path(root: Path, key: str) -> Path:
    """Return the folder in which an item is copied from a mirror, below a target."""
    return partial_path(root, key).with_suffix(".mirror")


def sweep(root: Path) -> None:
    """Remove what a download that was killed was just writing. Nobody else may work in the target meanwhile."""
    for leftover in (*(root / OWN).rglob(f"{files.TEMPORARY}*"), *root.glob(f"{files.TEMPORARY}*.csv")):
        leftover.unlink()


def whole(root: Path, key: str) -> Record | None:
    """Return the record of an item that is whole in a target, else None. The files' sizes are looked at, no content.

    An item that was killed on its way to its place is brought there.
    """
    pending = _pending_path(root, key)
    if (record := _read(pending)) is not None:
        came = [folder for folder in (partial_path(root, key), mirror_path(root, key)) if _holds(folder, record)]
        if came:
            publish(root, came[0], record)
        elif is_whole(root, record):
            _make_final(root, record)
            shutil.rmtree(partial_path(root, key), ignore_errors=True)
        pending.unlink(missing_ok=True)
    record = _read(record_path(root, key))
    return record if record is not None and record.key == key and is_whole(root, record) else None


def publish(root: Path, folder: Path, record: Record) -> None:
    """Bring an item's files to their place, and then its record.

    The record is written beside the folder first: whenever this is killed, `whole` can go on from there.

    Args:
        root: the target.
        folder: holds the item's files, and nothing else; it is gone afterwards.
        record: what `describe` said of it.
    """
    _write(_pending_path(root, record.key), record)
    target, in_the_way = root / record.place, folder.with_suffix(".old")
    shutil.rmtree(in_the_way, ignore_errors=True)
    if target.is_dir():  # of an earlier state without a record, or damaged since
        target.rename(in_the_way)
    if record.is_file:
        inside = folder / target.name
        if inside.exists():
            files.place_file(inside, target)
        shutil.rmtree(folder)
    else:
        files.place_folder(folder, target)
    _make_final(root, record)
    shutil.rmtree(in_the_way, ignore_errors=True)


def _holds(folder: Path, record: Record) -> bool:
    """Say whether a folder holds the files of a record, as `describe` found them, and nothing else."""
    inside = {
        PurePosixPath(record.place).name if record.is_file else file.path.removeprefix(f"{record.place}/"): file.bytes
        for file in record.files
    }
    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return inside == there


def _pending_path(root: Path, key: str) -> Path:
    return root / OWN / "partial" / f"{digest(key)}.json"


def _make_final(root: Path, record: Record) -> None:
    files.place_file(_pending_path(root, record.key), record_path(root, record.key))


def from_json(content: Mapping[str, Any]) -> Record | None:
    """Return a record from JSON; None where it is not one, or names a path that is not a plain relative one."""
    try:
        found = Record(
            key=str(content["key"]),
            place=str(content["place"]),
            files=tuple(File(str(f["path"]), int(f["bytes"]), str(f["sha256"])) for f in content["files"]),
            checks=str(content["checks"]),
            source="mirror" if content["source"] == "mirror" else "upstream",
        )
    except (KeyError, TypeError, ValueError):
        return None
    inside = all(file.path == found.place or file.path.startswith(f"{found.place}/") for file in found.files)
    plain = all(_is_plain(path) for path in (found.place, *(file.path for file in found.files)))
    return found if found.files and plain and inside else None


def _read(path: Path) -> Record | None:
    """Return a record; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return from_json(content) if isinstance(content, dict) else None


def _write(path: Path, record: Record) -> None:
    """Write a record, atomically."""
    files.write_json(path, record.as_json())


def is_whole(root: Path, record: Record) -> bool:
    """Say whether every file of a record is there with its size. Nothing is read."""
    try:
        return all((root / file.path).stat().st_size == file.bytes for file in record.files)
    except OSError:
        return False


def describe(folder: Path, *, key: str, place: str, checks: str, source: Literal["upstream", "mirror"]) -> Record:
    """Return the record of an item whose files still lie in a folder of their own, reading all of them.

    Args:
        folder: holds the item's files: one of the name of `place` where the item is a file.
        key: of the item.
        place: where they will be, relative to the target.
        checks: what was checked.
        source: where they came from.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    is_file = [path.relative_to(folder).as_posix() for path in paths] == [PurePosixPath(place).name]
    found = tuple(
        File(
            place if is_file else f"{place}/{path.relative_to(folder).as_posix()}",
            path.stat().st_size,
            files.sha256_file(path),
        )
        for path in paths
    )
    return Record(key, place, found, checks, source)


def _is_plain(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path and "\0" not in path
