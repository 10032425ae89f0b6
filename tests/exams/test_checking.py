"""Which results can no longer be read, and writing them anew."""

import pyarrow as pa
import pytest

from spicula.exams.artefacts import Artefacts
from spicula.exams.checking import lost_outputs


@pytest.fixture
def store(tmp_path):
    return Artefacts(tmp_path)


def output(store, *contents):
    """Keep an output manifest with a file an image, and return its digest and the names of the files."""
    names = [store.put(content, ".bin") for content in contents]
    return store.put_json({"images": [{"name": "a", "file": name} for name in names]}), names


def test_every_way_of_being_lost_is_found_and_nothing_else(store):
    whole, (shared,) = output(store, b"shared")
    damaged, (file, _) = output(store, b"one", b"shared")
    missing, (_, gone) = output(store, b"shared", b"two")
    scores, centers = store.put_json({"scores": []}), store.put_json({"images": [{"name": "a", "best_center": [1, 2]}]})
    store.path(file).write_bytes(b"eno")
    store.path(gone).unlink()
    store.path(f"{scores}.json").write_bytes(b"{}")
    outputs = pa.table(
        {
            "exam_id": ["a", "b", "c"],
            "crop": [whole, damaged, missing],
            "centers": [centers, None, centers],
            "classify:x": [scores, None, None],
        }
    )
    assert lost_outputs(store, outputs) == {"a": {"classify:x"}, "b": {"crop"}, "c": {"crop"}}
    store.path(shared).unlink()
    assert lost_outputs(store, outputs)["a"] == {"crop", "classify:x"}
    assert lost_outputs(store, outputs.slice(0, 0)) == {}


def test_anew_puts_right_what_is_damaged_and_as_long_as_before(store, tmp_path):
    name = store.put(b"content", ".bin")
    store.path(name).write_bytes(b"tnetnoc")
    assert store.put(b"content", ".bin") == name
    assert store.path(name).read_bytes() == b"tnetnoc"
    assert Artefacts(tmp_path, anew=True).put(b"content", ".bin") == name
    assert store.get(name) == b"content"
