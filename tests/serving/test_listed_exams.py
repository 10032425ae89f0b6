"""Exams that `spicula exams run` made, in the list of a service on the same workspace; and the list when it is long."""

import io
import json
import shutil
import sqlite3
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

from exam_service import files_of, phantom_bundle, phantom_studies, running, scores

from spicula import exams
from spicula.exams import models
from spicula.exams.artefacts import Artefacts
from spicula.exams.ledger import Ledger
from spicula.exams.outputs.detail import detail_of
from spicula.serving.exam_desk.following import Book, Follower, id_of
from spicula.serving.exam_desk.incoming import Incoming
from spicula.serving.exam_desk.listing import LEDGER, Exams, Span, make_ledger_table

ENGINE = exams.EngineOptions(cpu_workers=1, model_workers=1, streams=1)
MANY = 100_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with two phantom studies and one that lacks a view, as `spicula exams run` left them."""
    folder = tmp_path_factory.mktemp("place")
    studies = phantom_studies(folder / "made", 4, seed=50)
    for study in studies[:3]:
        shutil.copytree(study, folder / "in" / study.name)
    files_of(folder / "in" / studies[2].name)[0].unlink()
    bundle = phantom_bundle(folder / "bundle")
    exams.run(folder / "in", folder / "ws", models.load(bundle), ENGINE)
    return folder


@pytest.fixture(scope="module")
def service(place):
    with running(place / "ws", place / "bundle") as service:
        service.wait(lambda: listed(service)["total"] == 3)
        yield service


def listed(service, **query):
    answer = service.client.get("/v1/exams", params={"limit": 200, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def details(place):
    ledger, artefacts = Ledger.open(place / "ws"), Artefacts(place / "ws" / "artefacts")
    names = set(ledger.read("exams")["exam_id"].to_pylist())
    return {name: detail_of(ledger, artefacts, name) for name in names}


def test_exams_of_the_ledger_are_listed_as_they_stand_there(service, place):
    expected = details(place)
    found = {one["name"]: one for one in listed(service)["exams"]}
    assert found.keys() == expected.keys()
    for name, one in found.items():
        detail = expected[name]
        assert one["origin"] == "ledger"
        assert one["id"] == id_of(name)
        assert one["status"] == {"ok": "done"}.get(detail["status"], detail["status"])
        assert scores(one["predictions"]) == scores(detail["predictions"])
        malignant = [each["score"] for each in detail["predictions"] if each["target"] == "malignant"]
        assert one["score"] == max(malignant, default=None)
    assert sorted(one["status"] for one in found.values()) == ["done", "done", "refused"]
    by_score = [one["score"] for one in listed(service, sort="score")["exams"]]
    assert by_score[:2] == sorted(by_score[:2], reverse=True)
    assert by_score[2] is None
    name = next(iter(found))
    assert [one["name"] for one in listed(service, q=name[:32])["exams"]] == [name]
    assert listed(service, status="refused")["total"] == 1
    assert listed(service, least=by_score[0])["total"] == 1
    assert listed(service, most=by_score[1])["total"] == 1
    assert listed(service, since="2000-01-01T00:00:00Z")["total"] == 3
    assert listed(service, until="2000-01-01T00:00:00Z")["total"] == 0


def test_an_exam_of_the_ledger_has_its_answer_pictures_and_documents(service, place):
    expected = details(place)
    for one in listed(service)["exams"]:
        detail = expected[one["name"]]
        shown = service.show(one["id"])
        assert (shown["origin"], shown["name"], shown["status"]) == ("ledger", one["name"], one["status"])
        assert shown["reasons"] == detail["reasons"]
        assert [step["step"] for step in shown["stages"]] == [step["step"] for step in detail["steps"]]
        assert {image["sha256"] for image in shown["images"]} == {one["sha256"] for one in detail["images"].values()}
        page = service.get(one["id"], "report.html")
        assert page.status_code == 200
        assert one["name"] in page.text
    done = listed(service, sort="score")["exams"][0]["id"]
    for image in service.show(done)["images"]:
        whole = service.client.get(image["links"]["whole"])
        crop, heat = (service.client.get(image["links"][key]) for key in ("crop", "heatmap_malignant"))
        assert {one.status_code for one in (whole, crop, heat)} == {200}
        assert decoded(heat).shape == decoded(crop).shape
    assert pydicom.dcmread(io.BytesIO(service.get(done, "sr.dcm").content)).Modality == "SR"
    for path in ("sc.dcm", "seg.dcm"):
        with zipfile.ZipFile(io.BytesIO(service.get(done, path).content)) as archive:
            assert len(archive.namelist()) == 4
    refused = service.client.delete(f"/v1/exams/{done}")
    assert (refused.status_code, refused.json()["code"]) == (409, "in-ledger")
    lines = [json.loads(line) for line in Path(f"{service.workspace}.audit").read_text().splitlines()]
    text = json.dumps([line for line in lines if line["event"] in ("exam", "retrieve")])
    assert done in text
    assert not any(name in text for name in expected)


def decoded(answer):
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_what_was_sent_and_what_was_run_beside_it_are_in_one_list(service, place):
    fourth = next(
        path for path in sorted((place / "made").glob("phantom-*")) if not (place / "in" / path.name).exists()
    )
    exam = service.send_folder(fourth)
    service.finished(exam)
    found = listed(service)
    assert found["total"] == 4
    assert (found["exams"][0]["id"], found["exams"][0]["origin"]) == (exam, "sent")
    pages = [listed(service, limit=1, offset=number)["exams"][0]["id"] for number in range(4)]
    assert pages == [one["id"] for one in found["exams"]]
    scored = [one["score"] for one in listed(service, sort="score")["exams"] if one["score"] is not None]
    assert scored == sorted(scored, reverse=True)
    (more,) = phantom_studies(place / "more", 1, seed=60)
    shutil.copytree(more, place / "in" / "later")
    exams.run(place / "in", place / "ws", models.load(place / "bundle"), ENGINE)
    service.wait(lambda: listed(service)["total"] == 5)
    assert [one["origin"] for one in listed(service)["exams"]] == ["ledger", "sent", "ledger", "ledger", "ledger"]
    assert service.client.delete(f"/v1/exams/{exam}").status_code == 204
    time.sleep(3)
    assert exam not in {one["name"] for one in listed(service)["exams"]}, "the ledger keeps it, the list does not"
    assert listed(service)["total"] == 4


def test_the_ledger_is_read_on_from_where_it_was(service, place, tmp_path):
    (tmp_path / "incoming").mkdir()
    make_ledger_table(tmp_path / "incoming" / LEDGER)
    follower = Follower(Book.open(place / "ws"), tmp_path / "incoming")
    looks = 0
    while follower.look():
        looks += 1
    assert looks == 1
    assert not follower.look()
    with sqlite3.connect(tmp_path / "incoming" / LEDGER) as base:
        assert base.execute("SELECT COUNT(*) FROM exams").fetchone()[0] >= 3
    base.close()


@pytest.fixture(scope="module")
def long_list(tmp_path_factory):
    """A list of many exams of a ledger."""
    incoming = Incoming(tmp_path_factory.mktemp("long") / "incoming")
    incoming.open()
    found = Exams(incoming)
    told = json.dumps([{"model": "m", "side": "left", "target": "malignant", "score": 0.5}] * 8)
    rows = []
    for n in range(MANY):
        came, rank = f"2026-01-01T00:00:00.{n:06d}Z", (n * 7919 % MANY) / MANY
        rows.append((id_of(f"{n}"), f"exam-{n}", "run", "1-1", came, None, "done", rank, told))
    with sqlite3.connect(incoming.place / LEDGER) as base:
        base.executemany("INSERT INTO exams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    base.close()
    yield found
    found.close()


def test_a_long_list_is_turned_without_reading_all_of_it(long_list):
    plans = []
    long_list._base.set_trace_callback(plans.append)
    page, total = long_list.find("", (), "time", 50_000, 50)
    assert total == MANY
    assert [one.name for one in page] == [f"exam-{MANY - 1 - n}" for n in range(50_000, 50_050)]
    top, _ = long_list.find("", (), "score", 0, 3)
    assert [one.score for one in top] == [(MANY - n) / MANY for n in (1, 2, 3)]
    one, total = long_list.find("exam-4711", ("done",), "score", 0, 200)
    assert total == 11
    assert {each.name for each in one} == {"exam-4711", *(f"exam-4711{n}" for n in range(10))}
    _, total = long_list.find("", (), "time", 0, 1, span=Span(least=0.9))
    assert total == MANY // 10
    long_list._base.set_trace_callback(None)
    for order in ("time", "score"):
        text = next(one for one in plans if "LIMIT" in one and ("rank DESC" in one) is (order == "score"))
        steps = " ".join(row[3] for row in long_list._base.execute(f"EXPLAIN QUERY PLAN {text}"))
        assert "MERGE" in steps
        assert "USE TEMP B-TREE" not in steps, steps
