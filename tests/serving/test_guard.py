"""What every request passes: who asks, how much, how often; and what every answer carries."""

import gzip
import json
import re
import zlib

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from core_server import read_answer, running, wait_until

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
LIMITS = [
    *("--limit", "body-bytes=2000000", "--limit", "json-text-bytes=20000", "--limit", "json-depth=5"),
    *("--limit", "held-bytes=3000000"),
]


@pytest.fixture(scope="module")
def server():
    with running(*LIMITS) as one:
        yield one


@pytest.fixture(scope="module")
def guarded():
    with running(environment={"SPICULA_TOKENS": f"radiology:{TOKEN},pacs:fedcba9876543210"}) as one:
        yield one


def assert_problem(answer, status, code):
    assert (answer[0], answer[2].get("code")) == (status, code)
    assert answer[1]["content-type"] == "application/problem+json"
    assert set(answer[2]) == {"type", "title", "status", "code", "detail", "error", "request"}
    assert answer[1]["x-request-id"] == answer[2]["request"]


# every answer


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/test/sleep"])
def test_every_answer_is_careful(server, path):
    headers = server.ask("GET", path, headers={"X-Request-ID": "theirs", "Origin": f"http://127.0.0.1:{server.port}"})[
        1
    ]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])
    assert "server" not in headers
    assert [name for name in headers if name.lower().startswith("access-control")] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("DELETE", "/healthz", 405, "method-not-allowed"),
        ("TRACE", "/healthz", 405, "method-not-allowed"),
        ("GET", "/test/sleep", 422, "invalid"),
        ("GET", "/test/sleep?seconds=canary", 422, "invalid"),
        ("POST", "/test/form", 415, "media-type"),
        ("GET", "/healthz/", 404, "not-found"),
    ],
)
def test_errors_have_one_form(server, method, path, status, code):
    answer = server.ask(method, path)
    assert_problem(answer, status, code)
    assert "canary" not in json.dumps(answer[2])


def test_what_fails_inside_is_told_without_its_values():
    with running() as server:
        answer = server.ask("GET", "/test/fail?canary=DOE-JANE")
        assert_problem(answer, 500, "internal")
        metrics = server.ask("GET", "/metrics")[2].decode()
        status, log = server.end()
    assert status == 0
    assert f"request {answer[2]['request']} failed: ValueError at core_server.py:" in log
    assert "DOE" not in log + json.dumps(answer[2]) + metrics


def test_an_answer_that_fails_late_is_cut(server):
    with server.connect() as stream:
        stream.sendall(b"GET /test/fail-late HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        while data := stream.recv(4096):
            received += data
    assert b"begun" in received
    assert not received.endswith(b"0\r\n\r\n")  # the end of a whole one
    assert b"canary" not in received


# bodies


def test_a_body_that_says_that_it_is_too_large(server):
    assert_problem(server.ask("POST", "/test/bytes", bytes(2_000_001)), 413, "body-bytes")


def test_a_body_that_is_too_large_without_saying_it(server):
    pieces = iter([bytes(100_000)] * 25)
    answer = server.ask("POST", "/test/bytes", pieces)  # http.client sends an iterator in chunks
    assert_problem(answer, 413, "body-bytes")


def test_bodies_in_memory_of_all_requests_together():
    with running(*LIMITS) as server:
        head = b"POST /test/bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1900000\r\n\r\n"
        with server.connect() as one, server.connect() as other:
            one.sendall(head + bytes(1_800_000))
            wait_until(lambda: b"requests_under_way 2.0" in server.ask("GET", "/metrics")[2])
            wait_until(lambda: server.ask("POST", "/test/bytes", bytes(1_500_000))[0] == 503)
            other.sendall(head + bytes(1_500_000))
            answer = read_answer(other)
            assert_problem(answer, 503, "held-bytes")
            assert answer[1]["retry-after"] == "1"
            one.sendall(bytes(100_000))
            assert read_answer(one)[2] == 1_900_000
        wait_until(lambda: server.ask("POST", "/test/bytes", bytes(1_900_000))[0] == 200)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_bodies_are_read(server, encoding, pack):
    body = json.dumps({"numbers": [1.5] * 2000}).encode()
    assert server.ask("POST", "/test/json", pack(body), JSON | {"Content-Encoding": encoding})[2] == 3000.0
    headers = {"Content-Encoding": encoding}
    for size in (0, 1, 2**20 - 1, 2**20, 2**20 + 1, 1_999_999):
        assert server.ask("POST", "/test/bytes", pack(bytes(size)), headers)[2] == size


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("br", b"", 415, "encoding"),
        ("gzip, gzip", b"", 415, "encoding"),
        ("gzip", b"no gzip", 400, "encoding"),
        ("gzip", gzip.compress(b"cut")[:-4], 400, "encoding"),
        ("gzip", gzip.compress(b"more") + b"behind", 400, "encoding"),
        ("deflate", gzip.compress(b"the other"), 400, "encoding"),
        ("gzip", gzip.compress(bytes(50_000_000)), 413, "body-bytes"),
    ],
    ids=["unknown", "twice", "none", "cut", "more-behind", "another", "bomb"],
)
def test_compressed_bodies_that_are_refused(server, encoding, body, status, code):
    assert_problem(server.ask("POST", "/test/bytes", body, {"Content-Encoding": encoding}), status, code)


