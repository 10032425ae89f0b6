"""Servers that the tests of downloads speak to: real processes on loopback."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbia_server import Server

from spicula.acquire import transfer
from spicula.acquire.transfer import Patience


class FileServer:
    """A running `file_server.py`, its folder, its faults and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "served"
        self.folder.mkdir()
        self._log, self._faults = folder / "log.jsonl", folder / "faults.json"
        self.faults()
        program = Path(__file__).with_name("file_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(self.folder), str(self._log), str(self._faults)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}/"

    def faults(self, **faults: object) -> None:
        """Have these faults from now on, and no other."""
        temporary = self._faults.with_suffix(".new")
        temporary.write_text(json.dumps(faults))
        temporary.replace(self._faults)

    def requests(self, path: str | None = None) -> list[dict]:
        """What was asked for, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [entry for entry in map(json.loads, lines) if path in (None, entry["path"])]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def file_server(tmp_path_factory) -> Iterator[FileServer]:
    server = FileServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def another_server(tmp_path_factory) -> Iterator[FileServer]:
    server = FileServer(tmp_path_factory.mktemp("another"))
    yield server
    server.stop()


@pytest.fixture
def nbia() -> Iterator[Callable[..., Server]]:
    """Return a function that starts an NBIA service as a process; the settings are those of `nbia_server.Settings`."""
    started = []

    def start(**settings: object) -> Server:
        started.append(Server(**settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def hasty(monkeypatch) -> Patience:
    """Wait for nobody long."""
    patience = Patience(
        connect_seconds=5, read_seconds=3, first_wait_seconds=0.01, longest_wait_seconds=0.05, outage_seconds=0.3
    )
    monkeypatch.setattr(transfer, "PATIENCE", patience)
    return patience
