"""The unpacker: whole or not at all, nothing but files, nothing outside the folder."""

import gzip
import io
import json
import os
import random
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula import archive as archive_module
from spicula.archive import LIMITS, MARKER, Limits, is_archive, unpack, unpack_into
from spicula.errors import SpiculaError

NOISE = random.Random(0).randbytes(5000)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "sync", lambda: None)


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as output:
        for name, content in members.items():
            output.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as output:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            output.addfile(info, io.BytesIO(content))
    return path


def make(kind: str, folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        return make_zip(folder / "set.zip", members)
    return make_tar(folder / f"set.{kind}", members, "w:gz" if kind == "tar.gz" else "w")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) if folder.exists() else []


KINDS = ["zip", "tar", "tar.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks_what_was_packed(tmp_path, kind):
    members = {"a/b/one.bin": NOISE, "two.bin": NOISE[:10], "a/empty": b"", "./three": b"3", "ü/ß.txt": b"x"}
    folder = unpack(make(kind, tmp_path, members), tmp_path / "to")
    assert folder == tmp_path / "to" / "set"
    assert tree(folder) == {name.removeprefix("./"): content for name, content in members.items()}
    assert visible(tmp_path / "to") == ["set"]


@pytest.mark.parametrize("kind", KINDS)
def test_is_recognised_by_content_and_not_by_name(tmp_path, kind):
    made = make(kind, tmp_path, {"one": NOISE})
    odd = made.rename(tmp_path / "download.bin")
    assert is_archive(odd)
    assert tree(unpack(odd, tmp_path / "to")) == {"one": NOISE}
    (tmp_path / "text.zip").write_text("no archive")
    assert not is_archive(tmp_path / "text.zip")
    assert not is_archive(tmp_path)
    assert not is_archive(tmp_path / "absent.zip")


@pytest.mark.parametrize("kind", KINDS)
def test_is_not_unpacked_twice_but_again_when_something_changed(tmp_path, kind):
    made = make(kind, tmp_path, {"one": NOISE, "two": b"2"})
    folder = unpack(made, tmp_path / "to")
    inode = (folder / "one").stat().st_ino
    assert unpack(made, tmp_path / "to") == folder
    assert (folder / "one").stat().st_ino == inode
    (folder / "two").unlink()
    assert tree(unpack(made, tmp_path / "to")) == {"one": NOISE, "two": b"2"}
    (folder / "one").write_bytes(NOISE[:-1])
    assert tree(unpack(made, tmp_path / "to")) == {"one": NOISE, "two": b"2"}
    make(kind, tmp_path, {"three": NOISE})
    os.utime(made, ns=(1, 1))
    assert tree(unpack(made, tmp_path / "to")) == {"three": NOISE}
    assert visible(tmp_path / "to") == ["set"]


def test_everything_is_on_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    there = []
    monkeypatch.setattr(os, "sync", lambda: there.extend(visible(tmp_path / "to")))
    unpack(make("zip", tmp_path, {"one": NOISE}), tmp_path / "to")
    assert len(there) == 1
    assert there[0].startswith(".part-set-")


def test_a_folder_of_the_user_is_not_replaced(tmp_path):
    made = make("zip", tmp_path, {"one": NOISE})
    (tmp_path / "to" / "set").mkdir(parents=True)
    (tmp_path / "to" / "set" / "mine.txt").write_text("mine")
    with pytest.raises(SpiculaError, match="was not unpacked by spicula"):
        unpack(made, tmp_path / "to")
    assert tree(tmp_path / "to" / "set") == {"mine.txt": b"mine"}


EVIL_NAMES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "//evil",
    "C:/evil",
    "c:evil",
    "..\\evil",
    "\\evil",
    "a\nb",
    "..",
    "x" * 1001,
    f"a/{MARKER}",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVIL_NAMES)
