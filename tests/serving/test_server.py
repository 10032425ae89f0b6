"""The process: its address, its tokens, TLS, and an end that loses nothing."""

import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from core_server import SECONDS, Answers, read_answer, running, wait_until

TOKEN = "0123456789abcdef"


def start(*arguments, **environment):
    """Run the command to its end; return the exit status and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "spicula", "serve", "bundle", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "SPICULA_TOKENS": "", **environment},
        check=False,
    )
    return done.returncode, done.stderr


# the address


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_for_others_needs_tokens(host):
    status, said = start("--host", host, "--port", "0")
    assert status == 2
    assert said.startswith("spicula: --host") and "give --tokens FILE or SPICULA_TOKENS" in said
    assert said.count("\n") == 1


def test_an_address_for_others_with_tokens():
    with running("--host", "0.0.0.0", environment={"SPICULA_TOKENS": f"a:{TOKEN}"}) as server:
        assert server.ask("GET", "/metrics")[0] == 401
        assert server.ask("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_a_used_port_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, said = start("--port", other.getsockname()[1])
    assert status == 1
    assert "it is in use" in said and said.count("\n") == 1


def test_the_other_protocol_of_the_internet():
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    with running("--host", "::1") as server:
        assert server.log().startswith(f"serving on http://[::1]:{server.port} ")
        with socket.create_connection(("::1", server.port), timeout=SECONDS) as stream:
            stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\n\r\n")
            assert read_answer(stream)[0] == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no.such.host.invalid"], "no address of this machine"),
        (["--limit", "nothing=1"], "no limit 'nothing'"),
        (["--limit", "queue=0"], "not a whole number of at least 1"),
        (["--precision", "bf16"], "--precision bf16 needs openvino"),
        (["--precision", "bf16", "--provider", "cuda"], "--precision bf16 needs openvino"),
        (["--proxy", "proxy.example"], "no address such as"),
        (["--tls-cert", "a.pem"], "belong together"),
        (["--tokens", "nowhere"], "No such file"),
        (["--port", "65536"], "not a port"),
    ],
)
def test_wrong_use(arguments, said):
    status, lines = start(*arguments)
    assert status == 2
    assert said in lines


def test_the_first_line_says_where_and_what_it_is_not():
    with running() as server:
        assert re.fullmatch(
            r"serving on http://127\.0\.0\.1:\d+ \(.*research use only, not a medical device\)\n",
            server.log().partition("ready")[0],
        )


def test_behind_a_proxy_the_address_is_that_of_the_client():
    forwarded = {"X-Forwarded-For": "10.9.8.7"}
    for options, counts_together in ((["--proxy", "127.0.0.1"], False), ([], True)):
        with running("--limit", "requests-a-minute=2", *options) as server:
            for _ in range(3):
                server.ask("GET", "/test/sleep?seconds=0", headers=forwarded)
            assert (server.ask("GET", "/test/sleep?seconds=0")[0] == 429) == counts_together


# tokens while it runs


def test_tokens_are_read_again_at_a_signal(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"a {TOKEN}\n")
    path.chmod(0o600)
    with running("--tokens", path) as server:

        def status(token):
            return server.ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})[0]

        assert (status(TOKEN), status("b" * 32)) == (200, 401)
        path.write_text(f"a {'b' * 32}\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status("b" * 32) == 200)
        assert status(TOKEN) == 401
        path.write_text("nonsense\n")
        server.process.send_signal(signal.SIGHUP)
        assert status("b" * 32) == 200
        code, log = server.end()
    assert code == 0
    assert "tokens stay as they were" in log


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extension = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    subprocess.run(
        ["openssl", *words.split(), "-addext", extension, "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return cert, key


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the old version of TLS, which is to be refused
def test_tls(certificate):
    cert, key = certificate
    with running("--tls-cert", cert, "--tls-key", key, "--limit", "header-seconds=1") as server:
        assert server.log().startswith("serving on https://")
        context = ssl.create_default_context(cafile=cert)
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=SECONDS, context=context)
        connection.request("POST", "/test/bytes", bytes(3_000_000))
        assert connection.getresponse().read() == b"3000000"
        connection.close()
        with server.connect() as stream:  # who says nothing, and no greeting of TLS either
            assert stream.recv(1) == b""
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        old.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
        with server.connect() as stream, pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(stream)
        assert server.end()[0] == 0


def test_files_of_tls_that_are_none(certificate, tmp_path):
    cert, key = certificate
    locked = tmp_path / "locked.pem"
    words = ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(words, check=True, capture_output=True)
    for files in ((cert, cert), (key, key), (cert, locked)):
        status, said = start("--port", "0", "--tls-cert", files[0], "--tls-key", files[1])
        assert status == 2
        assert "not a certificate and its key" in said


# the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number):
    with running() as server:
        assert server.end(number)[0] == 0


def test_requests_under_way_are_answered_and_new_ones_are_told():
    with running() as server, server.connect() as slow, server.connect() as idle:
        slow.sendall(b"GET /test/sleep?seconds=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until(lambda: b"requests_under_way 2.0" in server.ask("GET", "/metrics")[2])
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("GET", "/readyz")[0] == 503)
        assert server.ask("GET", "/healthz")[0] == 200
        idle.sendall(b"GET /test/sleep?seconds=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        status, headers, body = read_answer(idle)
        assert (status, body["code"], headers["connection"]) == (503, "draining", "close")
        assert int(headers["retry-after"]) >= 1
        status, headers, body = read_answer(slow)
        assert (status, body, headers["connection"]) == (200, {"slept": 2.0}, "close")
        assert server.process.wait(SECONDS) == 0


def test_what_takes_too_long_is_ended():
    with running("--limit", "drain-seconds=1") as server, server.connect() as slow:
        slow.sendall(b"GET /test/sleep?seconds=600 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until(lambda: b"requests_under_way 2.0" in server.ask("GET", "/metrics")[2])
        status, log = server.end()
        assert status == 0
        assert "1 requests were not answered within drain-seconds" in log
        answer = read_answer(slow)
        assert (answer[0], answer[2]["code"]) == (503, "drain-seconds")


def test_a_second_interrupt_ends_it_at_once():
    with running() as server, server.connect() as slow:
        slow.sendall(b"GET /test/sleep?seconds=600 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until(lambda: b"requests_under_way 2.0" in server.ask("GET", "/metrics")[2])
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: server.ask("GET", "/readyz")[0] == 503)
        assert server.end(signal.SIGINT)[0] == 130


def test_no_accepted_request_is_lost_under_load():
    """Ten clients ask as quickly as they can, each on one connection, until an answer says that it closes."""
    answered, lost = [], []

    def ask_on(server):
        with server.connect() as stream:
            answers = Answers(stream)
            while True:
                stream.sendall(b"GET /test/sleep?seconds=0.05 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                answer = read_answer(answers)
                if answer is None:
                    lost.append("closed without an answer")
                    return
                answered.append(answer[0])
                if answer[1]["connection"] == "close":
                    return

    with running() as server:
        threads = [threading.Thread(target=ask_on, args=[server]) for _ in range(10)]
        for one in threads:
            one.start()
        wait_until(lambda: len(answered) > 100)
        status, _ = server.end()
        for one in threads:
            one.join()
    assert status == 0
    assert set(answered) <= {200, 503}
    assert lost == []
