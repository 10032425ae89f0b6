"""Exams over HTTP: a service as a process, small exams, what is answered and what is refused."""

import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

from exam_service import (
    NAMES,
    breast,
    phantom_studies,
    png,
    running,
    running_for_phantoms,
    scores,
    small_bundle,
    small_exam,
    small_exams,
)

from spicula import RESEARCH_NOTICE
from spicula.cli import main

VIEWS = ("R-CC", "L-CC", "R-MLO", "L-MLO")
ONE_WORKER = ("--cpu-workers", "1", "--model-workers", "1", "--streams", "1")
CANARY, BIRTH_DATE = "CANARY", "19010203"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A service with a bundle for exams of 96 x 64 pixels."""
    folder = tmp_path_factory.mktemp("small")
    with running(folder / "ws", small_bundle(folder / "bundle", version="7")) as service:
        yield service


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """A service with a bundle for phantoms, which states a threshold of heatmaps."""
    with running_for_phantoms(tmp_path_factory.mktemp("phantoms")) as service:
        yield service


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One phantom exam as DICOM."""
    return phantom_studies(tmp_path_factory.mktemp("study"), 1, seed=3)[0]


def reported(service, exam):
    found = service.show(exam)
    return found["status"], " ".join(found["reasons"])


def as_printed(source, workspace, bundle, capsys):
    """What `spicula exams run` and `show --json` say of the one exam in a folder."""
    assert main(["exams", "run", str(source), "--workspace", str(workspace), "--bundle", str(bundle), *ONE_WORKER]) == 0
    capsys.readouterr()
    from spicula.exams.ledger import Ledger

    (exam,) = {row["exam_id"] for row in Ledger.open(workspace).read("exams").to_pylist()}
    assert main(["exams", "show", exam, "--workspace", str(workspace), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def check_same(found, shown):
    assert scores(found["predictions"]) == scores(shown["predictions"])
    assert len(found["predictions"]) == 8
    by_sha256 = {image["sha256"]: image for image in shown["images"].values()}
    for image in found["images"]:
        expected = by_sha256[image["sha256"]]
        assert image["view"] == expected["view"]
        assert image["geometry"] == {name: expected[name] for name in image["geometry"]}
        assert image["is_mirrored"] == expected["mirrored"]
        assert image["notes"] == expected["notes"]
    assert [image["view"] for image in found["images"]] == list(VIEWS)


def test_an_exam_of_named_images_gets_what_the_command_line_gives_it(small, tmp_path, capsys):
    small_exam(tmp_path / "in" / "anna", seed=1)
    answer = small.send(*sorted((tmp_path / "in" / "anna").iterdir()))
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["status"] in ("waiting", "running")
    assert not accepted["is_known"]
    assert accepted["links"]["self"] == f"/v1/exams/{accepted['id']}"

    found = small.finished(accepted["id"])
    bundle = small.workspace.parent / "bundle"
    check_same(found, as_printed(tmp_path / "in", tmp_path / "ws", bundle, capsys))
    assert found["status"] == "done"
    assert found["notice"] == RESEARCH_NOTICE
    assert found["progress"]["done"] == found["progress"]["total"] == 6
    assert {(one["name"], one["version"]) for one in found["models"]} == {
        ("image-only", "7"),
        ("image-and-heatmaps", "7"),
    }
    digest = json.loads((bundle / "bundle.json").read_text())["digest"]
    assert {one["digest"] for one in found["models"]} == {digest}
    assert [one["status"] for one in found["stages"]] == ["ok"] * 6
    assert found["time"] <= found["started"] <= found["finished"]
    assert found["finished"].endswith("Z")


def test_a_study_gives_what_the_command_line_gives_and_results_as_dicom(phantoms, study, tmp_path, capsys):
    exam = phantoms.send_folder(study)
    found = phantoms.finished(exam)
    check_same(found, as_printed(study, tmp_path / "ws", phantoms.workspace.parent / "bundle", capsys))

    uid = pydicom.dcmread(study / "L-CC.dcm").StudyInstanceUID
    report = phantoms.get(exam, "sr.dcm")
    assert report.headers["content-type"] == "application/dicom"
    assert report.headers["content-disposition"] == f'attachment; filename="{exam[:8]}-report.dcm"'
    objects = [pydicom.dcmread(io.BytesIO(report.content))]
    assert objects[0].Modality == "SR"
    for path, kind, modality in (("sc.dcm", "heatmap", "OT"), ("seg.dcm", "segmentation", "SEG")):
        zipped = phantoms.get(exam, path)
        assert zipped.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
            assert {name.rpartition("-")[0] for name in archive.namelist()} == {f"{kind}-{view}" for view in VIEWS}
            content = {name: archive.read(name) for name in archive.namelist()}
        one = phantoms.get(exam, path, params={"view": "R-MLO"})
        assert one.headers["content-type"] == "application/dicom"
        assert one.content in content.values()
        made = [pydicom.dcmread(io.BytesIO(each)) for each in content.values()]
        assert {each.Modality for each in made} == {modality}
        objects += made
    assert {each.StudyInstanceUID for each in objects} == {uid}
    assert len({each.SOPInstanceUID for each in objects}) == 9
    other = phantoms.get(exam, "seg.dcm", params={"view": "R-MLO", "threshold": 0.5})
    assert other.content != one.content
    assert pydicom.dcmread(io.BytesIO(other.content)).Modality == "SEG"
    assert phantoms.get(exam, "sc.dcm", params={"view": "R-MLO", "number": 2}).status_code == 404


def test_a_zip_of_a_study_is_the_same_exam_as_its_files(phantoms, study, tmp_path):
    exam = phantoms.send_folder(study)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in study.iterdir():
            archive.write(path, f"deep/{path.name}")
        archive.writestr("deep/README.txt", "hello")
    answer = phantoms.send(tmp_path / "study.zip").json()
    assert (answer["id"], answer["is_known"]) == (exam, True)


def test_a_zip_of_an_exam_folder_is_run(small, tmp_path):
    small_exam(tmp_path / "exam", seed=2)
    with zipfile.ZipFile(tmp_path / "exam.zip", "w") as archive:
        for path in (tmp_path / "exam").iterdir():
            archive.write(path, f"some folder/{path.name}")
        archive.writestr("some folder/segmentation/L_CC_benign.png", png.encode(breast(2, "L_CC")))
        archive.writestr("some folder/exam_list.pkl", b"not looked at")
    found = small.finished(small.send(tmp_path / "exam.zip").json()["id"])
    assert found["status"] == "done"
    assert found["notes"] == ["2 files of the archive are no images of an exam, and were passed over"]


def test_pictures_have_sixteen_bits_and_heatmaps_lie_over_the_crop(small, tmp_path):
    small_exam(tmp_path / "exam", seed=3)
    exam = small.send_folder(tmp_path / "exam")
    found = small.finished(exam)
    for image in found["images"]:
        stored = cv2.imread(str(tmp_path / "exam" / f"{image['view'].replace('-', '_')}.png"), cv2.IMREAD_UNCHANGED)
        whole = small.client.get(image["links"]["whole"])
        assert whole.headers["content-type"] == "image/png"
        assert np.array_equal(decoded(whole), stored)
        top, bottom, left, right = image["geometry"]["window_location"]
        crop = decoded(small.client.get(image["links"]["crop"]))
        assert crop.shape == (bottom - top, right - left)
        assert crop.dtype == np.uint16
        for target, channel in (("malignant", 2), ("benign", 1)):
            grey = decoded(small.client.get(image["links"][f"heatmap_{target}"]))
            assert grey.shape == crop.shape
            assert grey.dtype == np.uint8
            layer = decoded(small.client.get(image["links"][f"heatmap_{target}"] + "&form=layer"))
            assert np.array_equal(layer[..., 3], np.where(crop > 0, grey, 0))
            assert (layer[..., channel] == 255).all()
            assert not layer[..., [one for one in range(3) if one != channel]].any()


def test_a_heatmap_is_what_the_ledger_keeps(small, tmp_path):
    from spicula.exams.artefacts import Artefacts
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs.detail import detail_of, pictures_of

    exam = small.send_folder(small_exam_of(tmp_path, 4))
    small.finished(exam)
    ledger, artefacts = Ledger.open(small.workspace), Artefacts(small.workspace / "artefacts")
    pictures = pictures_of(detail_of(ledger, artefacts, exam), artefacts)
    for name, view in pictures.items():
        grey = decoded(small.get(exam, f"views/{name.replace('_', '-')}/heatmap", params={"target": "benign"}))
        assert np.abs(grey / 255 - view.benign).max() <= 0.5 / 255 + 1e-6


def small_exam_of(folder, seed, **options):
    small_exam(folder / "exam", seed, **options)
    return folder / "exam"


def decoded(answer):
    assert answer.status_code == 200, answer.text
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures_become_smaller_and_are_sent_once(phantoms, study):
    exam = phantoms.send_folder(study)
    phantoms.finished(exam)
    small_ = phantoms.get(exam, "views/L-CC/image", params={"part": "whole", "size": "256"})
    assert decoded(small_).shape == (256, 208)
    etag = small_.headers["etag"]
    again = phantoms.get(
        exam, "views/L-CC/image", params={"part": "whole", "size": "256"}, headers={"If-None-Match": etag}
    )
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    full = phantoms.get(exam, "views/L-CC/image", params={"part": "whole"}, headers={"If-None-Match": etag})
    assert full.status_code == 200
    assert full.headers["etag"] != etag


def test_the_report_runs_its_own_script_and_loads_nothing(small, tmp_path):
    exam = small.send_folder(small_exam_of(tmp_path, 5))
    small.finished(exam)
    page = small.get(exam, "report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert RESEARCH_NOTICE in page.text
    assert exam in page.text
    assert small.get(exam, "report.html").content == page.content


def test_the_same_images_are_the_same_exam(small, tmp_path):
    folder = small_exam_of(tmp_path, 6)
    exam = small.send_folder(folder)
    before = small.finished(exam)
    renamed = [(f"9_{path.stem.replace('_', '-')}.png", path.read_bytes()) for path in folder.iterdir()]
    answer = small.send(*renamed)
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["is_known"], answer.json()["status"]) == (exam, True, "done")
    assert small.show(exam) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"R_MLO": None}, "no R-MLO"),
        ({"R_CC": b"no image"}, "no R-CC; file 3 (R-CC): not an image"),
        ({"R_CC": png.encode(breast(7, "R_CC"))[:200]}, "R_CC (R-CC)"),
        ({"L_MLO": "L_CC"}, "L-CC and L-MLO are the same image"),
        ({"R_CC": png.encode(np.zeros((96, 64), np.uint16))}, "crop: R_CC (R-CC)"),
        ({"R_CC": png.encode(np.zeros((96, 64), np.uint8))}, "crop: R_CC (R-CC)"),
    ],
)
def test_an_exam_out_of_scope_is_refused_with_the_reason_and_has_no_score(small, tmp_path, change, reason):
    seed = 70 + len(reason)
    contents = {name: png.encode(breast(seed, name)) for name in NAMES}
    for name, value in change.items():
        contents[name] = contents[value] if isinstance(value, str) else value
    sent = [(f"{name}.png", content) for name, content in sorted(contents.items()) if content is not None]
    found = small.finished(small.send(*sent).json()["id"])
    assert found["status"] == "refused"
    assert reason in " ".join(found["reasons"])
    assert found["predictions"] == []
    assert small.get(found["id"], "report.html").status_code == 200


