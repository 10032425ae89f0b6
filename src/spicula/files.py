"""The one writer of files: temporary name, sync, rename, so that no half file is ever visible."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula.errors import SpiculaError

if TYPE_CHECKING:
    import pyarrow as pa

#: How the names of files begin that are being written; a kill leaves them behind.
TEMPORARY = ".part-"


def _read_umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


# Read once: it can only be read by changing it, which must not happen while several threads make files.
_UMASK = _read_umask()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, on failure remove it.

    The temporary name keeps the suffix of `path`, for writers that choose their format by it.

    Raises:
        SpiculaError: the folder cannot be written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        sync(temporary)
        temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
        temporary = None
        sync(path.parent)
    except OSError as error:
        if not _is_about_writing(error, path.parent):
            raise
        raise SpiculaError(
            f"cannot write {path}: {error.strerror}; check the folder's rights and free space"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file as long as the context lasts; it is made when missing, and stays. A kill lets go of it.

    Args:
        path: the lock file. Nothing is written into it.
        busy: what to say when another process holds it.

    Raises:
        SpiculaError: another process holds it, or its folder cannot be written to.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        raise SpiculaError(f"cannot write to {path.parent}: {error.strerror}; check the folder's rights") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SpiculaError(busy) from error
        yield


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: "pa.Table") -> None:
    """Write an Arrow table to `path` atomically, as Parquet."""
    import pyarrow.parquet as pq  # here alone: workers that write no table need not wait for it

    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def place_folder(folder: Path, path: Path) -> None:
    """Make a folder that is whole appear at `path`, on the same file system, synced and by one rename.

    Args:
        folder: it is gone afterwards.
        path: where nothing is, or an empty folder.
    """
    for each in sorted(folder.rglob("*"), reverse=True):
        sync(each)
    sync(folder)
    new = _make_parents(path)
    folder.rename(path)
    for parent in new:
        sync(parent)


def place_file(file: Path, path: Path) -> None:
    """Make a file that is whole appear at `path`, on the same file system, synced and by one rename."""
    sync(file)
    new = _make_parents(path)
    file.replace(path)
    for parent in new:
        sync(parent)


def _make_parents(path: Path) -> list[Path]:
    """Make the folders above `path`; return those in which a name is new once `path` is there, the deepest first."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return [path.parent, *(parent.parent for parent in missing)]


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in lower-case hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk, so that it outlasts a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_about_writing(error: OSError, folder: Path) -> bool:
    """Whether the error is the target's, and not that of something else read while writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return True
    return error.filename is not None and Path(error.filename).is_relative_to(folder)
