"""`spicula exams run` from files to scores: what runs, what does not run again, and why, read from the ledger."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundle_maker import content, make
from small_bundle import small_bundle
from small_exams import small_exam, small_exams

from spicula import exams
from spicula.cli import main
from spicula.exams import EngineOptions, models
from spicula.exams.engines import timeline
from spicula.exams.own_model import classify_own
from spicula.exams.reading import StaleImageError
from spicula.exams.stages import STAGES
from spicula.exams.types import ImageFile
from spicula.files import sha256_file

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")

STEPS = ("crop", "centers", "heatmaps", "visualize", "classify:image-only", "classify:image-and-heatmaps")
ONE_WORKER = EngineOptions(cpu_workers=1, model_workers=1, streams=1)


def table(workspace: Path, name: str) -> list[dict]:
    """A table of the ledger as any other program would read it."""
    from deltalake import DeltaTable

    return DeltaTable(str(workspace / name)).to_pyarrow_table().to_pylist()


def executed(workspace: Path, run: str) -> Counter:
    """What a run did, by step, according to the ledger."""
    return Counter(row["step"] for row in table(workspace, "steps") if row["run"] == run)


def scores(workspace: Path) -> dict:
    return {
        (row["exam_id"], row["step"], row["side"], row["target"]): row["score"]
        for row in table(workspace, "predictions")
    }


def bring(source: Path, workspace: Path, bundle: Path, **more):
    return exams.run(source, workspace, models.load(bundle), ONE_WORKER, **more)


def names_of(count: int) -> set[str]:
    return {f"exam-{number:04d}" for number in range(count)}


@pytest.mark.parametrize("count", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_a_change_does_not_touch_is_not_run_again(tmp_path, count):
    source, workspace = small_exams(tmp_path / "in", range(count)), tmp_path / "ws"
    bundle = small_bundle(tmp_path / "bundle")

    first = bring(source, workspace, bundle)
    assert first.failed == first.refused == first.problems == []
    assert executed(workspace, first.run) == dict.fromkeys(STEPS, count)

    again = bring(source, workspace, bundle)
    assert executed(workspace, again.run) == {}

    small_exam(source / "exam-9999", seed=9999)
    new_exam = bring(source, workspace, bundle)
    assert executed(workspace, new_exam.run) == dict.fromkeys(STEPS, 1)
    assert {row["exam_id"] for row in table(workspace, "steps") if row["run"] == new_exam.run} == {"exam-9999"}

    changed = bring(source, workspace, small_bundle(tmp_path / "other", patch_seed=1))
    touched = ("heatmaps", "visualize", "classify:image-and-heatmaps")
    assert executed(workspace, changed.run) == dict.fromkeys(touched, count + 1)

    back = bring(source, workspace, bundle)
    assert executed(workspace, back.run) == {}

    stages = {**STAGES, "centers": replace(STAGES["centers"], version=STAGES["centers"].version + 1)}
    newer = bring(source, workspace, bundle, stages=stages)
    assert executed(workspace, newer.run) == {"centers": count + 1}

    keys = [row["key"] for row in table(workspace, "steps")]
    assert len(keys) == len(set(keys))


def test_a_changed_image_reruns_its_exam_alone(tmp_path):
    source, workspace = small_exams(tmp_path / "in", range(3)), tmp_path / "ws"
    bundle = small_bundle(tmp_path / "bundle")
    bring(source, workspace, bundle)
    small_exam(source / "exam-0001", seed=77, names=("L_CC",))
    outcome = bring(source, workspace, bundle)
    rows = [row for row in table(workspace, "steps") if row["run"] == outcome.run]
    assert {row["exam_id"] for row in rows} == {"exam-0001"}
    assert {row["step"] for row in rows} == set(STEPS)


def test_scores_do_not_hang_on_where_the_images_lie_or_how_many_workers_there_are(tmp_path):
    bundle = small_bundle(tmp_path / "bundle")
    bring(small_exams(tmp_path / "in", range(4)), tmp_path / "ws", bundle)
    shutil.copytree(tmp_path / "in", tmp_path / "elsewhere")
    many = EngineOptions(cpu_workers=2, model_workers=2, streams=2)
    exams.run(tmp_path / "elsewhere", tmp_path / "ws2", models.load(bundle), many)
    assert scores(tmp_path / "ws") == scores(tmp_path / "ws2")
    moved = exams.run(tmp_path / "elsewhere", tmp_path / "ws", models.load(bundle), many)
    assert executed(tmp_path / "ws", moved.run) == {}


def test_an_incomplete_exam_is_refused_with_the_reason_and_never_scored(tmp_path, capsys):
    source = small_exams(tmp_path / "in", range(2))
    (source / "exam-0001" / "R_MLO.png").unlink()
    bundle = small_bundle(tmp_path / "bundle")
    arguments = [str(source), "--workspace", str(tmp_path / "ws"), "--bundle", str(bundle)]
    assert main(["exams", "run", *arguments, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert [(one["exam"], "R-MLO" in one["reason"]) for one in outcome["refused"]] == [("exam-0001", True)]
    assert {row["exam_id"] for row in table(tmp_path / "ws", "predictions")} == {"exam-0000"}


def test_single_image_mode_scores_what_there_is(tmp_path):
    source = small_exams(tmp_path / "in", range(1))
    (source / "exam-0000" / "R_MLO.png").unlink()
    bundle = small_bundle(tmp_path / "bundle")
    exams.run(source, tmp_path / "ws", models.load(bundle, mode="single-image"), ONE_WORKER)
    sides = {row["side"] for row in table(tmp_path / "ws", "predictions")}
    assert sides == {"L-CC", "R-CC", "L-MLO"}


def test_a_damaged_image_is_refused_and_the_others_go_on(tmp_path):
    source = small_exams(tmp_path / "in", range(3))
    path = source / "exam-0001" / "L_CC.png"
    path.write_bytes(path.read_bytes()[:-40])
    outcome = bring(source, tmp_path / "ws", small_bundle(tmp_path / "bundle"))
    assert {one["exam"] for one in outcome.refused} == {"exam-0001"}
    assert {row["exam_id"] for row in table(tmp_path / "ws", "predictions")} == {"exam-0000", "exam-0002"}


def artefact(workspace: Path, step: str, exam: str = "exam-0001", image: int = 0) -> Path:
    """The file that a step made of an image."""
    rows = [row for row in table(workspace, "steps") if (row["step"], row["exam_id"]) == (step, exam)]
    outputs = rows[-1]["outputs"]
    folder = workspace / "artefacts"
    name = json.loads((folder / outputs[:2] / f"{outputs}.json").read_text())["images"][image]["file"]
    return folder / name[:2] / name


def damage(path: Path) -> bytes:
    """Change one byte in the middle of a file, and return what it was."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    return content