def test_evil_names_are_refused_and_nothing_is_left(tmp_path, kind, name):
    made = make(kind, tmp_path / "from" / "deep", {"good": NOISE, name: b"evil"})
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(SpiculaError, match=r"set\.\S+ was refused: "):
        unpack(made, tmp_path / "from" / "to")
    assert visible(tmp_path / "from" / "to") == []
    after = sorted(path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    assert after == before


def test_a_name_cut_by_a_nul_is_refused(tmp_path):
    made = make_zip(tmp_path / "set.zip", {"good_": NOISE})
    made.write_bytes(made.read_bytes().replace(b"good_", b"goo\0_"))
    with pytest.raises(SpiculaError):
        unpack(made, tmp_path / "to")
    assert visible(tmp_path / "to") == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"9"]
)
def test_tar_members_that_are_not_files_are_refused(tmp_path, kind):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as output:
        output.addfile(tarfile.TarInfo("good"))
        info = tarfile.TarInfo("bad")
        info.type, info.linkname = kind, "/etc/passwd"
        output.addfile(info)
    with pytest.raises(SpiculaError, match="'bad' is a link, a device or a sparse file"):
        unpack(path, tmp_path / "to")
    assert visible(tmp_path / "to") == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_zip_members_that_are_not_files_are_refused(tmp_path, kind):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as output:
        info = zipfile.ZipInfo("bad")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        output.writestr(info, "/etc/passwd")
    with pytest.raises(SpiculaError, match="'bad' is a link or a device"):
        unpack(path, tmp_path / "to")


def test_encrypted_zip_is_refused(tmp_path):
    made = make_zip(tmp_path / "set.zip", {"secret": NOISE})
    content = bytearray(made.read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\1\2") + 8] |= 1
    made.write_bytes(bytes(content))
    with pytest.raises(SpiculaError, match="encrypted"):
        unpack(made, tmp_path / "to")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path, kind):
    made = make(kind, tmp_path, {"zeros": bytes(2**24)})
    assert made.stat().st_size * LIMITS.ratio < 2**24
    with pytest.raises(SpiculaError, match="unpacks to more than"):
        unpack(made, tmp_path / "to")
    assert visible(tmp_path / "to") == []


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path):
    made = make_zip(tmp_path / "set.zip", {"zeros": bytes(2**24)})
    true, small = (2**24).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    made.write_bytes(made.read_bytes().replace(true, small))
    with pytest.raises(SpiculaError):
        unpack(made, tmp_path / "to")
    assert visible(tmp_path / "to") == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_limit_holds(tmp_path, kind):
    members = {f"{number}.bin": NOISE for number in range(4)}
    made = make(kind, tmp_path, members)
    assert tree(unpack(made, tmp_path / "fits", Limits(total_bytes=4 * len(NOISE), members=4, name_length=5)))
    for number, limits in enumerate(
        (Limits(total_bytes=4 * len(NOISE) - 1), Limits(members=3), Limits(name_length=4), Limits(ratio=0))
    ):
        with pytest.raises(SpiculaError, match="was refused"):
            unpack(made, tmp_path / f"to{number}", limits)


