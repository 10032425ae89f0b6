"""C-STORE as pynetdicom and DCMTK speak it, and a PACS (Orthanc) that sends exams both ways."""

import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pydicom
import pytest

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("pynetdicom", reason="C-STORE needs the extra serve")

import pynetdicom
from exam_service import (
    IMAGES,
    RESULTS,
    files_of,
    found_in,
    phantom_studies,
    running_for_phantoms,
    wait_for_results,
)

from spicula.errors import UsageError
from spicula.serving.dicomweb import peers
from spicula.serving.settings import ServeSettings

TITLE = "READER"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return phantom_studies(tmp_path_factory.mktemp("studies"), 5, seed=8)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service that listens for C-STORE as well."""
    options = ("--dicom-port", "0", "--ae-title", TITLE, "--limit", f"image-bytes={2**20}")
    with running_for_phantoms(tmp_path_factory.mktemp("service"), *options) as service:
        yield service


def port_of(service):
    return int(re.findall(r"C-STORE as \w+ at 127.0.0.1 port (\d+)", service.text())[-1])


def send(service, datasets, title=TITLE):
    """Send objects by C-STORE, and return their statuses; None where the association is refused."""
    entity = pynetdicom.AE("SENDER")
    for sop_class, syntax in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port_of(service), ae_title=title)
    if not association.is_established:
        return None
    statuses = [association.send_c_store(one).get("Status") for one in datasets]
    association.release()
    return statuses


def test_a_study_that_is_sent_becomes_an_exam_with_results(service, studies):
    datasets = [pydicom.dcmread(path) for path in files_of(studies[0])]
    assert send(service, datasets) == [0] * IMAGES
    assert send(service, datasets) == [0] * IMAGES  # again: no duplicates
    wait_for_results(service, studies[0])
    one = datasets[0]
    path = f"/dicomweb/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
    back = service.client.get(path, headers={"Accept": "application/dicom"}).content
    original = files_of(studies[0])[0].read_bytes()
    begin = (
        original.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in original else original.index(b"\x08\x00\x08\x00")
    )
    assert back.endswith(original[begin:]), "the data set is the same, byte for byte"
    lines = [json.loads(line) for line in Path(f"{service.workspace}.audit").read_text().splitlines()]
    assert [line["who"] for line in lines if line["event"] == "store"] == ["c-store"] * 2 * IMAGES
    assert 'spicula_instances_total{outcome="stored",way="c-store"}' in service.client.get("/metrics").text


def test_another_title_or_an_object_that_is_none_is_refused(service, studies):
    datasets = [pydicom.dcmread(path) for path in files_of(studies[1])]
    assert send(service, datasets[:1], title="ANOTHER") is None
    large = pydicom.dcmread(files_of(studies[1])[0])
    large.PixelData = bytes(4 * 2**20)
    assert send(service, [large]) == [None], "its association is aborted"
    odd = pydicom.dcmread(files_of(studies[1])[0])
    odd.StudyInstanceUID = ""
    assert send(service, [odd]) == [0xC000]
    assert found_in(service, studies[1]) == []
    assert send(service, datasets[:1]) == [0]


@pytest.mark.parametrize("length", [2**20 + 1, 2**32 - 1])
def test_a_message_without_end_is_not_read(service, studies, length):
    with socket.create_connection(("127.0.0.1", port_of(service)), timeout=60) as stream:
        stream.sendall(struct.pack(">BBI", 1, 0, length) + bytes(100))
        with suppress(ConnectionResetError):
            assert stream.recv(1) == b""
    assert send(service, [pydicom.dcmread(files_of(studies[1])[1])]) == [0]


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk")
def test_dcmtk_sends_as_well(service, studies):
    call = ["127.0.0.1", str(port_of(service)), "-aec", TITLE]
    tool = next(path for path in (Path("/usr/bin/storescu"), Path(shutil.which("storescu"))) if path.exists())
    subprocess.run([tool.with_name("echoscu"), *call], check=True, timeout=60)
    subprocess.run([tool, *call, *files_of(studies[2])], check=True, timeout=60)
    subprocess.run([tool, "-xi", *call, *files_of(studies[2])], check=True, timeout=60)  # the same, implicit VR
    wait_for_results(service, studies[2])
    wrong = subprocess.run([tool.with_name("echoscu"), *call[:2], "-aec", "WRONG"], check=False, capture_output=True)
    assert wrong.returncode != 0


def test_the_programs_of_pynetdicom_send_as_well(service, studies):
    call = ["127.0.0.1", str(port_of(service))]
    for program in (["echoscu", *call], ["storescu", *call, str(studies[3]), "-r", "-cx"]):
        command = [sys.executable, "-m", "pynetdicom", *program, "-aec", TITLE]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert len(found_in(service, studies[3])) >= IMAGES


def settings(**values):
    return ServeSettings(bundles=(), **values)


def test_who_may_send():
    allowed = peers.of_settings(
        settings(host="0.0.0.0", dicom_port=104, dicom_peers=("PACS@10.0.0.7", "CT@10.1.0.0/16", "SIX@::1"))
    )
    assert peers.may_send(allowed, "PACS", "10.0.0.7")
    assert peers.may_send(allowed, "PACS", "::ffff:10.0.0.7")
    assert peers.may_send(allowed, "CT", "10.1.2.3")
    assert not peers.may_send(allowed, "CT", "10.0.0.7")
    assert not peers.may_send(allowed, "pacs", "10.0.0.7")
    assert peers.may_connect(allowed, "10.0.0.7")
    assert not peers.may_connect(allowed, "10.0.0.8")
    everybody = peers.of_settings(settings(dicom_port=104))
    assert peers.may_send(everybody, "ANY", "127.0.0.1")
    for values in (
        {"host": "0.0.0.0", "dicom_port": 104},
        {"dicom_port": 104, "dicom_peers": ("PACS",)},
        {"dicom_port": 104, "dicom_peers": ("PACS@nowhere",)},
        {"dicom_port": 104, "dicom_peers": ("A TITLE THAT IS TOO LONG@10.0.0.7",)},
        {"dicom_port": 104, "ae_title": ""},
        {"dicom_peers": ("PACS@10.0.0.7",)},
    ):
        with pytest.raises(UsageError):
            peers.of_settings(settings(**values))


@pytest.mark.slow
def test_a_peer_that_is_not_on_the_list_is_refused(tmp_path, studies):
    options = ("--dicom-port", "0", "--ae-title", TITLE, "--dicom-peer", "SENDER@127.0.0.1")
    datasets = [pydicom.dcmread(path) for path in files_of(studies[4])[:1]]
    with running_for_phantoms(tmp_path, *options) as service:
        assert send(service, datasets) == [0]
        call = ["127.0.0.1", str(port_of(service)), "-aec", TITLE, "-aet", "STRANGER"]
        command = [sys.executable, "-m", "pynetdicom", "echoscu", *call]
        assert subprocess.run(command, check=False, timeout=60, capture_output=True).returncode != 0
        assert service.end() == 0
        assert "ERROR" not in service.text()


ORTHANC = Path("/usr/sbin/Orthanc")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def orthanc(tmp_path_factory, service):
    """Orthanc, a PACS, that knows the service by both ways."""
    folder = tmp_path_factory.mktemp("orthanc")
    ports = free_ports(2)
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": ports[0],
        "DicomPort": ports[1],
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StableAge": 1,
        "Plugins": [str(DICOMWEB)],
        "DicomModalities": {"spicula": [TITLE, "127.0.0.1", port_of(service)]},
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "Servers": {"spicula": {"Url": f"http://127.0.0.1:{service.port}/dicomweb/"}},
        },
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=log, stderr=log)
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=120) as client:
            until = time.monotonic() + 60
            while not answers(client):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.1)
            yield client
        process.terminate()
        process.wait(60)


def free_ports(count):
    open_now = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in open_now]
    for one in open_now:
        one.close()
    return ports


def answers(client):
    try:
        return client.get("/system").status_code == 200
    except httpx.TransportError:
        return False


def post(client, path, **options):
    answer = client.post(path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slow
@pytest.mark.skipif(not ORTHANC.exists() or not DICOMWEB.exists(), reason="needs Orthanc and its DICOMweb plugin")
@pytest.mark.parametrize("way", ["stow", "c-store"])
def test_orthanc_sends_an_exam_and_has_its_results(orthanc, service, tmp_path, way):
    seed = {"stow": 21, "c-store": 22}[way]
    (study,) = phantom_studies(tmp_path / "study", 1, seed=seed)
    files = files_of(study)
    uid = str(pydicom.dcmread(files[0]).StudyInstanceUID)
    parent = {post(orthanc, "/instances", content=path.read_bytes())["ParentStudy"] for path in files}.pop()
    if way == "stow":
        job = post(orthanc, "/dicom-web/servers/spicula/stow", json={"Resources": [parent], "Synchronous": True})
        assert job["InstancesCount"] == str(IMAGES)
    else:
        post(orthanc, "/modalities/spicula/echo", json={})
        job = post(
            orthanc, "/modalities/spicula/store", json={"Resources": [parent], "Synchronous": True, "Timeout": 60}
        )
        assert job["FailedInstancesCount"] == 0
    wait_for_results(service, study)
    if way == "stow":
        for path in files:
            one = pydicom.dcmread(path)
            uids = f"{uid}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
            back = service.client.get(f"/dicomweb/studies/{uids}", headers={"Accept": "application/dicom"})
            assert back.content == path.read_bytes()
    query = {"Uri": "/studies", "Arguments": {"StudyInstanceUID": uid}}
    assert len(post(orthanc, "/dicom-web/servers/spicula/qido", json=query)) == 1
    fetched = post(
        orthanc,
        "/dicom-web/servers/spicula/retrieve",
        json={"Resources": [{"Study": uid}], "Synchronous": True},
    )
    assert int(fetched["ReceivedInstancesCount"]) == IMAGES + RESULTS
    counts = {}
    for modality in ("MG", "SR", "OT", "SEG"):
        wanted = {"Level": "Instance", "Query": {"StudyInstanceUID": uid, "Modality": modality}}
        counts[modality] = len(post(orthanc, "/tools/find", json=wanted))
    assert counts == {"MG": IMAGES, "SR": 1, "OT": IMAGES, "SEG": IMAGES}
    # and back again: what Orthanc has of us is known to us
    before = found_in(service, study)
    assert len(before) == IMAGES + RESULTS
    post(orthanc, "/dicom-web/servers/spicula/stow", json={"Resources": [parent], "Synchronous": True})
    assert found_in(service, study) == before
