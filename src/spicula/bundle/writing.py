"""Putting a bundle's folder in place: written beside it, verified, and only then moved where it is to be."""

import secrets
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from spicula import files
from spicula.bundle.sealed import INFO, FileRecord
from spicula.errors import SpiculaError, UsageError


def write_folder(to: Path, names: Collection[str], fill: Callable[[Path], None]) -> Path:
    """Make a bundle's folder.

    Args:
        to: the bundle's folder; a bundle that is there is replaced.
        names: the files that bundles of this kind may have; a folder that holds others is left alone.
        fill: writes the files into the folder that it is given, and verifies them.

    Returns:
        The folder; where `to` is a link, what it leads to.

    Raises:
        UsageError: `to` holds something that is not such a bundle.
        SpiculaError: the files cannot be written, or `fill` found them wrong.
    """
    check_target(to, names)
    to = to.resolve()  # where `to` is a link, what it leads to is replaced
    temporary = to.with_name(f".part-{to.name}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        _put_in_place(temporary, to)
    except OSError as error:
        raise SpiculaError(f"cannot write {to}: {error.strerror}; check the folder's rights and free space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return to


def check_target(to: Path, names: Collection[str]) -> None:
    """Check that a bundle may be put at `to`: a bundle of the same kind may be replaced, nothing else may.

    Raises:
        UsageError: there is something else.
    """
    if not to.exists():
        return
    if not to.is_dir():
        raise UsageError(f"{to} is a file; a bundle is a folder, name another")
    found = {path.name for path in to.iterdir()}
    if found and (INFO not in found or not found <= set(names)):
        raise UsageError(
            f"{to} holds something else than a bundle of this kind, which is left alone; name another folder"
        )


def record(path: Path) -> FileRecord:
    """Return what `bundle.json` says of a file."""
    return {"sha256": files.sha256_file(path), "bytes": path.stat().st_size}


def _put_in_place(temporary: Path, to: Path) -> None:
    if not to.exists():
        temporary.rename(to)
        return
    old = to.with_name(f".old-{to.name}-{secrets.token_hex(4)}")
    to.rename(old)
    try:
        temporary.rename(to)
    except OSError:
        old.rename(to)
        raise
    shutil.rmtree(old)
