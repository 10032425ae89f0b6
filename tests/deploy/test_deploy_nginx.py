"""nginx in front of the service, with the configuration that is deployed: limits, errors, logs, restarts."""

import shutil
import signal
import socket
import ssl
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service needs the extra serve")

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

import bundle_maker
from proxied import CONFIGURATION, SECONDS, free_port, proxied, read_answer
from spicula_server import serving

from spicula.serving.limits import LIMITS

TOKEN = "t" * 43
ALLOWED = {"Authorization": f"Bearer {TOKEN}"}
CANARY = "Canary-Jane-19610203"
METHOD = "CANARY_JANE_"
OPTIONS = ("--limit", "body-seconds=2", "--limit", "requests-a-minute=600")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundle_maker.make(tmp_path_factory.mktemp("proxied") / "bundle").folder


@pytest.fixture(scope="module")
def service(bundle):
    with started(bundle, 0, *OPTIONS) as running:
        assert running.status is None, running.lines
        yield running


@pytest.fixture
def picture(tmp_path):
    return bundle_maker.grey(tmp_path / "image.png", 51).read_bytes()


def started(bundle, port, *options):
    settings = {"SPICULA_TOKENS": f"radiology:{TOKEN}"}
    return serving(bundle, "--proxy", "127.0.0.1", "--port", port, *options, environment=settings)


def form(content, name="image.png"):
    head = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--edge--\r\n", ALLOWED | {"Content-Type": "multipart/form-data; boundary=edge"}


def head_of(headers):
    lines = ["POST /v1/predict HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def check_problem(answer, status, code):
    """An answer of nginx's own has the form of the service's."""
    assert answer is not None
    assert (answer[0], answer[1]["Content-Type"]) == (status, "application/problem+json")
    problem = answer[2]
    assert problem.keys() == {"type", "title", "status", "code", "detail", "error", "request"}
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, "about:blank")
    assert (
        problem["error"] == problem["detail"] and problem["title"] and answer[1]["X-Request-ID"] == problem["request"]
    )
    assert (answer[1]["Retry-After"] is not None) == (status in (429, 503))


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_images_are_answered_over_tls(service, picture):
    with proxied(service.port) as proxy:
        status, headers, answer = proxy.ask("POST", "/v1/predict", *form(picture))
        assert (status, answer["images"][0]["refused"]) == (200, False)
        wait_until(lambda: headers["X-Request-ID"] in (proxy.folder / "access").read_text())
        assert (
            "max-age" in headers["Strict-Transport-Security"]
            and "default-src" in proxy.ask("GET", "/")[1]["Content-Security-Policy"]
        )
        assert proxy.ask("GET", "/readyz")[0] == 200


def test_a_problem_of_the_service_stays_its_own(service):
    with proxied(service.port) as proxy:
        for path, status, code in (("/v1/models", 401, "token"), ("/nothing", 401, "token")):
            answer = proxy.ask("GET", path)
            assert (answer[0], answer[2]["code"]) == (status, code)
            assert answer[1]["X-Request-ID"] == answer[2]["request"]


def test_a_body_beyond_the_limit_is_refused(service):
    with proxied(service.port) as proxy:
        check_problem(proxy.say(head_of({"Content-Length": 257 * 2**20})), 413, "body-bytes")
    with proxied(service.port, {"client_max_body_size 256m": "client_max_body_size 1k"}) as proxy:
        body, headers = form(bytes(2048))
        chunked = head_of(headers | {"Transfer-Encoding": "chunked"}) + b"%x\r\n" % len(body) + body + b"\r\n"
        check_problem(proxy.say(chunked), 413, "body-bytes")


def test_its_limits_are_those_of_the_service():
    limits = {one.name: one.default for one in LIMITS}
    text = CONFIGURATION.read_text()
    assert f"client_max_body_size {limits['body-bytes'] // 2**20}m;" in text
    assert f"client_header_timeout {limits['header-seconds']}s;" in text
    assert f"large_client_header_buffers 4 {limits['header-bytes'] // 4 // 2**10}k;" in text
    assert f"keepalive_timeout {limits['idle-seconds']}s;" in text and "proxy_read_timeout 120s;" in text
    assert limits["answer-seconds"] < 120


