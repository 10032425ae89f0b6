"""Fixtures that several test files share."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# These tests ask what comes out, never how long it took: machines are busy at times.
settings.register_profile("spicula", deadline=None)
settings.load_profile("spicula")

# Commands that run in the background of a shell have Ctrl-C switched off, and so would those that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Where tests that passed in the last run of `make test` are kept, by pytest's own cache.
PASSED = "spicula/passed"


def pytest_addoption(parser):
    parser.addoption("--keep-passed", action="store_true", help="remember which tests passed, for --rest")
    parser.addoption("--rest", action="store_true", help="leave out tests that passed with --keep-passed")


def pytest_configure(config):
    if config.getoption("--keep-passed"):
        config.pluginmanager.register(KeepPassed(config))


class KeepPassed:
    """Remembers which tests passed, so that continuous integration runs each test once."""

    def __init__(self, config):
        self.config, self.passed = config, []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid)

    def pytest_sessionfinish(self):
        if not hasattr(self.config, "workerinput"):  # a process of pytest-xdist knows of its own tests alone
            self.config.cache.set(PASSED, self.passed)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--rest"):
        passed = set(config.cache.get(PASSED, []))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images, for tests that need them; elsewhere those tests skip and say so."""
    folder = os.environ.get("SPICULA_TEST_DATA")
    if not folder:
        pytest.skip("needs real images: set SPICULA_TEST_DATA to their folder")
    return Path(folder)


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
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 service (moto, as a process), which the environment of this session names."""
    pytest.importorskip("moto.server", reason="an S3 service to speak to: pip install 'spicula[peers]'")
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MOTO_RECORDER_FILEPATH": str(tmp_path_factory.mktemp("moto") / "requests")},
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


@pytest.fixture(scope="session")
def gs_file_system():
    """Google Cloud Storage (an emulator, as a process), which the environment of this session names.

    It reads an upload as if it were an e-mail, and loses a carriage return at its very end: tests send no content that
    may end in one, as one of 256 contents at random does.
    """
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
