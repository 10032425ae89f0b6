"""Walking a dataset's folder: every file once, in the same order everywhere."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula import index
from spicula.errors import SpiculaError
from spicula.progress import progress, say

#: What lies beside images in archives; other files that an adapter does not know are reported.
_DOCUMENTS = (
    *(".txt", ".md", ".pdf", ".csv", ".json", ".xls", ".xlsx", ".parquet", ".tcia"),
    *(".sh", ".py", ".html", ".gz", ".tgz", ".zip"),
)
_DOCUMENT_NAMES = ("readme", "licence", "license", "thumbs.db")

Rejection = dict[str, str]


def walk(folder: Path) -> Iterator[str]:
    """Yield the files below a folder, as sorted paths relative to it with forward slashes.

    Hidden files and folders and the resource forks of macOS (`__MACOSX`) are left out. A link to a folder is not
    followed; it, and a folder that cannot be listed, are named on stderr and are paths themselves, which are no files.

    Raises:
        SpiculaError: the folder itself cannot be listed.
    """
    return progress(_walk(folder), f"listing {folder.name}", "files")


def _walk(folder: Path) -> Iterator[str]:
    root = os.fspath(folder)
    errors: list[OSError] = []
    links: list[str] = []
    for parent, folders, names in os.walk(root, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        prefix = "" if parent == root else parent[len(root) :].strip(os.sep).replace(os.sep, "/") + "/"
        links += [prefix + name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted(names):
            if not name.startswith("."):
                yield prefix + name
    for path in links:
        say(f"{ascii(path)[1:-1]} is a link to a folder, which is not followed")
        yield path
    for error in errors:
        path = os.path.relpath(error.filename, root).replace(os.sep, "/")
        if path == ".":
            raise SpiculaError(f"cannot list {folder}: {error.strerror}; check its rights")
        say(f"{ascii(path)[1:-1]} cannot be listed ({error.strerror}); what it holds is left out")
        yield path


def is_document(path: str) -> bool:
    """Say whether a path's name is one of the texts, tables and archives that lie beside images."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(_DOCUMENTS) or name in _DOCUMENT_NAMES


def without_copies(folder: Path, paths: Iterable[str]) -> tuple[list[str], list[Rejection]]:
    """Keep one file of each name, that nearest to the root.

    Some archives hold their whole tree twice. Copies of the same name and size are reported in one row for each
    top-level folder that they lie in; a file of the same name but another size is reported by itself.

    Returns:
        The paths kept, sorted, and what was left out.
    """
    kept: dict[str, str] = {}
    others: list[str] = []
    for path in paths:
        name = path.rpartition("/")[2]
        known = kept.setdefault(name, path)
        if known is path:
            continue
        nearer, farther = sorted((known, path), key=lambda one: (one.count("/"), one))
        kept[name] = nearer
        others.append(farther)
    return sorted(kept.values()), _report_copies(folder, kept, others)


def _report_copies(folder: Path, kept: dict[str, str], others: list[str]) -> list[Rejection]:
    copies: dict[str, int] = {}
    rejected = []
    for path in others:
        original = kept[path.rpartition("/")[2]]
        if (folder / path).stat().st_size == (folder / original).stat().st_size:
            top = path.partition("/")[0]
            copies[top] = copies.get(top, 0) + 1
        else:
            rejected.append(reject(path, f"has the name of {original}, which is indexed, but another size"))
    for top, count in copies.items():
        rejected.append(reject(top, f"{count} files below have the name and size of files indexed from elsewhere"))
    return rejected


def reject(path: str, reason: str) -> Rejection:
    """Return a row of the rejected table; what is not Unicode in a path is replaced."""
    return {"path": path.encode("utf-8", "replace").decode(), "reason": reason}


def is_text(path: str) -> bool:
    """Say whether a path is proper Unicode, as the Index needs it; names in another encoding are not."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def rejected_table(rows: Iterable[Rejection]) -> pa.Table:
    """Return `spicula.index.REJECTED` with these rows."""
    return pa.Table.from_pylist(list(rows), schema=index.REJECTED)


def rows_by_name(
    folder: Path, parse: Callable[[str], dict[str, Any] | str]
) -> tuple[list[dict[str, Any]], list[Rejection]]:
    """Read a tree whose files say all in their names; documents are passed over, copies reported.

    Args:
        folder: the tree.
        parse: takes a relative path, and returns its row of the Index, or what is wrong with it.

    Returns:
        Rows, and what was rejected.
    """
    paths, rejected = without_copies(folder, (path for path in walk(folder) if not is_document(path)))
    rows = []
    for path in paths:
        row = parse(path)
        if isinstance(row, str):
            rejected.append(reject(path, row))
        else:
            rows.append(row)
    return rows, rejected
