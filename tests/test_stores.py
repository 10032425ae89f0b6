"""Addresses of object stores, what is read there, and what is said when that fails."""

import sys
import tempfile
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula import stores
from spicula.errors import SpiculaError, UsageError


@pytest.fixture(autouse=True)
def own_file_systems():
    """File systems that know the environment of this test."""
    clear = stores.shared.cache_clear
    clear()
    yield
    clear()


@pytest.fixture
def s3(bucket):
    pytest.importorskip("s3fs", reason="buckets of S3: pip install 'spicula[archives]'")
    return bucket


def fetch(address):
    with stores.fetched(address) as file:
        return file.read_bytes()


# addresses


@given(
    st.sampled_from(["s3", "gs"]),
    st.from_regex(r"[a-z0-9.-]{3,20}", fullmatch=True),
    st.lists(st.from_regex(r"[\w %+=()-]{1,8}", fullmatch=True).filter(lambda part: part.strip()), max_size=4),
)
def test_addresses_are_taken_letter_by_letter(scheme, bucket, parts):
    path = "/".join([bucket, *parts])
    assert stores.parse(f"{scheme}://{path}") == stores.parse(f"{scheme}://{path}/") == (scheme, path)
    assert stores.place_of(f"{scheme}://{path}/") == f"{scheme}://{path}"
    assert stores.bucket_of(f"{scheme}://{path}") == f"{scheme}://{bucket}"


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3:///x",
        "s3://b/../x",
        "s3://b/./x",
        "s3://b/a//x",
        "s3://k:s@b",
        "gs://b?x",
        "gs://b#x",
        "hdfs://b",
        "x",
    ],
)
def test_other_addresses_are_none(address):
    assert stores.parse(address) is None


# reading


def test_objects_below_a_prefix(s3):
    name = s3(f"b{uuid.uuid4().hex}", {"in/a": b"1", "in/b/c #?%41ü": b"22", "in2/x": b"333", "in": b"4"})
    found = {path: size for path, size, _ in stores.objects(f"s3://{name}/in")}
    assert found == {"a": 1, "b/c #?%41ü": 2}
    assert {path for path, _, _ in stores.objects(f"s3://{name}")} == {"in/a", "in/b/c #?%41ü", "in2/x", "in"}
    assert list(stores.objects(f"s3://{name}/nothing")) == []


def test_long_listings_come_in_pages(s3):
    name = s3(f"b{uuid.uuid4().hex}")
    keys = [f"in/{number:04d}" for number in range(1100)]  # more than the 1,000 of a page
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.service.put_object(Bucket=name, Key=key), keys))
    assert [f"in/{path}" for path, _, _ in stores.objects(f"s3://{name}/in")] == keys


def test_pages_of_google_cloud_storage_follow_one_another(monkeypatch):
    """The emulator has one page for all: this one has two, as the service answers."""
    asked = []

    class Service:
        def call(self, *path, **options):
            asked.append((path, options))
            number = len(asked)
            item = {"name": f"in/{number}", "size": str(number), "generation": "17"}
            return {"items": [item], **({"nextPageToken": "more"} if number == 1 else {})}

    monkeypatch.setattr(stores, "shared", lambda scheme: Service())
    assert list(stores.objects("gs://bucket/in")) == [("1", 1, "17"), ("2", 2, "17")]
    assert asked[0] == (("GET", "b/{}/o", "bucket"), {"prefix": "in/", "json_out": True})
    assert asked[1][1]["pageToken"] == "more"


def test_the_version_is_another_when_the_content_is(s3):
    name = s3(f"b{uuid.uuid4().hex}", {"in/a": b"1", "in/b": b"1"})
    before = {path: version for path, _, version in stores.objects(f"s3://{name}/in")}
    s3.service.put_object(Bucket=name, Key="in/a", Body=b"2")
    after = {path: version for path, _, version in stores.objects(f"s3://{name}/in")}
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]


