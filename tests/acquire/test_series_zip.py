"""One series: whatever goes wrong on the way, what ends in its place is what the archive has, byte by byte."""

import hashlib
import re

import pytest
from nbia_server import Server, Settings, patient_id, series_uid, sop_uid, whole

from spicula import acquire
from spicula.acquire import records, transfer
from spicula.headers import read_dicom


def download(server: Server, to, **options):
    return acquire.download(acquire.Request("tcia:GENERATED", to, server=server.url, **options))


def images(to) -> dict[str, bytes]:
    """Return every DICOM file of a target by its SOP instance UID."""
    return {str(read_dicom(path).SOPInstanceUID): path.read_bytes() for path in to.rglob("*.dcm")}


def assert_whole(to, **settings):
    assert images(to) == whole(Settings(**settings))
    assert list((to / ".spicula" / "partial").iterdir()) == []


ONCE = [
    {"kind": "cut", "at": 0.2},
    {"kind": "cut", "at": 0.7},
    {"kind": "cut", "at": 0.999},
    {"kind": "wrong"},
    {"kind": "missing"},
    {"kind": "extra"},
    {"kind": "no-list"},
    {"kind": "evil"},
    {"kind": "html"},
    {"kind": "busy", "times": 3},
    {"kind": "busy", "after": "1"},
    {"kind": "stall", "at": 0.5},
]


@pytest.mark.parametrize("ranges", [False, True], ids=["streamed", "ranges"])
@pytest.mark.parametrize("fault", ONCE, ids=lambda fault: "-".join(map(str, fault.values())))
def test_a_fault_that_passes_costs_nothing_but_time(nbia, hasty, tmp_path, fault, ranges):
    settings = {"series": 3, "side": 128, "ranges": ranges}
    server = nbia(**settings)
    server.faults({"series": 1, **fault})
    account = download(server, tmp_path)
    assert [row.status for row in account.rows] == ["complete"] * 3
    assert_whole(tmp_path, **settings)
    assert not (tmp_path.parent / "evil.dcm").exists()


ALWAYS = [
    ({"kind": "wrong"}, r"1 of 3 files differ from the archive's MD5 \(tried 5 times\)"),
    ({"kind": "missing"}, "1 of 3 files of the zip is missing"),
    ({"kind": "extra"}, "1 of 3 files of the zip is not in its MD5 list"),
    ({"kind": "no-list"}, r"the zip came without its md5hashes\.csv"),
    ({"kind": "evil"}, "no whole zip"),
    ({"kind": "html"}, "sent a page instead of the file"),
    ({"kind": "busy"}, "HTTP status 503"),
]


@pytest.mark.parametrize(
    ("fault", "reason"), ALWAYS, ids=lambda value: value["kind"] if isinstance(value, dict) else ""
)
def test_a_fault_that_stays_fails_one_series_and_no_other(nbia, hasty, tmp_path, fault, reason):
    server = nbia(series=3)
    server.faults({"series": 1, "times": 99, **fault})
    account = download(server, tmp_path)
    assert [row.status for row in account.rows] == ["complete", "failed", "complete"]
    (failed,) = account.failed
    assert failed.key == series_uid(1)
    assert re.search(reason, failed.reason)
    assert server.requests("getImageWithMD5Hash") == 2 + 5
    expected = {uid: data for uid, data in whole(Settings(series=3)).items() if uid not in sop_uids(1)}
    assert images(tmp_path) == expected
    server.faults()
    account = download(server, tmp_path)
    assert [row.status for row in account.rows] == ["skipped", "complete", "skipped"]
    assert_whole(tmp_path, series=3)


def sop_uids(number: int) -> set[str]:
    return {sop_uid(number, image) for image in range(3)}


def test_a_streamed_zip_that_is_cut_is_completed_image_by_image(nbia, hasty, tmp_path):
    server = nbia(series=1, images=8, side=256)
    server.faults({"series": 0, "kind": "cut", "at": 0.7})
    (row,) = download(server, tmp_path).rows
    assert row.checks == "MD5 of every file by the archive, image by image"
    counts = server.counts()["requests"]
    assert (counts["getImageWithMD5Hash"], counts["getSingleImage"], counts["getM5HashForImage"]) == (1, 3, 8)
    assert_whole(tmp_path, series=1, images=8, side=256)
    one_image = 2 * 256 * 256
    assert server.sent() < 8 * one_image * 1.01 + one_image


