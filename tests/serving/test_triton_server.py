"""A model repository of ours in NVIDIA's tritonserver, that of nvidia-pytriton: image files in, probabilities out.

It has no ONNX Runtime backend: the networks are run by its Python backend (triton_network.py), with all the rest of
their configuration as it was written. What prepares images, and the ensembles, are served as they are.
"""

import io
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import triton_bundles
from bundle_maker import CANARY, dicom, grey
from model_servers import HERE, environment, triton_of
from PIL import Image
from spicula_server import serving

from spicula import predict as predicting
from spicula.bundle import golden
from spicula.predict import intake
from spicula.serving.triton.repository import export

triton = pytest.importorskip("tritonclient.http", reason="a client of Triton: pip install 'spicula[peers]'")

pytestmark = pytest.mark.slow

#: What the model of the test knows; everything else is refused.
SCOPE = {"modalities": ["MG"], "presentation_intents": [], "colour": False, "statement": "Mammograms."}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return triton_bundles.network(folder / "network", scope=SCOPE), triton_bundles.linear(folder / "linear")


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    return triton_bundles.explained(tmp_path_factory.mktemp("explained") / "bundle")


class Server:
    """Triton with a repository, and what it logged."""

    def __init__(self, port, log):
        self.port, self._log = port, log
        self.client = triton.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=60)

    def log(self):
        return self._log.read_text()

    def ask(self, model, data, **output):
        file = np.frombuffer(data, np.uint8)
        given = triton.InferInput("file", [len(file)], "UINT8").set_data_from_numpy(file)
        outputs = [triton.InferRequestedOutput("probabilities", **output)] if output else None
        return self.client.infer(model, [given], outputs=outputs)


def without_onnx_runtime(repository, names):
    """Let Triton's Python backend run networks."""
    for name in names:
        config = repository / name / "config.pbtxt"
        text = config.read_text(encoding="utf-8")
        assert text.count('backend: "onnxruntime"') == 1
        config.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'), encoding="utf-8")
        shutil.copy(HERE / "triton_network.py", repository / name / "1" / "model.py")


