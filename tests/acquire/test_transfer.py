"""HTTP: what is tried again and what is not, files continued by range, nothing over plain http that began safely."""

import http.server
import socket
import ssl
import subprocess
import threading
import time

import pytest
from nbia_server import series_uid

from spicula.acquire import transfer
from spicula.acquire.transfer import Client, Refused, Retry, Unreachable, part_of, patiently
from spicula.errors import SpiculaError, UsageError


@pytest.fixture
def client(hasty):
    return Client(http=True)


class Zip:
    """The address of one series' zip on a test server."""

    def __init__(self, server, number=0):
        self.url = f"{server.url}/services/v1/getImageWithMD5Hash"
        self.params = {"SeriesInstanceUID": series_uid(number)}

    def fetch(self, client, path, magic=b"PK"):
        told = []
        client.fetch(self.url, path, told.append, params=self.params, magic=magic)
        return sum(told)


def test_fetches_a_file_and_tells_its_bytes(nbia, client, tmp_path):
    server = nbia()
    told = Zip(server).fetch(client, tmp_path / "a.zip")
    assert told == (tmp_path / "a.zip").stat().st_size == server.sent()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert Zip(server).fetch(client, tmp_path / "a.zip") == 0
    assert server.requests("getImageWithMD5Hash") == 1


