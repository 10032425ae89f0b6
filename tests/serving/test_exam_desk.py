"""What is accepted is run, exactly once, whoever is killed; and the folder that it rests on."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

import bundle_maker
from exam_service import Running, is_alive, running, scores, small_bundle, small_exam, small_exams

from spicula import exams
from spicula.bundle import sealed
from spicula.errors import UsageError
from spicula.exams import models
from spicula.exams.ledger import Ledger
from spicula.serving import exam_desk
from spicula.serving.exam_desk.incoming import FullError, Incoming, now, place_of
from spicula.serving.exam_desk.uploads import Sent, gather
from spicula.serving.limits import Limits
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings

ONE_WORKER = exams.EngineOptions(cpu_workers=1, model_workers=1, streams=1)
STEPS, SCORES = 6, 8


@pytest.fixture
def bundle(tmp_path):
    return small_bundle(tmp_path / "bundle")


def expected_scores(source, bundle, workspace):
    """Folder -> scores, by a run of the command line."""
    exams.run(source, workspace, models.load(bundle), ONE_WORKER)
    found: dict[str, dict] = {}
    for row in Ledger.open(workspace).predictions().to_pylist():
        side = {"L": "left", "R": "right"}[row["side"]]
        found.setdefault(row["exam_id"], {})[row["model"], side, row["target"]] = round(row["score"], 7)
    return found


def check_once(workspace, exam_ids):
    """Every exam has one result of each step and one of each score in the ledger, and nobody else has any."""
    ledger = Ledger.open(workspace)
    steps = [(row["exam_id"], row["step"]) for row in ledger.read("steps").to_pylist() if row["status"] != "failed"]
    assert sorted(steps) == sorted(set(steps))
    assert len(steps) == STEPS * len(exam_ids)
    rows = [(row["exam_id"], row["step"], row["side"], row["target"]) for row in ledger.read("predictions").to_pylist()]
    assert len(rows) == len(set(rows)) == SCORES * len(exam_ids)
    assert {row[0] for row in rows} == set(exam_ids)


@pytest.mark.slow
def test_twenty_exams_at_once_are_all_run(tmp_path, bundle):
    source = small_exams(tmp_path / "in", range(20))
    folders = sorted(source.iterdir())
    with running(tmp_path / "ws", bundle) as service, ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(service.send_folder, folders))
        assert len(set(ids)) == 20
        runner = service.below("serving.exam_desk.runner")
        workers = service.below("exams.engines.worker model")
        found = [service.finished(exam) for exam in ids]
        assert service.below("serving.exam_desk.runner") == runner
        assert service.below("exams.engines.worker model") == workers, "workers keep their models between runs"
        assert service.end() == 0
    expected = expected_scores(source, bundle, tmp_path / "other")
    assert [scores(one["predictions"]) for one in found] == [expected[folder.name] for folder in folders]
    check_once(tmp_path / "ws", ids)
    assert not any(is_alive(pid) for pid in (*runner, *workers))


@pytest.mark.slow
def test_whoever_is_killed_every_accepted_exam_is_run_exactly_once(tmp_path, bundle):
    source = small_exams(tmp_path / "in", range(30))
    chance = random.Random(11)
    service = Running(tmp_path / "ws", bundle)
    accepted: dict[str, list[str]] = {}
    state = {"service": service}

    def send_all():
        for folder in sorted(source.iterdir()):
            while True:
                try:
                    exam = state["service"].send_folder(folder)
                except (httpx.HTTPError, RuntimeError):  # killed; the client tries again
                    time.sleep(0.1)
                    continue
                accepted.setdefault(folder.name, []).append(exam)
                break

    sending = threading.Thread(target=send_all)
    sending.start()
    killed = {"runner": 0, "service": 0, "worker": 0}
    for number in range(9):
        time.sleep(chance.uniform(0.1, 1.5))
        what = ("runner", "service", "worker")[number % 3]
        module = {"runner": "serving.exam_desk.runner", "worker": "exams.engines.worker"}.get(what)
        victims = service.below(module) if module else []
        if what == "service":
            service.kill()
            service = state["service"] = Running(tmp_path / "ws", bundle)
            killed[what] += 1
        elif victims:
            os.kill(chance.choice(victims), signal.SIGKILL)
            killed[what] += 1
    sending.join(300)
    assert not sending.is_alive()
    ids = {name: exam for name, (exam,) in accepted.items()}
    found = {name: service.finished(exam) for name, exam in ids.items()}
    assert service.client.get("/v1/exams").json()["total"] == 30
    assert service.end() == 0
    expected = expected_scores(source, bundle, tmp_path / "other")
    assert {name: scores(one["predictions"]) for name, one in found.items()} == expected
    check_once(tmp_path / "ws", ids.values())
    assert min(killed.values()) >= 1, killed


@pytest.mark.slow
def test_what_was_accepted_before_a_kill_is_run_by_the_next_service(tmp_path, bundle):
    folder = small_exams(tmp_path / "in", range(1)) / "exam-0000"
    with running(tmp_path / "ws", bundle) as service:
        (runner,) = service.below("serving.exam_desk.runner")
        os.kill(runner, signal.SIGSTOP)
        exam = service.send_folder(folder)
        assert service.show(exam)["status"] == "waiting"
        assert service.show(exam)["progress"]["done"] == 0
        service.kill()
        os.kill(runner, signal.SIGKILL)
    with running(tmp_path / "ws", bundle) as service:
        assert service.finished(exam)["status"] == "done"


@pytest.mark.slow
def test_a_service_that_is_killed_takes_its_processes_with_it(tmp_path, bundle):
    with running(tmp_path / "ws", bundle) as service:
        exam = service.send_folder(small_exams(tmp_path / "in", range(1)) / "exam-0000")
        service.finished(exam)
        assert service.get(exam, "report.html").status_code == 200
        left = [pid for module in ("serving", "exams") for pid in service.below(module)]
        assert len(left) == 4  # runner, two workers, and the process that makes reports
        service.kill()
        service.wait(lambda: not any(is_alive(pid) for pid in left))


@pytest.mark.slow
def test_a_process_that_makes_pictures_costs_one_answer_when_it_dies(tmp_path, bundle):
    with running(tmp_path / "ws", bundle) as service:
        exam = service.send_folder(small_exams(tmp_path / "in", range(1)) / "exam-0000")
        service.finished(exam)
        assert service.get(exam, "views/L-CC/image").status_code == 200
        (making,) = service.below("serving.exam_desk.making")
        os.kill(making, signal.SIGKILL)
        answer = service.get(exam, "views/R-CC/image")
        assert answer.status_code in (200, 500)
        assert service.get(exam, "views/L-MLO/image").status_code == 200
        assert service.show(exam)["status"] == "done"


def test_more_pictures_than_may_wait_are_answered_at_once(tmp_path, bundle):
    with running(tmp_path / "ws", bundle, "--limit", "making-queue=1") as service, ThreadPoolExecutor(2) as pool:
        exam = service.send_folder(small_exams(tmp_path / "in", range(1)) / "exam-0000")
        service.finished(exam)
        assert service.get(exam, "views/L-CC/image").status_code == 200
        (making,) = service.below("serving.exam_desk.making")
        os.kill(making, signal.SIGSTOP)
        asked = [pool.submit(service.get, exam, f"views/{view}/image") for view in ("R-CC", "L-MLO")]
        service.wait(lambda: any(one.done() for one in asked))
        (refused,) = [one.result() for one in asked if one.done()]
        assert refused.status_code == 503
        full = service.get(exam, "report.html")
        assert (full.json()["code"], int(full.headers["retry-after"])) == ("making-queue", 1)
        assert service.get(exam, "views/L-CC/image").status_code == 200, "what is made already is there"
        os.kill(making, signal.SIGCONT)
        assert sorted(one.result().status_code for one in asked) == [200, 503]


@pytest.mark.slow
def test_another_model_runs_the_exam_again_when_it_is_sent_again(tmp_path):
    folder = small_exams(tmp_path / "in", range(1)) / "exam-0000"
    first, second = small_bundle(tmp_path / "first"), small_bundle(tmp_path / "second", image_seed=5, version="2")
    with running(tmp_path / "ws", first) as service:
        exam = service.send_folder(folder)
        before = service.finished(exam)
    with running(tmp_path / "ws", second) as service:
        assert service.show(exam) == before
        assert service.send_folder(folder) == exam
        after = service.finished(exam)
    assert scores(after["predictions"]) != scores(before["predictions"])
    # networks that are in both bundles are not run again, and keep the version that they were run with
    assert {one["name"]: one["version"] for one in after["models"]} == {"image-only": "2", "image-and-heatmaps": "1"}
    counts = [row["step"] for row in Ledger.open(tmp_path / "ws").read("steps").to_pylist()]
    assert sorted(counts) == sorted([*(row["step"] for row in before["stages"]), "classify:image-only"])


@pytest.mark.slow
def test_what_the_command_line_does_in_the_same_workspace_changes_no_answer(tmp_path):
    source = small_exams(tmp_path / "in", range(1))
    first, second = small_bundle(tmp_path / "first"), small_bundle(tmp_path / "second", seed=5, heatmap_threshold=0.2)
    with running(tmp_path / "ws", first) as service:
        exam = service.send_folder(source / "exam-0000")
        before = service.finished(exam)
        exams.run(source, tmp_path / "ws", models.load(second), ONE_WORKER)
        assert service.show(exam) == before
        page = service.get(exam, "report.html").text
        assert before["models"][0]["digest"] in page
        other = service.send_folder(small_exams(tmp_path / "more", range(1, 2)) / "exam-0001")
        assert service.finished(other)["models"] == before["models"]


@pytest.mark.slow
def test_two_services_in_one_workspace_run_every_exam_once(tmp_path, bundle):
    folders = sorted(small_exams(tmp_path / "in", range(6)).iterdir())
    with running(tmp_path / "ws", bundle) as one, running(tmp_path / "ws", bundle) as other:
        ids = [(one if number % 2 else other).send_folder(folder) for number, folder in enumerate(folders)]
        assert [other.finished(exam)["status"] for exam in ids] == ["done"] * 6
        assert {one.send_folder(folders[0]), other.send_folder(folders[0])} == {ids[0]}
        one.kill()
        (tmp_path / "last").mkdir()
        small_exam(tmp_path / "last" / "exam", seed=99)
        last = other.send_folder(tmp_path / "last" / "exam")
        assert other.finished(last)["status"] == "done"
    check_once(tmp_path / "ws", [*ids, last])


def test_a_full_queue_is_answered_and_a_waiting_exam_can_be_withdrawn(tmp_path, bundle):
    folders = sorted(small_exams(tmp_path / "in", range(3)).iterdir())
    with running(tmp_path / "ws", bundle, "--limit", "exam-queue=2") as service:
        (runner,) = service.below("serving.exam_desk.runner")
        os.kill(runner, signal.SIGSTOP)
        first, second = (service.send_folder(folder) for folder in folders[:2])
        full = service.send(*folders[2].iterdir())
        assert (full.status_code, full.json()["code"]) == (503, "exam-queue")
        assert int(full.headers["retry-after"]) >= 1
        assert service.show(second)["progress"]["ahead"] == 1
        assert service.get(second, "report.html").json()["code"] == "not-finished"
        assert service.client.delete(f"/v1/exams/{second}").status_code == 204
        assert service.client.get(f"/v1/exams/{second}").status_code == 404
        third = service.send_folder(folders[2])
        Incoming(place_of(str(tmp_path / "ws"))).take(1)
        refused = service.client.delete(f"/v1/exams/{first}")
        assert (refused.status_code, refused.json()["code"]) == (409, "running")
        os.kill(runner, signal.SIGCONT)
        assert service.finished(first)["status"] == service.finished(third)["status"] == "done"
        again = service.send_folder(folders[1])
        assert again != second
        assert service.finished(again)["status"] == "done"
    check_once(tmp_path / "ws", [first, third, again])


def test_a_lost_artefact_is_made_again_when_the_exam_is_sent_again(tmp_path, bundle):
    folder = small_exams(tmp_path / "in", range(1)) / "exam-0000"
    with running(tmp_path / "ws", bundle) as service:
        exam = service.send_folder(folder)
        before = service.finished(exam)
        for path in (tmp_path / "ws" / "artefacts").rglob("*.png"):
            path.unlink()
        assert service.get(exam, "report.html").json()["code"] == "lost"
        result = tmp_path / "ws" / "incoming" / "exams" / exam / "result.json"
        result.write_text(json.dumps(json.loads(result.read_text()) | {"status": "failed"}))
        assert service.send_folder(folder) == exam
        after = service.finished(exam)
        assert scores(after["predictions"]) == scores(before["predictions"])
        assert service.get(exam, "report.html").status_code == 200


def test_files_that_end_the_process_again_and_again_are_not_read_for_ever(tmp_path, bundle):
    folders = sorted(small_exams(tmp_path / "in", range(2)).iterdir())
    with running(tmp_path / "ws", bundle) as service:
        (runner,) = service.below("serving.exam_desk.runner")
        os.kill(runner, signal.SIGSTOP)
        poison, other = (service.send_folder(folder) for folder in folders)
        Incoming(place_of(str(tmp_path / "ws"))).tell_progress(poison, {"started": now(), "steps": {}, "reads": 3})
        os.kill(runner, signal.SIGCONT)
        assert service.finished(other)["status"] == "done"
        found = service.finished(poison)
        assert found["status"] == "failed"
        assert "ended 3 times" in found["reasons"][0]
        assert service.get(poison, "report.html").json()["code"] == "no-result"
        assert service.send_folder(folders[0]) == poison
        assert service.finished(poison)["status"] == "done", "whoever sends it again has it tried again"


def test_a_service_whose_bundle_is_damaged_says_so_and_ends(tmp_path, bundle):
    weights = next(path for path in bundle.iterdir() if path.suffix == ".onnx")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(AssertionError, match=weights.name):
        Running(tmp_path / "ws", bundle)


def test_a_service_whose_model_answers_otherwise_than_its_bundle_says_is_never_ready(tmp_path, bundle):
    info = json.loads((bundle / "bundle.json").read_text())
    info["golden"]["probabilities"]["image-only.mlo"][0][0] += 0.01
    (bundle / "bundle.json").write_text(sealed.seal(info))
    with pytest.raises(AssertionError, match=r"self-test of image-only\.mlo failed"):
        Running(tmp_path / "ws", bundle)


# the folder


def description(tmp_path, incoming, seed):
    folder = tmp_path / f"exam-{seed}"
    small_exam(folder, seed)
    sent = [Sent(path, path.name, f"{seed}-{path.name}", 1) for path in sorted(folder.iterdir())]
    with incoming.room() as room:
        yield room, gather(sent, room, Limits())


def accept(tmp_path, incoming, seed, most=10, configuration="c"):
    for room, described in description(tmp_path, incoming, seed):
        return incoming.accept(room, described, most, configuration)
    return None


@pytest.fixture
def incoming(tmp_path):
    found = Incoming(tmp_path / "incoming")
    found.open()
    return found


def test_what_is_accepted_is_found_by_another_process(tmp_path, incoming):
    accepted = accept(tmp_path, incoming, 1)
    other = Incoming(incoming.place)
    other.open()
    assert [entry.exam for entry in other.queue()] == [accepted.exam]
    described = other.description(accepted.exam)
    assert [one["name"] for one in described["files"]] == ["1/L_CC.png", "1/L_MLO.png", "1/R_CC.png", "1/R_MLO.png"]
    for one in described["files"]:
        assert (other.images(accepted.exam) / one["name"]).is_file()
    assert (incoming.place.stat().st_mode & 0o777) == 0o700


def test_images_that_were_sent_before_are_known_and_run_again_only_where_that_helps(tmp_path, incoming):
    exam = accept(tmp_path, incoming, 1).exam
    assert accept(tmp_path, incoming, 1) == accepted_again(exam, is_queued=True)
    assert len(incoming.queue()) == 1
    for status, configuration, is_repeated in (
        ("done", "c", False),
        ("refused", "c", False),
        ("failed", "c", True),
        ("done", "other", True),
    ):
        for entry in incoming.queue():
            incoming.finish(entry, {"status": status, "configuration": configuration})
        assert incoming.queue() == []
        assert accept(tmp_path, incoming, 1) == accepted_again(exam, is_queued=is_repeated)
        assert [entry.is_repeated for entry in incoming.queue()] == [True] * is_repeated
        if not is_repeated:
            (incoming.place / "queue" / f"1-{exam}.again").touch()
    assert incoming.ids() == [exam]


def accepted_again(exam, is_queued):
    from spicula.serving.exam_desk.incoming import Accepted

    return Accepted(exam, is_known=True, is_queued=is_queued)


def test_exams_are_taken_in_the_order_in_which_they_came(tmp_path, incoming):
    ids = [accept(tmp_path, incoming, seed).exam for seed in range(4)]
    assert [entry.exam for entry in incoming.take(3)] == ids[:3]
    assert not incoming.remove(ids[0]), "it is being run"
    assert incoming.remove(ids[3])
    assert incoming.description(ids[3]) == {}
    assert [entry.exam for entry in incoming.take(9)] == ids[:3]
    with pytest.raises(FullError):
        accept(tmp_path, incoming, 5, most=3)
    assert sorted(incoming.ids()) == sorted(ids[:3])


def test_leftovers_of_uploads_that_were_cut_short_are_removed(tmp_path, incoming):
    kept = accept(tmp_path, incoming, 1).exam
    old = incoming.place / "exams" / ".part-old"
    orphan = incoming.place / "exams" / ("0" * 32)
    young = incoming.place / "exams" / ".part-young"
    for folder in (old, orphan, young):
        folder.mkdir()
    for folder in (old, orphan, incoming.place / "exams" / kept):
        os.utime(folder, (1, 1))
    incoming.open()
    assert sorted(path.name for path in (incoming.place / "exams").iterdir()) == sorted([".part-young", kept])


def test_exams_of_a_remote_workspace_come_in_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert place_of("s3://bucket/exams").is_relative_to(tmp_path / "spicula" / "incoming")
    assert place_of("s3://bucket/exams") != place_of("s3://bucket/other")
    assert place_of(str(tmp_path / "ws")) == Path(tmp_path / "ws" / "incoming")


def test_without_the_extra_a_model_of_mammograms_answers_single_images_alone(tmp_path, monkeypatch):
    scope = {"modalities": ["MG"], "presentation_intents": [], "colour": False, "statement": "Mammograms."}
    bundle_maker.make(tmp_path / "bundle", scope=scope)
    service = Service(ServeSettings((tmp_path / "bundle",), workspace=str(tmp_path / "ws")))
    monkeypatch.setattr(exam_desk, "find_spec", lambda name: None)
    asyncio.run(exam_desk.start(service))
    assert service.parts == {}
    assert not (tmp_path / "ws").exists()


def test_images_are_not_listened_for_where_nothing_reads_them(tmp_path):
    bundle_maker.make(tmp_path / "bundle")
    service = Service(ServeSettings((tmp_path / "bundle",), workspace=str(tmp_path / "ws"), dicom_port=0))
    with pytest.raises(UsageError, match="--dicom-port needs a model of mammograms"):
        asyncio.run(exam_desk.start(service))
