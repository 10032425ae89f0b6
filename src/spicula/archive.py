"""The one unpacker of archives (zip, tar, tar.gz): nothing outside the folder, nothing but files, nothing half done.

An archive is refused as a whole at the first member that breaks a rule.
"""

import fcntl
import gzip
import os
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

from spicula import files
from spicula.errors import SpiculaError
from spicula.progress import progress


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        ratio: unpacked bytes for one byte of the archive, at most.
        total_bytes: unpacked bytes, at most.
        members: files and folders, at most.
        name_length: characters of a member's name, at most.
    """

    ratio: int = 200
    total_bytes: int = 2**39
    members: int = 4_000_000
    name_length: int = 1_000


#: What `unpack` enforces. The largest set of the catalog today has 555,000 files and unpacks to 4 GB.
LIMITS = Limits()

#: In the root of an unpacked folder: from which archive, and how much. It is there when unpacking went to the end.
MARKER = ".unpacked.json"

_CHUNK_BYTES = 2**20
# tarfile reads long names and extended headers in one piece, of the size that the archive declares
_MAX_READ_BYTES = 2**24


def is_archive(path: Path) -> bool:
    """Say whether a file is a zip, tar or gzip file, by its first bytes."""
    return Path(path).is_file() and _kind(Path(path)) is not None


def unpack(archive: Path, unpack_to: Path, limits: Limits = LIMITS) -> Path:
    """Unpack an archive into a folder of its own below `unpack_to`, unless that was done before.

    The folder has the archive's name without its suffixes, and is there only when the archive was unpacked to its end.
    It is kept as long as the archive has the same size and time of change and the folder the same files.

    Args:
        archive: a zip, tar or tar.gz file, recognised by content.
        unpack_to: the folder to make the folder in.
        limits: what is refused.

    Returns:
        The folder.

    Raises:
        SpiculaError: the archive is damaged, breaks a limit, or holds a path outside the folder, a link, a device or an
            encrypted file; or the disk is full.
    """
    archive = Path(archive)
    folder = Path(unpack_to) / _folder_name(archive)
    try:
        Path(unpack_to).mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not _is_whole(folder, archive):
                _unpack_anew(archive, folder, limits)
    except OSError as error:
        way_out = "check the folder's rights and free space"
        raise SpiculaError(f"cannot unpack {archive} into {unpack_to}: {error.strerror or error}; {way_out}") from error
    return folder


def unpack_into(archive: Path, folder: Path, limits: Limits = LIMITS) -> None:
    """Unpack an archive into an empty folder, which is the caller's to sync, to rename, or to remove where this fails.

    Args:
        archive: a zip, tar or tar.gz file, recognised by content.
        folder: an empty one.
        limits: what is refused.

    Raises:
        SpiculaError: as `unpack` does.
        OSError: a file cannot be written.
    """
    writer = _Writer(archive, folder, limits)
    for member in _members(archive, limits)[0]:
        writer.write(member)


def _unpack_anew(archive: Path, folder: Path, limits: Limits) -> None:
    prefix = f".part-{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of a run that was killed: the lock says that none is at work
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        writer = _Writer(archive, temporary, limits)
        members, total = _members(archive, limits)
        for member in progress(members, f"unpacking {archive.name}", "files", total):
            writer.write(member)
        files.write_json(temporary / MARKER, {**_identity(archive), "files": writer.files, "bytes": writer.bytes})
        temporary.chmod(0o755)
        os.sync()
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, folder: Path) -> None:
    if folder.exists():
        if not (folder / MARKER).is_file():
            raise SpiculaError(f"{folder} is there and was not unpacked by spicula; move it away or unpack elsewhere")
        old = Path(tempfile.mkdtemp(prefix=f".part-{folder.name}-", dir=folder.parent))
        folder.rename(old / "old")
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path, archive: Path) -> bool:
    """Say whether the folder is this archive unpacked, with nothing lost since."""
    import json

    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    if any(marker.get(key) != value for key, value in _identity(archive).items()):
        return False
    count = size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            count += 1
            size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - half a million files
    own = (folder / MARKER).stat().st_size
    return bool((count - 1, size - own) == (marker.get("files"), marker.get("bytes")))


def _identity(archive: Path) -> dict[str, Any]:
    status = archive.stat()
    return {"archive": archive.name, "archive_bytes": status.st_size, "archive_mtime_ns": status.st_mtime_ns}


def _folder_name(archive: Path) -> str:
    name = archive.name
    for suffix in (".tar.gz", ".tgz", ".tar", ".zip"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return f"{name}-unpacked"


def _kind(archive: Path) -> str | None:
    with archive.open("rb") as stream:
        head = stream.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz"
    return "tar" if head[257:262] == b"ustar" else None


@dataclass(frozen=True)
class _Member:
    """A folder (no stream) or a file of an archive."""

    name: str
    size: int
    stream: IO[bytes] | None


class _Writer:
    """Writes members below a folder and counts what it wrote against the limits."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self._archive = archive
        self._folder = folder
        self._limits = limits
        self._budget = min(limits.total_bytes, limits.ratio * archive.stat().st_size)
        self._members = 0
        self._made = {folder}
        self.files = 0
        self.bytes = 0

    def write(self, member: _Member) -> None:
        self._members += 1
        if self._members > self._limits.members:
            _refuse(self._archive, f"it has more than {self._limits.members} members")
        target = self._folder / _safe_path(self._archive, member.name, self._limits.name_length)
        try:
            self._make(target if member.stream is None else target.parent)
            if member.stream is not None:
                self._write_file(target, member)
        except (FileExistsError, NotADirectoryError) as error:
            raise SpiculaError(
                f"{self._archive} was refused: it has {member.name!r} twice, or as a file and a folder"
            ) from error

    def _make(self, folder: Path) -> None:
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)

    def _write_file(self, target: Path, member: _Member) -> None:
        assert member.stream is not None
        if self.bytes + member.size > self._budget:
            self._refuse_size()
        written = 0
        with target.open("xb") as output:
            while chunk := _read(self._archive, member):
                written += len(chunk)
                if self.bytes + written > self._budget:
                    self._refuse_size()
                output.write(chunk)
        if written != member.size:
            _refuse(self._archive, f"{member.name!r} is cut short")
        self.files += 1
        self.bytes += written

    def _refuse_size(self) -> NoReturn:
        limits = self._limits
        _refuse(
            self._archive,
            f"it unpacks to more than {limits.ratio} times its size or more than {limits.total_bytes} bytes",
        )


