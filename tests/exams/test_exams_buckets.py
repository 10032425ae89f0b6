"""`spicula exams` on exams in buckets: the same scores as in a folder, and nothing fetched that did not change."""

import json
import sys
import threading
import time
from pathlib import Path

import pydicom
import pytest
from bundle_maker import make as make_own
from small_bundle import small_bundle
from small_exams import NAMES, small_exam, small_exams

from spicula import exams, stores
from spicula.cli import main
from spicula.errors import UsageError
from spicula.exams import EngineOptions, models
from spicula.exams.watching import Patience
from spicula.phantoms import make_exams

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")

ONE_WORKER = EngineOptions(cpu_workers=1, model_workers=1, streams=1)


@pytest.fixture(autouse=True)
def own_file_systems():
    """File systems that know the environment of this test."""
    stores.shared.cache_clear()


def scores(workspace: Path) -> dict:
    from deltalake import DeltaTable

    rows = DeltaTable(str(workspace / "predictions")).to_pyarrow_table().to_pylist()
    return {(row["exam_id"], row["step"], row["side"], row["target"]): row["score"] for row in rows}


def run(capsys, source, workspace, *more):
    """Run the command; what it said as JSON."""
    words = ["exams", "run", str(source), "--workspace", str(workspace), *more, "--json"]
    status = main([*words, "--cpu-workers", "1", "--model-workers", "1", "--streams", "1"])
    captured = capsys.readouterr()
    return (json.loads(captured.out) if captured.out else None), status, captured.err


def test_a_bucket_gives_the_scores_of_the_folder(object_store, tmp_path, capsys):
    folder, bundle = small_exams(tmp_path / "in", range(2)), small_bundle(tmp_path / "bundle")
    options = ["--bundle", str(bundle), "--model", str(make_own(tmp_path / "own").folder)]
    address = object_store.upload(folder, "some/in")
    outcome, status, _ = run(capsys, address, tmp_path / "ws", *options)
    assert (status, outcome["failed"], outcome["refused"], outcome["problems"]) == (0, [], [], [])
    run(capsys, folder, tmp_path / "ws of the folder", *options)
    assert scores(tmp_path / "ws") == scores(tmp_path / "ws of the folder")
    moved, _, _ = run(capsys, folder, tmp_path / "ws", *options)
    assert moved["executed"] == {}


def test_a_second_run_fetches_nothing_and_a_changed_object_reruns_its_exam(s3_store, tmp_path, capsys):
    bundle = small_bundle(tmp_path / "bundle", heatmaps=False)
    address, options = s3_store.upload(small_exams(tmp_path / "in", range(2)), "in"), ["--bundle", str(bundle)]
    s3_store.record()
    run(capsys, address, tmp_path / "ws", *options)
    assert sorted(s3_store.fetched()) == sorted([*s3_store.keys(), *s3_store.keys()])  # by the intake, and by a worker

    s3_store.record()
    again, _, _ = run(capsys, address, tmp_path / "ws", *options)
    assert again["executed"] == {}
    assert s3_store.fetched() == []

    s3_store.put("in/exam-0001/L_CC.png", (small_exam(tmp_path / "other", 9, ("L_CC",)) / "L_CC.png").read_bytes())
    s3_store.record()
    changed, _, _ = run(capsys, address, tmp_path / "ws", *options)
    assert set(changed["executed"].values()) == {1}
    assert {key.split("/")[1] for key in s3_store.fetched()} == {"exam-0001"}
    assert len(s3_store.fetched()) == 5  # the changed one by the intake, all four of the exam by the worker


def test_an_object_that_vanishes_before_it_is_worked_on_fails_its_exam_alone(s3_store, tmp_path, monkeypatch):
    from spicula.exams import intake

    address = s3_store.upload(small_exams(tmp_path / "in", range(2)), "MEIER EVA")
    read = intake.read

    def read_and_remove(*given, **options):
        found = read(*given, **options)
        s3_store.remove("MEIER EVA/exam-0001/L_CC.png")
        return found

    monkeypatch.setattr(intake, "read", read_and_remove)
    bundle = models.load(small_bundle(tmp_path / "bundle", heatmaps=False))
    outcome = exams.run(address, tmp_path / "ws", bundle, ONE_WORKER)
    assert {one["exam"]: one["reason"] for one in outcome.failed} == {
        "exam-0001": "L_CC (L-CC): its file is gone; index the images again"
    }
    assert {key[0] for key in scores(tmp_path / "ws")} == {"exam-0000"}