def test_a_fetched_object_is_gone_from_the_disk_afterwards(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = s3(f"b{uuid.uuid4().hex}", {"MEIER^EVA/a.json": b"content"})
    with stores.fetched(f"s3://{name}/MEIER^EVA/a.json", ".json") as file:
        assert file.read_bytes() == b"content"
        assert file.suffix == ".json"
        assert "MEIER" not in str(file)
    with pytest.raises(KeyboardInterrupt), stores.fetched(f"s3://{name}/MEIER^EVA/a.json"):
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError) as gone:
        fetch(f"s3://{name}/MEIER^EVA/b")
    assert str(gone.value) == f"an object is no longer in s3://{name}"
    assert list(tmp_path.iterdir()) == []


# failures


class Unwilling(BaseHTTPRequestHandler):
    """An S3 service that answers every request with an error."""

    answer = 403, "AccessDenied", ""

    def do_GET(self):
        status, code, message = self.answer
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def unwilling(monkeypatch):
    """A function that makes S3 answer in this way from now on."""
    pytest.importorskip("s3fs", reason="buckets of S3: pip install 'spicula[archives]'")
    handler = type("Handler", (Unwilling,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        names = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_DEFAULT_REGION": "us-east-1"}
        for variable, value in {**names, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
            monkeypatch.setenv(variable, value)

        def answer(status, code, message=""):
            handler.answer = status, code, message

        yield answer
        server.shutdown()


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
def test_an_object_that_may_not_be_read(unwilling, code):
    unwilling(403, code, "not on s3://bucket/MEIER^EVA/a")
    with pytest.raises(PermissionError) as refused:
        fetch("s3://bucket/MEIER^EVA/a")
    assert str(refused.value) == "an object in s3://bucket may not be read; check your rights, and its storage class"


@pytest.mark.parametrize(("status", "code"), [(403, "InvalidAccessKeyId"), (400, "ExpiredToken"), (400, "Odd")])
def test_what_concerns_all_objects_is_no_refusal_of_one(unwilling, status, code):
    unwilling(status, code, "no such key https://x.example/bucket/MEIER^EVA/a")
    with pytest.raises(OSError, match=r"^s3://bucket cannot be read: ") as error:
        fetch("s3://bucket/MEIER^EVA/a")
    assert not isinstance(error.value, PermissionError)
    assert str(error.value).endswith("; check that it is reachable, and your rights")
    assert "MEIER" not in str(error.value)


def test_a_bucket_that_may_not_be_listed(unwilling):
    unwilling(403, "AccessDenied", "User is not allowed")
    with pytest.raises(
        SpiculaError, match=r"^s3://bucket/in cannot be listed: PermissionError \(User is not allowed\)"
    ):
        list(stores.objects("s3://bucket/in"))


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_is_not_there(scheme, request):
    request.getfixturevalue("s3" if scheme == "s3" else "gs_file_system")
    with pytest.raises(UsageError, match=rf"^there is no bucket {scheme}://no-such-bucket-at-all; check its name"):
        list(stores.objects(f"{scheme}://no-such-bucket-at-all/in"))


def test_a_service_that_does_not_answer_is_one_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SpiculaError, match=r"^s3://bucket/in cannot be listed: .*127.0.0.1:1") as listing:
        list(stores.objects("s3://bucket/in"))
    with pytest.raises(OSError, match=r"^s3://bucket cannot be read: .*127.0.0.1:1") as reading:
        fetch("s3://bucket/MEIER^EVA/a")
    assert "\n" not in str(listing.value) + str(reading.value)
    assert "MEIER" not in str(reading.value)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs.core")])
def test_a_missing_package_is_named_with_its_command(scheme, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs {package.split('.')[0]}: pip install 'spicula\[archives\]'"):
        list(stores.objects(f"{scheme}://bucket/in"))


def test_folders_are_absolute_and_addresses_have_no_last_slash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stores.place_of(Path("ws")) == f"{tmp_path}/ws"
    with pytest.raises(UsageError, match="expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"):
        stores.place_of("ftp://host/x")
