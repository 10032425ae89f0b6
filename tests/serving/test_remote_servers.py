"""Models that servers of others run: MLServer, and NVIDIA's Triton."""

import asyncio

import bundle_maker
import numpy as np
import pytest
from model_servers import environment, mlserver, tritonserver
from spicula_server import serving

from spicula.errors import SpiculaError
from spicula.serving.inference import remote
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundle_maker.make(tmp_path_factory.mktemp("remote") / "bundle")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Of the same shape, and of another model."""
    model = bundle_maker.brightness_model(left=True)
    return bundle_maker.make(tmp_path_factory.mktemp("other") / "bundle", model)


def scores_by(port, bundle):
    """Connect, and ask three times at once; return what the server is taken for, and the answers."""

    async def ask():
        settings = ServeSettings((bundle.folder,), backend=f"kserve://127.0.0.1:{port}/{bundle.name}")
        found = await remote.connect(Service(settings), bundle)
        try:
            return found, await asyncio.gather(*(found.scores(bundle.inputs(IMAGES)) for _ in range(3)))
        finally:
            await found.close()

    return asyncio.run(ask())


def check_service(port, bundle):
    """See that a service starts with that server behind it."""
    with serving(bundle.folder, "--backend", f"triton://127.0.0.1:{port}/{bundle.name}") as front:
        assert front.status is None, front.lines
        assert front.end() == 0


def test_mlserver_runs_the_model(tmp_path, bundle, other):
    installed = environment(tmp_path / "env", "mlserver", "onnxruntime")
    with mlserver(tmp_path, installed, bundle.name, bundle.model) as port:
        found, answers = scores_by(port, bundle)
        assert not found.is_raw  # it speaks JSON alone
        for scores in answers:
            assert np.abs(scores - bundle.probabilities(IMAGES)).max() < 1e-6
        check_service(port, bundle)
        with pytest.raises(SpiculaError, match="its answers are not those of brightness"):
            scores_by(port, other)


def test_triton_runs_the_model(tmp_path, bundle, other):
    installed = environment(tmp_path / "env", "nvidia-pytriton", "onnxruntime")
    with tritonserver(tmp_path, installed, bundle, batch=8) as port:
        found, answers = scores_by(port, bundle)
        assert found.is_raw and found.batch == 8
        for scores in answers:
            assert np.abs(scores - bundle.probabilities(IMAGES)).max() < 1e-6
        check_service(port, bundle)
        with pytest.raises(SpiculaError, match="its answers are not those of brightness"):
            scores_by(port, other)
