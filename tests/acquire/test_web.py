import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.acquire import transfer, web
from spicula.acquire.sources import SOURCES, Files
from spicula.acquire.transfer import Retry
from spicula.acquire.types import Request
from spicula.errors import SpiculaError, UsageError

CHECKED = Files("https://archive.example/set/", checksums="SHA256SUMS.txt", patients_in="images")
TABLES = Files("https://archive.example/set/", ("table.csv",), page="https://archive.example/")


def archive_of(name="inside.txt", size=300_000):
    """A tar.gz file that does not compress, so that a cut leaves much of it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(size).randbytes(size)))
    return packed.getvalue()


def sums(contents):
    return "".join(f"{hashlib.sha256(body).hexdigest()} {name}\n" for name, body in contents.items())


@pytest.fixture
def request_to(file_server, tmp_path):
    def make(**options):
        options = {"server": file_server.url} | options
        return Request(what="a-set", to=tmp_path / "data", **options)

    return make


@pytest.fixture
def fetch(tmp_path):
    """Fetch one item once, or again and again until it does not ask for another try."""

    def go(item, tries=1, folder=tmp_path / "own"):
        folder.mkdir(exist_ok=True)
        told = []
        for left in reversed(range(tries)):
            try:
                checks = item.fetch(folder, told.append)
                break
            except Retry:
                if not left:
                    raise
        assert sorted(path.name for path in folder.iterdir()) == [item.place.rpartition("/")[2]]
        return (folder / item.place.rpartition("/")[2]).read_bytes(), checks, sum(told)

    return go


def one(request, files, name):
    return next(item for item in web.items(request, files) if item.place == name)


# checks


def test_a_file_of_a_list_is_checked_by_its_sha256(file_server, request_to, fetch):
    contents = {"metadata.csv": b"a,b\n", "images/s1/i1.dicom": os.urandom(1000)}
    for name, body in contents.items():
        path = file_server.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (file_server.folder / "SHA256SUMS.txt").write_text(sums(contents))
    items = web.items(request_to(), CHECKED)
    assert [item.place for item in items] == ["SHA256SUMS.txt", "metadata.csv", "images/s1/i1.dicom"]
    assert [item.key for item in items] == [f"https://archive.example/set/{item.place}" for item in items]
    assert fetch(items[2])[:2] == (contents["images/s1/i1.dicom"], "SHA-256 by the archive's list")
    assert [entry["path"] for entry in file_server.requests()] == ["SHA256SUMS.txt", "images/s1/i1.dicom"]


def test_a_wrong_byte_once_is_another_try_and_always_is_no_file(file_server, request_to, fetch, tmp_path):
    body = os.urandom(1000)
    (file_server.folder / "a.bin").write_bytes(body)
    (file_server.folder / "SHA256SUMS.txt").write_text(sums({"a.bin": body}))
    file_server.faults(flip={"a.bin": 1})
    item = one(request_to(), CHECKED, "a.bin")
    with pytest.raises(Retry, match="wrong SHA-256"):
        item.fetch(tmp_path, lambda count: None)
    assert list(tmp_path.glob("a.bin*")) == []
    assert fetch(item)[0] == body
    file_server.faults(flip={"a.bin": 10**6})
    (tmp_path / "own" / "a.bin").unlink()
    with pytest.raises(Retry, match="wrong SHA-256"):
        fetch(item, tries=3)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.xlsx"])
def test_archives_without_a_list_are_checked_by_the_crc_inside_them(file_server, request_to, fetch, name):
    body = archive_of()
    if name != "a.tar.gz":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as output:
            output.writestr("x", os.urandom(1000))
        body = packed.getvalue()
    (file_server.folder / name).write_bytes(body)
    item = one(request_to(), Files("https://archive.example/", (name,)), name)
    assert fetch(item) == (body, web._BY_ITSELF, len(body))
    assert "publishes no checksum" in web._BY_ITSELF


@pytest.mark.parametrize("where", [100, 150_000, -6])
def test_a_wrong_byte_anywhere_in_an_archive_is_found(file_server, request_to, fetch, where):
    body = bytearray(archive_of())
    body[where] ^= 1
    (file_server.folder / "a.tar.gz").write_bytes(body)
    with pytest.raises(Retry, match="another content than such a file has"):
        fetch(one(request_to(), Files("https://archive.example/", ("a.tar.gz",)), "a.tar.gz"))


def test_a_page_in_the_place_of_a_table_is_refused(file_server, request_to, fetch):
    (file_server.folder / "table.csv").write_text("\n<!doctype html><title>Not found</title>")
    with pytest.raises(Retry, match="another content than such a file has"):
        fetch(one(request_to(), TABLES, "table.csv"))


def test_a_table_has_its_size_alone_and_the_account_will_say_so(file_server, request_to, fetch):
    (file_server.folder / "table.csv").write_text("a,b\n1,2\n")
    content, checks, told = fetch(one(request_to(), TABLES, "table.csv"))
    assert (content, checks, told) == (b"a,b\n1,2\n", "size only: the archive publishes no checksum", 8)


# going on after a cut


def test_a_cut_file_is_continued_where_it_stopped(file_server, request_to, fetch):
    body = archive_of()
    (file_server.folder / "a.tar.gz").write_bytes(body)
    file_server.faults(cut={"a.tar.gz": [100_000, 80_000, 70_000]})
    item = one(request_to(), Files("https://archive.example/", ("a.tar.gz",)), "a.tar.gz")
    content, _, told = fetch(item, tries=4)
    assert (content, told) == (body, len(body))
    asked = file_server.requests("a.tar.gz")
    assert [entry["status"] for entry in asked] == [200, 206, 206, 206]
    starts = [int(entry["range"][6:-1]) for entry in asked[1:]]
    assert starts == sorted(set(starts))
    assert starts[0] > 0


def test_a_server_without_ranges_sends_it_all_again(file_server, request_to, fetch):
    body = archive_of()
    (file_server.folder / "a.tar.gz").write_bytes(body)
    file_server.faults(cut={"a.tar.gz": [100_000]}, ignore_range=True)
    item = one(request_to(), Files("https://archive.example/", ("a.tar.gz",)), "a.tar.gz")
    assert fetch(item, tries=2)[0] == body


def test_a_file_that_changed_meanwhile_is_not_stitched_together(file_server, request_to, fetch):
    old, new = archive_of(), archive_of("other.txt")
    path = file_server.folder / "a.tar.gz"
    path.write_bytes(old)
    file_server.faults(cut={"a.tar.gz": [100_000]})
    item = one(request_to(), Files("https://archive.example/", ("a.tar.gz",)), "a.tar.gz")
    with pytest.raises(Retry):
        fetch(item)
    path.write_bytes(new)
    assert fetch(item)[0] == new


def test_a_part_that_is_longer_than_the_file_is_thrown_away(file_server, request_to, fetch, tmp_path):
    body = archive_of()
    (file_server.folder / "a.tar.gz").write_bytes(body)
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.tar.gz.part").write_bytes(body + b"more")
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    (own / "a.tar.gz.part.json").write_text(json.dumps({"validator": etag, "length": None}))
    item = one(request_to(), Files("https://archive.example/", ("a.tar.gz",)), "a.tar.gz")
    assert fetch(item, tries=2)[0] == body
    assert [entry["status"] for entry in file_server.requests("a.tar.gz")] == [416, 200]


# what is there already


def test_what_the_user_has_there_is_taken_when_it_is_right(file_server, request_to, fetch, tmp_path):
    body = os.urandom(1000)
    (file_server.folder / "SHA256SUMS.txt").write_text(sums({"a.bin": body, "b.bin": body}))
    (file_server.folder / "b.bin").write_bytes(body)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(body)
    (tmp_path / "data" / "b.bin").write_bytes(body[:-1])
    request = request_to()
    checks = "SHA-256 by the archive's list; it was there already"
    assert fetch(one(request, CHECKED, "a.bin")) == (body, checks, 0)
    (tmp_path / "own" / "a.bin").unlink()
    assert fetch(one(request, CHECKED, "b.bin"))[:2] == (body, "SHA-256 by the archive's list")
    assert file_server.requests("a.bin") == []


def test_tables_fetched_by_hand_need_no_server(request_to, fetch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("by,hand\n")
    content, checks, _ = fetch(one(request_to(server="http://127.0.0.1:1/"), TABLES, "table.csv"))
    assert (content, checks) == (b"by,hand\n", "size only: the archive publishes no checksum; it was there already")


def test_an_archive_fetched_by_hand_is_taken_when_its_crc_is_right(file_server, request_to, fetch, tmp_path):
    (tmp_path / "data").mkdir()
    there, body = tmp_path / "data" / "a.tar.gz", archive_of()
    (file_server.folder / "a.tar.gz").write_bytes(body)
    item = one(request_to(), Files("https://archive.example/", ("a.tar.gz",)), "a.tar.gz")
    there.write_bytes(body[:-1])
    fetch(item)
    assert len(file_server.requests("a.tar.gz")) == 1
    (tmp_path / "own" / "a.tar.gz").unlink()
    there.write_bytes(body)
    assert fetch(item)[0] == body
    assert len(file_server.requests("a.tar.gz")) == 1


def test_a_table_that_is_not_there_any_more_says_where_to_get_it(file_server, request_to, fetch):
    message = "fetch table.csv by hand from https://archive.example/, put it into the target, run this again"
    with pytest.raises(SpiculaError, match=message):
        fetch(one(request_to(), TABLES, "table.csv"))


# lists


@pytest.mark.parametrize(
    "line",
    [
        "abc metadata.csv",
        f"{'0' * 64}",
        f"{'0' * 64} ../up.csv",
        f"{'0' * 64} a/../../up.csv",
        f"{'0' * 64} /etc/passwd",
        f"{'0' * 64} a\\b.csv",
        f"{'0' * 64} .spicula/items/x.json",
        f"{'0' * 64} a/.hidden",
        f"{'0' * 64} C:/x.csv",
        f"{'0' * 64} name with space.csv",
        f"{'0' * 64} {'a' * 300}",
        f"{'0' * 64} bell\a.csv",
        f"{'0' * 64} there.csv\n{'0' * 64} there.csv",
        "",
    ],
)
def test_a_list_with_a_line_that_makes_no_sense_is_refused_as_a_whole(file_server, request_to, line):
    (file_server.folder / "SHA256SUMS.txt").write_text(line + "\n")
    with pytest.raises(SpiculaError, match=r"^(line \d of )?the archive's SHA256SUMS.txt is ") as error:
        web.items(request_to(), CHECKED)
    assert "passwd" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("between", [" ", "  ", " *", "\t"])
def test_the_spellings_of_lists(file_server, request_to, between):
    (file_server.folder / "SHA256SUMS.txt").write_text(f"{'AB' * 32}{between}./a/b.csv\r\n\n")
    assert [item.place for item in web.items(request_to(), CHECKED)] == ["SHA256SUMS.txt", "a/b.csv"]


@given(st.text(max_size=60))
def test_no_line_leads_out_of_the_target(path):
    try:
        found = web._checksums(f"{'0' * 64} {path}".encode(), "list")
    except SpiculaError:
        return
    for name in found:
        assert not name.startswith("/")
        assert set(name.split("/")).isdisjoint({"", ".", ".."})
        assert all(part[0] != "." for part in name.split("/"))


# patients


@pytest.fixture
def exams(file_server):
    names = [f"images/{exam}/{view}.dicom" for exam in ("e3", "e1", "e2") for view in "abcd"]
    contents = {name: name.encode() for name in ["breast-level_annotations.csv", *names, "LICENSE.txt"]}
    for name, body in contents.items():
        path = file_server.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (file_server.folder / "SHA256SUMS.txt").write_text(sums(contents))


def test_the_first_patients_and_all_tables_those_first(exams, request_to):
    places = [item.place for item in web.items(request_to(patients=2), CHECKED)]
    assert places[:3] == ["SHA256SUMS.txt", "breast-level_annotations.csv", "LICENSE.txt"]
    assert places[3:] == [f"images/{exam}/{view}.dicom" for exam in ("e1", "e2") for view in "abcd"]


def test_patients_by_name(exams, request_to):
    places = [item.place for item in web.items(request_to(patient_ids=("e3", "e9")), CHECKED)]
    assert places[3:] == [f"images/e3/{view}.dicom" for view in "abcd"]
    with pytest.raises(UsageError, match="--patient: no such patient in a-set"):
        web.items(request_to(patient_ids=("e9",)), CHECKED)


# logins


@pytest.fixture
def credentials(tmp_path):
    path = tmp_path / "login.txt"
    path.write_text("marie\nsecret\n")
    path.chmod(0o600)
    return path


LOCKED = replace(CHECKED, login="archive.example", rights="sign the agreement")


def test_the_login_goes_with_every_request_from_the_first_on(file_server, request_to, fetch, credentials, exams):
    file_server.faults(auth=["marie", "secret"])
    items = web.items(request_to(credentials=credentials), LOCKED)
    fetch(items[-1])
    assert [(entry["status"], entry["login"]) for entry in file_server.requests()] == [(200, True)] * 2


def test_a_wrong_password_says_what_to_do(file_server, request_to, credentials, exams):
    file_server.faults(auth=["marie", "another"])
    with pytest.raises(SpiculaError) as error:
        web.items(request_to(credentials=credentials), LOCKED)
    assert str(error.value) == (
        "127.0.0.1 does not let you in (HTTP status 401): check the user name and the password; sign the agreement"
    )
    assert len(file_server.requests()) == 1


def test_an_agreement_that_is_not_signed_says_what_to_do(file_server, request_to, credentials, exams):
    file_server.faults(forbidden=True)
    with pytest.raises(SpiculaError, match=r"does not let you in \(HTTP status 403\): .*; sign the agreement"):
        web.items(request_to(credentials=credentials), LOCKED)


def test_a_page_instead_of_the_list_says_what_to_do(file_server, request_to, credentials):
    (file_server.folder / "SHA256SUMS.txt").write_text("<html><title>Log in</title></html>")
    with pytest.raises(SpiculaError, match=r"answers with a page instead of SHA256SUMS.txt: sign the agreement"):
        web.items(request_to(credentials=credentials), LOCKED)


def test_what_the_user_fetched_is_checked_without_a_login(request_to, file_server, exams, fetch):
    request = request_to(patients=1)
    shutil.copytree(file_server.folder, request.to, dirs_exist_ok=True)
    items = web.items(request, LOCKED)
    assert fetch(items[-1])[1] == "SHA-256 by the archive's list; it was there already"
    assert file_server.requests() == []


def test_the_login_is_not_sent_to_where_a_server_points(file_server, another_server, request_to, credentials):
    (another_server.folder / "SHA256SUMS.txt").write_text(f"{'0' * 64} a.csv")
    file_server.faults(redirect=another_server.url.replace("127.0.0.1", "localhost"))
    web.items(request_to(credentials=credentials), LOCKED)
    assert [entry["login"] for entry in file_server.requests()] == [True]
    assert [entry["login"] for entry in another_server.requests()] == [False]


def test_a_password_is_never_sent_in_the_clear_to_another_machine(request_to, credentials):
    with pytest.raises(UsageError, match="a password is never sent over plain http"):
        web.items(request_to(credentials=credentials, server="http://archive.example/"), LOCKED)


def test_vindr_mammo_as_physionet_has_it(file_server, tmp_path, credentials, exams, fetch):
    file_server.faults(auth=["marie", "secret"])
    request = Request("vindr-mammo", tmp_path / "data", patients=1, credentials=credentials, server=file_server.url)
    items = web.items(request, SOURCES["vindr-mammo"].files)
    assert [item.place for item in items][-4:] == [f"images/e1/{view}.dicom" for view in "abcd"]
    assert items[-1].key == "https://physionet.org/files/vindr-mammo/1.0.0/images/e1/d.dicom"
    assert fetch(items[-1])[1] == "SHA-256 by the archive's list"


def test_no_server_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", replace(transfer.PATIENCE, first_wait_seconds=0.01))
    with pytest.raises(SpiculaError, match=r"cannot reach 127.0.0.1") as error:
        web.items(Request("x", tmp_path, server="http://127.0.0.1:1/"), CHECKED)
    assert "\n" not in str(error.value)


def test_gzip_bombs_take_no_memory(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    assert web._is_sound(path)