@pytest.mark.parametrize("workers", [1, 2])
def test_lost_crops_are_made_again_for_a_new_model(tmp_path, workers):
    source, workspace = small_exams(tmp_path / "in", range(3)), tmp_path / "ws"
    engine = EngineOptions(cpu_workers=workers, model_workers=workers, streams=1)
    other = models.load(small_bundle(tmp_path / "other", patch_seed=1, image_seed=1))
    exams.run(source, tmp_path / "whole", other, engine)
    bring(source, workspace, small_bundle(tmp_path / "bundle"))
    missing, damaged = artefact(workspace, "crop"), artefact(workspace, "crop", image=2)
    content = missing.read_bytes(), damage(damaged)
    missing.unlink()

    outcome = exams.run(source, workspace, other, engine)
    assert outcome.failed == [] and outcome.remade == {"crop": 1}
    assert "1 lost results made again" in outcome.as_text()
    assert (missing.read_bytes(), damaged.read_bytes()) == content
    digest = {row["bundle"] for row in table(tmp_path / "whole", "predictions")}
    whole = scores(tmp_path / "whole")
    found = {
        (row["exam_id"], row["step"], row["side"], row["target"]): row["score"]
        for row in table(workspace, "predictions")
        if row["bundle"] in digest
    }
    assert found == whole
    keys = [row["key"] for row in table(workspace, "steps")]
    assert len(keys) == len(set(keys))
    assert bring(source, workspace, tmp_path / "bundle").as_json()["executed"] == {}


