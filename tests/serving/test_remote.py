"""Models that another server runs: spicula itself, and one that does what servers do when they are ill."""

import asyncio
import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
import remote_bundles
from predict_app import noise, uploads, with_golden
from predict_app import serving as in_process
from spicula_server import Server, serving

from spicula.errors import SpiculaError, UsageError
from spicula.serving.inference import remote, remote_address
from spicula.serving.kserve import HEADER_LENGTH, messages
from spicula.serving.limits import Limits
from spicula.serving.problems import Problem
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings

NAME, TOKEN = "brightness", "t" * 43
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return remote_bundles.pair(tmp_path_factory.mktemp("remote"))


@pytest.fixture
def bundle(bundles):
    return bundles[0]


@pytest.fixture
def other(bundles):
    """Of the same shape, and of another model."""
    return bundles[1]


@pytest.fixture(scope="module")
def server(bundles):
    with serving(bundles[0].folder) as running:
        assert running.status is None, running.lines
        yield running


def scores_by(address, bundle, *limits, images=IMAGES, times=1):
    """Connect, and ask so many times at once; return what the server is taken for, and the answers or problems."""

    async def ask():
        settings = ServeSettings((bundle.folder,), backend=address, limits=Limits(limits))
        found = await remote.connect(Service(settings), bundle)
        try:
            asked = (found.scores(bundle.inputs(images)) for _ in range(times))
            return found, await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await found.close()

    return asyncio.run(ask())


def close_to(found, bundle, images=IMAGES):
    return np.abs(found - bundle.probabilities(images)).max() < 1e-6


@pytest.mark.parametrize("scheme", ["triton", "kserve"])
@pytest.mark.parametrize("version", ["", "/versions/3"])
def test_another_spicula_runs_the_model(server, bundle, scheme, version):
    found, (scores,) = scores_by(f"{scheme}://127.0.0.1:{server.port}/{NAME}{version}", bundle)
    assert found.is_raw and found.batch == 16
    assert scores.dtype == np.float64 and close_to(scores, bundle)


def test_a_service_whose_model_another_server_runs(server, bundle):
    with serving(bundle.folder, "--backend", f"triton://127.0.0.1:{server.port}/{NAME}") as front:
        assert front.status is None, front.lines
        message = messages.write_request({"image": ("FP32", bundle.inputs(IMAGES))}, [], is_raw=True)
        answer = httpx.post(f"{front.url}/v2/models/{NAME}/infer", content=message.body, headers=message.headers)
        assert answer.status_code == 200
        read = messages.read_answer(answer.content, int(answer.headers[HEADER_LENGTH]), Limits())
        assert close_to(read.outputs[0].array(), bundle)
        assert read.parameters["digest"] == bundle.digest


def test_a_service_does_not_start_with_another_model_behind_it(server, other):
    with serving(other.folder, "--backend", f"triton://127.0.0.1:{server.port}/{NAME}") as front:
        assert front.end() == 1
        assert "its answers are not those of brightness" in "".join(front.lines)
        assert "Traceback" not in "".join(front.lines)


def test_a_service_whose_other_server_ends(bundle):
    server = Server(bundle.folder)
    with serving(bundle.folder, "--backend", f"triton://127.0.0.1:{server.port}/{NAME}") as front:
        assert server.end() == 0
        message = messages.write_request({"image": ("FP32", bundle.inputs(IMAGES))}, [], is_raw=False)
        answer = httpx.post(f"{front.url}/v2/models/{NAME}/infer", content=message.body, headers=message.headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "backend")
        assert answer.headers["Retry-After"] == "5"
    server.kill()


def test_a_server_that_asks_for_a_token(bundle, monkeypatch):
    with serving(bundle.folder, environment={"SPICULA_TOKENS": f"front:{TOKEN}"}) as server:
        address = f"triton://127.0.0.1:{server.port}/{NAME}"
        monkeypatch.setenv(remote_address.TOKEN, "no token that it knows")
        with pytest.raises(SpiculaError, match="set SPICULA_BACKEND_TOKEN"):
            scores_by(address, bundle)
        monkeypatch.setenv(remote_address.TOKEN, TOKEN)
        assert close_to(scores_by(address, bundle)[1][0], bundle)


