"""Records: what they say is there, and nothing that leads elsewhere."""

import json

import pytest

from spicula.acquire import records
from spicula.acquire.records import File, Record


def make(tmp_path, place="a/b", names=("x", "y/z")):
    folder = tmp_path / ".spicula" / "partial" / "folder"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder, records.describe(folder, key="key", place=place, checks="checked", source="upstream")


def test_a_record_comes_back_as_it_was(tmp_path):
    folder, record = make(tmp_path)
    assert [file.path for file in record.files] == ["a/b/x", "a/b/y/z"]
    assert not record.is_file
    records.publish(tmp_path, folder, record)
    assert records.whole(tmp_path, "key") == record
    assert (tmp_path / "a/b/y/z").read_bytes() == b"y/z"
    assert record.bytes == 4
    assert records.from_json(json.loads(json.dumps(record.as_json()))) == record


def test_a_file_is_its_own_place(tmp_path):
    folder, record = make(tmp_path, "deep/x", ("x",))
    assert record.is_file
    assert record.files == (File("deep/x", 1, record.files[0].sha256),)
    records.publish(tmp_path, folder, record)
    assert (tmp_path / "deep/x").read_bytes() == b"x"
    assert records.whole(tmp_path, "key") == record


def test_a_record_is_of_one_key_and_what_is_there(tmp_path):
    folder, record = make(tmp_path)
    records.publish(tmp_path, folder, record)
    assert records.whole(tmp_path, "another") is None
    (tmp_path / "a/b/x").write_bytes(b"longer")
    assert records.whole(tmp_path, "key") is None


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    path = records.record_path(tmp_path, "key")
    path.parent.mkdir(parents=True)
    for text in ("", "[]", "{}", '{"key": "key"}', "{"):
        path.write_text(text)
        assert records.whole(tmp_path, "key") is None


@pytest.mark.parametrize(
    ("place", "path"),
    [("..", "../x"), ("/etc", "/etc/x"), ("a", "b/x"), ("a", "a/../../x"), ("a", "a\\x"), ("", "x"), ("a", "a\0/x")],
)
def test_no_record_of_a_mirror_leads_elsewhere(place, path):
    record = Record("key", place, (File(path, 1, "0" * 64),), "", "upstream")
    assert records.from_json(record.as_json()) is None


def test_what_is_under_way_to_its_place_is_not_taken_for_something_else(tmp_path):
    """A copy from the mirror was being put into place, while a part from upstream lay there too."""
    folder, record = make(tmp_path)
    upstream = records.partial_path(tmp_path, "key")
    upstream.mkdir()
    (upstream / "series.zip.part").write_bytes(b"part")
    records._write(records._pending_path(tmp_path, "key"), record)
    assert records.whole(tmp_path, "key") is None
    assert (upstream / "series.zip.part").exists()
    assert not (tmp_path / "a").exists()
    folder.rename(records.mirror_path(tmp_path, "key"))
    records._write(records._pending_path(tmp_path, "key"), record)
    assert records.whole(tmp_path, "key") == record


def test_what_was_just_being_written_is_swept_away(tmp_path):
    folder, _ = make(tmp_path)
    for path in (folder / ".part-1.json", tmp_path / ".spicula" / "items" / ".part-2.json", tmp_path / ".part-3.csv"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    (tmp_path / "mine").write_text("")
    records.sweep(tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [f"{folder.relative_to(tmp_path)}/x", f"{folder.relative_to(tmp_path)}/y/z", "mine"]
