"""What zero-footprint viewers ask for: rendered pictures, thumbnails, bulk data, frames in the form that they name."""

import json
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import encaps
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("dicomweb_client", reason="the client is in the extra peers")

import dicomweb_client
from exam_service import as_bytes, files_of, phantom_studies, push_study, running_for_phantoms, wait_for_results

from spicula.imaging import codecs
from spicula.imaging.display import read_display
from spicula.imaging.luts import Window

#: Grey files of `test_data` whose frames are compressed, and one that is not.
COMPRESSED = ("MG1_J2KI", "CT2_JPLL", "MR3_J2KR", "NM1_JLSL", "NM1_JPLY", "NM1_RLE")
PLAIN = "1.2.840.10008.1.2.1"
BYTES = "application/octet-stream"
#: What OHIF asks with when it opens a study (its default data source, version 3).
OHIF_FIELDS = "00081030,00080060,00080090,00100030"
LARGE = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_for_phantoms(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def client(service):
    return dicomweb_client.DICOMwebClient(f"http://127.0.0.1:{service.port}/dicomweb")


@pytest.fixture(scope="module")
def study(service, tmp_path_factory):
    """A phantom study that was pushed, and has its results."""
    (folder,) = phantom_studies(tmp_path_factory.mktemp("studies"), 1, seed=31)
    push_study(service, folder)
    wait_for_results(service, folder)
    return folder


@pytest.fixture(scope="module")
def real(client, test_data):
    """Real files by name, all of them stored: path and UIDs."""
    found = {}
    for name in (*COMPRESSED, "liver", "explicit_VR-UN"):
        path = next(path for path in (test_data / "dicom").rglob(f"{name}*") if path.is_file())
        dataset = pydicom.dcmread(path)
        client.store_instances([dataset])
        found[name] = (path, uids_of(dataset))
    return found


def uids_of(dataset):
    return tuple(str(dataset.get(word)) for word in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))


def frames_in(dataset):
    """Compressed frames, as they are stored."""
    return list(encaps.generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))


def path_of(uids):
    return "/dicomweb/studies/{}/series/{}/instances/{}".format(*uids)


def get(service, uids, path, accept=None, **options):
    headers = {"Accept": accept} if accept else {}
    return service.client.get(f"{path_of(uids)}/{path}", headers=headers | options.pop("headers", {}), **options)


def decoded(content):
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return picture if picture.ndim == 2 else picture[..., ::-1]


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_rendered_picture_is_what_a_workstation_shows(client, real, name):
    path, uids = real[name]
    expected = read_display(path, 0, 8).array
    png = client.retrieve_instance_rendered(*uids, media_types=("image/png",))
    assert np.array_equal(decoded(png), expected)
    frame = client.retrieve_instance_frames_rendered(*uids, [1], media_types=("image/png",))
    assert np.array_equal(decoded(frame), expected)
    jpeg = decoded(client.retrieve_instance_rendered(*uids, media_types=("image/jpeg",), params={"quality": 95}))
    assert np.abs(jpeg.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("name", COMPRESSED)
def test_frames_come_uncompressed_where_bytes_are_asked_for(client, service, real, name):
    path, uids = real[name]
    dataset = pydicom.dcmread(path)
    codecs.register()
    expected = pixel_array(path, index=0, raw=True, decoding_plugin="" if "RLE" in name else codecs.PLUGIN)
    dtype = f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}"
    (frame,) = client.retrieve_instance_frames(*uids, [1], media_types=((BYTES, PLAIN),))
    assert np.array_equal(np.frombuffer(frame, dtype).reshape(expected.shape), expected)
    for accept in (BYTES, f"{BYTES}; transfer-syntax={PLAIN}"):
        alone = get(service, uids, "frames/1", accept)
        assert alone.content == frame
        assert alone.headers["content-type"] == f"{BYTES}; transfer-syntax={PLAIN}"
    syntax = dataset.file_meta.TransferSyntaxUID
    (stored,) = client.retrieve_instance_frames(*uids, [1], media_types=((BYTES, "*"),))
    assert stored == frames_in(dataset)[0]
    assert get(service, uids, "frames/1", f"{BYTES}; transfer-syntax={syntax}").content == stored