def test_a_token_that_is_none(bundle, monkeypatch):
    monkeypatch.setenv(remote_address.TOKEN, "fünfzehn Zeichen")
    with pytest.raises(UsageError, match="SPICULA_BACKEND_TOKEN has characters that no token has"):
        scores_by("triton://127.0.0.1:1/net", bundle)


def test_tls_with_a_certificate_that_is_known_and_one_that_is_not(bundle, tmp_path, monkeypatch):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make a certificate")
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x -keyout {key}"
    words += f" -out {certificate} -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    with serving(bundle.folder, "--tls-cert", certificate, "--tls-key", key) as server:
        address = f"kserve+https://127.0.0.1:{server.port}/{NAME}"
        with pytest.raises(SpiculaError, match="CERTIFICATE_VERIFY_FAILED"):
            scores_by(address, bundle, "answer-seconds=1")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert close_to(scores_by(address, bundle)[1][0], bundle)


@pytest.mark.parametrize(
    ("text", "server", "model"),
    [
        ("triton://gpu:8000/net", "http://gpu:8000", "/v2/models/net"),
        ("triton://gpu/net", "http://gpu:8000", "/v2/models/net"),
        ("kserve://10.0.0.2/net/versions/2/", "http://10.0.0.2:80", "/v2/models/net/versions/2"),
        ("kserve+https://models.example.org/net", "https://models.example.org:443", "/v2/models/net"),
        ("triton+https://[::1]:8443/net", "https://[::1]:8443", "/v2/models/net"),
    ],
)
def test_addresses(text, server, model):
    found = remote_address.parse(text)
    assert (found.server, found.model) == (server, model)


