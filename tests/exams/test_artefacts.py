"""The content-addressed store, in a folder and in object stores (servers as processes)."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_stores import ObjectStore

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.exams.artefacts import Artefacts


@pytest.fixture(params=["file", "s3", "gs"])
def place(request, tmp_path):
    """A store of artefacts by its address, and the bucket that it is in."""
    if request.param == "file":
        return str(tmp_path / "ünï #1" / "artefacts"), None
    store = ObjectStore(request.param, request)
    return f"{store.address}/ws/artefacts", store


@pytest.fixture
def uri(place):
    return place[0]


@pytest.fixture
def spoil(place):
    """Replace or remove an artefact behind the store's back."""
    uri, store = place

    def change(name, body):
        path = f"{name[:2]}/{name}"
        if store is None:
            Path(uri, path).unlink() if body is None else Path(uri, path).write_bytes(body)
        else:
            store.remove(f"ws/artefacts/{path}") if body is None else store.put(f"ws/artefacts/{path}", body)

    return change


def test_what_was_put_in_comes_out(uri):
    store = Artefacts(uri)
    data = random.Random(0).randbytes(100_000) + b"."  # no carriage return at the end, for the sake of `gs_file_system`
    name = store.put(data, ".png")
    assert name == f"{hashlib.sha256(data).hexdigest()}.png"
    assert store.put(data, ".png") == name
    again = Artefacts(uri)
    assert again.get(name) == data
    assert again.has(name)
    assert not again.has(f"{'0' * 64}.png")
    assert not again.has(name.replace(".png", ".npz"))
    assert again.get(again.put(b"", ".txt")) == b""


def test_json_is_canonical(uri):
    store = Artefacts(uri)
    value = {"b": [1, 2.5, None, True], "a": "ü"}
    digest = store.put_json(value)
    assert digest == store.put_json(dict(reversed(value.items()))) == files.sha256_json(value)
    assert store.get_json(digest) == value
    assert store.get(f"{digest}.json") == '{"a":"ü","b":[1,2.5,null,true]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put_json({"score": float("nan")})


@pytest.mark.parametrize("body", [b"x" * 10, b"shorter", b""])
def test_what_was_changed_is_found(uri, spoil, body):
    store = Artefacts(uri)
    name = store.put(b"ten bytes!", ".bin")
    spoil(name, body)
    with pytest.raises(SpiculaError, match=rf"{name} is damaged: its content is not what its name says; restore it"):
        store.get(name)
    if len(body) != 10:  # putting it in again mends what is cut
        store.put(b"ten bytes!", ".bin")
        assert store.get(name) == b"ten bytes!"


def test_what_is_missing_is_named(uri, spoil):
    store = Artefacts(uri)
    name = store.put(b"content", ".bin")
    spoil(name, None)
    assert not store.has(name)
    with pytest.raises(SpiculaError, match=rf"{name} is missing, though the ledger names it"):
        store.get(name)
    with pytest.raises(SpiculaError, match="is missing"):
        store.get_json("1" * 64)


@pytest.mark.parametrize("name", ["../../etc/passwd", "0" * 64, f"{'0' * 64}.png/../x", f"{'G' * 64}.png", "", "a.png"])
def test_only_names_of_artefacts_are_asked_for(tmp_path, name):
    store = Artefacts(tmp_path)
    for ask in (store.get, store.has, store.path, store.get_json):
        with pytest.raises(ValueError, match="is no name of an artefact"):
            ask(name + "/.." if ask == store.get_json else name)


@pytest.mark.parametrize("suffix", ["", "png", ".PNG", "./x", ".", ".tar.gz", ".toolongone"])
def test_only_plain_suffixes(tmp_path, suffix):
    with pytest.raises(ValueError, match="is no suffix"):
        Artefacts(tmp_path).put(b"", suffix)
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=200))
def test_any_content(tmp_path_factory, data):
    store = Artefacts(tmp_path_factory.getbasetemp() / "any")
    name = store.put(data, ".bin")
    assert store.get(name) == data
    path = store.path(name)
    assert path.read_bytes() == data
    assert path.parent.name == name[:2]


def test_there_are_files_only_locally(uri):
    store = Artefacts(uri)
    name = store.put(b"content", ".bin")
    assert (store.path(name) is None) == ("://" in uri)


def test_the_same_content_is_kept_once_and_written_atomically(tmp_path, monkeypatch):
    written = []
    write = files.write_bytes
    monkeypatch.setattr(files, "write_bytes", lambda path, data: (written.append(path), write(path, data)))
    store = Artefacts(tmp_path)
    names = [store.put(data, ".bin") for data in (b"a", b"b", b"a", b"b")]
    assert len(written) == len(set(names)) == 2
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == sorted(set(names))


def test_processes_that_put_the_same_in_at_once(tmp_path):
    code = (
        "import sys; from spicula.exams.artefacts import Artefacts; store = Artefacts(sys.argv[1])\n"
        "for n in range(200): store.put(b'%d' % n, '.bin')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 200
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in found)


@pytest.mark.parametrize("place", ["http://x/y", "s3://", "gs://b/../c", "memory://x"])
def test_other_addresses_are_refused(place):
    with pytest.raises(UsageError, match="expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"):
        Artefacts(place)


@pytest.mark.parametrize(("place", "package"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs.core")])
def test_a_missing_package_is_named_with_its_command(place, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs {package.split('.')[0]}: pip install 'spicula\[archives\]'"):
        Artefacts(place)


def test_a_service_that_does_not_answer_is_one_line(s3_url, monkeypatch):
    pytest.importorskip("s3fs", reason="workspaces in S3: pip install 'spicula[archives]'")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SpiculaError, match=r"^s3://bucket/x/.* cannot be read: .*127.0.0.1:1") as error:
        Artefacts("s3://bucket/x").put(b"", ".bin")
    assert "\n" not in str(error.value)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpiculaError, match=r"cannot write .*file.*check the folder's rights") as error:
        Artefacts(tmp_path / "file" / "artefacts").put(b"", ".bin")
    assert "\n" not in str(error.value)