def test_what_is_damaged_is_found_when_asked_for_and_made_again_with_nothing_left_to_do(tmp_path, capsys):
    source, workspace = small_exams(tmp_path / "in", range(2)), tmp_path / "ws"
    bundle = small_bundle(tmp_path / "bundle")
    bring(source, workspace, bundle)
    before = scores(workspace)
    heatmaps, crop, picture = (artefact(workspace, step) for step in ("heatmaps", "crop", "visualize"))
    contents = damage(heatmaps), damage(crop), picture.read_bytes()
    picture.unlink()
    for command in (["show", "exam-0001"], ["report", "exam-0001", "--to", str(tmp_path / "page")]):
        assert main(["exams", *command, "--workspace", str(workspace)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{heatmaps} is damaged" in line
        assert f"spicula exams run SOURCE --workspace {workspace} --bundle BUNDLE --check-artefacts" in line
    assert bring(source, workspace, bundle).as_json()["executed"] == {}
    assert heatmaps.read_bytes() != contents[0]

    run = ["exams", "run", str(source), "--workspace", str(workspace), "--bundle", str(bundle), "--check-artefacts"]
    assert main([*run, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["remade"] == {"crop": 1, "heatmaps": 1, "visualize": 1}
    assert (outcome["executed"], outcome["failed"]) == ({}, [])
    assert (heatmaps.read_bytes(), crop.read_bytes(), picture.read_bytes()) == contents
    assert scores(workspace) == before
    assert main(["exams", "show", "exam-0001", "--workspace", str(workspace)]) == 0
    capsys.readouterr()
    assert main(run) == 0
    assert capsys.readouterr().out.startswith("2 exams: nothing left to do; 0 failed, 0 refused, 0 files of no exam\n")


def test_a_lost_manifest_of_scores_is_made_again_and_the_scores_stay_one_a_key(tmp_path):
    source, workspace = small_exams(tmp_path / "in", range(2)), tmp_path / "ws"
    bundle = small_bundle(tmp_path / "bundle")
    bring(source, workspace, bundle)
    rows = table(workspace, "predictions")
    (outputs,) = {
        row["outputs"]
        for row in table(workspace, "steps")
        if (row["step"], row["exam_id"]) == ("classify:image-only", "exam-0000")
    }
    (workspace / "artefacts" / outputs[:2] / f"{outputs}.json").unlink()
    assert bring(source, workspace, bundle, check_artefacts=True).remade == {"classify:image-only": 1}
    assert len(table(workspace, "predictions")) == len(rows)
    assert (workspace / "artefacts" / outputs[:2] / f"{outputs}.json").exists()


def test_what_is_lost_with_its_images_fails_and_heals_when_they_are_back(tmp_path, monkeypatch):
    source, workspace = small_exams(tmp_path / "in", range(2)), tmp_path / "ws"
    bring(source, workspace, small_bundle(tmp_path / "bundle"))
    artefact(workspace, "crop").unlink()
    path, elsewhere = source / "exam-0001" / "L_CC.png", tmp_path / "elsewhere.png"
    engine_of = exams.engine_of

    def without_the_file(*arguments):
        path.rename(elsewhere)
        return engine_of(*arguments)

    monkeypatch.setattr(exams, "engine_of", without_the_file)
    other = small_bundle(tmp_path / "other", patch_seed=1)
    outcome = bring(source, workspace, other)
    assert {(one["exam"], one["step"]) for one in outcome.failed} == {("exam-0001", "crop"), ("exam-0001", "heatmaps")}
    assert all("crop cannot make it again" in one["reason"] for one in outcome.failed)
    assert all("its file is gone" in one["reason"] for one in outcome.failed)

    monkeypatch.undo()
    elsewhere.rename(path)
    later = bring(source, workspace, other)
    assert (later.failed, later.failed_earlier) == ([], 1)
    assert later.as_text().endswith("; 1 steps failed earlier (retry with --retry-failed)")
    healed = bring(source, workspace, other, retry_failed=True)
    assert (healed.failed, healed.failed_earlier, healed.remade) == ([], 0, {"crop": 1})
    assert {row["exam_id"] for row in table(workspace, "steps") if row["run"] == healed.run} == {"exam-0001"}


def test_runs_of_both_modes_at_once_do_not_see_each_others_refusals(tmp_path, monkeypatch):
    from spicula.exams.ledger import Ledger

    source, workspace = small_exams(tmp_path / "in", range(2)), tmp_path / "ws"
    (source / "exam-0001" / "R_MLO.png").unlink()
    bundle = small_bundle(tmp_path / "bundle")
    add_exams = Ledger.add_exams

    def then_the_other(mode):
        def add(ledger, found, run):
            """The other run takes in the exams between this one's intake and its plan."""
            monkeypatch.undo()
            written = add_exams(ledger, found, run)
            exams.run(source, workspace, models.load(bundle, mode=mode), ONE_WORKER)
            return written

        return add

    monkeypatch.setattr(Ledger, "add_exams", then_the_other("exam"))
    single = exams.run(source, workspace, models.load(bundle, mode="single-image"), ONE_WORKER)
    assert (single.refused, single.failed) == ([], [])
    sides = {row["side"] for row in table(workspace, "predictions") if row["exam_id"] == "exam-0001"}
    assert sides == {"L-CC", "R-CC", "L-MLO"}

    shutil.rmtree(workspace)
    monkeypatch.setattr(Ledger, "add_exams", then_the_other("single-image"))
    whole = exams.run(source, workspace, models.load(bundle), ONE_WORKER)
    assert [(one["exam"], one["step"]) for one in whole.refused] == [("exam-0001", "intake")]
    assert "exam-0001" not in {row["exam_id"] for row in table(workspace, "steps") if row["run"] == whole.run}


def test_without_a_model_nothing_is_started(tmp_path, capsys):
    source = small_exams(tmp_path / "in", range(1))
    assert main(["exams", "run", str(source), "--workspace", str(tmp_path / "ws")]) == 2
    assert "--bundle" in capsys.readouterr().err
    assert not (tmp_path / "ws").exists()


def test_a_file_that_is_gone_for_a_while_refuses_no_exam_for_good(tmp_path, monkeypatch):
    source, workspace = small_exams(tmp_path / "in", range(2)), tmp_path / "ws"
    bundle = small_bundle(tmp_path / "bundle")
    path, elsewhere = source / "exam-0001" / "L_CC.png", tmp_path / "elsewhere.png"
    engine_of = exams.engine_of

    def without_the_file(*arguments):
        path.rename(elsewhere)
        return engine_of(*arguments)

    monkeypatch.setattr(exams, "engine_of", without_the_file)
    outcome = bring(source, workspace, bundle)
    assert [(one["exam"], one["step"]) for one in outcome.failed] == [("exam-0001", "crop")]
    assert "its file is gone" in outcome.failed[0]["reason"]
    assert outcome.refused == []

    monkeypatch.undo()
    elsewhere.rename(path)
    outcome = bring(source, workspace, bundle, retry_failed=True)
    assert outcome.failed == outcome.refused == []
    assert {row["exam_id"] for row in table(workspace, "predictions")} == {"exam-0000", "exam-0001"}


def test_a_bundle_of_ones_own_reads_the_images_that_were_indexed_or_none(tmp_path):
    folder = small_exam(tmp_path / "exam", seed=1)
    path = folder / "L_CC.png"
    image = ImageFile("L_CC", "L-CC", str(path), sha256_file(path))
    path.write_bytes((folder / "R_CC.png").read_bytes())
    bundle: Any = SimpleNamespace(info={"classes": ["malignant"]}, target="malignant")
    with pytest.raises(StaleImageError, match="it changed after it was indexed"):
        classify_own([image], bundle)
    path.unlink()
    with pytest.raises(StaleImageError, match="its file is gone"):
        classify_own([image], bundle)


@pytest.mark.parametrize("command", ["run", "watch"])
def test_a_workspace_among_the_exams_is_refused(tmp_path, monkeypatch, capsys, command):
    source, bundle = small_exams(tmp_path / "in", range(1)), small_bundle(tmp_path / "bundle")
    monkeypatch.chdir(source)
    assert main(["exams", command, ".", "--workspace", "results/ws", "--bundle", str(bundle)]) == 2
    assert "put it beside" in capsys.readouterr().err
    assert sorted(path.name for path in source.iterdir()) == ["exam-0000"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "IN", "--workspace", "", "--bundle", "BUNDLE"], "the workspace has no name"),
        (["run", "IN", "--workspace", "WS", "--bundle", "BUNDLE", "--address", "head:6379"], "add --engine ray"),
        (["watch", "IN", "--workspace", "WS", "--bundle", "BUNDLE", "--every", "-1"], "not a number of seconds"),
        (["watch", "IN", "--workspace", "WS", "--bundle", "BUNDLE", "--settle", "nan"], "not a number of seconds"),
        (["watch", "IN", "--workspace", "WS", "--bundle", "BUNDLE", "--timeout", "inf"], "not a number of seconds"),
        (["show", "a", "--workspace", "WS", "--as-of", "0001-01-01T00:00+14:00"], "is not a time such as"),
        (["show", "a", "--workspace", "WS", "--as-of", "9999-12-31T23:59-14:00"], "is not a time such as"),
    ],
)
def test_odd_options_are_one_line_and_change_nothing(tmp_path, monkeypatch, capsys, arguments, said):
    small_exams(tmp_path / "IN", range(1))
    small_bundle(tmp_path / "BUNDLE")
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["exams", *arguments])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BUNDLE", "IN"]


