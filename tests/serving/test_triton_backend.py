"""What runs in Triton's Python backend, with a stand-in for Triton's module; test_triton_server.py has the real one."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
import triton_bundles
from bundle_maker import CANARY, dicom, grey
from process_tree import below

from spicula.errors import SpiculaError
from spicula.predict import predict
from spicula.serving.triton import backend
from spicula.serving.triton.repository import export


class Capsule:
    """What a DLPack capsule came as."""

    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return 1, 0


class TritonError:
    INVALID_ARG, UNAVAILABLE, INTERNAL = "invalid", "unavailable", "internal"

    def __init__(self, message, code):
        self.message, self.code = message, code


class Tensor:
    def __init__(self, name, array):
        self.name, self.array = name, array

    @staticmethod
    def from_dlpack(name, capsule):
        return Tensor(name, np.from_dlpack(Capsule(capsule)))


class Response:
    def __init__(self, tensors=(), error=None):
        self.tensors, self.error = tensors, error


@pytest.fixture(scope="module")
def log():
    """Puts the stand-in in place; lines that are logged as errors."""
    lines, module = [], ModuleType("triton_python_backend_utils")
    module.TritonError, module.Tensor, module.InferenceResponse = TritonError, Tensor, Response
    module.Logger = type("Logger", (), {"log_error": staticmethod(lines.append)})
    module.get_input_tensor_by_name = lambda request, name: request[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", module)
        yield lines


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return triton_bundles.network(folder / "network"), triton_bundles.linear(folder / "linear")


@pytest.fixture(scope="module")
def repository(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "repo"
    export([bundle.folder for bundle in bundles], folder)
    return folder


@contextmanager
def started(repository, name):
    """Start a model as Triton does."""
    before = workers()
    model = backend.TritonPythonModel()
    model.initialize({"model_repository": str(repository / f"{name}_preprocess"), "model_version": "1"})
    try:
        yield model
    finally:
        model.finalize()
    assert workers() == before


@pytest.fixture(scope="module")
def model(repository, log):
    with started(repository, "brightness") as model:
        yield model


def workers():
    return [number for number, line in below(os.getpid()) if "decode_worker" in line]


def ask(model, data):
    (response,) = model.execute([{"file": np.frombuffer(data, np.uint8).copy()}])
    return response


def test_images_are_prepared_as_the_bundles_want_them(bundles, repository, model, tmp_path):
    paths = [grey(tmp_path / "grey.png", 50), dicom(tmp_path / "image.dcm", 200)]
    with started(repository, "linear") as linear:
        for bundle, one in zip(bundles, (model, linear), strict=True):
            responses = one.execute([{"file": np.fromfile(path, np.uint8)} for path in paths])
            for path, response in zip(paths, responses, strict=True):
                (tensor,) = response.tensors
                assert (tensor.name, tensor.array.dtype) == (bundle.info["input"]["name"], np.float32)
                (found,) = bundle.session.run([bundle.info["output"]["name"]], {tensor.name: tensor.array})
                answered, _ = predict(bundle, [path], jobs=1)
                assert found[0, 1] == answered["score"][0].as_py()


def test_what_predict_rejects_is_refused_for_the_same_reason(bundles, model, tmp_path):
    path = tmp_path / "image.dcm"
    for write in (
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"no image"),
        lambda: dicom(path, frames=3),
        lambda: dicom(path).write_bytes(dicom(path).read_bytes()[:-50]),
    ):
        write()
        _, rejected = predict(bundles[0], [path], jobs=1)
        response = ask(model, path.read_bytes())
        assert response.error.message == f"refused: {rejected['reason'][0].as_py()}"
        assert response.error.code == TritonError.INVALID_ARG
    assert ask(model, grey(tmp_path / "grey.png", 50).read_bytes()).error is None


def test_a_decoder_that_dies_costs_one_image(model, tmp_path):
    good = grey(tmp_path / "grey.png", 50).read_bytes()
    for worker in workers():
        os.kill(worker, signal.SIGKILL)
    first, second = ask(model, good), ask(model, good)
    assert first.error.message == "refused: its decoder died of SIGKILL"
    assert second.error is None


def test_an_error_of_ours_quotes_nothing(model, log, monkeypatch):
    async def fail(*_):
        raise KeyError(CANARY)

    monkeypatch.setattr(backend.Decoders, "prepare", fail)
    error = ask(model, b"anything").error
    assert (error.message, error.code) == ("preparing failed; see Triton's log", TritonError.INTERNAL)
    (line,) = log
    assert "KeyError" in line
    assert CANARY not in line


def test_files_are_bounded_and_gone_after_their_request(repository, log, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    good = grey(tmp_path / "grey.png", 50).read_bytes()
    monkeypatch.setattr(backend, "Limits", lambda: {"image-bytes": len(good)})
    with started(repository, "brightness") as model:
        assert ask(model, good).error is None
        assert ask(model, b"no image").error is not None
        assert ask(model, good + b"0").error.message == f"refused: the file has more than {len(good)} bytes"
        assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert list(folder.iterdir()) == []


def test_a_description_that_was_changed_is_not_served(repository, log, tmp_path):
    changed = shutil.copytree(repository, tmp_path / "repo")
    path = changed / "brightness_preprocess" / "1" / "bundle.json"
    path.write_text(path.read_text().replace('"crop": "none"', '"crop": "breast"'))
    with pytest.raises(SpiculaError, match="does not match its own digest"), started(changed, "brightness"):
        pass


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (["torch", "fastapi", "starlette", "uvicorn", "httpx", "jinja2", "onnx", "prometheus_client"], "served"),
        (["spicula"], "needs spicula: pip install spicula"),
    ],
)
def test_the_core_install_is_needed_and_enough(repository, absent, said):
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import model; print('served')"
    folder = repository / "brightness_preprocess" / "1"
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert said in done.stdout + done.stderr