@pytest.mark.slow
def test_results_are_put_beside_a_study_in_a_bucket(s3_store, tmp_path, capsys):
    pytest.importorskip("highdicom", reason="DICOM results need the extra exams")
    folder = make_exams(tmp_path / "in", 1, size=(160, 130), jobs=1)
    address, bundle = s3_store.upload(folder, "in"), small_bundle(tmp_path / "bundle")
    outcome, _, _ = run(capsys, address, tmp_path / "ws", "--bundle", str(bundle))
    assert outcome["failed"] == []
    (exam,) = {key[0] for key in scores(tmp_path / "ws")}
    common = [exam, "--workspace", str(tmp_path / "ws")]
    assert main(["exams", "report", *common, "--to", str(tmp_path / "page")]) == 0
    assert main(["exams", "export", "dicom", *common, "--to", str(tmp_path / "out"), "--threshold", "0.5"]) == 0
    written = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert {one.StudyInstanceUID for one in written} == {exam}
    s3_store.remove(sorted(s3_store.keys())[-2])
    capsys.readouterr()
    assert main(["exams", "export", "dicom", *common, "--to", str(tmp_path / "none"), "--threshold", "0.5"]) == 1
    said = capsys.readouterr().err
    assert "cannot be read: it is gone, or has changed since its results were made; run the exam again" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_bucket_is_watched(s3_store, tmp_path, capsys):
    bundle, done = models.load(small_bundle(tmp_path / "bundle", heatmaps=False)), threading.Event()
    s3_store.upload(small_exam(tmp_path / "a", 1), "in/a")
    s3_store.upload(small_exam(tmp_path / "b", 2, NAMES[:3]), "in/b")

    def bring():
        until = time.monotonic() + 120
        while time.monotonic() < until and not done.is_set():
            said.append(capsys.readouterr().err)
            if "exam b: refused" in "".join(said) and "exam a: 4 images" in "".join(said):
                s3_store.upload(small_exam(tmp_path / "c", 3), "in/c")
                return
            time.sleep(0.1)

    def is_over():
        return time.monotonic() > until or (
            (tmp_path / "ws/predictions").exists() and {key[0] for key in scores(tmp_path / "ws")} == {"a", "c"}
        )

    said, until = [], time.monotonic() + 120
    later = threading.Thread(target=bring)
    later.start()
    try:
        exams.watch(
            f"{s3_store.address}/in",
            tmp_path / "ws",
            lambda bundles: bundle,
            ONE_WORKER,
            patience=Patience(settle=0.3, timeout=2.0),
            every=0.2,
            stop=is_over,
        )
    finally:
        done.set()
        later.join()
    assert {key[0] for key in scores(tmp_path / "ws")} == {"a", "c"}


@pytest.mark.slow
def test_workers_of_ray_reach_the_bucket(s3_store, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    folder = small_exams(tmp_path / "in", range(2))
    bundle = models.load(small_bundle(tmp_path / "bundle", heatmaps=False))
    options = EngineOptions(engine="ray", cpu_workers=1, model_workers=1, streams=1)
    outcome = exams.run(s3_store.upload(folder, "in"), f"{s3_store.address}/ws", bundle, options)
    assert outcome.failed == []
    exams.run(folder, tmp_path / "ws", bundle, ONE_WORKER)
    again = exams.run(folder, f"{s3_store.address}/ws", bundle, ONE_WORKER)
    assert dict(again.executed) == {}


# what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "s3://no-such-bucket-at-all/in"], "there is no bucket s3://no-such-bucket-at-all; check its name"),
        (["watch", "s3://no-such-bucket-at-all/in"], "there is no bucket s3://no-such-bucket-at-all; check its name"),
        (["run", "https://x.example/in"], "expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"),
        (["watch", "s3:///in"], "expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"),
    ],
)
def test_what_is_no_source_is_one_line(s3_url, tmp_path, capsys, words, said):
    bundle = small_bundle(tmp_path / "bundle")
    assert main(["exams", *words, "--workspace", str(tmp_path / "ws"), "--bundle", str(bundle)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert sum("spicula" in line for line in lines) == 1


@pytest.mark.parametrize("words", [["run"], ["watch"]])
def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path, capsys, words):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    bundle = small_bundle(tmp_path / "bundle")
    assert main(["exams", *words, "s3://b/in", "--workspace", str(tmp_path / "ws"), "--bundle", str(bundle)]) == 2
    assert "needs s3fs: pip install 'spicula[archives]'" in capsys.readouterr().err


def test_a_workspace_among_the_exams_is_refused(tmp_path):
    bundle = models.load(small_bundle(tmp_path / "bundle"))
    for source, workspace in (("s3://b/in", "s3://b/in/ws"), ("s3://b", "s3://b/ws"), ("s3://b/in/", "s3://b/in")):
        with pytest.raises(UsageError, match=r"the workspace s3://b/.* lies in s3://b"):
            exams.run(source, workspace, bundle, ONE_WORKER)
        with pytest.raises(UsageError, match="lies in"):
            exams.watch(source, workspace, lambda bundles: bundle, ONE_WORKER)


def test_stages_by_hand_and_bundles_need_folders(tmp_path, capsys):
    for words in (
        ["stage", "crop", "--from", "s3://b/in", "--to", str(tmp_path)],
        ["run", str(tmp_path), "--workspace", "s3://b/ws", "--bundle", "gs://b/bundle"],
        ["watch", "s3://b/in", "--workspace", "s3://b/ws", "--models", "s3://b/models"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(["exams", *words])
        assert stop.value.code == 2
        assert "is an address, and a folder is needed; mount it, or copy it" in capsys.readouterr().err
