"""Which series a request selects, and how few questions it takes to know."""

import pytest
from nbia_server import patient_id, series_uid

from spicula import acquire
from spicula.acquire import nbia_listing
from spicula.acquire.types import Request
from spicula.errors import SpiculaError, UsageError

HEAD = "downloadServerUrl=https://x.org\nnoOfrRetry=2\nListOfSeriesToDownload=\n"


def items(server, tmp_path, collection="GENERATED", manifest=None, **options):
    return nbia_listing.items(Request("x", tmp_path, server=server.url, **options), collection, manifest)


def write_list(tmp_path, numbers, head=""):
    path = tmp_path / "list.tcia"
    path.write_text(head + "".join(f"{series_uid(number)}\n" for number in numbers))
    return path


def keys(found):
    return [item.key for item in found]


def test_a_collection_takes_two_questions(nbia, hasty, tmp_path):
    server = nbia(series=30)
    found = items(server, tmp_path)
    assert sorted(keys(found)) == sorted(series_uid(number) for number in range(30))
    assert server.counts()["requests"] == {"getSeries": 1, "getPatientStudy": 1}
    first = next(item for item in found if item.key == series_uid(0))
    assert first.place == "GENERATED/GEN_0001/08-29-2017-DDSM-NA-2.2.1/1.000000-full mammogram images-2.1.1"
    assert first.bytes > 3 * 2 * 32 * 32
    assert first.facts["Data Description URI"] == "https://doi.org/10.1/GENERATED"


def test_a_manifest_takes_few_questions_more(nbia, hasty, tmp_path):
    server = nbia(series=600, images=1, side=4)
    numbers = [5, 599, *range(300, 560), 3]
    found = items(server, tmp_path, None, write_list(tmp_path, numbers, HEAD))
    assert keys(found) == [series_uid(number) for number in numbers]
    assert {item.retries for item in found} == {2}
    assert sum(server.counts()["requests"].values()) <= 5


def test_a_short_manifest_is_asked_for_one_by_one_and_has_the_same_places(nbia, hasty, tmp_path):
    server = nbia(series=60)
    numbers = [7, 2, 58]
    found = items(server, tmp_path, None, write_list(tmp_path, numbers, HEAD))
    assert server.requests("getSeries") == 0
    assert keys(found) == [series_uid(number) for number in numbers]
    listed = {item.key: (item.place, item.bytes) for item in items(server, tmp_path)}
    assert {item.key: (item.place, item.bytes) for item in found} == {key: listed[key] for key in keys(found)}


def test_a_manifest_of_a_collection_that_cannot_be_listed_is_asked_for_one_by_one(nbia, hasty, tmp_path):
    server = nbia(series=60, listing=False)
    found = items(server, tmp_path, None, write_list(tmp_path, range(60), HEAD))
    assert keys(found) == [series_uid(number) for number in range(60)]
    assert {item.place.split("/")[0] for item in found} == {"GENERATED"}


def test_what_the_archive_does_not_show_is_an_item_too(nbia, hasty, tmp_path, monkeypatch):
    server = nbia(series=30)
    found = items(server, tmp_path, None, write_list(tmp_path, [70, 71, 72, *range(30), 73], HEAD))
    assert len(found) == 34
    missing = [item for item in found if item.place.startswith("missing/")]
    assert keys(missing) == [series_uid(number) for number in (70, 71, 72, 73)]
    with pytest.raises(SpiculaError, match="TCIA does not show it"):
        missing[0].fetch(tmp_path, lambda count: None)


def test_series_of_a_list_in_its_order(nbia, hasty, tmp_path):
    server = nbia(series=10)
    chosen = write_list(tmp_path, [9, 1, 4])
    assert keys(items(server, tmp_path, series_file=chosen)) == [series_uid(number) for number in (9, 1, 4)]


def test_a_list_must_lie_within_the_manifest(nbia, hasty, tmp_path):
    server = nbia(series=10)
    manifest = write_list(tmp_path, range(5), HEAD)
    chosen = tmp_path / "chosen"
    chosen.write_text(f"{series_uid(3)}\n")
    assert keys(items(server, tmp_path, None, manifest, series_file=chosen)) == [series_uid(3)]
    chosen.write_text(f"{series_uid(8)}\n")
    with pytest.raises(UsageError, match="1 of its series are not in"):
        items(server, tmp_path, None, manifest, series_file=chosen)


def test_the_first_patients_and_chosen_ones(nbia, hasty, tmp_path):
    server = nbia(series=10)
    assert keys(items(server, tmp_path, patients=2)) == [series_uid(number) for number in range(4)]
    assert keys(items(server, tmp_path, patient_ids=(patient_id(4),))) == [series_uid(4), series_uid(5)]
    with pytest.raises(UsageError, match="--patient nobody: no such patient"):
        items(server, tmp_path, patient_ids=("nobody",))


@pytest.mark.parametrize("licence", ["CC BY 3.0", "Creative Commons Attribution 3.0 Unported License"])
def test_by_modality_and_licence(nbia, hasty, tmp_path, licence):
    server = nbia(series=8)
    assert keys(items(server, tmp_path, modality="SEG", licence=licence)) == [series_uid(3), series_uid(7)]
    with pytest.raises(UsageError, match=r"--modality CT: no such series; there are MG, SEG"):
        items(server, tmp_path, modality="CT")
    with pytest.raises(UsageError, match=r"--licence CC0: no such series; there are CC BY 3\.0, Creative"):
        items(server, tmp_path, licence="CC0")


def test_a_collection_that_is_not_there(nbia, hasty, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UsageError, match="no collection 'CBIS': check its name"):
        items(nbia(), tmp_path, "CBIS")


def test_offline_the_list_of_the_last_time_is_taken(nbia, hasty, tmp_path, capfd):
    server = nbia()
    to, mirror = tmp_path / "to", tmp_path / "mirror"
    mirror.mkdir()
    request = Request("tcia:GENERATED", to, server=server.url, mirror=mirror.as_uri(), fill_mirror=True)
    assert acquire.download(request).failed == []
    server.stop()
    assert [row.status for row in acquire.download(request).rows] == ["skipped"] * 4
    elsewhere = Request("tcia:GENERATED", tmp_path / "b", server=server.url, mirror=mirror.as_uri())
    rows = acquire.download(elsewhere).rows
    assert [(row.status, row.source) for row in rows] == [("complete", "mirror")] * 4
    err = capfd.readouterr().err
    assert "cannot reach 127.0.0.1 (no connection)" in err
    assert "Going on with the list of series of" in err


def test_offline_without_a_list_is_one_line(nbia, hasty, tmp_path):
    server = nbia()
    server.stop()
    with pytest.raises(SpiculaError, match=r"cannot reach 127\.0\.0\.1 .*check the network, or take from a copy"):
        acquire.download(Request("tcia:GENERATED", tmp_path, server=server.url))
