"""Connections: headers, clocks, broken requests, too many connections. Real sockets, a real process."""

import os
import signal
import socket
import time

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from core_server import SECONDS, Answers, read_answer, running, wait_until

GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
QUICK = ["--limit", "header-seconds=1", "--limit", "idle-seconds=2", "--limit", "body-seconds=1"]


@pytest.fixture(scope="module")
def server():
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def quick_server():
    with running(*QUICK, "--limit", "send-seconds=1") as one:
        yield one


def say(server, *pieces):
    """Send bytes on a connection of its own; return the answer."""
    with server.connect() as stream:
        for piece in pieces:
            stream.sendall(piece)
        return read_answer(stream)


def is_closed(stream):
    """Wait for the end of a connection on which nothing comes."""
    try:
        return stream.recv(1) == b""
    except ConnectionResetError:
        return True


def assert_problem(answer, status, code):
    assert answer is not None
    assert (answer[0], answer[2]["code"]) == (status, code)
    assert answer[1]["content-type"] == "application/problem+json"
    assert answer[1]["x-request-id"] == answer[2]["request"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"NONSENSE /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /test/bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_a_bad_request(server, sent):
    assert_problem(say(server, sent), 400, "http")


@pytest.mark.parametrize("hosts", [b"", b"Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n"])
def test_a_request_has_one_host(server, hosts):
    assert_problem(say(server, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n"), 400, "host")


def test_http_1_0_needs_no_host(server):
    assert say(server, b"GET /readyz HTTP/1.0\r\n\r\n")[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"X-Long: " + b"a" * 10_000_000,
        b"".join(b"X-%d: a\r\n" % n for n in range(5000)) + b"\r\n",
    ],
)
def test_headers_beyond_their_limit(server, head):
    assert_problem(say(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head), 431, "header-bytes")


def test_a_long_address_counts_as_header(server):
    assert_problem(say(server, b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"), 431, "header-bytes")


def test_headers_below_their_limit_that_come_with_a_large_body(server):
    body = bytes(500_000)
    head = b"POST /test/bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: %s\r\nContent-Length: 500000\r\n\r\n" % (
        b"a" * 30_000
    )
    assert say(server, head + body)[2] == 500_000


def test_headers_of_the_next_request_count_while_one_is_answered(server):
    sleep = b"GET /test/sleep?seconds=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with server.connect() as stream:
        stream.sendall(sleep + b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"a" * 400_000 + b"\r\n\r\n")
        answers = Answers(stream)
        assert read_answer(answers)[2] == {"slept": 1.0}
        assert_problem(read_answer(answers), 431, "header-bytes")


def test_requests_behind_each_other_are_answered_in_their_order(server):
    sleeps = b"".join(b"GET /test/sleep?seconds=0.%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % n for n in (2, 1, 0))
    with server.connect() as stream:
        stream.sendall(sleeps + GET)
        answers = Answers(stream)
        assert [read_answer(answers)[2].get("slept") for _ in range(4)] == [0.2, 0.1, 0.0, None]


def test_an_offer_of_another_protocol_is_answered_in_this_one(server):
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    assert say(server, GET[:-2] + upgrade)[0] == 200


def test_the_answer_to_a_body_that_is_too_large_arrives(server):
    head = b"POST /test/bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000000\r\n\r\n"
    with server.connect() as stream:
        stream.sendall(head)
        stream.sendall(bytes(20_000_000))
        assert_problem(read_answer(stream), 413, "body-bytes")


def test_a_connection_goes_on_after_a_body_that_was_refused(server):
    body = bytes(1000)
    with server.connect() as stream:
        stream.sendall(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        assert_problem(read_answer(stream), 404, "not-found")
        stream.sendall(body + GET)
        assert read_answer(stream)[0] == 200


def test_silent_connections_are_closed(quick_server):
    with quick_server.connect() as stream:
        assert is_closed(stream)


def test_a_connection_is_closed_after_its_last_answer(quick_server):
    with quick_server.connect() as stream:
        stream.sendall(GET)
        assert read_answer(stream)[0] == 200
        assert is_closed(stream)


@pytest.mark.parametrize("begin", [b"G", GET[:-2], b"\r\n"])
def test_slow_headers_are_cut_off(quick_server, begin):
    with quick_server.connect() as stream:
        began = time.monotonic()
        stream.sendall(begin)
        stream.settimeout(0.3)
        while time.monotonic() < began + SECONDS:
            try:
                if stream.recv(1) == b"":
                    return
            except TimeoutError:
                stream.sendall(b"\r\n" if begin == b"\r\n" else b"X: y\r\n"[: 6 * (begin != b"G")])
            except ConnectionError:
                return
        raise AssertionError("the connection is still open")


def test_slow_bodies_are_refused(quick_server):
    with quick_server.connect() as stream:
        stream.sendall(b"POST /test/bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nhalf")
        assert_problem(read_answer(stream), 408, "body-seconds")
        assert is_closed(stream)


def test_clients_that_take_nothing_of_their_answer_are_cut_off(quick_server):
    with quick_server.connect() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.sendall(b"GET /test/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

        def open_connections():
            text = quick_server.ask("GET", "/metrics")[2].decode()
            return float(next(line for line in text.splitlines() if line.startswith("spicula_connections")).split()[1])

        wait_until(lambda: open_connections() == 1)  # that of the question itself


def test_waiting_connections_give_way_and_busy_ones_do_not():
    with running("--limit", "connections=20") as server:
        idle = [server.connect() for _ in range(60)]
        assert server.ask("GET", "/healthz")[0] == 200
        for one in idle:
            one.close()
        busy = [server.connect() for _ in range(20)]
        for one in busy:
            one.sendall(b"GET /test/sleep?seconds=3 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until(lambda: server.ask("GET", "/healthz")[0] == 503)
        answer = say(server, GET)
        assert_problem(answer, 503, "connections")
        assert int(answer[1]["retry-after"]) >= 1
        assert [read_answer(one)[0] for one in busy] == [200] * 20
        for one in busy:
            one.close()


def test_five_hundred_silent_clients_do_not_keep_a_healthy_one_from_its_answers(server):
    silent = [server.connect() for _ in range(500)]
    for number, one in enumerate(silent):
        one.sendall(
            [b"", GET[:-2], b"POST /test/bytes HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"][number % 3]
        )
    assert [server.ask("GET", "/test/sleep?seconds=0")[0] for _ in range(50)] == [200] * 50
    for one in silent:
        one.close()


def test_several_answers_that_a_client_does_not_take_are_no_error():
    with running("--limit", "send-seconds=1") as server:
        with server.connect() as stream:
            stream.sendall(b"GET /test/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3)
            wait_until(lambda: b"requests_under_way 2.0" in server.ask("GET", "/metrics")[2])
            wait_until(lambda: b"requests_under_way 1.0" in server.ask("GET", "/metrics")[2])
        assert "failed" not in server.log()


def test_many_that_connect_at_once_are_all_answered():
    """More than asyncio's own backlog of 100 connections, while the service is busy with something else."""
    with running() as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        streams = [server.connect() for _ in range(300)]
        for stream in streams:
            stream.sendall(GET)
        os.kill(server.process.pid, signal.SIGCONT)
        assert [read_answer(stream)[0] for stream in streams] == [200] * 300
        for stream in streams:
            stream.close()