@pytest.fixture(scope="module")
def server(bundles, explained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    installed = environment(folder / "env", "nvidia-pytriton")
    all_of_them = [*bundles, explained]
    export([bundle.folder for bundle in all_of_them], folder / "repo", instances=2)
    without_onnx_runtime(folder / "repo", [bundle.name for bundle in all_of_them])
    # with this Python's packages, as spicula is installed here; Triton loads in the order of names
    with triton_of(folder, installed, folder / "repo", "linear_image", Path(sys.executable).parent) as port:
        yield Server(port, folder / "log")


def coloured(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    return path


def deep(path):
    """16 bits."""
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65536, (33, 27), np.uint16))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of every format that is read, and some that are not; the network knows grey ones alone."""
    folder = tmp_path_factory.mktemp("files")
    noise = np.random.default_rng(1).integers(0, 256, (2, 41, 23), np.uint8)
    good = [
        grey(folder / "grey.png", 50),
        deep(folder / "deep.png"),
        deep(folder / "deep.tiff"),
        grey(folder / "grey.pgm", 90),
        grey(folder / "grey.jpeg", 120),
        dicom(folder / "image.dcm", noise[0]),
        dicom(folder / "right.dcm", noise[0], ImageLaterality="R"),
    ]
    bad = [
        dicom(folder / "frames.dcm", noise, frames=2),
        dicom(folder / "other.dcm", Modality="CT"),
        coloured(folder / "coloured.png"),
        folder / "cut.dcm",
        folder / "text.dcm",
    ]
    bad[3].write_bytes(good[5].read_bytes()[:-100])
    bad[4].write_text(f"no image of {CANARY}")
    return good, bad


def prepared(bundle, paths):
    """What `spicula predict` gives the network, by path."""
    ready = next(intake.blocks(intake.walk(paths), bundle.info["scope"], bundle.preprocess))
    assert all(isinstance(one, intake.Ready) for one in ready)
    return {one.path: bundle.inputs(np.stack([one.read()])) for one in ready}


def test_files_become_what_predict_makes_of_them(bundles, server, files):
    for bundle in bundles:
        name = bundle.info["input"]["name"]
        for path, wanted in prepared(bundle, files[0]).items():
            found = server.ask(f"{bundle.name}_preprocess", path.read_bytes()).as_numpy(name)
            np.testing.assert_array_equal(found, wanted, err_msg=str(path))
    assert "backend.py" not in server.log()  # where a traceback would name it


def test_real_images_as_well(bundles, server, test_data):
    linear = bundles[1]  # its scope is everything
    kinds = ("nyu-exam/*.png", "dicom/MG1_*", "breakhis/**/*.png")
    paths = [path for kind in kinds for path in sorted(test_data.glob(kind))[:2]]
    ready = prepared(linear, paths)
    assert ready
    for path, wanted in ready.items():
        found = server.ask("linear_preprocess", path.read_bytes()).as_numpy("features")
        np.testing.assert_array_equal(found, wanted, err_msg=str(path))


def test_scores_are_those_of_predict(bundles, server, files):
    for bundle in bundles:
        answered, _ = predicting.predict(bundle, files[0])
        assert len(answered) == len(files[0])
        for row in answered.to_pylist():
            scores = server.ask(f"{bundle.name}_image", Path(row["id"]).read_bytes()).as_numpy("probabilities")
            assert scores.shape == (1, 2)
            assert abs(scores[0, 1] - row["score"]) < 1e-6


def test_what_predict_rejects_is_refused_for_the_same_reason(bundles, server, files):
    _, rejected = predicting.predict(bundles[0], files[1])
    reasons = {Path(row["path"]): row["reason"] for row in rejected.to_pylist()}
    assert set(reasons) == set(files[1])
    for path, reason in reasons.items():
        for model, where in (("brightness_preprocess", ""), ("brightness_image", "in ensemble 'brightness_image', ")):
            with pytest.raises(triton.InferenceServerException) as error:
                server.ask(model, path.read_bytes())
            assert (error.value.status(), error.value.message()) == ("400", f"{where}refused: {reason}")
    assert CANARY not in server.log()


def test_a_file_can_be_the_body_of_a_request(server, files, tmp_path):
    done = subprocess.run(
        ["curl", "-sS", "--data-binary", f"@{files[0][0]}", "-H", "Content-Type: application/octet-stream",
         "-H", "Inference-Header-Content-Length: 0", "-D", tmp_path / "headers",
         f"http://127.0.0.1:{server.port}/v2/models/brightness_image/infer"],
        capture_output=True, check=True,
    )  # fmt: skip
    length = int(re.search(r"Inference-Header-Content-Length: (\d+)", (tmp_path / "headers").read_text())[1])
    scores = np.frombuffer(done.stdout[length:], "<f4")
    np.testing.assert_array_equal(
        scores, server.ask("brightness_image", files[0][0].read_bytes()).as_numpy("probabilities")[0]
    )


def test_classes_have_their_names(server, files):
    for data, best in ((grey(files[0][0].with_name("white.png"), 250), "bright"), (files[0][0], "dark")):
        found = server.ask("brightness_image", data.read_bytes(), class_count=1).as_numpy("probabilities")
        score, _, name = found.ravel()[0].decode().split(":")
        assert name == best
        assert float(score) > 0.5


def test_the_server_says_which_bundle_it_is(bundles, server):
    for bundle in bundles:
        for suffix in ("", "_preprocess", "_image"):
            told = server.client.get_model_config(f"{bundle.name}{suffix}")["parameters"]
            assert told["bundle_digest"]["string_value"] == bundle.digest
            assert told["notice"]["string_value"] == bundle.info["notice"]


def test_golden_inputs_give_golden_answers(bundles, server):
    for bundle in bundles:
        inputs = bundle.inputs(golden.images(bundle.preprocess))
        given = triton.InferInput(bundle.info["input"]["name"], inputs.shape, "FP32").set_data_from_numpy(inputs)
        found = server.client.infer(bundle.name, [given]).as_numpy("probabilities")
        assert golden.difference(bundle, found.astype(np.float64)) < golden.TOLERANCE


def at_once(server, model, body, headers, count):
    """Ask from many connections; return how often each answer came."""

    def ask(_):
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v2/models/{model}/infer", body, headers)
        try:
            return urllib.request.urlopen(request, timeout=60).status, None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["error"]

    with ThreadPoolExecutor(150) as pool:
        return Counter(pool.map(ask, range(count)))


def test_too_much_is_refused_at_once(server, files):
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    found = at_once(server, "linear_image", files[0][0].read_bytes(), headers, 600)
    assert found.pop((200, None)) > 0
    assert {status for status, _ in found} == {503}
    assert all("Exceeds maximum queue size" in error for _, error in found)


def test_tensors_that_wait_are_put_together(bundles, server):
    def sizes():
        (told,) = server.client.get_inference_statistics("brightness")["model_stats"]
        return {one["batch_size"]: one["compute_infer"]["count"] for one in told["batch_stats"]}

    before = sizes()
    given = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
    body = json.dumps({"inputs": [given]}).encode()
    found = at_once(server, "brightness", body, {"Content-Type": "application/json"}, 600)
    assert set(found) <= {(200, None), (503, "[request id: <id_unknown>] Exceeds maximum queue size")}
    new = {size for size, count in sizes().items() if count != before.get(size, 0)}
    assert max(new) == 4  # the largest that is wanted on a CPU


def test_a_service_asks_it(bundles, server, files):
    bundle = bundles[0]
    answered, _ = predicting.predict(bundle, files[0][:3])
    with serving(bundle.folder, "--backend", f"triton://127.0.0.1:{server.port}/{bundle.name}") as front:
        assert front.status is None, front.lines
        for row in answered.to_pylist():
            sent = {"file": ("image", io.BytesIO(Path(row["id"]).read_bytes()))}
            answer = httpx.post(f"{front.url}/v1/predict", files=sent, trust_env=False).raise_for_status().json()
            assert abs(answer["images"][0]["score"] - row["score"]) < 1e-6
        assert front.end() == 0


def test_a_service_that_asks_it_has_heatmaps(explained, server, files):
    sent = {"file": ("image", files[0][1].read_bytes())}
    answers = []
    for more in ((), ("--backend", f"triton://127.0.0.1:{server.port}/{explained.name}")):
        with serving(explained.folder, *more) as front:
            answer = httpx.post(f"{front.url}/v1/predict?explain=gradcam", files=sent, trust_env=False)
            answers.append(answer.raise_for_status().json()["images"][0])
    assert answers[0]["explanation"] == answers[1]["explanation"]
    assert answers[0]["score"] == pytest.approx(answers[1]["score"], abs=1e-6)
