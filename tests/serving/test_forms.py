"""Forms with files: what arrives, what is refused, and that nothing stays."""

import hashlib
import random
import stat
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from core_server import read_answer, running, wait_until

LIMITS = [
    *("--limit", "parts=4", "--limit", "field-bytes=100", "--limit", "image-bytes=3000000"),
    *("--limit", "body-bytes=8000000"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with running(*LIMITS, environment={"TMPDIR": str(folder)}) as one:
        one.folder = folder
        yield one


def form(*parts, boundary="xyz", end="--"):
    """A body of parts (header lines, content), and its Content-Type."""
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts)
    return body + f"--{boundary}{end}\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def file(name, data, field="file"):
    return f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png', data


def field(name, data):
    return f'Content-Disposition: form-data; name="{name}"', data


def send(server, *parts, **options):
    body, headers = form(*parts, **options)
    return server.ask("POST", "/test/form", body, headers)


def left_behind(server):
    return [path for path in server.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, 65_536, 2**20, 2**20 + 1, 2_999_999])
def test_files_arrive_bit_by_bit(server, size):
    data = random.Random(size).randbytes(size)
    answer = send(server, file("a.png", data), field("view", "L_CC é".encode()))
    assert answer[0] == 200
    assert answer[2]["uploads"] == [["file", size, hashlib.sha256(data).hexdigest(), size, "image/png"]]
    assert answer[2]["fields"] == [["view", "L_CC é"]]
    wait_until(lambda: left_behind(server) == [])


def test_data_that_looks_like_boundaries(server):
    data = (b"\r\n--xy" * 50_000 + b"\r\n--" + b"\r\n\r\n--xy-") * 3
    answer = send(server, file("a", data))
    assert answer[2]["uploads"][0][2] == hashlib.sha256(data).hexdigest()


def test_nobody_else_can_read_uploads(server):
    answer = send(server, file("../../etc/passwd", b"data"))[2]
    assert stat.S_IMODE(int(answer["folder_mode"], 8)) == 0o700
    assert Path(answer["folder"]).parent == server.folder


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([file("a", b"")] * 5, 413, "parts"),
        ([field("a", b"")] * 5, 413, "parts"),
        ([field("a", b"a" * 101)], 413, "field-bytes"),
        ([file("a", bytes(3_000_001))], 413, "image-bytes"),
        ([("Content-Disposition: form-data", b"nameless")], 400, "form"),
        ([("Content-Disposition: form-data; name=a\r\nX-Long: " + "a" * 10_000, b"")], 400, "form"),
        ([("Content-Disposition: form-data; name=a" + "\r\nX: y" * 100, b"")], 400, "form"),
        ([("no header", b"")], 400, "form"),
    ],
)
def test_forms_that_are_refused(server, parts, status, code):
    answer = send(server, file("kept", b"before"), *parts) if code != "parts" else send(server, *parts)
    assert (answer[0], answer[2]["code"]) == (status, code)
    wait_until(lambda: left_behind(server) == [])


@pytest.mark.parametrize("body", [b"", b"no form", b"--xyz\r\n", b"--abc\r\n\r\n"])
def test_what_is_no_form(server, body):
    answer = server.ask("POST", "/test/form", body, {"Content-Type": "multipart/form-data; boundary=xyz"})
    assert (answer[0], answer[2]["code"]) == (400, "form")


def test_a_form_that_is_cut_short(server):
    body, headers = form(file("a", bytes(1000)), file("b", bytes(1000)))
    for end in (len(body) - 4, len(body) // 2, 100):
        answer = server.ask("POST", "/test/form", body[:end], headers)
        assert (answer[0], answer[2]["code"]) == (400, "form")
    wait_until(lambda: left_behind(server) == [])


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "text/plain", ""])
def test_a_content_type_that_says_nothing(server, kind):
    answer = server.ask("POST", "/test/form", b"data", {"Content-Type": kind})
    assert answer[0] in (400, 415)


def test_a_client_that_leaves_leaves_nothing(server):
    body, headers = form(file("a", bytes(2_000_000)))
    head = f"POST /test/form HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {headers['Content-Type']}\r\n"
    with server.connect() as stream:
        stream.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:1_900_000])
        wait_until(lambda: left_behind(server) != [])
    wait_until(lambda: left_behind(server) == [])


def test_parts_of_a_related_body(server):
    body, _ = form(("Content-Type: application/dicom\r\nContent-Length: 3", b"abc"), ("Content-Type: text/plain", b""))
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary="xyz"'}
    answer = server.ask("POST", "/test/related", b"\r\n" + body, headers)
    assert answer[2] == [
        [3, hashlib.sha256(b"abc").hexdigest(), "application/dicom"],
        [0, hashlib.sha256(b"").hexdigest(), "text/plain"],
    ]


def test_what_a_killed_service_left_goes_with_the_next(tmp_path):
    environment = {"TMPDIR": str(tmp_path)}
    with running(environment=environment) as first, running(environment=environment) as other:
        kept = Path(send(first, file("a", b"a"))[2]["folder"])
        Path(kept, "upload").write_bytes(b"a")
        alive = Path(send(other, file("a", b"a"))[2]["folder"])
        first.process.kill()
        first.process.wait()
        assert kept.exists()
        with running(environment=environment) as next_one:
            send(next_one, file("a", b"a"))
            assert not kept.exists()
            assert alive.exists()
            assert next_one.end()[0] == 0
        assert list(tmp_path.iterdir()) == [alive]


def test_bodies_on_the_disk_of_all_requests_together(tmp_path):
    """They do not count as bodies in memory, and have a limit of their own."""
    with running(
        "--limit", "spooled-bytes=3000000", "--limit", "held-bytes=1000", environment={"TMPDIR": str(tmp_path)}
    ) as server:
        body, headers = form(file("a", bytes(2_000_000)))
        head = f"POST /test/form HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {headers['Content-Type']}\r\n"
        with server.connect() as stream:
            stream.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-10])
            wait_until(lambda: sum(path.stat().st_size for path in tmp_path.rglob("*")) > 1_000_000)
            answer = send(server, file("b", bytes(1_500_000)))
            assert (answer[2]["code"], answer[1]["retry-after"]) == ("spooled-bytes", "1")
            stream.sendall(body[-10:])
            assert read_answer(stream)[0] == 200
        assert send(server, file("b", bytes(1_500_000)))[0] == 200