@pytest.mark.parametrize(
    "trouble",
    [
        {"single_images": False},
        {"fault": {"call": "getSingleImage", "series": 0, "kind": "wrong"}},
        {"fault": {"call": "getSOPInstanceUIDs", "series": 0, "kind": "html", "times": 1}},
    ],
    ids=["no such calls", "another MD5", "nonsense"],
)
def test_where_that_does_not_work_out_the_zip_comes_again(nbia, hasty, tmp_path, trouble):
    server = nbia(series=1, images=4, side=128, single_images=trouble.get("single_images", True))
    server.faults({"series": 0, "kind": "cut", "at": 0.6}, trouble.get("fault", {"times": 0}))
    (row,) = download(server, tmp_path).rows
    assert row.status == "complete"
    assert_whole(tmp_path, series=1, images=4, side=128)


def test_the_same_names_however_the_images_came(nbia, hasty, tmp_path):
    server = nbia(series=1, images=11, side=64)
    download(server, tmp_path / "a")
    server.faults({"series": 0, "kind": "cut", "at": 0.5})
    download(server, tmp_path / "b")
    a, b = ({path.name: path.read_bytes() for path in (tmp_path / x).rglob("*.dcm")} for x in "ab")
    assert a == b
    assert sorted(a) == [f"1-{number:02d}.dcm" for number in range(1, 12)]
    numbers = [int(read_dicom(next((tmp_path / "a").rglob(name))).InstanceNumber) for name in sorted(a)]
    assert numbers == list(range(1, 12))


def test_masks_that_pack_a_thousandfold_are_no_bombs(nbia, hasty, tmp_path):
    settings = {"series": 1, "images": 2, "side": 2048, "blank": True}
    server = nbia(**settings)
    download(server, tmp_path)
    assert_whole(tmp_path, **settings)
    assert 16_000_000 / server.sent() > 200


def test_a_series_larger_than_announced_is_not_unpacked(nbia, hasty, tmp_path, monkeypatch):
    server = nbia(series=1, images=2, side=1024, blank=True)
    from spicula.acquire import series_zip

    monkeypatch.setattr(series_zip, "_SLACK_BYTES", -(2**20))
    (row,) = download(server, tmp_path).rows
    assert "is larger than announced" in row.reason


@pytest.mark.parametrize("leave", ["zip", "images"])
def test_a_series_that_was_killed_while_it_was_being_named_comes_without_a_byte(nbia, hasty, tmp_path, leave):
    server = nbia(series=1, images=3, side=64)
    download(server, tmp_path / "a")
    sent = server.sent()
    folder = records.partial_path(tmp_path / "b", series_uid(0))
    folder.mkdir(parents=True)
    found = sorted((tmp_path / "a").rglob("*.dcm"))
    for path in found[:2] if leave == "zip" else found:
        (folder / path.name).write_bytes(path.read_bytes())
    if leave == "zip":
        server.set(rate=0)
        client = transfer.Client(http=True)
        url = f"{server.url}/services/v1/getImageWithMD5Hash"
        client.fetch(url, folder / "series.zip", lambda n: None, params={"SeriesInstanceUID": series_uid(0)})
        sent = server.sent()
    download(server, tmp_path / "b")
    assert server.sent() == sent
    assert_whole(tmp_path / "b", series=1, images=3, side=64)


def test_the_record_holds_the_sha256_of_every_file(nbia, hasty, tmp_path):
    download(nbia(series=1), tmp_path)
    record = records.whole(tmp_path, series_uid(0))
    assert record is not None
    assert len(record.files) == 3
    for file in record.files:
        content = (tmp_path / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_nothing_of_a_patient_is_in_what_is_printed(nbia, hasty, tmp_path, capfd):
    server = nbia(series=2)
    server.faults({"series": 0, "kind": "wrong", "times": 9})
    print(download(server, tmp_path).as_text())
    out, err = capfd.readouterr()
    for canary in ("CANARY", patient_id(0), "GEN_0001"):
        assert canary not in out + err