def test_several_images_of_a_view_are_used_and_shown(small, tmp_path):
    sent = [(f"{name}.png", png.encode(breast(8, name))) for name in NAMES]
    sent.append(("L_CC_2.png", png.encode(breast(88, "L_CC"))))
    found = small.finished(small.send(*sent).json()["id"])
    assert found["status"] == "done"
    assert [(one["view"], one["number"]) for one in found["images"]] == [
        ("R-CC", 1),
        ("L-CC", 1),
        ("L-CC", 2),
        ("R-MLO", 1),
        ("L-MLO", 1),
    ]
    second = decoded(small.client.get(found["images"][2]["links"]["whole"]))
    assert np.array_equal(second, breast(88, "L_CC"))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([("notes.txt", b"hello")], "file 1: not an image"),
        ([("L_CC.png", b"")], "file 1 (L-CC): the file is empty"),
        (
            [("picture.png", png.encode(breast(9, "L_CC")))],
            "file 1: its name is not that of a view (L_CC, R-MLO_2, 7_L-CC)",
        ),
        (
            [(f"{exam}_{name}.png", png.encode(breast(exam, name))) for exam in (90, 91) for name in NAMES],
            "the files are of 2 exams",
        ),
    ],
)
def test_what_is_no_exam_is_refused_in_words_that_help(small, files, reason):
    status, reasons = reported(small, small.finished(small.send(*files).json()["id"])["id"])
    assert status == "refused"
    assert reason in reasons, reasons