def test_a_classifier_of_ones_own_scores_exams_beside_the_four_view_one_and_alone(tmp_path, capsys):
    source = small_exams(tmp_path / "in", range(2))
    make(tmp_path / "own", name="mine")
    four_view = ["--bundle", str(small_bundle(tmp_path / "bundle"))]
    run = ["exams", "run", str(source), "--workspace", str(tmp_path / "ws"), "--model", str(tmp_path / "own")]
    assert main([*run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["executed"] == {"classify:mine": 2}
    assert main([*run, *four_view, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["executed"] == dict.fromkeys(STEPS, 2)
    own = [row for row in table(tmp_path / "ws", "predictions") if row["model"] == "mine"]
    assert sorted((row["exam_id"], row["side"], row["target"]) for row in own) == [
        (exam, side, "bright") for exam in ("exam-0000", "exam-0001") for side in "LR"
    ]


def test_of_bundles_put_into_a_folder_the_newest_of_a_name_is_used(tmp_path):
    for name, created in (("a", "2026-03-01T00:00:00+00:00"), ("b", "2026-02-01T00:00:00+00:00")):
        make(tmp_path / name, name="mine", version=name, created=created)
    make(tmp_path / "c", name="other")
    used = models.load_put([tmp_path / name for name in "abc"])
    assert {name: one.info["version"] for name, one in used.own.items()} == {"mine": "a", "other": content()["version"]}
    assert used.screening is None
    bundle = small_bundle(tmp_path / "d")
    assert models.load_put([tmp_path / "c", bundle]).screening.folder == bundle


def test_a_mistyped_source_leaves_no_workspace_behind(tmp_path, capsys):
    bundle = small_bundle(tmp_path / "bundle")
    arguments = [str(tmp_path / "nothing"), "--workspace", str(tmp_path / "ws"), "--bundle", str(bundle)]
    assert main(["exams", "run", *arguments]) == 2
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "ws").exists()


@pytest.mark.slow
def test_ray_with_one_simulated_gpu_gives_the_same_table_and_overlaps_its_stages(tmp_path, capsys):
    pytest.importorskip("ray", reason="this engine needs the extra ray")
    source, bundle = small_exams(tmp_path / "in", range(12)), small_bundle(tmp_path / "bundle")
    bring(source, tmp_path / "local", bundle)
    on_ray = EngineOptions(engine="ray", cpu_workers=2, model_workers=1, streams=1, model_resources={"exam_gpu": 1})
    outcome = exams.run(source, tmp_path / "ray", models.load(bundle), on_ray, keep_timeline=True)
    assert scores(tmp_path / "ray") == scores(tmp_path / "local")
    results = [{(r["key"], r["outputs"]) for r in table(tmp_path / one, "steps")} for one in ("local", "ray")]
    assert results[0] == results[1]
    assert len({done.worker for done in outcome.timeline if done.pool == "cpu"}) == 2
    assert timeline.shares(outcome.timeline).both > 0
    with capsys.disabled():
        print("\n" + timeline.timeline(outcome.timeline))