def test_a_tar_header_that_asks_for_a_gigabyte_is_refused(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**30
    path = tmp_path / "set.tar.gz"
    with gzip.open(path, "wb") as output:
        output.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(SpiculaError, match="one of its headers declares 1073741824 bytes"):
        unpack(path, tmp_path / "to")


def test_a_chain_of_extended_headers_is_refused(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 0
    path = tmp_path / "set.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) * 3000)
    with pytest.raises(SpiculaError, match="damaged"):
        unpack(path, tmp_path / "to")


def test_members_of_one_name_are_refused(tmp_path):
    for number, names in enumerate((["a", "a"], ["a", "a/b"], ["a/b", "a"])):
        path = tmp_path / f"set{number}.tar"
        with tarfile.open(path, "w") as output:
            for name in names:
                output.addfile(tarfile.TarInfo(name))
        with pytest.raises(SpiculaError, match="twice, or as a file and a folder"):
            unpack(path, tmp_path / "to")
    assert visible(tmp_path / "to") == []


@pytest.mark.parametrize("kind", KINDS)
def test_cut_short_anywhere_is_refused(tmp_path, kind):
    made = make(kind, tmp_path, {"a": NOISE[:700], "b/c": NOISE[:1024]})
    whole = made.read_bytes()
    end = len(whole) if kind != "tar" else 3 * 1024 + 512  # beyond, a tar is only padding
    for length in {*range(0, end, 97), *range(512, end, 512), end - 1}:
        made.write_bytes(whole[:length])
        with pytest.raises(SpiculaError):
            unpack(made, tmp_path / "to")
        assert visible(tmp_path / "to") == []


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    made = make("tar", tmp_path, {"a": NOISE[:100], "b": NOISE[:100], "c": NOISE[:100]})
    content = bytearray(made.read_bytes())
    content[1024 + 3] ^= 1
    made.write_bytes(bytes(content))
    with pytest.raises(SpiculaError, match="stops without its end mark"):
        unpack(made, tmp_path / "to")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_changed_byte_of_content_is_refused(tmp_path, kind):
    made = make(kind, tmp_path, {"a": NOISE})
    whole = bytearray(made.read_bytes())
    whole[len(whole) // 2] ^= 1
    made.write_bytes(bytes(whole))
    with pytest.raises(SpiculaError, match="damaged or cut short"):
        unpack(made, tmp_path / "to")


def test_killed_in_the_middle_then_whole(tmp_path):
    made = make_zip(tmp_path / "set.zip", {f"{number}": NOISE for number in range(300)})
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom spicula import archive\n"
        "count = 0\nread = archive._read\n"
        "def dying(*args):\n    global count\n    count += 1\n"
        "    return os.kill(os.getpid(), 9) if count > 200 else read(*args)\n"
        "archive._read = dying\narchive.unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, made, tmp_path / "to"], check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "to" / "set").exists()
    assert len(visible(tmp_path / "to")) == 1  # what it had begun
    assert len(tree(unpack(made, tmp_path / "to"))) == 300
    assert visible(tmp_path / "to") == ["set"]


def test_disk_full_is_said_clearly_and_leaves_nothing(tmp_path, monkeypatch):
    made = make("zip", tmp_path, {"a": NOISE})
    real = Path.open

    def full(self, mode="r", *args, **kwargs):
        if mode == "xb":
            raise OSError(28, "No space left on device")
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SpiculaError, match=r"cannot unpack .*No space left on device; check"):
        unpack(made, tmp_path / "to")
    assert visible(tmp_path / "to") == []


def test_target_below_a_file_is_said_clearly(tmp_path):
    made = make("zip", tmp_path, {"a": NOISE})
    (tmp_path / "file").write_text("")
    with pytest.raises(SpiculaError, match="cannot unpack"):
        unpack(made, tmp_path / "file" / "to")
    with pytest.raises(SpiculaError, match="cannot unpack"):
        unpack(tmp_path / "absent.zip", tmp_path / "to")


def test_marker_says_what_was_unpacked(tmp_path):
    made = make("tar.gz", tmp_path, {"a": NOISE, "b": b"22"})
    marker = json.loads((unpack(made, tmp_path / "to") / MARKER).read_text())
    assert marker["archive"] == "set.tar.gz"
    assert (marker["files"], marker["bytes"]) == (2, len(NOISE) + 2)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_archives_never_write_outside_and_fail_cleanly(tmp_path, kind, data):
    made = make(kind, tmp_path / "in", {"a/b": NOISE[:600], "c": b"text", "d/e/f": NOISE[:40]})
    content = bytearray(made.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    made.write_bytes(bytes(content))
    to = tmp_path / "in" / "to"
    try:
        folder = unpack(made, to)
    except SpiculaError:
        assert [name for name in visible(to) if name != "set"] == []
    else:
        assert all(not path.is_symlink() for path in folder.rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir() if path != to) == [made.name]


def test_limits_are_those_documented():
    text = archive_module.Limits.__doc__ or ""
    assert all(f"{name}:" in text for name in vars(LIMITS))
    assert LIMITS.ratio == 200


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks_into_a_folder_of_the_callers(tmp_path, kind):
    folder = tmp_path / "to"
    folder.mkdir()
    members = {"a/one.bin": NOISE, "two.bin": NOISE[:10]}
    unpack_into(make(kind, tmp_path, members), folder)
    assert tree(folder) == members
    assert visible(tmp_path / "to") == ["a", "two.bin"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_folder_gets_nothing_from_outside_and_nothing_beyond_the_limits(tmp_path, kind):
    folder = tmp_path / "to"
    folder.mkdir()
    with pytest.raises(SpiculaError, match="leads out of its folder"):
        unpack_into(make(kind, tmp_path, {"../evil": b"x"}), folder)
    with pytest.raises(SpiculaError, match="unpacks to more than"):
        unpack_into(make(kind, tmp_path, {"big": NOISE}), folder, Limits(total_bytes=100))
    assert not (tmp_path / "evil").exists()
