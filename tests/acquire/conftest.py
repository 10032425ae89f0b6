"""Servers that the tests of downloads speak to: real processes on loopback."""

import json
import os
import socket
import subprocess
import sys
import time
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of an S3 service (moto, as a process), which the environment of this session names."""
    pytest.importorskip("moto.server", reason="an S3 service to speak to: pip install 'spicula[peers]'")
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_for(port)
    url = f"http://127.0.0.1:{port}"
    names = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    before = dict(os.environ)
    os.environ.update(names | {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"})
    yield url
    os.environ.clear()
    os.environ.update(before)
    process.kill()
    process.wait()


@pytest.fixture
def bucket(s3_url):
    """A function that makes a bucket of a new name in the S3 service, and puts objects into it that anyone may read."""
    import boto3

    service = boto3.client("s3", endpoint_url=s3_url)

    def make(name: str, objects: dict[str, bytes] | None = None) -> str:
        service.create_bucket(Bucket=name)
        for key, body in (objects or {}).items():
            service.put_object(Bucket=name, Key=key, Body=body, ACL="public-read")
        return name

    make.service = service
    return make


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


@pytest.fixture(scope="session")
def gs_file_system():
    """Google Cloud Storage (an emulator, as a process), which the environment of this session names."""
    pytest.importorskip("gcp_storage_emulator", reason="a service to speak to: pip install gcp-storage-emulator")
    core = pytest.importorskip("gcsfs.core", reason="mirrors in GCS: pip install 'spicula[archives]'")
    port = _free_port()
    words = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    program = f"from gcp_storage_emulator.__main__ import main; main({words})"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for(port)
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
    yield core.GCSFileSystem(token="anon", skip_instance_cache=True, use_listings_cache=False)
    del os.environ["STORAGE_EMULATOR_HOST"]
    process.kill()
    process.wait()
