"""Archives that are files on a web server: continued by range, checked by the archive's own list where it has one."""

import base64
import functools
import gzip
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from spicula import files
from spicula.acquire import credentials, records
from spicula.acquire.sources import Files
from spicula.acquire.transfer import Client, Refused, Retry, forget, host_of, part_of, patiently
from spicula.acquire.types import Item, Request
from spicula.errors import SpiculaError, UsageError

if TYPE_CHECKING:
    import requests

    from spicula.acquire.mirror import Mirror

#: How a line of a list of SHA-256 looks (coreutils): the hash, space, perhaps `*`, the path.
_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S+)")
#: A path of such a list that is stored: plain names, nothing hidden, nothing above.
_PATH = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,199}(?:/[0-9A-Za-z_][0-9A-Za-z._-]{0,199}){0,9}")
# How files begin that carry a CRC-32 of their own, by suffix (RFC 1952; PKWARE's APPNOTE 4.3.7).
_MAGIC = {".gz": b"\x1f\x8b", ".zip": b"PK\x03\x04", ".xlsx": b"PK\x03\x04"}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BY_LIST = "SHA-256 by the archive's list"
_BY_ITSELF = "size, and CRC-32 inside the file: the archive publishes no checksum"
_BY_SIZE = "size only: the archive publishes no checksum"


def items(request: Request, archive: Files, mirror: "Mirror | None" = None) -> list[Item]:
    """Return the files of an archive that a request selects, tables before images.

    All that is fetched is the archive's own list, where it has one: from the target or the mirror if it is whole there.

    Args:
        request: the request.
        archive: where the files are.
        mirror: a copy that may have the list.

    Raises:
        UsageError: a login is needed and there is none, or no such patient.
        SpiculaError: the server does not answer, does not let the user in, or its list of files is refused.
    """
    server = _Server(request, archive)
    found = [_item(name, None, server, request.to) for name in archive.names]
    if archive.checksums:
        content = _former(archive, request.to, mirror) or server.content(archive.checksums)
        chosen = _of_patients(_checksums(content, archive.checksums), request, archive.patients_in)
        found.append(_item_of(content, archive.checksums, archive))
        found += [_item(name, sha256, server, request.to) for name, sha256 in chosen.items()]
    return found


def _former(archive: Files, to: Path, mirror: "Mirror | None") -> bytes | None:
    """Return an archive's list from where it is already. It belongs to one version, and does not change.

    One that the user put into the target is taken, too: with it, files that he fetched himself are checked.
    """
    name = str(archive.checksums)
    if records.whole(to, archive.base + name) or (to / name).is_file():
        return (to / name).read_bytes()
    if mirror is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        if mirror.fetch(archive.base + name, name, Path(folder), lambda count: None) is None:
            return None
        return (Path(folder) / name).read_bytes()


class _Server:
    """Where an archive's files come from, and who asks for them."""

    def __init__(self, request: Request, archive: Files) -> None:
        self.archive = archive
        self._request = request
        self._base = f"{(request.server or archive.base).rstrip('/')}/"
        self._client = Client(http=self._base.startswith("http:"))

    @functools.cached_property
    def _auth(self) -> "_Login | None":
        """The user's login, asked for when something is to be fetched: what is there already needs none."""
        return _login(self._request, self.archive, self._base) if self.archive.login else None

    def content(self, name: str) -> bytes:
        auth = self._auth
        with self._in_words(name):
            answer = patiently(lambda: self._client.get(self._base + name, auth=auth))
        content: bytes = answer.content
        if self.archive.login and content.lstrip().startswith(b"<"):
            raise SpiculaError(f"{host_of(self._base)} answers with a page instead of {name}: {self.archive.rights}")
        return content

    def fetch(self, name: str, path: Path, tell: Callable[[int], None]) -> None:
        magic = _MAGIC.get(path.suffix, b"")
        with self._in_words(name):
            self._client.fetch(self._base + name, path, tell, auth=self._auth, magic=magic)

    @contextmanager
    def _in_words(self, name: str) -> Iterator[None]:
        """Say what a user can do where a server will not give a file."""
        try:
            yield
        except Refused as error:
            if error.status in (401, 403) and self.archive.login:
                raise SpiculaError(
                    f"{host_of(self._base)} does not let you in (HTTP status {error.status}): check the user name and "
                    f"the password; {self.archive.rights}"
                ) from None
            if error.status != 416 and self.archive.page:
                raise SpiculaError(
                    f"{error}: fetch {name} by hand from {self.archive.page}, put it into the target, run this again"
                ) from None
            raise