def test_a_window_a_region_and_a_size_are_heeded(service, real):
    path, uids = real["CT2_JPLL"]
    rows, columns = read_display(path, 0, 8).array.shape

    def picture(**query):
        answer = get(service, uids, "rendered", "image/png", params=query)
        assert answer.status_code == 200, answer.text
        assert "warning" not in answer.headers
        return decoded(answer.content)

    for function, name in (("linear", "LINEAR"), ("linear-exact", "LINEAR_EXACT"), ("sigmoid", "SIGMOID")):
        expected = read_display(path, 0, 8, Window(40, 300, name)).array
        assert np.array_equal(picture(window=f"40,300,{function}"), expected)
    whole = picture()
    assert not np.array_equal(picture(window="40,300,linear"), whole)
    assert picture(viewport="100,50").shape == (50, round(columns * 50 / rows))
    part = picture(viewport="60,40,10,20,60,40")
    assert np.array_equal(part, whole[20:60, 10:70])
    assert np.array_equal(picture(viewport="60,40,10,20,-60,-40"), part[::-1, ::-1])
    assert picture(viewport="120,80,10,20,60,40").shape == (80, 120)
    default = picture(viewport=f"{columns},{rows},,,,")
    assert np.array_equal(default, whole)


@pytest.mark.parametrize(
    "query",
    [
        "viewport=1",
        "viewport=0,5",
        "viewport=99999,5",
        "viewport=5,5,-1,0,2,2",
        "viewport=5,5,0,0,0,2",
        "viewport=a,b",
        "window=1,2",
        "window=1,0,linear",
        "window=nan,2,sigmoid",
        "window=1,2,cubic",
        "quality=0",
        "quality=x",
    ],
)
def test_odd_parameters_are_said(service, real, query):
    answer = get(service, real["MR3_J2KR"][1], f"rendered?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "query")


def test_what_is_not_supported_is_passed_over_and_said(service, real):
    answer = get(service, real["MR3_J2KR"][1], "rendered?annotation=patient&iccprofile=srgb")
    assert answer.status_code == 200
    assert "annotation, iccprofile" in answer.headers["warning"]
    assert "first of" in get(service, real["liver"][1], "rendered").headers["warning"]


def test_pictures_of_frames_come_as_parts(service, real):
    path, uids = real["liver"]
    answer = get(service, uids, "frames/2,3/rendered", 'multipart/related; type="image/png"')
    assert answer.headers["content-type"].startswith('multipart/related; type="image/png"')
    parts = answer.content.split(b"\x89PNG")[1:]
    assert len(parts) == 2
    for part, frame in zip(parts, (1, 2), strict=True):
        assert np.array_equal(decoded(b"\x89PNG" + part), read_display(path, frame, 8).array)
    assert get(service, uids, "frames/2,3/rendered", "image/png").status_code == 406
    assert get(service, uids, "frames/2,99/rendered").status_code == 404


def test_thumbnails_are_there_for_everything_with_an_image(service, study, real):
    first = pydicom.dcmread(files_of(study)[0])
    uids = uids_of(first)
    for path in (
        f"/dicomweb/studies/{uids[0]}",
        "/dicomweb/studies/{}/series/{}".format(*uids),
        path_of(uids),
        f"{path_of(uids)}/frames/1",
    ):
        answer = service.client.get(f"{path}/thumbnail?accept=image/jpeg")
        assert answer.headers["content-type"] == "image/jpeg"
        assert max(decoded(answer.content).shape) == 256
    small = get(service, uids, "thumbnail?viewport=64,64", "image/png")
    expected = read_display(files_of(study)[0], 0, 8).array
    expected = cv2.resize(expected, (52, 64), interpolation=cv2.INTER_AREA)
    assert np.array_equal(decoded(small.content), expected)
    again = get(
        service, uids, "thumbnail?viewport=64,64", "image/png", headers={"If-None-Match": small.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    report = service.client.get(f"/dicomweb/studies/{uids[0]}/instances?Modality=SR").json()[0]
    of_report = tuple(report[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    for path in ("thumbnail", "rendered"):
        answer = get(service, of_report, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "no-image")


def test_bulk_data_come_from_where_the_metadata_say(service, client, study, real):
    dataset = pydicom.dcmread(files_of(study)[1])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.7"
    dataset.StudyInstanceUID = f"{dataset.StudyInstanceUID}.7"
    dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID}.7"
    dataset.EncapsulatedDocument = LARGE
    table = Dataset()
    table.LUTDescriptor, table.LUTExplanation = [1024, 0, 16], "even"
    table["LUTDescriptor"].VR = "US"
    table.add_new("LUTData", "OW", LARGE[:1600])
    dataset.ModalityLUTSequence = [table]
    dataset.add_new((0x0009, 0x0010), "LO", "SPICULA TEST")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(3 * 2**20))
    client.store_instances([dataset])
    uids = uids_of(dataset)
    (header,) = client.retrieve_series_metadata(*uids[:2])
    expected = {
        "00420011": LARGE,
        "00283000-1-00283006": LARGE[:1600],
        "00091001": bytes(3 * 2**20),
        "7FE00010": dataset.PixelData,
    }
    addresses = {way: f"http://127.0.0.1:{service.port}{path_of(uids)}/bulkdata/{way}" for way in expected}
    text = json.dumps(header)
    assert all(f'"BulkDataURI": "{path_of(uids)}' in text.replace(f"http://127.0.0.1:{service.port}", "")
               for _ in addresses)  # fmt: skip
    for way, value in expected.items():
        assert f"bulkdata/{way}" in text
        assert client.retrieve_bulkdata(addresses[way]) == [value]
        alone = service.client.get(addresses[way])
        assert (alone.content, alone.headers["content-type"]) == (value, BYTES)
    read = pydicom.Dataset.from_json(header, lambda tag, vr, address: bytes(client.retrieve_bulkdata(address)[0]))
    assert read.EncapsulatedDocument == LARGE
    assert read.PixelData == dataset.PixelData
    back = as_bytes(client.retrieve_instance(*uids))
    assert back == as_bytes(dataset)
    for way in ("00420012", "00283000", "00283000-2-00283006", "x", "00100010", "7FE00010-1-00420011"):
        answer = get(service, uids, f"bulkdata/{way}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no-bulkdata"), way
    assert get(service, uids, "bulkdata/00420011", "image/png").status_code == 406


def test_pixels_as_bulk_data(client, service, real):
    path, uids = real["MG1_J2KI"]
    address = client.retrieve_instance_metadata(*uids)["7FE00010"]["BulkDataURI"]
    (stored,) = client.retrieve_bulkdata(address)
    assert [stored] == frames_in(pydicom.dcmread(path))
    plain = service.client.get(address, headers={"Accept": BYTES}).content
    assert len(plain) == 2 * 4664 * 3064
    path, uids = real["liver"]
    address = client.retrieve_instance_metadata(*uids)["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(address) == [pydicom.dcmread(path).PixelData]


def test_what_cannot_be_given_is_406_and_says_what_can(service, real):
    uids = real["MG1_J2KI"][1]
    for path, accept in (
        ("frames/1", "image/png"),
        ("frames/1", "image/jpeg"),
        ("frames/1", "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.70"),
        ("frames/1", f'multipart/related; type="{BYTES}"; transfer-syntax=1.2.840.10008.1.2.4.80'),
        ("rendered", "image/gif"),
        ("rendered", "application/dicom"),
        ("thumbnail", "text/html, image/png;q=0"),
    ):
        answer = get(service, uids, path, accept)
        assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable"), (path, accept)
        assert "Accept" in answer.json()["detail"]
    heavier = get(service, uids, "thumbnail", "image/png;q=0.5, image/jpeg;q=0.9")
    assert heavier.headers["content-type"] == "image/jpeg"
    assert get(service, uids, "frames/1", "image/jp2").headers["content-type"].startswith("image/jp2;")


def test_a_damaged_frame_is_a_problem_and_the_next_one_is_drawn(service, client, real):
    dataset = pydicom.dcmread(real["MR3_J2KR"][0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.9"
    (frame,) = frames_in(dataset)
    dataset.PixelData = encaps.encapsulate([frame[:200] + bytes(len(frame) - 200)])
    client.store_instances([dataset])
    for path, accept in (("rendered", None), ("thumbnail", None), ("frames/1", BYTES)):
        answer = get(service, uids_of(dataset), path, accept)
        assert (answer.status_code, answer.json()["code"]) == (409, "no-pixels"), path
    assert get(service, real["MR3_J2KR"][1], "rendered").status_code == 200


def test_colours_stay_colours(service, client, study):
    dataset = pydicom.dcmread(files_of(study)[2])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.8"
    dataset.StudyInstanceUID, dataset.Modality = f"{dataset.StudyInstanceUID}.8", "OT"
    dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID}.8"
    picture = np.random.default_rng(0).integers(0, 256, (32, 24, 3), np.uint8)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PlanarConfiguration = 32, 24, 3, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PhotometricInterpretation = 7, "RGB"
    dataset.PixelData = picture.tobytes()
    dataset["PixelData"].VR = "OB"
    client.store_instances([dataset])
    png = client.retrieve_instance_rendered(*uids_of(dataset), media_types=("image/png",))
    assert np.array_equal(decoded(png), picture)


def test_what_ohif_asks_when_it_lists_and_opens_a_study(service, study):
    first = pydicom.dcmread(files_of(study)[0])
    query = {"PatientName": f"*{str(first.PatientName)[1:5]}*", "ModalitiesInStudy": "MG", "limit": 101, "offset": 0}
    query |= {"fuzzymatching": "false", "includefield": OHIF_FIELDS, "StudyDate": "19000101-20991231"}
    studies = service.client.get("/dicomweb/studies", params=query).json()
    found = next(one for one in studies if one["0020000D"]["Value"] == [str(first.StudyInstanceUID)])
    assert "00080050" in found
    for tag in ("00080020", "00100020", "00100010", "00201208", "00201206", "00080061", "00080060"):
        assert found[tag]["Value"], tag
    query = {"includefield": "0008103E,00080021"}
    series = service.client.get(f"/dicomweb/studies/{first.StudyInstanceUID}/series", params=query).json()
    assert {one["00080060"]["Value"][0] for one in series} == {"MG", "SR", "OT", "SEG"}
    for one in series:
        assert one["0020000D"]["Value"] == [str(first.StudyInstanceUID)]
        assert one["0020000E"]["Value"]
        assert one["00201209"]["Value"][0] >= 1
        path = f"/dicomweb/studies/{first.StudyInstanceUID}/series/{one['0020000E']['Value'][0]}/metadata"
        headers = service.client.get(path, headers={"Accept": "application/dicom+json"}).json()
        assert len(headers) == one["00201209"]["Value"][0]
        for header in headers:
            assert header["00080016"]["Value"]
            assert header["00083002"]["Value"], "the transfer syntax that frames come in"
            if "00280010" in header:
                uids = tuple(header[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
                accept = f"multipart/related; type={BYTES}; transfer-syntax=*"  # as it is with omitQuotation...
                frame = get(service, uids, "frames/1", accept)
                assert frame.status_code == 200
                assert frame.headers["content-type"].startswith("multipart/related;")


def test_the_drawing_process_is_not_there_before_it_is_needed_and_comes_back(service, real):
    import os
    import signal

    uids = real["MR3_J2KR"][1]
    assert get(service, uids, "rendered").status_code == 200
    (process,) = service.below("serving.dicomweb.drawing")
    os.kill(process, signal.SIGKILL)
    service.wait(lambda: not Path(f"/proc/{process}").exists() or "Z" in Path(f"/proc/{process}/stat").read_text())
    answers = [get(service, uids, "rendered").status_code for _ in range(2)]
    assert answers[-1] == 200
    assert set(answers) <= {200, 409}
