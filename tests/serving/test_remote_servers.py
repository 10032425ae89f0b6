"""Models that servers of others run: MLServer, and NVIDIA's Triton."""

import asyncio
import base64
import io

import numpy as np
import pytest
import remote_bundles
from model_servers import environment, mlserver, tritonserver
from PIL import Image
from predict_app import noise, uploads, with_golden
from predict_app import serving as in_process
from spicula_server import serving

from spicula.errors import SpiculaError
from spicula.serving.inference import remote
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A bundle, and one of the same shape and of another model."""
    return remote_bundles.pair(tmp_path_factory.mktemp("remote"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with MLServer."""
    return environment(tmp_path_factory.mktemp("mlserver") / "env", "mlserver", "onnxruntime")


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


def test_mlserver_runs_the_model(tmp_path, bundles, installed):
    bundle, other = bundles
    with mlserver(tmp_path, installed, bundle.name, bundle.model) as port:
        found, answers = scores_by(port, bundle)
        assert not found.is_raw  # it speaks JSON alone
        for scores in answers:
            assert np.abs(scores - bundle.probabilities(IMAGES)).max() < 1e-6
        check_service(port, bundle)
        with pytest.raises(SpiculaError, match="its answers are not those of brightness"):
            scores_by(port, other)


def test_heatmaps_of_a_model_that_mlserver_runs(tmp_path, bundles, installed):
    """What the service shows is what it shows where it runs the model itself."""
    bundle = with_golden(remote_bundles.explained(tmp_path / "bundle"))
    files = [noise(tmp_path / f"{number}.png", seed=number) for number in range(3)]
    plain, _ = bundles
    with mlserver(tmp_path, installed, bundle.name, bundle.model) as port:
        address = f"kserve://127.0.0.1:{port}/{bundle.name}"
        here, there = (asyncio.run(explained_by(bundle, files, backend)) for backend in (None, address))
        assert there[0]["provider"] == "remote" and there[0]["explanations"] == ["gradcam"]
        # a bundle without an explanation may have a server that gives more than it is asked for
        assert np.abs(scores_by(port, plain)[1][0] - plain.probabilities(IMAGES)).max() < 1e-6
    for ours, theirs in zip(here[1], there[1], strict=True):
        assert theirs["score"] == pytest.approx(ours["score"], abs=1e-6)
        maps = [heatmap(one["explanation"]["heatmap_png"]) for one in (ours, theirs)]
        assert np.ptp(maps[0][..., 3]) > 100
        np.testing.assert_allclose(*(one.astype(int) for one in maps), atol=1)


async def explained_by(bundle, files, backend):
    """Return what a service says of its model and of files, with heatmaps."""
    async with in_process(bundle, backend=backend) as (client, _):
        answer = await client.post("/v1/predict?explain=gradcam", files=uploads(*files))
        assert answer.status_code == 200, answer.text
        return (await client.get(f"/v1/models/{bundle.name}")).json(), answer.json()["images"]


def heatmap(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_triton_runs_the_model(tmp_path, bundles):
    bundle, other = bundles
    installed = environment(tmp_path / "env", "nvidia-pytriton", "onnxruntime")
    with tritonserver(tmp_path, installed, bundle, batch=8) as port:
        found, answers = scores_by(port, bundle)
        assert found.is_raw and found.batch == 8
        for scores in answers:
            assert np.abs(scores - bundle.probabilities(IMAGES)).max() < 1e-6
        check_service(port, bundle)
        with pytest.raises(SpiculaError, match="its answers are not those of brightness"):
            scores_by(port, other)
