"""The writer of files: whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from spicula import files
from spicula.errors import SpiculaError


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError, match="half way"), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_file_keeps_the_suffix_and_the_target_gets_ordinary_rights(tmp_path):
    with files.atomic_path(tmp_path / "deep" / "a.npy") as temporary:
        assert temporary.suffix == ".npy"
        temporary.write_bytes(b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "deep" / "a.npy").stat().st_mode) == 0o666 & ~umask


def test_a_folder_that_is_a_file_is_named_in_the_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(SpiculaError, match=r"cannot write .*/a/b\.txt: .*; check the folder's rights and free space"):
        files.write_text(tmp_path / "a" / "b.txt", "x")


def test_errors_of_other_files_are_not_reported_as_errors_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "a.txt"):
        (tmp_path.parent / "not-there").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    with (
        pytest.raises(SpiculaError, match="No space left"),
        files.atomic_path(tmp_path / "a.txt"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x" * 10_000)


def test_json_is_canonical_and_refuses_nan(tmp_path):
    assert files.sha256_json({"b": 1, "a": [1.5, "é"]}) == files.sha256_json({"a": [1.5, "é"], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    files.write_json(tmp_path / "a.json", {"a": "é"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "é"}


def test_a_folder_appears_at_once_with_all_that_is_in_it(tmp_path):
    folder = tmp_path / "temporary"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "c").write_bytes(b"content")
    files.place_folder(folder, tmp_path / "deep" / "er" / "a")
    assert (tmp_path / "deep" / "er" / "a" / "b" / "c").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_folder_is_synced_before_it_appears_and_its_parents_after(tmp_path, monkeypatch):
    folder, target = tmp_path / "temporary", tmp_path / "new" / "a"
    folder.mkdir()
    (folder / "c").write_bytes(b"content")
    synced, rename = [], Path.rename

    def note_sync(path):
        synced.append(path)

    def note_rename(path, to):
        synced.append("renamed")
        return rename(path, to)

    monkeypatch.setattr(files, "sync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    files.place_folder(folder, target)
    assert synced == [folder / "c", folder, "renamed", target.parent, tmp_path]


def test_a_folder_never_replaces_what_is_there(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
    with pytest.raises(OSError, match="not empty"):
        files.place_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "old").exists()


def test_a_file_is_moved_to_its_place(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    files.place_file(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == b"content"
    assert not (tmp_path / "a").exists()
