"""One stage at a time with folders between: the results of a run, and what is said when something does not fit."""

import json
import shutil
from pathlib import Path

import pytest
from finished_workspace import BLACK, DONE, INCOMPLETE, finished_workspace
from small_bundle import SMALL, small_bundle
from small_exams import small_exam

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.exams.outputs.detail import detail_of
from spicula.exams.stage_files import StageOptions, run_stage

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")

SETTINGS = json.dumps(SMALL.model_dump(mode="json"))
WITHOUT_MODELS = StageOptions(settings=SETTINGS, streams=1)
ON_ONE_CORE = StageOptions(streams=1)


def run_all(source: Path, models: Path, to: Path):
    """All five stages, each in its own folder below `to`."""
    run_stage("crop", [source], to / "crop", options=WITHOUT_MODELS)
    run_stage("centers", [to / "crop"], to / "centers", options=WITHOUT_MODELS)
    run_stage("heatmaps", [to / "crop"], to / "heatmaps", models, ON_ONE_CORE)
    run_stage("visualize", [to / "crop", to / "heatmaps"], to / "visualize", options=WITHOUT_MODELS)
    inputs = [to / "crop", to / "centers", to / "heatmaps"]
    return run_stage("classify", inputs, to / "classify", models, ON_ONE_CORE)


def content(path: Path):
    return json.loads(path.read_text())


def contents(folder: Path):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_workspace(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def staged(finished, tmp_path_factory):
    to = tmp_path_factory.mktemp("staged")
    return to, run_all(finished.source, finished.bundle.parent, to)


@pytest.fixture
def copied(staged, tmp_path):
    return Path(shutil.copytree(staged[0], tmp_path / "copy"))


def test_results_and_keys_are_those_of_a_run(finished, staged):
    to, _ = staged
    for exam in DONE:
        detail = detail_of(finished.ledger, finished.artefacts, exam)
        found = {}
        for stage in ("crop", "centers", "heatmaps", "visualize", "classify"):
            found |= content(to / stage / exam / f"{stage}.json")["steps"]
        assert {name: (step["key"], step["outputs"]) for name, step in found.items()} == {
            step["step"]: (step["key"], step["outputs"]) for step in detail["steps"]
        }
        sides = {"L": "left", "R": "right"}
        scores = {
            (step["model"], sides[score["side"]], score["target"]): round(score["score"], 7)
            for step in found.values()
            for score in step["manifest"].get("scores", [])
        }
        assert scores == {(p["model"], p["side"], p["target"]): p["score"] for p in detail["predictions"]}
        bundles = {step["model"]: step["bundle"] for step in found.values() if step["model"]}
        assert bundles == {p["model"]: p["bundle"] for p in detail["predictions"]}
        assert len(scores) == 8


def test_every_file_that_is_named_is_there_with_the_content_of_a_run(finished, staged):
    to, _ = staged
    for stage in ("crop", "heatmaps", "visualize"):
        folder = to / stage / DONE[0]
        images = content(folder / f"{stage}.json")["steps"][stage]["manifest"]["images"]
        assert {path.name for path in folder.iterdir()} == {f"{stage}.json", *(image["file"] for image in images)}
        for image in images:
            assert (folder / image["file"]).read_bytes() == finished.artefacts.get(image["file"])


def test_refused_exams_are_passed_on_with_their_reason(staged):
    to, outcome = staged
    assert outcome.exams == 5
    assert {one["exam"] for one in outcome.refused} == {BLACK, INCOMPLETE}
    for exam, word in ((BLACK, "R_CC"), (INCOMPLETE, "R-MLO")):
        for stage in ("crop", "centers", "heatmaps", "visualize", "classify"):
            found = content(to / stage / exam / f"{stage}.json")
            assert found["status"] == "refused" and word in found["error"]
    assert outcome.as_text() == "classify: 5 exams, 2 refused"


def test_a_stage_again_gives_the_same_bytes(finished, staged, tmp_path):
    run_all(finished.source, finished.bundle, tmp_path)
    assert contents(tmp_path) == contents(staged[0])


@pytest.mark.parametrize("beside_a_good_one", [True, False])
def test_a_folder_without_images_of_an_exam_is_refused_by_name(tmp_path, beside_a_good_one):
    if beside_a_good_one:
        small_exam(tmp_path / "in" / "good", seed=1)
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "broken").mkdir()
    (tmp_path / "in" / "broken" / "L_CC.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    outcome = run_stage("crop", [tmp_path / "in"], tmp_path / "crop", options=WITHOUT_MODELS)
    broken, empty = outcome.refused
    assert outcome.exams == 2 + beside_a_good_one
    assert empty == {"exam": "empty", "reason": "no image of a four-view exam in its folder"}
    assert broken["exam"] == "broken" and broken["reason"]
    assert content(tmp_path / "crop" / "empty" / "crop.json")["status"] == "refused"


def test_a_stage_that_has_not_run_is_named(staged, tmp_path):
    to, _ = staged
    with pytest.raises(SpiculaError, match=r"no centers\.json in any folder given with --from"):
        run_stage("classify", [to / "crop", to / "heatmaps"], tmp_path / "to", small_bundle(tmp_path / "bundle"))


def test_settings_that_differ_from_the_bundle_are_refused(finished, tmp_path):
    own = json.dumps({**SMALL.model_dump(mode="json"), "buffer": 3})
    run_stage("crop", [finished.source], tmp_path / "crop", options=StageOptions(settings=own))
    with pytest.raises(SpiculaError, match=r"made with buffer 3, and the bundle wants 2; run the stage crop again"):
        run_stage("heatmaps", [tmp_path / "crop"], tmp_path / "heatmaps", finished.bundle, ON_ONE_CORE)


def test_settings_can_come_from_the_bundle(finished, staged, tmp_path):
    run_stage("crop", [finished.source], tmp_path, finished.bundle)
    assert contents(tmp_path) == contents(staged[0] / "crop")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text(path.read_text().replace('"height": ', '"height": 1')),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(path.read_text().replace('"stage": "crop"', '"stage": "centers"')),
    ],
    ids=["cut", "changed", "other", "of another stage"],
)
def test_a_damaged_description_is_refused(copied, tmp_path, damage):
    path = copied / "crop" / DONE[0] / "crop.json"
    damage(path)
    with pytest.raises(SpiculaError, match=rf"{path} is damaged, or no stage wrote it"):
        run_stage("centers", [copied / "crop"], tmp_path / "to", options=WITHOUT_MODELS)
    assert not (tmp_path / "to" / DONE[0]).exists()