@pytest.mark.parametrize(
    "text",
    [
        "", "net", "http://gpu:8000/net", "triton://gpu:8000", "triton://gpu:8000/", "triton:///net", "triton://gpu:x/net",
        "triton://gpu:99999/net", "triton://gpu/net/2", "triton://gpu/net/versions/", "triton://gpu/net?x=1",
        "triton://gpu/net#x", "grpc://gpu/net",
    ],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(UsageError, match=re.escape(f"--backend {text}: expected triton://")):
        remote_address.parse(text)


def test_an_address_with_a_password_is_not_repeated():
    with pytest.raises(UsageError, match="has no user or password") as refused:
        remote_address.parse("triton://me:secret@gpu/net")
    assert "secret" not in str(refused.value)


GOOD = {"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
GIVES = {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
EVIDENCE = {"name": "evidence", "datatype": "FP32", "shape": [-1, 8, 8]}


class Ill(ThreadingHTTPServer):
    """A server of KServe v2 that answers as a bundle does, until it is told otherwise.

    Args:
        bundle: what it answers.
        answers: what it does with one request of inference after the other, see `Handler`; then it is well.
        told: changes of what it says of itself: paths, each with a document or a status.
    """

    daemon_threads = True

    def __init__(self, bundle, answers=(), told=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bundle, self.answers, self.asked, self.lock = bundle, list(answers), [], threading.Lock()
        model = f"/v2/models/{bundle.name}"
        self.told = {
            "/v2": {"name": "ill", "version": "1", "extensions": ["binary_tensor_data"]},
            f"{model}/ready": {},
            model: {
                "name": bundle.name,
                "inputs": [GOOD],
                "outputs": [GIVES, *([EVIDENCE] if bundle.info.get("explanation") else [])],
            },
        }
        self.told |= {path.replace("MODEL", model): value for path, value in (told or {}).items()}

    @property
    def address(self):
        return f"triton://127.0.0.1:{self.server_port}/{self.bundle.name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        told = self.server.told.get(self.path, 404)
        status = told if isinstance(told, int) else 200
        self.send(status, json.dumps(told if status == 200 else {"error": "no"}).encode(), {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = self.headers.get(HEADER_LENGTH)
        request = messages.read_request(body, None if length is None else int(length), Limits())
        (tensor,) = request.inputs
        with self.server.lock:
            self.server.asked.append((length is not None, tensor.shape[0]))
            answer = self.server.answers.pop(0) if self.server.answers and len(self.server.asked) > 1 else "well"
        images = {"image": np.ascontiguousarray(tensor.array())}
        wanted = [one.name for one in request.outputs]
        found = zip(wanted, self.server.bundle.session.run(wanted, images), strict=True)
        outputs = {name: ("FP32", array, request.wants_raw(name)) for name, array in found}
        message = messages.write_answer("m", "1", outputs)
        match answer:
            case "well":
                self.send(200, message.body, message.headers)
            case "lost":  # the connection ends without an answer
                self.close_connection = True
            case "cut":
                self.send(200, message.body, message.headers, len(message.body) - 5)
                self.close_connection = True
            case "slow":
                self.server.done.wait(30)
                self.close_connection = True
            case "packed":
                self.send(200, message.body, message.headers | {"Content-Encoding": "gzip"})
            case (status, headers, content):
                self.send(status, content, headers)

    def send(self, status, body, headers, count=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:count])

    def log_message(self, *arguments):
        pass


@contextmanager
def ill(bundle, answers=(), told=None):
    with Ill(bundle, answers, told) as server:
        server.done = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.done.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("trouble", ["lost", "cut"])
def test_a_lost_connection_is_made_again_once(bundle, trouble):
    with ill(bundle, [trouble]) as server:
        _, (scores,) = scores_by(server.address, bundle, images=IMAGES[:3])
        assert close_to(scores, bundle, IMAGES[:3])
        assert server.asked[1:] == [(True, 3), (True, 3)]
    with ill(bundle, [trouble, trouble]) as server:
        _, (problem,) = scores_by(server.address, bundle, images=IMAGES[:3])
        assert (problem.status, problem.code, problem.headers) == (503, "backend", {"Retry-After": "5"})
        assert len(server.asked) == 3


WRONG = {"name": "probabilities", "datatype": "FP32", "shape": [3, 2], "data": [0.5] * 6}


def document(**changes):
    made = {"model_name": "m", "outputs": [WRONG | changes]}
    return json.dumps(made).encode()


@pytest.mark.parametrize(
    ("trouble", "code", "after"),
    [
        ((503, {"Retry-After": "7"}, b"{}"), "backend-busy", "7"),
        ((503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b""), "backend-busy", "1"),
        ((429, {}, b""), "backend-busy", "1"),
        ((500, {}, b'{"error": "Canary^Jane"}'), "backend", "5"),
        ((400, {}, b""), "backend", "5"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "backend", "5"),
        ((200, {}, b"<html>"), "backend", "5"),
        ((200, {}, b"{}"), "backend", "5"),
        ((200, {}, b"x" * 200_000), "backend", "5"),
        ((200, {HEADER_LENGTH: "9999"}, b"{}"), "backend", "5"),
        ((200, {HEADER_LENGTH: "x"}, b"{}"), "backend", "5"),
        ((200, {}, document(name="scores")), "backend", "5"),
        ((200, {}, document(shape=[2, 3])), "backend", "5"),
        ((200, {}, document(datatype="INT8", data=[1] * 6)), "backend", "5"),
        ((200, {}, document(data=[0.5] * 5)), "backend", "5"),
        ("packed", "backend", "5"),
    ],
)
def test_an_answer_that_is_none(bundle, trouble, code, after):
    with ill(bundle, [trouble]) as server:
        _, (problem,) = scores_by(server.address, bundle, images=IMAGES[:3])
        assert isinstance(problem, Problem)
        assert (problem.status, problem.code, problem.headers["Retry-After"]) == (503, code, after)
        assert "Canary" not in problem.detail


def test_an_answer_that_comes_too_late(bundle):
    with ill(bundle, ["slow"]) as server:
        _, (problem,) = scores_by(server.address, bundle, "answer-seconds=1", images=IMAGES[:3])
        assert (problem.status, problem.code) == (503, "answer-seconds")


def test_more_images_than_may_wait(bundle):
    with ill(bundle, ["slow"]) as server:
        limits = ("answer-seconds=1", "queue=4")
        _, found = scores_by(server.address, bundle, *limits, images=IMAGES[:4], times=5)
        assert [one.code for one in found] == ["answer-seconds"] + ["queue"] * 4


def test_a_server_without_the_binary_extension_is_sent_json(bundle):
    with ill(bundle, told={"/v2": {"name": "plain", "extensions": []}}) as server:
        found, (scores,) = scores_by(server.address, bundle)
        assert not found.is_raw and close_to(scores, bundle)
        assert {is_raw for is_raw, _ in server.asked} == {False}
    with ill(bundle, told={"/v2": 404}) as server:
        assert not scores_by(server.address, bundle)[0].is_raw


@pytest.mark.parametrize(
    ("told", "batch"),
    [
        ({"MODEL/config": {"max_batch_size": 5}}, 5),
        ({"MODEL/config": {"max_batch_size": 0}}, 16),
        ({"MODEL/config": {"max_batch_size": "many"}}, 16),
        ({"MODEL": {
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}],
            "outputs": [{"name": "probabilities", "datatype": "FP64", "shape": [1, -1]}],
        }}, 1),
    ],
)  # fmt: skip
def test_as_many_images_as_the_model_takes_at_once(bundle, told, batch):
    with ill(bundle, told=told) as server:
        found, (scores,) = scores_by(server.address, bundle)
        assert found.batch == batch and close_to(scores, bundle)
        assert max(count for _, count in server.asked) == batch


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([GOOD | {"name": "x"}], [GIVES]),
        ([GOOD | {"datatype": "UINT8"}], [GIVES]),
        ([GOOD | {"shape": [-1, 3, 8, 8]}], [GIVES]),
        ([GOOD | {"shape": [-1, 64]}], [GIVES]),
        ([GOOD | {"shape": [4, 1, 8, 8]}], [GIVES]),
        ([GOOD | {"shape": None}], [GIVES]),
        ([GOOD, GOOD | {"name": "y"}], [GIVES]),
        ([], [GIVES]),
        (None, None),
        ([GOOD], [GIVES | {"name": "logits"}]),
        ([GOOD], [GIVES | {"shape": [-1, 3]}]),
        ([GOOD], []),
    ],
)
def test_a_model_that_takes_or_gives_something_else(bundle, inputs, outputs):
    with (
        ill(bundle, told={"MODEL": {"inputs": inputs, "outputs": outputs}}) as server,
        pytest.raises(SpiculaError, match=r"its model is not that of brightness: (in|out)puts are .*, the bundle has"),
    ):
        scores_by(server.address, bundle)


def test_a_model_of_the_same_shape_that_is_another(bundle, other):
    message = "its answers are not those of brightness: probabilities are .* away"
    with ill(other) as server, pytest.raises(SpiculaError, match=message):
        scores_by(server.address, bundle)


def test_a_server_that_does_not_come(bundle):
    with ill(bundle) as server:
        address = server.address
    with pytest.raises(SpiculaError, match="no model is ready there after 1 s"):
        scores_by(address, bundle, "answer-seconds=1")
    message = "no model is ready there after 1 s: it answered 400"
    with ill(bundle, told={"MODEL/ready": 400}) as server, pytest.raises(SpiculaError, match=message):
        scores_by(server.address, bundle, "answer-seconds=1")


def test_a_server_that_comes_late_is_waited_for(bundle):
    with ill(bundle, told={"MODEL/ready": 503}) as server:
        path = f"/v2/models/{NAME}/ready"
        timer = threading.Timer(0.5, lambda: server.told.update({path: {}}))
        timer.start()
        assert close_to(scores_by(server.address, bundle)[1][0], bundle)
        timer.join()


@pytest.fixture(scope="module")
def explaining(tmp_path_factory):
    """A bundle with heatmaps, and one of the same answers whose maps are others."""
    folder = tmp_path_factory.mktemp("explaining")
    return [
        with_golden(remote_bundles.explained(folder / name, scale)) for name, scale in (("bundle", 1), ("other", 1.1))
    ]


def explained_by(address, bundle, images=IMAGES):
    """Connect, and ask for maps where there are some."""

    async def ask():
        settings = ServeSettings((bundle.folder,), backend=address)
        found = await remote.connect(Service(settings), bundle)
        try:
            return found, None if found.unexplained else await found.explained(bundle.inputs(images))
        finally:
            await found.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("extensions", [["binary_tensor_data"], []])
def test_a_server_that_offers_the_map_is_asked_for_it(explaining, extensions):
    bundle = explaining[0]
    with ill(bundle, told={"/v2": {"name": "well", "extensions": extensions}}) as server:
        found, (scores, evidence) = explained_by(server.address, bundle)
    assert found.is_raw == bool(extensions)
    assert close_to(scores, bundle)
    assert evidence.dtype == np.float32
    np.testing.assert_allclose(evidence, IMAGES[..., 0] / 255 - 0.5, atol=1e-6)


def test_another_spicula_gives_the_map(explaining):
    bundle = explaining[0]
    with serving(bundle.folder) as server:
        address = f"triton://127.0.0.1:{server.port}/{NAME}"
        _, (scores, evidence) = explained_by(address, bundle)
        request = messages.write_request({"image": ("FP32", bundle.inputs(IMAGES))}, [], is_raw=True)
        answer = httpx.post(f"{server.url}/v2/models/{NAME}/infer", content=request.body, headers=request.headers)
    assert close_to(scores, bundle)
    np.testing.assert_allclose(evidence, IMAGES[..., 0] / 255 - 0.5, atol=1e-6)
    read = messages.read_answer(answer.content, int(answer.headers[HEADER_LENGTH]), Limits())
    assert [one.name for one in read.outputs] == ["probabilities", "evidence"]  # all, where none are named
    np.testing.assert_array_equal(read.outputs[1].array(), evidence)


@pytest.mark.parametrize(
    ("answers", "outputs", "why"),
    [
        ([], [GIVES], "does not offer its output evidence"),
        ([], [GIVES, EVIDENCE | {"shape": [-1, 4, 4]}], "does not offer its output evidence"),
        ([], [GIVES, EVIDENCE | {"datatype": "BYTES"}], "does not offer its output evidence"),
        ([(500, {}, b"")], [GIVES, EVIDENCE], "offers its output evidence and did not give it: the server .* 500"),
    ],
)
def test_why_answers_of_a_server_have_no_heatmaps(explaining, answers, outputs, why):
    bundle = explaining[0]
    with ill(bundle, told={"MODEL": {"inputs": [GOOD], "outputs": outputs}}) as server:
        server.asked.append(None)
        server.answers = list(answers)
        assert re.search(why, explained_by(server.address, bundle)[0].unexplained)


def test_maps_that_are_not_those_of_the_bundle_are_not_shown(explaining):
    bundle, other = explaining
    with ill(other) as server:
        found, _ = explained_by(server.address, bundle)
    assert (
        found.unexplained
        == "what the server that runs the model gives as evidence is not what the bundle's graph gives"
    )


def test_a_service_says_why_it_has_no_heatmaps(explaining, tmp_path):
    bundle, file = explaining[0], noise(tmp_path / "0.png")

    async def ask(address):
        async with in_process(bundle, backend=address) as (client, _):
            refused = await client.post("/v1/predict?explain=gradcam", files=uploads(file))
            plain = await client.post("/v1/predict", files=uploads(file))
            card = await client.get(f"/v1/models/{NAME}")
            return refused, plain.status_code, card.json()

    with ill(bundle, told={"MODEL": {"inputs": [GOOD], "outputs": [GIVES]}}) as server:
        refused, status, card = asyncio.run(ask(server.address))
    why = "the server that runs the model does not offer its output evidence"
    assert (refused.status_code, refused.json()["code"]) == (422, "explain")
    assert refused.json()["detail"] == f"{NAME} has no heatmaps here: {why}"
    assert status == 200
    assert (card["explanations"], card["unexplained"]) == ([], why)


def test_images_that_wait_for_another_server_are_counted(bundle, tmp_path):
    files = [noise(tmp_path / f"{number}.png", seed=number) for number in range(3)]

    async def ask(server):
        async with in_process(bundle, backend=server.address) as (client, service):
            server.answers = ["slow"] * 6  # each once more, since its connection is lost
            asking = asyncio.create_task(client.post("/v1/predict", files=uploads(*files)))
            while service.models[NAME].inference.waiting < 3:
                await asyncio.sleep(0.01)
            waiting = (await client.get("/metrics")).text
            server.done.set()
            await asking
            return waiting, (await client.get("/metrics")).text

    with ill(bundle) as server:
        waiting, after = asyncio.run(ask(server))
    assert "\nspicula_queue 3.0\n" in waiting
    assert "\nspicula_queue 0.0\n" in after
