import json
import random
import sys
import uuid
from pathlib import Path

import pytest

from spicula.acquire import records
from spicula.acquire.mirror import MAX_FAILURES, Mirror
from spicula.errors import SpiculaError, UsageError


@pytest.fixture
def root(tmp_path):
    """The folder of a download with a series and a file."""
    folder = tmp_path / "data"
    (folder / "CMMD" / "series").mkdir(parents=True)
    for name, size in (("1-1.dcm", 300_000), ("1-2.dcm", 10)):
        # no carriage return at the end, for the sake of `gs_file_system`
        (folder / "CMMD" / "series" / name).write_bytes(random.Random(name).randbytes(size - 1) + b".")
    (folder / "table.csv").write_bytes(b"a,b\n")
    return folder


@pytest.fixture
def series(root):
    return records.describe(root / "CMMD" / "series", key="1.2.3", place="CMMD/series", checks="md5", source="upstream")


@pytest.fixture
def table(root):
    size, sha256 = 4, records.files.sha256_file(root / "table.csv")
    file = records.File("table.csv", size, sha256)
    return records.Record("https://x.example/table.csv", "table.csv", (file,), "size", "upstream")


@pytest.fixture(params=["file", "s3", "gs"])
def mirror_url(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/a%20mirror"
    name = f"mirror-{uuid.uuid4().hex}"
    if request.param == "s3":
        pytest.importorskip("s3fs", reason="mirrors in S3: pip install 'spicula[archives]'")
        request.getfixturevalue("bucket")(name)
    else:
        request.getfixturevalue("gs_file_system").mkdir(name)
    return f"{request.param}://{name}/some/prefix"


@pytest.fixture
def spoil(mirror_url, tmp_path, request):
    """Replace or remove a file of the mirror, behind its back."""

    def change(path, body):
        if mirror_url.startswith("file"):
            there = tmp_path / "a mirror" / path
            there.unlink() if body is None else there.write_bytes(body)
        elif mirror_url.startswith("s3"):
            service = request.getfixturevalue("bucket").service
            there = {"Bucket": mirror_url.split("/")[2], "Key": f"some/prefix/{path}"}
            service.delete_object(**there) if body is None else service.put_object(**there, Body=body)
        else:
            files, there = request.getfixturevalue("gs_file_system"), f"{mirror_url}/{path}"
            files.rm_file(there) if body is None else files.pipe_file(there, body)

    change.url = mirror_url
    return change


def nothing(count):
    pass


def taken(mirror, record, to):
    """Fetch an item into an empty folder; what is in it by name, or None."""
    to.mkdir()
    found = mirror.fetch(record.key, record.place, to, nothing)
    assert found in (None, record)
    return found and {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}


def test_what_was_put_in_comes_out(mirror_url, root, series, table, tmp_path):
    mirror = Mirror(mirror_url)
    assert taken(mirror, series, tmp_path / "before") is None
    mirror.store(series, root)
    mirror.store(table, root)
    again = Mirror(mirror_url)
    told = []
    (tmp_path / "to").mkdir()
    assert again.fetch(series.key, series.place, tmp_path / "to", told.append) == series
    assert sum(told) == series.bytes
    for name in ("1-1.dcm", "1-2.dcm"):
        assert (tmp_path / "to" / name).read_bytes() == (root / "CMMD" / "series" / name).read_bytes()
    assert taken(again, table, tmp_path / "table") == {"table.csv": b"a,b\n"}


def test_a_mirror_has_the_layout_of_a_download(root, series, table, tmp_path):
    mirror = Mirror(f"file://{tmp_path}/mirror")
    mirror.store(series, root)
    mirror.store(table, root)
    names = {path.relative_to(tmp_path / "mirror").as_posix() for path in (tmp_path / "mirror").rglob("*.*")}
    items = {f".spicula/items/{records.digest(record.key)}.json" for record in (series, table)}
    assert {name for name in names if not name.startswith(".")} == {
        "CMMD/series/1-1.dcm",
        "CMMD/series/1-2.dcm",
        "table.csv",
    }
    assert {name for name in names if name.endswith(".json")} == items
    record = tmp_path / "mirror" / f".spicula/items/{records.digest(series.key)}.json"
    assert json.loads(record.read_text()) == series.as_json()


@pytest.mark.parametrize(
    "damage",
    [
        ("CMMD/series/1-2.dcm", b"x" * 10, "a file has the wrong SHA-256"),
        ("CMMD/series/1-2.dcm", b"x", "a file has the wrong SHA-256"),
        ("CMMD/series/1-2.dcm", b"", "a file has the wrong SHA-256"),
        ("CMMD/series/1-1.dcm", None, "a file is missing"),
        (f".spicula/items/{records.digest('1.2.3')}.json", b"{", "its record is not JSON"),
        (f".spicula/items/{records.digest('1.2.3')}.json", b"[]", "its record is none"),
        (f".spicula/items/{records.digest('1.2.3')}.json", None, ""),
    ],
)
def test_what_is_not_whole_there_is_found_and_named(spoil, root, series, damage, capfd):
    path, body, said = damage
    tmp_path = root.parent
    mirror = Mirror(spoil.url)
    mirror.store(series, root)
    spoil(path, body)
    assert taken(mirror, series, tmp_path / "to") is None
    lines = capfd.readouterr().err.splitlines()
    assert lines == ([f"mirror: 1.2.3 is damaged there ({said}); it comes from upstream"] if said else [])
    mirror.store(series, root)
    assert taken(mirror, series, tmp_path / "mended") is not None


def test_what_is_there_is_not_put_in_again_and_what_is_lost_is(spoil, root, series, tmp_path):
    Mirror(spoil.url).store(series, root)
    (root / "CMMD" / "series" / "1-1.dcm").rename(tmp_path / "moved")
    Mirror(spoil.url).store(series, root)  # nothing is read from the download
    assert taken(Mirror(spoil.url), series, tmp_path / "there") is not None
    (tmp_path / "moved").rename(root / "CMMD" / "series" / "1-1.dcm")
    spoil("CMMD/series/1-2.dcm", None)
    Mirror(spoil.url).store(series, root)
    assert taken(Mirror(spoil.url), series, tmp_path / "mended") is not None


def test_a_record_that_leads_elsewhere_is_none(root, series, tmp_path):
    mirror = Mirror(f"file://{tmp_path}/mirror")
    mirror.store(series, root)
    record = tmp_path / "mirror" / ".spicula" / "items" / f"{records.digest(series.key)}.json"
    content = json.loads(record.read_text())
    for place, path in (("CMMD/series", "CMMD/series/../../../data/table.csv"), ("/etc", "/etc/passwd")):
        content["place"], content["files"][0]["path"] = place, path
        record.write_text(json.dumps(content))
        to = tmp_path / path.replace("/", "_")
        assert taken(mirror, series, to) is None
        assert list(to.rglob("*")) == []


def test_an_item_with_another_place_is_not_taken(root, series, tmp_path):
    mirror = Mirror(f"file://{tmp_path}/mirror")
    mirror.store(series, root)
    (tmp_path / "to").mkdir()
    assert mirror.fetch(series.key, "CMMD/elsewhere", tmp_path / "to", nothing) is None


def test_files_come_before_the_record(root, series, tmp_path):
    """A mirror whose filling is killed has files without a record, which count as not there."""
    mirror = Mirror(f"file://{tmp_path}/mirror")
    (root / "CMMD" / "series" / "1-2.dcm").unlink()
    mirror.store(series, root)
    assert (tmp_path / "mirror" / "CMMD" / "series" / "1-1.dcm").is_file()
    assert list((tmp_path / "mirror").rglob("*.json")) == []
    assert taken(mirror, series, tmp_path / "to") is None


def test_no_half_file_is_visible_in_a_folder(root, series, tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    seen = []
    put = LocalFileSystem.put_file

    def watched(self, source, name, **options):
        seen.append(sorted(path.name for path in (tmp_path / "mirror").rglob("*.dcm")))
        assert Path(name).name.startswith(".part-")
        return put(self, source, name, **options)

    monkeypatch.setattr(LocalFileSystem, "put_file", watched)
    Mirror(f"file://{tmp_path}/mirror").store(series, root)
    assert len(seen) == 2
    assert not any("1-2.dcm" in names for names in seen)


# addresses, and mirrors that are not there


@pytest.mark.parametrize(
    "url",
    [
        "data/mirror",
        "/data/mirror",
        "file://relative/mirror",
        "s3://",
        "s3:///prefix",
        "s3://bucket/../other",
        "s3://key:secret@bucket/x",
        "https://bucket.example/x",
        "memory://x",
        "simplecache::s3://bucket",
        "gs:bucket",
    ],
)
def test_an_address_of_another_kind_is_refused(url):
    with pytest.raises(UsageError, match=r"expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER"):
        Mirror(url)


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs.core")])
def test_a_missing_package_is_named_with_its_command(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs {package.split('.')[0]}: pip install 'spicula\[archives\]'"):
        Mirror(url)


def test_a_service_that_does_not_answer_is_one_line_at_the_start(s3_url, monkeypatch):
    pytest.importorskip("s3fs", reason="mirrors in S3: pip install 'spicula[archives]'")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SpiculaError, match=r"^the mirror s3://bucket/x cannot be read: .*127.0.0.1:1") as error:
        Mirror("s3://bucket/x")
    assert "\n" not in str(error.value)


def test_a_bucket_that_is_not_there(s3_url):
    pytest.importorskip("s3fs", reason="mirrors in S3: pip install 'spicula[archives]'")
    with pytest.raises(SpiculaError, match="the mirror s3://no-such-bucket/x is not there: make the bucket first"):
        Mirror("s3://no-such-bucket/x")


def test_a_mirror_that_cannot_be_filled_is_named_once(root, series, tmp_path, capfd):
    mirror = Mirror(f"file://{tmp_path}/mirror")
    (tmp_path / "mirror").write_text("a file in its place")
    for _ in range(MAX_FAILURES + 2):
        mirror.store(series, root)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "could not be written" in lines[0]
    assert lines[1].endswith(f"failed {MAX_FAILURES} times in a row; going on without it")


def test_a_mirror_that_dies_is_asked_no_more(root, series, tmp_path, capfd, monkeypatch):
    mirror = Mirror(f"file://{tmp_path}/mirror")
    mirror.store(series, root)
    asked = []

    def dead(path, **options):
        asked.append(path)
        raise OSError("the network is gone")

    monkeypatch.setattr(mirror._files, "cat_file", dead)
    for number in range(MAX_FAILURES + 3):
        assert taken(mirror, series, tmp_path / str(number)) is None
    assert len(asked) == MAX_FAILURES
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "could not be read: OSError (the network is gone)" in lines[0]


def test_a_stop_finds_its_way_out_of_the_transfer(mirror_url, root, series, tmp_path, capfd):
    class Stop(BaseException):
        pass

    def stop(count):
        raise Stop

    mirror = Mirror(mirror_url)
    mirror.store(series, root)
    (tmp_path / "to").mkdir()
    with pytest.raises(Stop):
        mirror.fetch(series.key, series.place, tmp_path / "to", stop)
    assert capfd.readouterr().err == ""


def test_gs_asks_google_cloud_storage(monkeypatch):
    core = pytest.importorskip("gcsfs.core", reason="mirrors in GCS: pip install 'spicula[archives]'")
    asked = []

    class FileSystem:
        def __init__(self, **options):
            pass

        def cat_file(self, path):
            asked.append(path)
            raise FileNotFoundError(path)

        def exists(self, path):
            return path == "bucket"

    monkeypatch.setattr(core, "GCSFileSystem", FileSystem)
    assert Mirror("gs://bucket/some/prefix/").fetch("1.2.3", "CMMD/series", Path(), nothing) is None
    assert asked[1] == f"bucket/some/prefix/.spicula/items/{records.digest('1.2.3')}.json"
