"""The audit log: lines, rotation, renames, disks that are full; and that nothing is answered without it."""

import json
import threading
from datetime import datetime
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from core_server import running

from spicula.errors import SpiculaError
from spicula.serving import audit
from spicula.serving.audit import Audit
from spicula.serving.metrics import Metrics
from spicula.serving.problems import Problem

REQUEST = SimpleNamespace(state=SimpleNamespace(who="radiology", request_id="7f3a"))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_line_says_who_when_and_what(tmp_path):
    log = Audit(tmp_path / "audit.jsonl", Metrics())
    log.write(REQUEST, "predict", inputs=["ab"], model="net", answer={"malignant": 0.25})
    log.write(None, "store", who="c-store")
    first, second = lines(tmp_path / "audit.jsonl")
    assert datetime.fromisoformat(first.pop("time")).utcoffset().total_seconds() == 0
    assert first == {
        **{"event": "predict", "who": "radiology", "request": "7f3a"},
        **{"inputs": ["ab"], "model": "net", "answer": {"malignant": 0.25}},
    }
    assert second["who"] == "c-store"
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o007 == 0
    log.close()


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = Audit(None, Metrics())
    log.open()
    log.write(REQUEST, "predict")
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_lines_are_appended_to_those_of_yesterday(tmp_path):
    path = tmp_path / "logs" / "audit.jsonl"
    for number in range(2):
        log = Audit(path, Metrics())
        log.open()
        log.write(REQUEST, "infer", number=number)
        log.close()
    assert [one["number"] for one in lines(path)] == [0, 1]


def test_a_renamed_file_is_followed_by_a_new_one(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = Audit(path, Metrics())
    log.write(REQUEST, "exam", number=0)
    path.rename(tmp_path / "old")
    log.write(REQUEST, "exam", number=1)
    path.unlink()
    log.write(REQUEST, "exam", number=2)
    assert [one["number"] for one in lines(tmp_path / "old") + lines(path)] == [0, 2]
    log.close()


def test_rotation_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "KEPT", 3)
    path = tmp_path / "audit.jsonl"
    log = Audit(path, Metrics(), file_bytes=1000)
    for number in range(100):
        log.write(REQUEST, "predict", number=number)
    log.close()
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    kept = [one["number"] for name in [*reversed(names[1:]), names[0]] for one in lines(tmp_path / name)]
    assert kept == list(range(kept[0], 100))
    assert all(one.stat().st_size <= 1000 for one in tmp_path.iterdir())


def test_lines_of_several_threads_stay_whole(tmp_path):
    log = Audit(tmp_path / "audit.jsonl", Metrics(), file_bytes=100_000)

    def write(name):
        for number in range(100):
            log.write(REQUEST, "predict", name=name, number=number)

    threads = [threading.Thread(target=write, args=[name]) for name in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    log.close()
    assert sorted((one["name"], one["number"]) for one in lines(tmp_path / "audit.jsonl")) == [
        (name, number) for name in "abcd" for number in range(100)
    ]


def test_a_place_that_cannot_be_written_is_told_at_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpiculaError, match=r"--audit .*check the folder"):
        Audit(tmp_path / "file" / "audit.jsonl", Metrics()).open()


def test_what_cannot_be_written_is_not_answered(tmp_path, caplog):
    metrics = Metrics()
    folder = tmp_path / "logs"
    log = Audit(folder / "audit.jsonl", metrics)
    log.write(REQUEST, "predict")
    folder.rename(tmp_path / "gone")
    folder.touch()  # a file where the folder was
    for _ in range(3):
        with pytest.raises(Problem) as caught:
            log.write(REQUEST, "predict")
        assert (caught.value.status, caught.value.code) == (503, "audit")
        assert "Retry-After" in caught.value.headers
    assert len(caplog.records) == 1  # once, and not a line for each request
    assert b"spicula_audit_errors_total 3.0" in metrics.text()
    folder.unlink()
    log.write(REQUEST, "predict")
    assert len(lines(folder / "audit.jsonl")) == 1
    log.close()


def test_a_full_disk_costs_one_line_and_no_other():
    log = Audit(audit.Path("/dev/full"), Metrics())
    with pytest.raises(Problem):
        log.write(REQUEST, "predict")
    log.close()


def test_the_service_writes_it_and_answers_nothing_without_it(tmp_path):
    path = tmp_path / "logs" / "audit.jsonl"
    with running("--audit", path) as server:
        answer = server.ask("POST", "/test/audit")
        assert answer[0] == 200
        path.parent.rename(tmp_path / "gone")
        path.parent.touch()
        refused = server.ask("POST", "/test/audit")
        assert (refused[0], refused[2]["code"]) == (503, "audit")
        assert server.ask("GET", "/healthz")[0] == 200
    (line,) = lines(tmp_path / "gone" / "audit.jsonl")
    assert (line["who"], line["request"]) == ("local", answer[2]["request"])
