"""What bundles of all kinds share: a sealed description, and the checks that refuse a bundle in which one bit differs.

`bundle.json` lists every other file with its SHA-256, and carries a digest of itself: the SHA-256 of its content as
canonical JSON without that key. Because it must also be written exactly as `render` writes it, a changed space is
noticed as well. The digests guard against damage and mix-ups; they are no signature, and say nothing of who made it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from spicula import files
from spicula.bundle.external_data import refers_outside
from spicula.errors import SpiculaError, UsageError

INFO = "bundle.json"
CARD = "MODEL_CARD.md"
#: How the names of files end that hold graphs.
GRAPH = ".onnx"

#: What kinds of bundles there are; one whose `bundle.json` names none is a study's.
STUDY, SCREENING = "study", "screening"
_KINDS = {STUDY: "a classifier of single images", SCREENING: "a classifier of four-view exams"}
_MAKERS = {STUDY: "spicula bundle RUN --to", SCREENING: "spicula bundle import-exam ... --to"}

T = TypeVar("T")

#: Of every part of a `bundle.json`: no key is unknown, no value is converted.
closed = with_config(ConfigDict(extra="forbid", strict=True))


@closed
class FileRecord(TypedDict):
    """One file of the bundle."""

    sha256: str
    bytes: int


def seal(content: Mapping[str, Any]) -> str:
    """Return `bundle.json` as text: `content` with its digest added."""
    bare = {key: value for key, value in content.items() if key != "digest"}
    return render({**bare, "digest": files.sha256_json(bare)})


def render(content: Mapping[str, Any]) -> str:
    """Return the one form in which `bundle.json` is written."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def kind_of(folder: Path) -> str:
    """Return what kind of bundle lies in a folder: STUDY, SCREENING, or what a later version of spicula wrote.

    Raises:
        UsageError: there is no bundle at `folder`.
        SpiculaError: its `bundle.json` is damaged.
    """
    return str(_read_content(Path(folder), STUDY).get("kind", STUDY))


def read_content(folder: Path, kind: str) -> dict[str, Any]:
    """Return the content of a bundle's `bundle.json`, which matches its own digest.

    Args:
        folder: the bundle.
        kind: the kind of bundle that is wanted.

    Raises:
        UsageError: there is no bundle at `folder`, or one of another kind.
        SpiculaError: `bundle.json` is damaged.
    """
    content = _read_content(folder, kind)
    found = content.get("kind", STUDY)
    if found != kind:
        what = _KINDS.get(found, f"of the kind {found!r}") if isinstance(found, str) else "of an unknown kind"
        raise UsageError(
            f"the bundle {folder} is {what}; wanted here is {_KINDS[kind]}, which this makes: {_MAKERS[kind]} DIR"
        )
    return content


def check_names(folder: Path, names: Collection[str]) -> None:
    """Check that a folder holds exactly these files, each a plain one.

    Raises:
        SpiculaError: one is missing, or there is another.
    """
    found = {path.name for path in folder.iterdir()}
    for name in sorted(found - set(names)):
        raise SpiculaError(f"bundle refused: {folder / name} does not belong to a bundle; remove it")
    for name in names:
        path = folder / name
        if name not in found:
            raise SpiculaError(f"bundle refused: {path} is missing; make the bundle again")
        _check_plain(path)


def described(
    folder: Path, content: Mapping[str, Any], schema: TypeAdapter[T], version: int, names: Collection[str]
) -> T:
    """Return the content of `bundle.json` as what it must be.

    Args:
        folder: the bundle, for errors.
        content: what `read_content` returned.
        schema: of it.
        version: of the format that is read.
        names: the files that a bundle of this content has.

    Raises:
        SpiculaError: it has another form, or lists other files.
    """
    path = folder / INFO
    if content.get("format") != version:
        raise SpiculaError(
            f"bundle refused: {path} has format {content.get('format')!r}, this version of spicula reads {version}"
        )
    try:
        info = schema.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SpiculaError(f"bundle refused: {path}: {where}: {first['msg']}") from None
    if set(content["files"]) != set(names) - {INFO}:
        raise SpiculaError(f"bundle refused: {path} lists the files {', '.join(sorted(content['files']))}")
    return info


def read_graphs(folder: Path, listed: Mapping[str, FileRecord]) -> dict[str, bytes]:
    """Verify a bundle's files and return those that hold graphs, as the bytes that were verified.

    Args:
        folder: the bundle.
        listed: what `bundle.json` says of its files.

    Raises:
        SpiculaError: a file is changed, or a graph refers to files outside the bundle.
    """
    graphs = {}
    for name in listed:
        if name.endswith(GRAPH):
            graphs[name] = read_verified(folder, name, listed)
        elif _digest(folder / name) != listed[name]["sha256"]:
            raise _changed(folder / name)
    for name, graph in graphs.items():
        if refers_outside(graph, name):
            raise SpiculaError(f"bundle refused: {folder / name} refers to data outside the file; make it one file")
    return graphs


def read_verified(folder: Path, name: str, listed: Mapping[str, FileRecord]) -> bytes:
    """Return the bytes of one of a bundle's files.

    Args:
        folder: the bundle.
        name: of the file.
        listed: what `bundle.json` says of its files.

    Raises:
        SpiculaError: the file cannot be read, or is changed.
    """
    data = _read_bytes(folder / name)
    if hashlib.sha256(data).hexdigest() != listed[name]["sha256"]:
        raise _changed(folder / name)
    return data


def _changed(path: Path) -> SpiculaError:
    return SpiculaError(f"bundle refused: {path} is not the file that {INFO} lists; make the bundle again")


def _read_content(folder: Path, kind: str) -> dict[str, Any]:
    if not folder.is_dir():
        raise UsageError(f"no bundle at {folder}; make one with: {_MAKERS[kind]} {folder}")
    path = folder / INFO
    if not path.is_file():
        raise SpiculaError(f"{folder} is not a bundle: it has no {INFO}")
    _check_plain(path)
    changed = SpiculaError(f"bundle refused: {path} does not match its own digest; make the bundle again")
    data = _read_bytes(path)
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or seal(content).encode() != data:
            raise changed
    except (ValueError, RecursionError):  # not UTF-8, not JSON, NaN, nested without end
        raise changed from None
    return content


def _check_plain(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise SpiculaError(f"bundle refused: {path} is not a plain file; copy the file itself")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpiculaError(f"cannot read {path}: {error.strerror}") from error


def _digest(path: Path) -> str:
    try:
        return files.sha256_file(path)
    except OSError as error:
        raise SpiculaError(f"cannot read {path}: {error.strerror}") from error
