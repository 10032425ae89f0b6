"""KServe v2 as clients see it: tritonclient and plain HTTP against `spicula serve`."""

import gzip
import http.client
import json
import re
import warnings
import zlib
from typing import NamedTuple

import bundle_maker
import numpy as np
import pytest
from spicula_server import serving

from spicula import RESEARCH_NOTICE
from spicula.serving.kserve import messages

NAME, TOKEN = "brightness", "t" * 43


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundle_maker.make(tmp_path_factory.mktemp("v2") / "bundle")


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def server(bundle, audit):
    limits = ("json-bytes=300000", "tensor-bytes=65536", "json-text-bytes=20000", "json-depth=8", "queue=16")
    with serving(bundle.folder, "--audit", audit, *(f"--limit={one}" for one in limits)) as running:
        assert running.status is None, running.lines
        yield running


@pytest.fixture(scope="module")
def triton():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's, about ssl
        return pytest.importorskip("tritonclient.http", reason="a client to ask with: pip install 'spicula[peers]'")


@pytest.fixture
def client(triton, server):
    """The module, and a client that speaks to the server."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as found:
        yield triton, found


class Images(NamedTuple):
    """What a model is shown, and what its bundle says of it."""

    inputs: np.ndarray
    scores: np.ndarray


@pytest.fixture(scope="module")
def images(bundle):
    made = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    return Images(bundle.inputs(made), bundle.probabilities(made))


def tensor_of(triton, inputs, raw=True):
    return triton.InferInput("image", inputs.shape, "FP32").set_data_from_numpy(inputs, binary_data=raw)


def ask(server, method, path, body=None, headers=None):
    """Return status, headers, and the body: read, where it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        return (
            answer.status,
            answer.headers,
            json.loads(content) if "json" in answer.headers["content-type"] else content,
        )
    finally:
        connection.close()


def infer(server, message, **headers):
    path = f"/v2/models/{NAME}/infer"
    return ask(server, "POST", path, message.body, message.headers | headers)


def test_what_triton_s_client_is_told(client, bundle):
    _, client = client
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME) and client.is_model_ready(NAME, "3")
    assert not client.is_model_ready("other") and not client.is_model_ready(NAME, "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    wanted = {
        "name": NAME,
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
        "parameters": {
            "digest": bundle.digest,
            "notice": RESEARCH_NOTICE,
            "target": "bright",
            "classes": "dark,bright",
        },
    }
    assert client.get_model_metadata(NAME) == client.get_model_metadata(NAME, "3") == wanted


@pytest.mark.parametrize(
    "raw", [(True, True), (True, False), (False, True), (False, False), (True, None), (False, None)]
)
@pytest.mark.parametrize("version", ["", "3"])
def test_answers_to_triton_s_client(client, bundle, images, raw, version):
    triton, client = client
    raw_in, raw_out = raw
    outputs = None if raw_out is None else [triton.InferRequestedOutput("probabilities", binary_data=raw_out)]
    found = client.infer(NAME, [tensor_of(triton, images.inputs, raw_in)], version, outputs, request_id="b-10")
    assert found.as_numpy("probabilities").dtype == np.float32
    assert np.abs(found.as_numpy("probabilities") - images.scores).max() < 1e-6
    told = found.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("b-10", NAME, "3")
    assert told["parameters"]["digest"] == bundle.digest and told["parameters"]["notice"] == RESEARCH_NOTICE
    assert told["parameters"]["time"].endswith("Z")
    assert ("data" in told["outputs"][0]) == (raw_out is False)


@pytest.mark.parametrize("way", ["gzip", "deflate"])
@pytest.mark.parametrize("raw", [True, False])
def test_compressed_requests_of_triton_s_client(client, images, way, raw):
    triton, client = client
    options = {"request_compression_algorithm": way, "response_compression_algorithm": way}
    found = client.infer(NAME, [tensor_of(triton, images.inputs, raw)], **options)
    assert np.abs(found.as_numpy("probabilities") - images.scores).max() < 1e-6