def test_too_many_requests_are_refused(service):
    with proxied(service.port, {"rate=50r/s": "rate=1r/m", "burst=200": "burst=3"}) as proxy:
        answers = [proxy.ask("GET", "/healthz") for _ in range(6)]
        assert [one[0] for one in answers] == [200] * 4 + [429] * 2
        check_problem(answers[-1], 429, "requests")
        assert proxy.ask("GET", "/healthz", source="127.0.0.2")[0] == 200


def test_too_many_connections_are_refused(service):
    with proxied(service.port, {"limit_conn connections 64": "limit_conn connections 1"}) as proxy:
        with proxy.connect() as stream:
            stream.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
            wait_until(lambda: proxy.ask("GET", "/healthz")[0] == 429)
            check_problem(proxy.ask("GET", "/healthz"), 429, "requests")
        wait_until(lambda: proxy.ask("GET", "/healthz")[0] == 200)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n", 431, "header-bytes"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Long: " * 8000 + b"\r\n\r\n", 431, "header-bytes"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "header-bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "request"),
        (b"no request at all\r\n\r\n", 400, "request"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, "request"),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method"),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "not-found"),
        (b"GET /problem HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "not-found"),
    ],
)
def test_what_nginx_refuses_has_the_form_of_the_service(service, request_, status, code):
    with proxied(service.port) as proxy:
        check_problem(proxy.say(request_), status, code)


def test_http_without_tls_is_refused(service):
    with proxied(service.port) as proxy:
        check_problem(proxy.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", plain=True), 400, "request")


def test_uploads_stream_through_and_touch_no_disk(service, picture):
    body, headers = form(picture)
    head = head_of(headers | {"Connection": "close", "Content-Length": len(body)})
    with proxied(service.port) as proxy, proxy.connect() as stream:
        stream.sendall(head + body[:100])
        wait_until(lambda: under_way(service) == 2)  # this one, and the one that asks
        assert not [path for path in proxy.folder.rglob("*/*") if path.is_file()]
        stream.sendall(body[100:])
        assert read_answer(stream)[0] == 200


def under_way(service):
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", service.port, timeout=SECONDS)
    connection.request("GET", "/metrics", headers=ALLOWED)
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith("spicula_requests_under_way "))


def test_a_slow_upload_is_cut_off(service):
    body, headers = form(b"")
    begun = head_of(headers | {"Content-Length": 99999}) + body.partition(b"\r\n--edge--")[0]
    with proxied(service.port, {"client_body_timeout 20s": "client_body_timeout 1s"}) as proxy:
        with proxy.connect() as stream:  # it never stops, but it would take hours: the service refuses it
            stream.sendall(begun)
            answer = first_words(stream)
            assert answer.startswith(b"HTTP/1.1 408 ") and b'"body-seconds"' in answer
        with proxy.connect() as stream:  # it stops: nginx closes the connection
            stream.sendall(begun)
            assert read_answer(stream) is None
        assert proxy.ask("GET", "/healthz")[0] == 200


def first_words(stream):
    """Send a byte now and then until there is an answer, and return how it begins."""
    stream.settimeout(0.2)
    for _ in range(SECONDS * 5):
        try:
            return stream.recv(65536)
        except TimeoutError:
            stream.sendall(b"a")
    return b""