def _read(archive: Path, member: _Member) -> bytes:
    assert member.stream is not None
    with _damage_named(archive):
        return member.stream.read(_CHUNK_BYTES)


def _refuse(archive: Path, reason: str) -> NoReturn:
    raise SpiculaError(f"{archive} was refused: {reason}")


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except SpiculaError:
        raise
    except Exception as error:  # of hostile bytes, these libraries raise nearly anything
        raise SpiculaError(f"{archive} is damaged or cut short ({type(error).__name__}); download it again") from error


def _safe_path(archive: Path, name: str, longest: int) -> PurePosixPath:
    shown = ascii(name[:100])
    if len(name) > longest:
        _refuse(archive, f"it has a name of over {longest} characters, {shown}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        _refuse(archive, f"it has control characters in the name {shown}")
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        _refuse(archive, f"it has an absolute or foreign path, {shown}")
    path = PurePosixPath(name)
    if path.name == MARKER:
        _refuse(archive, f"it has a file named {MARKER}, which Spicula keeps for itself")
    if ".." in path.parts:
        _refuse(archive, f"it has a path that leads out of its folder, {shown}")
    return path


def _members(archive: Path, limits: Limits) -> tuple[Iterator[_Member], int | None]:
    """Return the members, to be read one after the other, and how many there are, where the archive says so."""
    if _kind(archive) != "zip":
        return _tar_members(archive, limits), None
    with _damage_named(archive):
        opened = zipfile.ZipFile(archive)
    return _zip_members(archive, opened), len(opened.filelist)


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    with opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(archive, f"{info.filename!r} is a link or a device")
            if info.flag_bits & 0x1:
                _refuse(archive, f"{info.filename!r} is encrypted")
            if info.is_dir():
                yield _Member(info.orig_filename, 0, None)
                continue
            with _damage_named(archive):
                stream = opened.open(info)
            with stream:
                yield _Member(info.orig_filename, info.file_size, stream)


def _tar_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with archive.open("rb") as raw:
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if _kind(archive) == "tar.gz" else raw
        source = _TarSource(archive, plain, min(limits.total_bytes, limits.ratio * archive.stat().st_size) + 2**20)
        with _damage_named(archive):
            opened = tarfile.TarFile(fileobj=cast("IO[bytes]", source))
        while True:
            with _damage_named(archive):
                info = opened.next()
            if info is None:
                break
            opened.members = []  # type: ignore[attr-defined] # tarfile would keep them all
            yield _tar_member(archive, opened, info)
        if source.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end as well
            _refuse(archive, "it stops without its end mark: it is damaged or cut short")
        with _damage_named(archive):
            while source.read(_CHUNK_BYTES):  # to the checksum of gzip
                pass


def _tar_member(archive: Path, opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if info.isdir():
        return _Member(info.name, 0, None)
    if not info.isreg() or info.sparse is not None:
        _refuse(archive, f"{info.name!r} is a link, a device or a sparse file")
    if info.size < 0:
        _refuse(archive, f"{info.name!r} has a negative size")
    with _damage_named(archive):
        return _Member(info.name, info.size, opened.extractfile(info))


class _TarSource:
    """The unpacked bytes of a tar file, for tarfile to read: counted, and none read in one huge piece."""

    def __init__(self, archive: Path, stream: IO[bytes], budget: int) -> None:
        self._archive = archive
        self._stream = stream
        self._budget = budget
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            _refuse(self._archive, f"one of its headers declares {size} bytes")
        self.last = self._stream.read(size)
        self._check()
        return self.last

    def seek(self, offset: int) -> int:
        position = self._stream.seek(offset)
        self._check()
        return position

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self) -> None:
        if self._stream.tell() > self._budget:
            _refuse(self._archive, f"it unpacks to more than its limit of {self._budget} bytes")