@pytest.mark.parametrize("path", ["/test/json", "/test/raw-json"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"numbers": [' + b"1," * 20_000 + b"1]}", 413, "json-text-bytes"),
        (b"[" * 19_000, 400, "json-depth"),
        (b'{"numbers": [[[[[[1]]]]]]}', 400, "json-depth"),
        (b'{"a\\"[[[[[[": "]]]]]]", "numbers": [[[[[1]]]]]}', 400, "json-depth"),
    ],
)
def test_json_beyond_its_limits(server, path, body, status, code):
    assert_problem(server.ask("POST", path, body, JSON), status, code)
    assert_problem(server.ask("POST", path, iter([body[:7], body[7:]]), JSON), status, code)


def test_brackets_in_strings_are_not_nested(server):
    text = {"text": "[" * 100 + '"\\' + "{" * 100}
    assert server.ask("POST", "/test/raw-json", json.dumps(text), JSON)[2] == {"value": text}


@pytest.mark.parametrize("body", [b"{", b"", b"NaN", b"\xff", b'{"a": Infinity}', b"1 2"])
def test_what_is_no_json(server, body):
    assert_problem(server.ask("POST", "/test/raw-json", body), 400, "json")


# who asks


def test_a_token_is_needed(guarded):
    for headers in ({}, {"Authorization": "Basic cmFkOjAxMjM0NTY3ODlhYmNkZWY="}, {"Authorization": TOKEN}):
        answer = guarded.ask("GET", "/test/sleep?seconds=0", headers=headers)
        assert_problem(answer, 401, "token")
        assert answer[1]["www-authenticate"].startswith("Bearer")
    wrong = guarded.ask("GET", "/metrics", headers={"Authorization": "Bearer 0123456789abcdeX"})
    assert_problem(wrong, 401, "token")
    assert "0123456789abcdeX" not in json.dumps(wrong[2])
    assert guarded.ask("GET", "/nowhere")[0] == 401  # nobody learns what there is


def test_a_token_has_a_name(guarded):
    for token, name in ((TOKEN, "radiology"), ("fedcba9876543210", "pacs")):
        answer = guarded.ask("POST", "/test/audit", headers={"Authorization": f"bearer {token}"})
        assert answer[2]["who"] == name


def test_health_needs_no_token(guarded):
    assert guarded.ask("GET", "/healthz")[0] == guarded.ask("GET", "/readyz")[0] == 200


def test_with_a_token_any_host_and_origin_may_ask(guarded):
    headers = BEARER | {"Host": "spicula.example", "Origin": "https://viewer.example", "Sec-Fetch-Site": "cross-site"}
    assert guarded.ask("POST", "/test/audit", headers=headers)[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "127.0.0.2:1", "[::1]:8000"])
def test_names_of_this_machine(server, host):
    assert server.ask("GET", "/metrics", headers={"Host": host})[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(server, host):
    assert_problem(server.ask("GET", "/metrics", headers={"Host": host}), 403, "host")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_pages_of_other_origins_may_send_nothing(server, headers):
    assert_problem(server.ask("POST", "/test/audit", headers=headers), 403, "origin")


def test_the_page_of_this_origin_may(server):
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": f"http://127.0.0.1:{server.port}"}):
        assert server.ask("POST", "/test/audit", headers=headers)[0] == 200
    assert server.ask("GET", "/metrics", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link


# how often


def test_requests_a_minute_of_one_token():
    with running(
        "--limit", "requests-a-minute=5", environment={"SPICULA_TOKENS": f"a:{TOKEN},b:fedcba9876543210"}
    ) as one:
        assert [one.ask("GET", "/test/sleep?seconds=0", headers=BEARER)[0] for _ in range(5)] == [200] * 5
        answer = one.ask("GET", "/test/sleep?seconds=0", headers=BEARER)
        assert_problem(answer, 429, "requests-a-minute")
        assert 1 <= int(answer[1]["retry-after"]) <= 12
        other = {"Authorization": "Bearer fedcba9876543210"}
        assert one.ask("GET", "/test/sleep?seconds=0", headers=other)[0] == 200
        assert [one.ask("GET", "/metrics")[0] for _ in range(6)] == [401] * 5 + [429]  # guesses count by address
        assert one.ask("GET", "/healthz")[0] == 200


# what is counted


def test_metrics_count_by_route_and_never_by_what_was_asked(server):
    server.ask("GET", "/test/sleep?seconds=0&canary=1")
    server.ask("CANARY", "/canary")
    server.ask("GET", "/canary")
    text = server.ask("GET", "/metrics", headers={"User-Agent": "canary"})[2].decode()
    assert re.search(r'spicula_requests_total\{method="GET",route="/test/sleep",status="200"\} [1-9]', text)
    assert re.search(r'spicula_requests_total\{method="GET",route="none",status="404"\} [1-9]', text)
    assert re.search(r'spicula_problems_total\{code="body-bytes"\} [1-9]', text)
    assert re.search(r'spicula_request_seconds_count\{route="/test/sleep"\} [1-9]', text)
    assert re.search(r"process_resident_memory_bytes [1-9]", text)
    assert "canary" not in text.lower()


def test_the_log_has_a_line_a_request_without_what_was_asked():
    with running() as server:
        identity = server.ask("POST", "/test/audit?canary=1", headers={"User-Agent": "canary"})[1]["x-request-id"]
        server.ask("GET", "/canary%0a", headers={"X-Request-ID": "canary"})
        server.ask("GET", "/healthz")
        server.ask("CANARY", "/canary")
        _, log = server.end()
    assert re.search(rf"INFO POST /test/audit 200 0\.\d\d\d s local {identity}\n", log)
    assert re.search(r"INFO GET none 404 0\.\d\d\d s local [0-9a-f]{16} not-found\n", log)
    assert "healthz" not in log  # a line every few seconds, for ever
    assert "canary" not in log.lower()


def test_the_log_of_errors_alone():
    with running("--log", "errors") as server:
        server.ask("GET", "/nowhere")
        server.ask("GET", "/test/fail?canary=1")
        _, log = server.end()
    assert "none 404" not in log
    assert "ValueError at core_server.py" in log