def test_the_client_address_is_believed_from_the_proxy_alone(bundle):
    with started(bundle, 0, "--limit", "requests-a-minute=3") as service, proxied(service.port) as proxy:
        lie = {"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}
        first = [proxy.ask("GET", "/", headers=lie, source="127.0.0.2")[0] for _ in range(5)]
        assert first == [200] * 3 + [429] * 2
        assert proxy.ask("GET", "/", source="127.0.0.3")[0] == 200
        limited = proxy.ask("GET", "/", source="127.0.0.2")
        assert (limited[0], limited[2]["code"]) == (429, "requests-a-minute") and limited[1]["Retry-After"]


def test_no_log_has_what_a_request_says(bundle, picture):
    """Names, URLs, queries, headers, methods and bodies, answered and refused, with and without a service behind."""
    port = free_port()
    with proxied(port, {"rate=50r/s": "rate=1r/m", "burst=200": "burst=12", "body_size 256m": "body_size 1m"}) as proxy:
        with started(bundle, port) as service:
            assert proxy.ask("POST", f"/v1/predict?of={CANARY}", *form(picture, CANARY))[0] == 422
            assert proxy.ask("POST", "/v1/predict", *form(picture, f"{CANARY}.png"))[0] == 200
            told(proxy)
            served = service.lines
        told(proxy)
        answers = [proxy.ask("GET", f"/{CANARY}", headers={"X-Patient": CANARY})[0] for _ in range(12)]
        assert {503, 429} <= set(answers)
        statuses, written = proxy.statuses(), proxy.written()
    assert {"200", "400", "413", "414", "422", "429", "431", "503"} <= set(statuses)
    logs = written + "\n".join(served)
    assert CANARY not in logs and METHOD not in logs


def told(proxy):
    """Say a name in every odd way."""
    host = b"Host: localhost\r\n"
    name = CANARY.encode()
    proxy.say(b"GET /" + name * 600 + b" HTTP/1.1\r\n" + host + b"\r\n")
    proxy.say(b"GET /?id=" + name + b" HTTP/1.1\r\n" + host + b"X-Long: " + name * 600 + b"\r\n\r\n")
    proxy.say(METHOD.encode() + b" /" + name + b" HTTP/1.1\r\n" + host + b"\r\n")
    proxy.say(b"GET /" + name + b" NOT-HTTP\r\n" + host + b"\r\n")
    proxy.say(b"POST /" + name + b" HTTP/1.1\r\n" + host + b"Content-Length: 9999999\r\n\r\n")
    with proxy.connect() as stream:
        stream.sendall(b"POST /" + name + b" HTTP/1.1\r\n" + host + b"Content-Length: 999\r\n\r\n" + name)


def test_a_restart_is_a_503_that_says_when_to_come_again(bundle):
    port = free_port()
    with proxied(port) as proxy:
        check_problem(proxy.ask("GET", "/v1/models", headers=ALLOWED), 503, "unavailable")
        for _ in range(2):
            with started(bundle, port) as service:
                assert proxy.ask("GET", "/v1/models", headers=ALLOWED)[0] == 200
                assert service.end() == 0
            check_problem(proxy.ask("GET", "/v1/models", headers=ALLOWED), 503, "unavailable")
            assert int(proxy.ask("GET", "/")[1]["Retry-After"]) == 5


def test_a_new_certificate_is_taken_at_sighup(service):
    with proxied(service.port) as proxy:
        with proxy.connect() as stream:
            before = stream.getpeercert()["serialNumber"]
        proxy.make_certificate()
        proxy.process.send_signal(signal.SIGHUP)
        wait_until(lambda: serial(proxy) not in (None, before))  # workers of before may still take a connection
        wait_until(lambda: healthy(proxy))


def serial(proxy):
    try:
        with proxy.connect() as stream:
            return stream.getpeercert()["serialNumber"]
    except ssl.SSLError:  # the old one, which is not trusted any more
        return None


def healthy(proxy):
    try:
        return proxy.ask("GET", "/healthz")[0] == 200
    except ssl.SSLError:
        return False


def test_its_own_health_needs_no_service():
    with proxied(free_port()) as proxy, socket.create_connection(("127.0.0.1", proxy.health_port), SECONDS) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 204 ")


@pytest.mark.slow
def test_the_page_waits_for_a_restart(bundle):
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser's driver: pip install 'spicula[peers]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    port = free_port()
    with proxied(port) as proxy, playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium)
        page = browser.new_context(ignore_https_errors=True).new_page()
        with started(bundle, port):
            page.goto(f"https://127.0.0.1:{proxy.port}/")
            page.locator("#token").fill(TOKEN)
            page.get_by_role("button", name="Go on").click()
            page.wait_for_selector(".drop")
        page.locator("input[type=file]").first.set_input_files(
            {"name": "image.png", "mimeType": "image/png", "buffer": small_picture()}
        )
        page.get_by_text("the service does not answer; it may be starting or restarting").wait_for()
        with started(bundle, port):
            page.get_by_text("bright", exact=False).first.wait_for(timeout=SECONDS * 1000)
            page.wait_for_selector("#status", state="hidden")
        browser.close()


def small_picture():
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.full((20, 30), 51, np.uint8))[1].tobytes()
