"""DICOMweb as dicomweb-client speaks it: studies pushed, found, given back byte for byte, with their exams' results."""

import json
import sqlite3
import time
from pathlib import Path

import pydicom
import pytest
from pydicom import encaps

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("dicomweb_client", reason="the client is in the extra peers")

import dicomweb_client
import httpx
from exam_service import (
    as_bytes,
    body_of,
    files_of,
    found_in,
    phantom_bundle,
    phantom_studies,
    push,
    push_study,
    running,
    running_for_phantoms,
    uid_of,
    wait_for_results,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return phantom_studies(tmp_path_factory.mktemp("studies"), 4, seed=3)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_for_phantoms(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def client(service):
    return dicomweb_client.DICOMwebClient(f"http://127.0.0.1:{service.port}/dicomweb")


def test_a_study_that_is_pushed_becomes_an_exam_and_is_found_with_its_results(service, client, studies):
    files = files_of(studies[0])
    study = uid_of(studies[0])
    answer = client.store_instances([pydicom.dcmread(path) for path in files])
    assert len(answer.ReferencedSOPSequence) == 4
    assert "FailedSOPSequence" not in answer
    found = wait_for_results(service, studies[0])
    assert sorted(one["00080016"]["Value"][0] for one in found)[0] == "1.2.840.10008.5.1.4.1.1.1.2"
    (one,) = client.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert set(one["00080061"]["Value"]) == {"MG", "SR", "OT", "SEG"}
    assert one["00201208"]["Value"] == [13]
    back = {as_bytes(dataset) for dataset in client.retrieve_study(study)}
    assert back >= {path.read_bytes() for path in files}
    assert len(back) == 13


def test_what_a_search_returns_and_matches(service, client, studies):
    study, other = uid_of(studies[0]), uid_of(studies[1])
    client.store_instances([pydicom.dcmread(path) for path in files_of(studies[1])])
    wait_for_results(service, studies[1])
    first = pydicom.dcmread(files_of(studies[0])[0])
    for filters in (
        {"PatientID": first.PatientID},
        {"PatientID": f"{first.PatientID[:-3]}??{first.PatientID[-1]}"},
        {"00100020": f"*{first.PatientID[3:]}"},
        {"PatientName": str(first.PatientName).lower(), "StudyInstanceUID": study},
        {"StudyInstanceUID": study, "ModalitiesInStudy": "SEG", "StudyDate": f"{first.StudyDate}-"},
        {"StudyInstanceUID": study, "SOPClassUID": first.SOPClassUID},
    ):
        found = client.search_for_studies(search_filters=filters)
        assert [one["0020000D"]["Value"] for one in found] == [[study]], filters
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert client.search_for_studies(search_filters={"StudyDate": "-19000101"}) == []
    both = client.search_for_studies(search_filters={"StudyInstanceUID": f"{study},{other}"})
    assert len(both) == 2
    assert len({json.dumps(client.search_for_studies(limit=1, offset=number)) for number in (0, 1)}) == 2
    one = both[0]
    assert one["00100020"]["Value"] == [first.PatientID]
    assert one["00201206"]["Value"] == [len(client.search_for_series(study))]
    assert one["00081190"]["Value"][0].endswith(f"/dicomweb/studies/{study}")
    series = client.search_for_series(study)
    by_modality = {each["00080060"]["Value"][0]: each["00201209"]["Value"][0] for each in series}
    assert by_modality.keys() == {"MG", "SR", "OT", "SEG"}
    assert by_modality["SR"] == 1
    (report,) = client.search_for_instances(study, search_filters={"Modality": "SR"}, fields=["StudyDate", "00100010"])
    assert report["00080020"]["Value"] == [first.StudyDate]
    assert "00100010" in report
    images = client.search_for_instances(study, search_filters={"Modality": "MG"})
    assert {each["00280010"]["Value"][0] for each in images} == {int(first.Rows)}
    everything = client.search_for_instances(study, search_filters={"Modality": "MG"}, fields=["all"])
    assert len(everything[0]) > len(images[0])


def test_metadata_frames_and_single_objects(service, client, studies):
    first = pydicom.dcmread(files_of(studies[0])[0])
    uids = (first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID)
    assert as_bytes(client.retrieve_instance(*uids)) == files_of(studies[0])[0].read_bytes()
    (header,) = [client.retrieve_instance_metadata(*uids)]
    assert pydicom.Dataset.from_json(header, lambda *_: b"").PatientName == first.PatientName
    assert len(client.retrieve_study_metadata(uids[0])) == 13
    assert len(client.retrieve_series_metadata(*uids[:2])) == len(client.retrieve_series(*uids[:2]))
    (frame,) = client.retrieve_instance_frames(*uids, [1])
    assert frame == first.PixelData[: len(frame)]
    assert len(frame) == first.Rows * first.Columns * first.BitsAllocated // 8
    alone = service.client.get(
        "/dicomweb/studies/{}/series/{}/instances/{}".format(*uids), headers={"Accept": "application/dicom"}
    )
    assert alone.content == files_of(studies[0])[0].read_bytes()
    assert alone.headers["content-type"].startswith("application/dicom;")
    segmentation = next(each for each in client.search_for_instances(uids[0], search_filters={"Modality": "SEG"}))
    names = [segmentation[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")]
    seg = client.retrieve_instance(*names)
    (bits,) = client.retrieve_instance_frames(*names, [1])
    assert bits == seg.PixelData[: len(bits)]


def test_what_is_not_there_or_not_to_be_had_is_said_precisely(service, client, studies):
    first = pydicom.dcmread(files_of(studies[0])[0])
    uids = (first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID)
    instance = "/dicomweb/studies/{}/series/{}/instances/{}".format(*uids)
    dicom = 'multipart/related; type="application/dicom"; transfer-syntax='
    cases = [
        ("/dicomweb/studies/1.2.3", None, 404, "no-object"),
        (f"/dicomweb/studies/{uids[0]}/series/1.2", None, 404, "no-object"),
        (f"{instance[:-1]}x/metadata", None, 404, "no-object"),
        (f"{instance}/frames/2", None, 404, "no-frame"),
        (f"{instance}/frames/0", None, 400, "frames"),
        (f"{instance}/frames/1,x", None, 400, "frames"),
        (f"{instance}/frames/1", "image/jpeg", 406, "not-acceptable"),
        (instance, f"{dicom}1.2.840.10008.1.2.4.90", 406, "not-acceptable"),
        (instance, "text/html", 406, "not-acceptable"),
        (f"{instance}/metadata", "application/dicom+xml", 406, "not-acceptable"),
        ("/dicomweb/studies", 'multipart/related; type="application/dicom+xml"', 406, "not-acceptable"),
        ("/dicomweb/studies?Nothing=1", None, 400, "query"),
        ("/dicomweb/studies?limit=-1", None, 400, "query"),
        ("/dicomweb/studies?includefield=Nothing", None, 400, "query"),
        ("/dicomweb/studies?StudyDate=yesterday", None, 400, "query"),
        ("/dicomweb/studies?PatientName=1'; DROP TABLE instances;--", None, 200, None),
    ]
    for path, accept, status, code in cases:
        answer = service.client.get(path, headers={"Accept": accept} if accept else {})
        assert (answer.status_code, answer.json()["code"] if code else None) == (status, code), path
        assert uids[0] not in answer.text
    fuzzy = service.client.get("/dicomweb/studies?fuzzymatching=true&PatientName=x")
    assert fuzzy.headers["warning"].startswith("299 ")
    assert client.search_for_studies() != []


def reasons(answer, tag="00081198"):
    return [one["00081197"]["Value"][0] for one in answer.json().get(tag, {}).get("Value", [])]


def test_what_is_no_object_of_the_study_fails_alone(service, client, studies):
    files = files_of(studies[2])
    study = uid_of(studies[2])
    contents = [path.read_bytes() for path in files]
    program = b"MZ" + contents[1][2:]
    mixed = push(service, body_of(contents[0], b"text", program, contents[2][:-100]))
    assert mixed.status_code == 202
    assert len(mixed.json()["00081199"]["Value"]) == 1
    assert reasons(mixed, "0008119A") == [0xC000] * 3
    other = push(service, body_of(contents[1]), f"/dicomweb/studies/{uid_of(studies[0])}")
    assert (other.status_code, reasons(other)) == (409, [0xA900])
    assert other.headers["content-type"] == "application/dicom+json"
    assert push(service, body_of(b"")).status_code == 409
    again = push(service, body_of(contents[0]), f"/dicomweb/studies/{study}")
    assert again.status_code == 200
    assert len(client.search_for_instances(study)) == 1
    changed = pydicom.dcmread(files[0])
    changed.PixelData = bytes(len(changed.PixelData))
    conflict = push(service, body_of(as_bytes(changed)))
    assert (conflict.status_code, reasons(conflict)) == (409, [0x0111])
    assert as_bytes(client.retrieve_study(study)[0]) == contents[0]
    written_anew = pydicom.dcmread(files[0])
    written_anew.file_meta.ImplementationVersionName = "ANOTHER"
    assert push(service, body_of(as_bytes(written_anew))).status_code == 200
    assert as_bytes(client.retrieve_study(study)[0]) == contents[0]
    names = [path.name for path in service.workspace.rglob("*")]
    assert not any(study in name or str(changed.SOPInstanceUID) in name for name in names)


def test_bodies_that_are_odd_are_refused_in_one_form(service):
    cases = [
        (b"", 'multipart/related; type="application/dicom"', 400),
        (b"--B--\r\n", 'multipart/related; type="application/dicom"; boundary=B', 400),
        (body_of(b"x"), 'multipart/related; type="application/dicom+json"; boundary=B', 415),
        (body_of(b"x"), "application/dicom", 415),
        (body_of(b"x")[:-6], 'multipart/related; type="application/dicom"; boundary=B', 400),
        (body_of(*[b"x"] * 257), "multipart/related; type=application/dicom; boundary=B", 413),
    ]
    for body, kind, status in cases:
        answer = push(service, body, kind=kind)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), kind


def test_other_objects_are_kept_and_never_scored(service, client, studies, test_data):
    names = ("MR3_J2KR.dcm", "NM1_RLE.dcm", "liver.dcm", "MG1_J2KI.dcm")
    files = [next((test_data / "dicom").rglob(f"{Path(name).stem}*")) for name in names]
    exams = service.client.get("/v1/exams").json()["total"]
    client.store_instances([pydicom.dcmread(path) for path in files])
    for path in files:
        dataset = pydicom.dcmread(path)
        uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        assert as_bytes(client.retrieve_instance(*uids)) == path.read_bytes()
        count = int(dataset.get("NumberOfFrames", 1))
        frames = client.retrieve_instance_frames(*uids, list(range(1, count + 1)))
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            assert frames == list(encaps.generate_frames(dataset.PixelData, number_of_frames=count))
        else:
            assert count > 1
            assert b"".join(frames) == dataset.PixelData
    time.sleep(3)
    assert service.client.get("/v1/exams").json()["total"] == exams


def test_nothing_of_a_patient_comes_out_of_its_study(service, client, studies):
    """Names and numbers go back to the PACS that sent them, and nowhere else."""
    canary, words = "CANARY", ("PatientName", "PatientID", "AccessionNumber", "StudyID", "StudyDescription")
    datasets = [pydicom.dcmread(path) for path in files_of(studies[3])]
    for dataset in datasets:
        for word in words:
            setattr(dataset, word, f"{canary}-{word}"[:16])
        dataset.PatientBirthDate = "19010203"
    study = str(datasets[0].StudyInstanceUID)
    client.store_instances(datasets)
    wait_for_results(service, studies[3])
    (found,) = client.search_for_studies(search_filters={"PatientID": f"{canary}*"})
    assert found["00100030"]["Value"] == ["19010203"]
    assert all(canary in str(one.PatientName) for one in client.retrieve_study(study))
    push(service, body_of(as_bytes(datasets[0])[:-50]), f"/dicomweb/studies/{canary}")
    texts = {
        "log": service.text(),
        "audit": Path(f"{service.workspace}.audit").read_text(),
        "metrics": service.client.get("/metrics").text,
        "problem": service.client.get(f"/dicomweb/studies/{canary}/metadata").text,
        "query": service.client.get(f"/dicomweb/studies?{canary}={canary}").text,
        "exams": service.client.get("/v1/exams").text,
        "names": " ".join(str(path) for path in service.workspace.rglob("*")),
    }
    uids = [str(one.get(word)) for one in datasets for word in ("StudyInstanceUID", "SOPInstanceUID")]
    assert [name for name, text in texts.items() if any(one in text for one in (canary, "19010203", *uids))] == []
    lines = [json.loads(line) for line in texts["audit"].splitlines()]
    assert {"store", "retrieve"} <= {line["event"] for line in lines}
    assert 'spicula_instances_total{outcome="stored",way="stow"}' in texts["metrics"]


def test_a_study_stays_when_its_exam_is_removed_and_our_results_go(service, tmp_path):
    (folder,) = phantom_studies(tmp_path / "studies", 1, seed=40)
    study = push_study(service, folder)
    wait_for_results(service, folder)
    digests = {one["digest"] for one in service_index(service) if one["study"] == study}
    exam = next(one["exam"] for one in service_index(service) if one["study"] == study)
    assert service.client.delete(f"/v1/exams/{exam}").status_code == 204
    found = found_in(service, folder)
    assert {one["00080016"]["Value"][0] for one in found} == {str(pydicom.dcmread(files_of(folder)[0]).SOPClassUID)}
    assert len(found) == 4
    kept = {path.stem for path in (service.workspace / "incoming/dicom/objects").rglob("*.dcm")} & digests
    assert len(kept) == 4, "the files of our results are gone"
    for path in files_of(folder):
        assert path.read_bytes() in service.client.get(f"/dicomweb/studies/{study}").content
    time.sleep(2)
    assert len(found_in(service, folder)) == 4, "it is no exam again by itself"
    push_study(service, folder)
    wait_for_results(service, folder)
    assert exam not in {one["exam"] for one in service_index(service)}


def service_index(service):
    """Objects in the archive of a service, each with the exam of its study."""
    with sqlite3.connect(service.workspace / "incoming/dicom/index.sqlite") as base:
        rows = base.execute(
            "SELECT digest, StudyInstanceUID, exam FROM instances JOIN studies ON study = StudyInstanceUID"
        ).fetchall()
    base.close()
    return [dict(zip(("digest", "study", "exam"), row, strict=True)) for row in rows]


PIECES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [b"--B", b"--B--", b"\r\n", b"\r\n--B\r\n", b"Content-Type: application/dicom\r\n\r\n", b"DICM", bytes(128)]
    ),
    st.sampled_from([b"Content-Length: 99999999999\r\n", b": \r\n", b"Content-Disposition: form-data; name=x\r\n"]),
)
KINDS = st.sampled_from(
    [
        'multipart/related; type="application/dicom"; boundary=B',
        "multipart/related; boundary=B",
        'multipart/related; type=application/dicom; boundary="B"; start=x',
        'multipart/related; type="application/dicom"; boundary="',
        "multipart/related; boundary=" + 300 * "B",
        "multipart/form-data; boundary=B",
    ]
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(PIECES, max_size=12), kind=KINDS)
def test_a_malformed_body_is_never_an_error_of_the_service(service, pieces, kind):
    answer = push(service, b"".join(pieces), kind=kind)
    assert answer.status_code in (400, 409, 413, 415), answer.text
    kinds = ("application/problem+json", "application/dicom+json")
    assert answer.headers["content-type"] in kinds


@settings(max_examples=50, deadline=None)
@given(place=st.integers(min_value=0), data=st.binary(min_size=1, max_size=16), end=st.integers(min_value=0))
def test_a_damaged_object_is_never_an_error_of_the_service(service, studies, place, data, end):
    content = bytearray(files_of(studies[2])[3].read_bytes())
    header = content.index(b"\xe0\x7f\x10\x00") + 12
    place %= header
    content[place : place + len(data)] = data
    answer = push(service, body_of(bytes(content[: len(content) - end % 2 * (end % header)])))
    assert answer.status_code in (200, 409), answer.text
    assert service.client.get("/dicomweb/instances?includefield=all").status_code == 200


def test_headers_of_a_query_are_never_an_error_of_the_service(service):
    @settings(max_examples=100, deadline=None)
    @given(
        name=st.one_of(
            st.sampled_from(["StudyDate", "PatientName", "StudyInstanceUID", "limit", "00080060"]), st.text()
        ),
        value=st.text(max_size=40),
        accept=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    )
    def check(name, value, accept):
        answer = service.client.get("/dicomweb/studies", params={name: value}, headers={"Accept": accept.strip()})
        assert answer.status_code in (200, 400, 406), answer.text

    check()


@pytest.mark.slow
def test_a_study_is_an_exam_whoever_is_killed_and_another_one_with_another_image(tmp_path, studies):
    bundle = phantom_bundle(tmp_path / "bundle")
    contents = [path.read_bytes() for path in files_of(studies[0])]
    with running(tmp_path / "ws", bundle) as service:
        assert push(service, body_of(*contents[:3])).status_code == 200
    with running(tmp_path / "ws", bundle) as service:
        service.wait(lambda: service.client.get("/v1/exams").json()["total"] == 1)  # three views, after a while
        assert push(service, body_of(contents[3])).status_code == 200
        service.wait(lambda: service.client.get("/v1/exams").json()["total"] == 2)
    with running(tmp_path / "ws", bundle) as service:
        path = f"/dicomweb/studies/{uid_of(studies[0])}/instances"
        service.wait(lambda: len(service.client.get(path).json()) == 13)
        with httpx.Client(base_url=service.client.base_url) as client:
            reports = client.get(path, params={"Modality": "SR"}).json()
        assert len(reports) == 1