def test_many_requests_of_triton_s_client_at_once(triton, server, images):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as client:
        ones = [images.inputs[at % 6 : at % 6 + 1] for at in range(24)]
        asked = [client.async_infer(NAME, [tensor_of(triton, one)]) for one in ones]
        for at, one in enumerate(asked):
            found = one.get_result().as_numpy("probabilities")
            assert np.abs(found - images.scores[at % 6 : at % 6 + 1]).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "array", "version", "text"),
    [
        ("image", np.zeros((1, 1, 8, 8), "f4"), "2", "404 brightness is here in version 3 alone"),
        ("picture", np.zeros((1, 1, 8, 8), "f4"), "", "400 inputs is the one tensor that the model takes: image"),
        ("image", np.zeros((1, 3, 8, 8), "f4"), "", "400 .* takes: FP32 of .-1, 1, 8, 8."),
        ("image", np.zeros((1, 8, 8), "f4"), "", "400 .* takes: FP32 of .-1, 1, 8, 8."),
        ("image", np.zeros((0, 1, 8, 8), "f4"), "", "400 .* of at least one"),
        ("image", np.zeros((17, 1, 8, 8), "f4"), "", "413 .* more than 16 images"),
        ("image", np.zeros((1, 1, 8, 8), "f8"), "", "400 .* takes: FP32"),
        ("image", np.zeros((300, 1, 8, 8), "f4"), "", "413 .* more than 65536 bytes"),
    ],
)
def test_errors_that_triton_s_client_reads(client, name, array, version, text):
    triton, client = client
    datatype = {"f4": "FP32", "f8": "FP64"}[array.dtype.str[1:]]
    tensor = triton.InferInput(name, array.shape, datatype).set_data_from_numpy(array)
    with pytest.raises(triton.InferenceServerException) as refused:
        client.infer(NAME, [tensor], version)
    assert re.match(text, f"{refused.value.status()} {refused.value.message()}")


def test_a_model_that_is_not_there(client):
    triton, client = client
    with pytest.raises(triton.InferenceServerException, match="there are brightness") as refused:
        client.get_model_metadata("other")
    assert refused.value.status() == "404"


def test_plain_json_and_raw_bytes(server, images):
    for is_raw in (False, True):
        message = messages.write_request({"image": ("FP32", images.inputs)}, ["probabilities"], is_raw=is_raw, id="i")
        status, headers, found = infer(server, message)
        assert status == 200
        if is_raw:
            assert headers["content-type"] == "application/octet-stream"
            length = int(headers["inference-header-content-length"])
            assert json.loads(found[:length])["outputs"][0]["parameters"] == {"binary_data_size": 48}
            assert np.abs(np.frombuffer(found[length:], "<f4").reshape(6, 2) - images.scores).max() < 1e-6
        else:
            assert found["id"] == "i" and found["outputs"][0]["shape"] == [6, 2]
            assert np.abs(np.reshape(found["outputs"][0]["data"], (6, 2)) - images.scores).max() < 1e-6


def test_raw_bytes_whatever_a_client_calls_them(server, images):
    """Where the header says that tensors follow, what follows is no JSON, though the content type may say so."""
    brackets = np.frombuffer(b"[" * 256, "<f4").reshape(1, 1, 8, 8)  # deeper than any JSON
    message = messages.write_request({"image": ("FP32", brackets)}, [], is_raw=True)
    assert infer(server, message, **{"Content-Type": "application/json"})[0] == 200


def test_nested_lists_are_an_image(server, images):
    item = {"name": "image", "datatype": "FP32", "shape": list(images.inputs.shape), "data": images.inputs.tolist()}
    status, _, found = ask(server, "POST", f"/v2/models/{NAME}/infer", json.dumps({"inputs": [item]}))
    assert status == 200
    assert np.abs(np.reshape(found["outputs"][0]["data"], (6, 2)) - images.scores).max() < 1e-6


def test_numbers_may_be_long_json_whatever_a_client_calls_it(server, images):
    inputs = np.concatenate([images.inputs] * 3)[:16] + np.float32(1e-3)
    data = [float(value) for value in inputs.astype(np.float64).ravel()]
    body = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": list(inputs.shape), "data": data}]})
    assert len(body) > 20_000  # json-text-bytes
    for headers in ({}, {"Content-Type": "application/json"}):
        status, _, found = ask(server, "POST", f"/v2/models/{NAME}/infer", body, headers)
        assert status == 200, found


def test_numbers_that_have_no_answer(server, images):
    sums = np.where(np.arange(8) % 2, np.float32(3e38), np.float32(-3e38))
    for row, status in ((np.nan, 400), (np.inf, 400), (sums, 422)):
        image = np.broadcast_to(np.asarray(row, np.float32), (1, 1, 8, 8))
        found = infer(server, messages.write_request({"image": ("FP32", image)}, [], is_raw=True))
        assert (found[0], found[2]["code"]) == (status, "value")


