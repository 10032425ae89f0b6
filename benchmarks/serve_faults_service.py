"""The service under test: started as users start it, watched from outside, searched for what it must not keep."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from process_tree import below  # type: ignore[import-not-found]

READY_SECONDS = 300.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Look:
    """One look at the processes of the service.

    Attributes:
        time: seconds since it began.
        rss: resident memory of all of them, bytes.
        files: open files of all of them.
    """

    time: float
    rss: int
    files: int


class Running:
    """A service that runs, with a token, an audit log, a workspace, and a temporary folder of its own.

    Args:
        folder: for all of it.
        bundles: what it serves.
        limits: NAME=VALUE.
        token: that it knows.
    """

    def __init__(self, folder: Path, bundles: Sequence[Path], limits: Sequence[str], token: str) -> None:
        self.folder, self.log = folder, folder / "stderr"
        self.temporary, self.workspace, self.audit = folder / "tmp", folder / "ws", folder / "audit" / "audit.jsonl"
        self.temporary.mkdir()
        self._begun = time.monotonic()
        command = [sys.executable, "-m", "spicula", "serve", *map(str, bundles), "--port", "0"]
        command += ["--workspace", str(self.workspace), "--audit", str(self.audit)]
        command += [word for limit in limits for word in ("--limit", limit)]
        environment = os.environ | {"SPICULA_TOKENS": f"load:{token}", "TMPDIR": str(self.temporary)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, env=environment)
        try:
            self.port = self._wait()
        except BaseException:
            self.kill()
            raise
        self.looks: list[Look] = []
        self._is_watched = True
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _wait(self) -> int:
        until = time.monotonic() + READY_SECONDS
        while "\nready" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the service did not start:\n{self.log.read_text()}")
            time.sleep(0.05)
        found = re.search(r"serving on http://127\.0\.0\.1:(\d+) ", self.log.read_text())
        assert found
        return int(found[1])

    def _watch(self) -> None:
        while self._is_watched:
            self.looks.append(self.look())
            time.sleep(0.5)

    def look(self) -> Look:
        """Return memory and open files of all processes now."""
        rss = files = 0
        for pid in (self.process.pid, *(pid for pid, _ in below(self.process.pid))):
            try:
                rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
                files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            except OSError:  # it has ended
                continue
        return Look(time.monotonic() - self._begun, rss, files)

    def processes(self) -> dict[str, int]:
        """Return resident memory, MiB, of each process, by what it is and its number."""
        found = {}
        for pid, line in [(self.process.pid, "-m spicula"), *below(self.process.pid)]:
            name = next((word for word in line.split() if word.startswith("spicula")), "other")
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                found[f"{name} {pid}"] = pages * _PAGE_BYTES // 2**20
        return found

    def spooled(self) -> list[str]:
        """Return the names of uploads that lie in the temporary folder."""
        return [str(path.relative_to(self.temporary)) for path in _below(self.temporary) if path.is_file()]

    def end(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self._is_watched = False
        self._watcher.join()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def kill(self) -> None:
        """End it at once, where it has not ended."""
        self._is_watched = False
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def memory(looks: Sequence[Look]) -> dict[str, float]:
    """Return first and last memory (means of a tenth of the looks), and how it grew, by least squares."""
    tenth = max(1, len(looks) // 10)
    first, last = (sum(one.rss for one in some) / len(some) / 2**20 for some in (looks[:tenth], looks[-tenth:]))
    mean_time = sum(one.time for one in looks) / len(looks)
    mean_rss = sum(one.rss for one in looks) / len(looks) / 2**20
    spread = sum((one.time - mean_time) ** 2 for one in looks)
    rise = sum((one.time - mean_time) * (one.rss / 2**20 - mean_rss) for one in looks)
    return {
        "first MiB": round(first, 1),
        "last MiB": round(last, 1),
        "growth": round(last / first - 1, 4),
        "MiB a minute": round(60 * rise / spread, 3) if spread else 0.0,
        "open files first": looks[0].files,
        "open files last": looks[-1].files,
    }


def leaks(canaries: Sequence[str], texts: Mapping[str, bytes]) -> list[str]:
    """Return which canary stands where, one line each; capitals and small letters are the same."""
    found = []
    for name, text in texts.items():
        lower = text.lower()
        found += [f"{canary} in {name}" for canary in canaries if canary.lower().encode() in lower]
    return found


def written(service: Running) -> dict[str, bytes]:
    """Return what may hold no canary: the log, the audit log, and names of files in the workspace and beside it.

    Contents of the workspace too, but for what is DICOM, came from clients, or is the index of DICOMweb: by those
    patients are found.
    """
    texts = {"the log": service.log.read_bytes()}
    for path in service.audit.parent.iterdir():
        texts[f"audit log {path.name}"] = path.read_bytes()
    for root in (service.workspace, service.temporary):
        paths = sorted(_below(root))
        texts[f"names in {root.name}"] = "\n".join(str(path.relative_to(root)) for path in paths).encode()
        for path in paths:
            inside = path.relative_to(root).parts
            is_sent = "images" in inside or "dicom" in inside or path.suffix == ".dcm"
            if path.is_file() and not is_sent:
                with contextlib.suppress(FileNotFoundError):
                    texts[str(path.relative_to(service.folder))] = path.read_bytes()
    return texts


def _below(root: Path) -> list[Path]:
    """Return all files and folders; those that come and go meanwhile may be among them, or not."""
    return [Path(at, name) for at, folders, files in os.walk(root) for name in [*folders, *files]]