def test_a_cut_file_is_continued_by_range_byte_by_byte(nbia, client, tmp_path):
    server = nbia(ranges=True, side=256)
    server.faults({"series": 0, "kind": "cut", "at": 0.6})
    with pytest.raises(Retry, match=r"the connection to 127\.0\.0\.1 was cut"):
        Zip(server).fetch(client, tmp_path / "a.zip")
    have = part_of(tmp_path / "a.zip").stat().st_size
    assert have > 0
    assert transfer.can_continue(tmp_path / "a.zip")
    told = Zip(server).fetch(client, tmp_path / "a.zip")
    Zip(server).fetch(client, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert told == (tmp_path / "b.zip").stat().st_size - have
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_a_file_that_changed_on_the_server_comes_anew(nbia, client, tmp_path):
    server = nbia(ranges=True, side=256)
    server.faults({"series": 0, "kind": "cut"})
    with pytest.raises(Retry):
        Zip(server).fetch(client, tmp_path / "a.zip")
    server.set(side=257)
    told = Zip(server).fetch(client, tmp_path / "a.zip")
    assert told == (tmp_path / "a.zip").stat().st_size
    assert server.requests("range") == 0


def test_another_range_than_the_one_asked_for_is_not_taken(nbia, client, tmp_path):
    server = nbia(ranges=True, side=256)
    server.faults({"series": 0, "kind": "cut"}, {"series": 0, "kind": "other-range"})
    for reason in ("was cut", "sent another range"):
        with pytest.raises(Retry, match=reason):
            Zip(server).fetch(client, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_whole_but_for_its_name_is_not_asked_for(nbia, client, tmp_path):
    server = nbia(ranges=True, side=256)
    server.faults({"series": 0, "kind": "cut"})
    with pytest.raises(Retry):
        Zip(server).fetch(client, tmp_path / "a.zip")
    path = tmp_path / "a.zip"
    Zip(server).fetch(client, tmp_path / "b.zip")
    part_of(path).write_bytes((tmp_path / "b.zip").read_bytes())
    before = server.requests("getImageWithMD5Hash")
    assert Zip(server).fetch(client, path) == 0
    assert path.read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert server.requests("getImageWithMD5Hash") == before


def test_without_ranges_a_cut_file_cannot_be_continued(nbia, client, tmp_path):
    server = nbia(side=256)
    server.faults({"series": 0, "kind": "cut"})
    with pytest.raises(Retry, match="was cut"):
        Zip(server).fetch(client, tmp_path / "a.zip")
    assert part_of(tmp_path / "a.zip").stat().st_size > 0
    assert not transfer.can_continue(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "html"}, "sent a page instead of the file"),
        ({"kind": "busy"}, "answered with HTTP status 503"),
        ({"kind": "stall"}, "sent nothing for 3 s"),
        ({"kind": "cut"}, "was cut"),
    ],
)
def test_what_may_pass_is_to_be_tried_again(nbia, client, tmp_path, fault, reason):
    server = nbia(side=256)
    server.faults({"series": 0, **fault})
    with pytest.raises(Retry, match=reason):
        Zip(server).fetch(client, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_the_server_says_when_to_come_back(nbia, client):
    server = nbia()
    server.faults({"call": "getSeries", "kind": "busy", "after": "7", "times": 1})
    with pytest.raises(Retry) as caught:
        client.get(f"{server.url}/services/v1/getSeries")
    assert caught.value.after_seconds == 7


def test_the_servers_word_is_heard_within_bounds(monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", transfer.Patience(first_wait_seconds=1, longest_wait_seconds=60))
    assert transfer.wait_seconds(1, 30) == 30
    assert transfer.wait_seconds(1, 3600) == 60
    assert transfer.wait_seconds(50) == 60
    for attempt in (1, 2, 3):
        waits = [transfer.wait_seconds(attempt) for _ in range(200)]
        assert 2**attempt / 4 <= min(waits) < max(waits) <= 2**attempt / 2


class Answer:
    """What a server said, as far as Retry-After goes."""

    def __init__(self, value):
        self.headers = {"Retry-After": value}


@pytest.mark.parametrize(("value", "seconds"), [("12", 12), ("", None), ("soon", None), ("-3", None)])
def test_retry_after(value, seconds):
    assert transfer._retry_after(Answer(value)) == seconds


def test_retry_after_as_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 80 < transfer._retry_after(Answer(date)) <= 100


def test_what_will_not_pass_is_refused_at_once(nbia, client):
    server = nbia()
    with pytest.raises(Refused, match=r"127\.0\.0\.1 does not have it \(HTTP status 404\)") as caught:
        client.get(f"{server.url}/services/v1/nothing")
    assert caught.value.status == 404


def test_patience_ends(hasty):
    calls = []

    def call():
        calls.append(1)
        raise Retry("no luck")

    with pytest.raises(SpiculaError, match=r"^no luck$"):
        patiently(call, retries=3)
    assert len(calls) == 4
    calls.clear()

    def away():
        calls.append(1)
        raise Unreachable("nobody there")

    with pytest.raises(SpiculaError, match="nobody there"):
        patiently(away, retries=9)
    assert len(calls) == 3


def test_a_server_that_is_not_there_is_one_line_with_the_way_out(client):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(
        Unreachable, match=r"cannot reach 127\.0\.0\.1 \(no connection\): check the network, .*--mirror"
    ):
        client.get(f"http://127.0.0.1:{port}/")


def test_a_name_that_nobody_knows_is_said(client, monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match=r"cannot reach services\.example\.org \(its name is not known\)"):
        client.get("http://services.example.org/")


def test_plain_http_is_for_those_who_ask_for_it(nbia, hasty):
    server = nbia()
    with pytest.raises(UsageError, match="only https:// is allowed"):
        Client().get(f"{server.url}/services/v1/getSeries")
    with pytest.raises(UsageError, match="only https:// is allowed"):
        Client(http=True).get("ftp://127.0.0.1/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the openssl program, to make a certificate")
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture
def tls_server(certificate):
    """A server with a certificate of its own, which sends everybody to plain http."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/plain")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    class TlsServer(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):
            pass

    server = TlsServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_certificate_that_nobody_vouches_for_is_refused_in_one_line(tls_server, hasty):
    with pytest.raises(SpiculaError, match=r"the certificate of 127\.0\.0\.1 cannot be verified") as caught:
        Client(http=True).get(tls_server)
    assert "\n" not in str(caught.value)


def test_no_redirect_leads_from_https_to_http(tls_server, certificate, hasty, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".crt")))
    with pytest.raises(SpiculaError, match="redirects to plain http, which was not followed"):
        Client(http=True).get(tls_server)


def test_a_redirect_is_followed_and_authorises_nobody_else(nbia, client):
    one, other = nbia(), nbia()
    seen = []

    def auth(request):
        request.headers["Authorization"] = "Bearer secret"
        seen.append(request.url)
        return request

    one.faults({"call": "getSeries", "kind": "redirect", "to": f"{other.url}/services/v2/getSeries", "times": 1})
    # the other server, at another port, wants a token and is given none
    with pytest.raises(Refused, match="asks for a login") as caught:
        client.get(f"{one.url}/services/v1/getSeries", auth=auth)
    assert caught.value.status == 401
    assert len(seen) == 1


def test_a_circle_of_redirects_ends(nbia, client):
    server = nbia()
    url = f"{server.url}/services/v1/getSeries"
    server.faults({"call": "getSeries", "kind": "redirect", "to": url, "times": 99})
    with pytest.raises(Retry, match="redirects more than 5 times"):
        client.get(url)


def test_passwords_of_netrc_are_not_sent(nbia, client, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    asked = []
    original = transfer._no_auth

    def spy(request):
        asked.append(dict(request.headers))
        return original(request)

    monkeypatch.setattr(transfer, "_no_auth", spy)
    client.get(f"{nbia().url}/services/v1/getSeries")
    assert asked
    assert all("Authorization" not in headers for headers in asked)