class _Login:
    """The user's login for one server, sent to no other host and never in the clear but to this machine itself."""

    def __init__(self, login: credentials.Login, host: str) -> None:
        self._token = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        self._host = host

    def __call__(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        url = urlsplit(request.url or "")
        if url.hostname == self._host and (url.scheme == "https" or self._host in _LOOPBACK):
            request.headers["Authorization"] = f"Basic {self._token}"
        return request


def _login(request: Request, archive: Files, base: str) -> _Login:
    host = host_of(base)
    if not base.startswith("https:") and host not in _LOOPBACK:
        raise UsageError(f"{base}: a password is never sent over plain http; take an https:// address")
    return _Login(credentials.find(host, request.credentials), host)


def _checksums(content: bytes, name: str) -> dict[str, str]:
    """Return path -> SHA-256 of an archive's list.

    Raises:
        SpiculaError: a line is none of such a list, names a path that is not a plain relative one, or one twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        path = match[2].removeprefix("./") if match else ""
        if match is None or not _PATH.fullmatch(path) or path in found:
            raise SpiculaError(
                f"line {number} of the archive's {name} is no SHA-256 and plain path, or names one twice"
            )
        found[path] = match[1].lower()
    if not found:
        raise SpiculaError(f"the archive's {name} is empty")
    return found


def _of_patients(names: Mapping[str, str], request: Request, folder: str | None) -> dict[str, str]:
    """Return the files of the patients that are asked for, and all that belong to none, those first."""
    patients = {name: parts[1] for name in names if len(parts := name.split("/")) > 2 and parts[0] == folder}
    chosen = sorted(set(patients.values()))
    if request.patient_ids:
        chosen = [patient for patient in chosen if patient in request.patient_ids]
        if not chosen:
            raise UsageError(f"--patient: no such patient in {request.what}; its folders in {folder}/ name them")
    wanted = set(chosen[: request.patients])
    tables = {name: sha256 for name, sha256 in names.items() if name not in patients}
    images = {name: names[name] for name in sorted(patients) if patients[name] in wanted}
    return tables | images


def _item(name: str, sha256: str | None, server: _Server, to: Path) -> Item:
    def fetch(folder: Path, tell: Callable[[int], None]) -> str:
        path = folder / PurePosixPath(name).name
        there = to / name
        if there.is_file() and (checks := _checked(there, sha256, as_it_is=bool(server.archive.page))):
            forget(path)
            shutil.copyfile(there, part_of(path))
            part_of(path).replace(path)
            return f"{checks}; it was there already"
        try:
            server.fetch(name, path, tell)
        except Refused as error:
            if error.status == 416:  # the part is no part of what is there now
                forget(path)
                raise Retry("the server has less of the file than came before") from None
            raise
        if checks := _checked(path, sha256):
            return checks
        forget(path)
        raise Retry(f"it arrived with {'the wrong SHA-256' if sha256 else 'another content than such a file has'}")

    return Item(server.archive.base + name, name, None, fetch)


def _item_of(content: bytes, name: str, archive: Files) -> Item:
    """Return the item of a file that was fetched already."""

    def fetch(folder: Path, tell: Callable[[int], None]) -> str:
        files.write_bytes(folder / name, content)
        tell(len(content))
        return _BY_SIZE

    return Item(archive.base + name, name, len(content), fetch)


def _checked(path: Path, sha256: str | None, as_it_is: bool = True) -> str:
    """Return the check that a file passed, in words; empty where it failed.

    Args:
        path: of the file.
        sha256: what the archive's list says.
        as_it_is: whether a file that nothing can check passes.
    """
    if sha256:
        return _BY_LIST if files.sha256_file(path) == sha256 else ""
    if path.suffix in _MAGIC:
        return _BY_ITSELF if _is_sound(path) else ""
    with path.open("rb") as stream:
        is_page = stream.read(512).lstrip().startswith(b"<")
    return _BY_SIZE if as_it_is and not is_page else ""


def _is_sound(path: Path) -> bool:
    """Say whether a gzip or zip file is whole by its own CRC-32, reading it to its end."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                while stream.read(2**20):
                    pass
            return True
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False