def deep(levels):
    return b'{"inputs":' + b"[" * levels + b"]" * levels + b"}"


def test_bodies_beyond_limits(server):
    path = f"/v2/models/{NAME}/infer"
    bomb = gzip.compress(bytes(10_000_000))
    header = {"Inference-Header-Content-Length": "10"}
    for body, headers, status, code in (
        (b" " * 300_001, {}, 413, "json-bytes"),
        (b" " * 300_001, {"Inference-Header-Content-Length": "300001"}, 413, "json-bytes"),
        (b'{"a":"' + b"x" * 20_001 + b'"}', {}, 413, "json-text-bytes"),
        (deep(9), {}, 400, "json-depth"),
        (deep(9), {"Content-Type": "application/json"}, 400, "json-depth"),
        (b"{" * 10 + bytes(65_537), header, 413, "tensor-bytes"),
        (bomb, {"Content-Encoding": "gzip"}, 413, "json-bytes"),
        (bomb, {"Content-Encoding": "gzip", **header}, 413, "tensor-bytes"),
        (bomb[:-20], {"Content-Encoding": "gzip", **header}, 413, "tensor-bytes"),
        (zlib.compress(b"{}")[:-3], {"Content-Encoding": "deflate"}, 400, "encoding"),
        (b"not compressed", {"Content-Encoding": "gzip"}, 400, "encoding"),
        (b"{}", {"Content-Encoding": "br"}, 415, "encoding"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400, "binary"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "binary"),
        (b"{}", {"Inference-Header-Content-Length": "two"}, 400, "binary"),
        (b"{}", {}, 400, "tensor"),
        (b"", {}, 400, "json"),
    ):
        found = ask(server, "POST", path, body, headers)
        assert (found[0], found[2]["code"]) == (status, code), (body[:20], headers)
        assert found[1]["content-type"] == "application/problem+json"
        assert found[2]["error"] == found[2]["detail"]


def test_damaged_bodies_are_never_a_server_error(server, images):
    random = np.random.default_rng(1)
    statuses = set()
    for number in range(120):
        message = messages.write_request(
            {"image": ("FP32", images.inputs[:1])}, ["probabilities"], is_raw=number % 2 == 0
        )
        body = bytearray(message.body)
        for at in random.integers(0, len(body) if number % 3 else 150, 3):
            body[at] = random.integers(0, 256)
        if number % 5 == 0:
            del body[random.integers(0, len(body)) :]
        path = f"/v2/models/{NAME}/infer"
        statuses.add(ask(server, "POST", path, bytes(body), message.headers)[0])
    assert statuses <= {200, 400, 413, 422} and {200, 400} <= statuses


def test_the_audit_log_has_digest_and_answer_and_no_pixels(server, audit, bundle, images):
    message = messages.write_request({"image": ("FP32", images.inputs[:1])}, [], is_raw=True, id="Canary^Jane")
    infer(server, message)
    line = json.loads(audit.read_text().splitlines()[-1])
    assert line["event"] == "infer" and line["who"] == "local"
    assert line["model"] == {"name": NAME, "version": "3", "digest": bundle.digest}
    assert np.abs(np.array(line["answer"]["scores"]) - images.scores[:1]).max() < 1e-6
    assert len(line["inputs"]) == 1 and len(line["inputs"][0]) == 64
    assert "Canary" not in audit.read_text()


def test_the_openapi_document_describes_the_protocol(server):
    _, _, document = ask(server, "GET", "/openapi.json")
    paths = {path for path in document["paths"] if path.startswith("/v2")}
    assert paths == {
        "/v2", "/v2/health/live", "/v2/health/ready",
        "/v2/models/{model}", "/v2/models/{model}/ready", "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}", "/v2/models/{model}/versions/{version}/ready",
        "/v2/models/{model}/versions/{version}/infer",
    }  # fmt: skip
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "application/octet-stream"}
    assert "$defs" not in json.dumps(infer)


def test_a_token_in_triton_s_client(triton, bundle, images):
    with serving(bundle.folder, environment={"SPICULA_TOKENS": f"me:{TOKEN}"}) as server:
        assert server.status is None, server.lines
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert client.is_server_ready()  # whoever balances load needs no token
            with pytest.raises(triton.InferenceServerException, match="send a token"):
                client.infer(NAME, [tensor_of(triton, images.inputs)])
            client.infer(NAME, [tensor_of(triton, images.inputs)], headers={"Authorization": f"Bearer {TOKEN}"})