def test_a_damaged_or_missing_file_is_refused(copied, tmp_path):
    folder = copied / "crop" / DONE[0]
    picture = next(folder.glob("*.png"))
    picture.write_bytes(picture.read_bytes()[:-1])
    with pytest.raises(SpiculaError, match=f"{picture} is damaged"):
        run_stage("centers", [copied / "crop"], tmp_path / "to", options=WITHOUT_MODELS)
    picture.unlink()
    with pytest.raises(SpiculaError, match=f"{picture} is missing"):
        run_stage("centers", [copied / "crop"], tmp_path / "to", options=WITHOUT_MODELS)


def test_a_name_cannot_lead_out_of_its_folder(copied, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    path = copied / "crop" / DONE[0] / "crop.json"
    changed = content(path)
    step = changed["steps"]["crop"]
    step["manifest"]["images"][0]["file"] = "../../../secret.png"
    step["outputs"] = files.sha256_json(step["manifest"])
    path.write_text(json.dumps(changed))
    with pytest.raises(SpiculaError, match="damaged"):
        run_stage("centers", [copied / "crop"], tmp_path / "to", options=WITHOUT_MODELS)


def test_several_exams_in_one_folder_are_refused(tmp_path):
    for name in ("a", "b"):
        small_exam(tmp_path / "in" / "both" / name, seed=1)
    with pytest.raises(SpiculaError, match="both holds several exams"):
        run_stage("crop", [tmp_path / "in"], tmp_path / "to", options=WITHOUT_MODELS)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("paint", WITHOUT_MODELS, "no stage is called 'paint'; there are crop, centers"),
        ("heatmaps", WITHOUT_MODELS, "name the folder of the bundle with --models"),
        ("crop", StageOptions(settings="{"), "--settings: Invalid JSON"),
        ("crop", StageOptions(settings='{"buffer": -1}'), "--settings: buffer: "),
        ("crop", StageOptions(settings='{"nothing": 1}'), "--settings: nothing: "),
    ],
)
def test_wrong_use_is_said(finished, tmp_path, name, options, reason):
    with pytest.raises(UsageError, match=reason):
        run_stage(name, [finished.source], tmp_path, None, options)


def test_settings_and_a_bundle_are_one_too_many(finished, tmp_path):
    with pytest.raises(UsageError, match="--settings is for stages without --models"):
        run_stage("crop", [finished.source], tmp_path, finished.bundle, WITHOUT_MODELS)


def test_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path}/none"):
        run_stage("crop", [tmp_path / "none"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty"):
        run_stage("centers", [tmp_path / "empty"], tmp_path / "to")


def test_a_folder_of_models_holds_one_four_view_classifier(finished, staged, tmp_path):
    for name in ("one", "two"):
        small_bundle(tmp_path / "models" / name)
    with pytest.raises(UsageError, match="expected the bundle of one four-view classifier in it, found one, two"):
        run_stage("heatmaps", [staged[0] / "crop"], tmp_path / "to", tmp_path / "models")
    with pytest.raises(UsageError, match="found none"):
        run_stage("heatmaps", [staged[0] / "crop"], tmp_path / "to", tmp_path)


def test_a_bundle_without_heatmaps_has_no_such_stage(staged, tmp_path):
    bundle = small_bundle(tmp_path / "plain", heatmaps=False)
    with pytest.raises(UsageError, match="no network for the stage heatmaps"):
        run_stage("heatmaps", [staged[0] / "crop"], tmp_path / "to", bundle)
    run_stage("classify", [staged[0] / "crop", staged[0] / "centers"], tmp_path / "to", bundle, ON_ONE_CORE)
    assert list(content(tmp_path / "to" / DONE[0] / "classify.json")["steps"]) == ["classify:image-only"]