def test_dicom_that_is_out_of_scope_or_cut_short_is_refused(phantoms, study, tmp_path):
    def changed(name, change):
        datasets = {path.name: pydicom.dcmread(path) for path in study.glob("*.dcm")}
        sent = []
        for one in datasets.values():
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{one.SOPInstanceUID}.{name}"
            one.StudyInstanceUID = f"{one.StudyInstanceUID}.{name}"
        change(datasets["R-CC.dcm"])
        for path, one in datasets.items():
            stream = io.BytesIO()
            one.save_as(stream)
            sent.append((path, stream.getvalue()))
        return sent

    cases = {
        "1": (lambda one: setattr(one, "PresentationIntentType", "FOR PROCESSING"), "for processing"),
        "2": (lambda one: setattr(one, "Modality", "MR"), "modality"),
        "3": (lambda one: setattr(one, "PixelData", bytes(10)), "10 bytes where the header declares"),
        "4": (lambda one: setattr(one, "PatientID", "another"), "of 2 patients"),
    }
    for name, (change, reason) in cases.items():
        found = phantoms.finished(phantoms.send(*changed(name, change)).json()["id"])
        assert found["status"] == "refused", name
        assert reason in " ".join(found["reasons"]), found["reasons"]
        assert found["predictions"] == []

    whole = changed("5", lambda one: None)
    cut = [(name, content[: len(content) // 2] if name == "R-CC.dcm" else content) for name, content in whole]
    status, reasons = reported(phantoms, phantoms.finished(phantoms.send(*cut).json()["id"])["id"])
    assert status == "refused"
    assert "no R-CC" in reasons
    assert "cut short" in reasons


def test_a_form_that_is_none_is_a_problem(small, tmp_path):
    def problem(answer, status, code):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code

    problem(small.client.post("/v1/exams", files=[("note", (None, "text"))]), 422, "no-images")
    problem(small.client.post("/v1/exams", json={}), 415, "media-type")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("README.txt", "hello")
    problem(small.send(tmp_path / "empty.zip"), 422, "no-images")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "empty.zip").read_bytes()[:40])
    problem(small.send(tmp_path / "cut.zip"), 422, "archive")
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr(f"../{CANARY}.png", png.encode(breast(1, "L_CC")))
    answer = small.send(tmp_path / "out.zip")
    problem(answer, 422, "archive")
    assert CANARY not in answer.text
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("L_CC.png", bytes(50_000_000))
    problem(small.send(tmp_path / "bomb.zip"), 413, "unpacked-bytes")
    unknown = "0" * 32
    for path in (unknown, f"{unknown}/report.html", f"{unknown}/views/L-CC/image", f"{unknown}/sr.dcm", "..%2f..", "x"):
        assert small.client.get(f"/v1/exams/{path}").status_code == 404, path
    problem(small.client.delete(f"/v1/exams/{unknown}"), 404, "no-exam")


def test_what_an_exam_has_not_is_a_problem(small, tmp_path):
    exam = small.send_folder(small_exam_of(tmp_path, 10))
    small.finished(exam)
    codes = {
        "sr.dcm": (409, "not-dicom"),
        "seg.dcm": (409, "not-dicom"),
        "views/L-CC/image?number=2": (404, "no-view"),
        "views/L-XX/image": (422, "invalid"),
        "views/L-CC/image?size=257": (422, "invalid"),
    }
    for path, expected in codes.items():
        answer = small.get(exam, path)
        assert (answer.status_code, answer.json()["code"]) == expected, path
    refused = small.send_folder(small_exam_of(tmp_path / "lacking", 11, names=NAMES[:3]))
    small.finished(refused)
    assert small.get(refused, "views/L-CC/image").json()["code"] == "no-crop"
    assert small.get(refused, "views/L-CC/image?part=whole").status_code == 200
    assert small.get(refused, "views/L-CC/heatmap").json()["code"] == "no-heatmap"


def test_an_exam_that_is_removed_is_gone_and_its_images_are_another_exam(small, tmp_path):
    folder = small_exam_of(tmp_path, 12)
    exam = small.send_folder(folder)
    before = small.finished(exam)
    assert small.get(exam, "report.html").status_code == 200
    assert small.client.delete(f"/v1/exams/{exam}").status_code == 204
    for path in (exam, f"{exam}/report.html", f"{exam}/views/L-CC/image"):
        assert small.client.get(f"/v1/exams/{path}").status_code == 404
    assert small.client.delete(f"/v1/exams/{exam}").json()["code"] == "no-exam"
    assert exam not in small.client.get("/v1/exams", params={"limit": 200}).text
    assert not list((small.workspace / "incoming").rglob(f"{exam}*"))
    again = small.send_folder(folder)
    assert again != exam
    assert scores(small.finished(again)["predictions"]) == scores(before["predictions"])
    from spicula.exams.ledger import Ledger

    assert {exam, again} <= set(Ledger.open(small.workspace).read("exams")["exam_id"].to_pylist()), "it keeps both"


def test_exams_are_listed_searched_and_sorted(small, tmp_path):
    exams = [small.send_folder(folder) for folder in sorted(small_exams(tmp_path, range(200, 203)).iterdir())]
    for exam in exams:
        small.finished(exam)
    listed = small.client.get("/v1/exams", params={"limit": 200}).json()
    assert listed["total"] == len(listed["exams"])
    assert [one["id"] for one in listed["exams"][:3]] == exams[::-1]
    times = [one["time"] for one in listed["exams"]]
    assert times == sorted(times, reverse=True)
    by_score = small.client.get("/v1/exams", params={"limit": 200, "sort": "score"}).json()["exams"]
    found = [one["score"] for one in by_score]
    assert [one for one in found if one is not None] == sorted((one for one in found if one is not None), reverse=True)
    assert {one["id"] for one in by_score} == {one["id"] for one in listed["exams"]}
    first = next(one for one in by_score if one["id"] == exams[0])
    assert first["score"] == max(one["score"] for one in first["predictions"] if one["target"] == "malignant")
    assert scores(first["predictions"]) == scores(small.show(exams[0])["predictions"])
    page = small.client.get("/v1/exams", params={"offset": 1, "limit": 1}).json()
    assert ([one["id"] for one in page["exams"]], page["total"], page["offset"]) == ([exams[1]], listed["total"], 1)
    one = small.client.get("/v1/exams", params={"q": exams[0][:12]}).json()
    assert [each["id"] for each in one["exams"]] == [exams[0]]
    done = small.client.get("/v1/exams", params={"status": "done", "limit": 200}).json()
    assert {each["status"] for each in done["exams"]} == {"done"}
    assert set(exams) <= {each["id"] for each in done["exams"]}


def test_nothing_of_headers_and_file_names_comes_out(phantoms, study, tmp_path):
    from spicula.headers import read_dicom  # noqa: F401 - the same reader that the service uses

    words = [
        *("PatientName", "PatientID", "PatientBirthName", "OtherPatientNames", "PatientAddress", "PatientComments"),
        *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ImageComments"),
        *("OperatorsName", "ReferringPhysicianName", "InstitutionName", "StationName", "ProtocolName"),
    ]
    folder = tmp_path / f"{CANARY}-folder"
    folder.mkdir()
    for path in study.glob("*.dcm"):
        one = pydicom.dcmread(path)
        for keyword in words:
            setattr(one, keyword, f"{CANARY}-{keyword}"[:16])
        one.PatientBirthDate = BIRTH_DATE
        one.save_as(folder / f"{CANARY}^{path.name}")
    exam = phantoms.send_folder(folder)
    found = phantoms.finished(exam)
    assert found["status"] == "done"
    broken = sorted(folder.iterdir())[0]
    refused = phantoms.send((f"{CANARY}.dcm", broken.read_bytes()[:-500])).json()["id"]
    unnamed = phantoms.send((f"{CANARY}_L_CC.png", b"text"), (f"{CANARY} born {BIRTH_DATE}.txt", b"text")).json()["id"]
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr(f"{CANARY}/{CANARY}.exe", b"MZ")
        archive.writestr(f"{CANARY}/{CANARY}_L-CC.png", b"no")
    zipped = phantoms.send((f"{CANARY}.zip", (tmp_path / "odd.zip").read_bytes())).json()["id"]
    texts = {one: json.dumps(phantoms.finished(one)) for one in (exam, refused, unnamed, zipped)}
    texts |= {f"report {one}": phantoms.get(one, "report.html").text for one in (exam, refused, unnamed, zipped)}
    texts["list"] = phantoms.client.get("/v1/exams").text
    texts["metrics"] = phantoms.client.get("/metrics").text
    texts["log"] = phantoms.text()
    texts["audit"] = Path(f"{phantoms.workspace}.audit").read_text()
    for path in phantoms.workspace.rglob("*"):
        texts[f"name of {path.name}"] = str(path.relative_to(phantoms.workspace))
        if path.suffix in (".json", ".html", ".parquet"):
            texts[str(path)] = path.read_bytes().decode("latin-1")
    assert [name for name, text in texts.items() if CANARY in text or BIRTH_DATE in text] == []
    assert exam in texts["audit"]
    assert f"{CANARY}-Patient" in str(pydicom.dcmread(io.BytesIO(phantoms.get(exam, "sr.dcm").content)).PatientName)


def test_the_audit_log_says_what_was_sent_and_answered(small, tmp_path):
    folder = small_exam_of(tmp_path, 12)
    exam = small.send_folder(folder)
    found = small.finished(exam)
    small.get(exam, "report.html")
    lines = [json.loads(line) for line in Path(f"{small.workspace}.audit").read_text().splitlines()]
    mine = [line for line in lines if line.get("exam") == exam]
    assert mine[0]["did"] == "sent"
    assert sorted(mine[0]["files"]) == sorted(image["sha256"] for image in found["images"])
    answered = next(line for line in mine if line.get("did") == "answered")
    assert scores(answered["predictions"]) == scores(found["predictions"])
    assert {one["digest"] for one in answered["models"]} == {one["digest"] for one in found["models"]}
    assert (mine[-1]["event"], mine[-1]["what"]) == ("retrieve", "report.html")
    assert len({line["images"] for line in mine}) == 1


def test_finished_exams_are_counted(small, tmp_path):
    small.finished(small.send_folder(small_exam_of(tmp_path, 13)))
    small.wait(lambda: 'spicula_exams_total{outcome="done"}' in small.client.get("/metrics").text)
    text = small.client.get("/metrics").text
    assert 'spicula_exams_total{outcome="accepted"}' in text
    assert "spicula_exams_waiting 0.0" in text
    assert 'route="/v1/exams/{exam}"' in text
