"""What tests of exams share; openvino is imported without its telemetry before a test asks whether it is there."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from object_stores import ObjectStore

from spicula.errors import UsageError
from spicula.exams.runners.openvino import import_openvino
from spicula.phantoms import make_exams

with suppress(UsageError):
    import_openvino()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One exam with a malignant lesion. Do not write here."""
    folder = make_exams(tmp_path_factory.mktemp("phantom"), 1, seed=3, size=(320, 260), jobs=1, prevalence=1.0)
    return next(folder.glob("phantom-*"))


@pytest.fixture
def exam(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom exam, to change."""
    return Path(shutil.copytree(phantom, tmp_path / "exam"))


@pytest.fixture(params=["s3", "gs"])
def object_store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty bucket in each of the object stores."""
    return ObjectStore(request.param, request)


@pytest.fixture
def s3_store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty bucket of S3."""
    return ObjectStore("s3", request)
