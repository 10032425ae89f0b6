"""An exam in full: what `spicula exams show --json` prints."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from finished_workspace import BLACK, DONE, INCOMPLETE, ONE_WORKER, finished_workspace
from hypothesis import given
from hypothesis import strategies as st
from small_bundle import small_bundle

from spicula import exams, files
from spicula.errors import UsageError
from spicula.exams import models
from spicula.exams.outputs.abouts import history_of
from spicula.exams.outputs.detail import describe_heatmap, detail_of, pictures_of
from spicula.exams.stages import heatmaps

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_workspace(tmp_path_factory.mktemp("detail"))


@pytest.fixture(scope="module")
def detail(finished):
    return detail_of(finished.ledger, finished.artefacts, DONE[0])


def test_images_have_the_names_of_the_golden_file(test_data, detail):
    path = test_data.parent / "reference" / "exam-golden.json"
    if not path.exists():
        pytest.skip("needs the golden values, which lie beside the real images")
    golden = json.loads(path.read_text())
    assert detail["horizontal_flip"] == golden["horizontal_flip"]
    (wanted,) = {tuple(image) for image in golden["images"].values()}
    for image in detail["images"].values():
        assert set(wanted) <= set(image)
        for heat in ("heatmap_malignant", "heatmap_benign"):
            assert set(image[heat]) == set(golden["images"]["0_L-CC"][heat])


def test_geometry_and_digests_are_those_of_the_files(finished, detail):
    assert [image["view"] for image in detail["images"].values()] == ["L-CC", "R-CC", "L-MLO", "R-MLO"]
    for name, image in detail["images"].items():
        assert image["sha256"] == files.sha256_file(finished.source / DONE[0] / f"{name}.png")
        assert image["mirrored"] is False
        top, bottom, left, right = image["window_location"]
        assert image["heatmap_malignant"]["shape"] == [bottom - top, right - left]
        assert len(image["best_center"]) == 2


def test_predictions_are_those_of_the_ledger_to_seven_digits(finished, detail):
    rows = [row for row in finished.ledger.predictions().to_pylist() if row["exam_id"] == DONE[0]]
    assert len(rows) == len(detail["predictions"]) == 8
    sides = {"L": "left", "R": "right"}
    wanted = {(row["model"], sides[row["side"]], row["target"]): round(row["score"], 7) for row in rows}
    assert {(one["model"], one["side"], one["target"]): one["score"] for one in detail["predictions"]} == wanted
    assert {one["bundle"] for one in detail["predictions"]} == {models.load(finished.bundle).screening.digest}


def test_scores_and_history_name_the_bundle_that_made_them(finished, detail):
    assert {(one["bundle_name"], one["version"]) for one in detail["predictions"]} == {("small", "1")}
    abouts = {row["step"]: row.get("about") for row in history_of(finished.ledger, DONE[0]) if row["what"] == "step"}
    named = {step: (about["name"], about["version"]) for step, about in abouts.items() if about}
    with_networks = ("heatmaps", "classify:image-only", "classify:image-and-heatmaps")
    assert named == dict.fromkeys(with_networks, ("small", "1"))


def test_steps_have_versions_keys_times_and_models(detail):
    steps = {step["step"]: step for step in detail["steps"]}
    assert list(steps) == [
        "crop", "centers", "heatmaps", "visualize", "classify:image-only", "classify:image-and-heatmaps",
    ]  # fmt: skip
    for step in steps.values():
        assert step["status"] == "ok" and step["error"] is None
        assert step["version"] >= 1 and len(step["key"]) == len(step["outputs"]) == 64
        assert datetime.fromisoformat(step["time"]) <= datetime.now(UTC)
    assert steps["heatmaps"]["models"].keys() == {"patch"}
    assert steps["classify:image-only"]["model"] == "image-only"
    assert steps["heatmaps"]["parameters"]["precision"] == "fp32"


def test_it_is_json_and_names_no_path(finished, detail):
    text = json.dumps(detail, allow_nan=False)
    assert str(finished.source) not in text
    assert "path" not in text


@pytest.mark.parametrize(
    ("exam", "reason", "steps"),
    [(INCOMPLETE, "R-MLO", {"blocked"}), (BLACK, "R_CC", {"refused", "blocked"})],
    ids=["at intake", "by a stage"],
)
def test_a_refused_exam_has_its_reason(finished, exam, reason, steps):
    detail = detail_of(finished.ledger, finished.artefacts, exam)
    assert detail["status"] == "refused"
    assert reason in detail["reasons"][0]
    assert detail["predictions"] == []
    assert {step["status"] for step in detail["steps"]} == steps
    assert all(image["window_location"] is None and image["crop"] is None for image in detail["images"].values())
    assert detail["horizontal_flip"] is None
    assert pictures_of(detail, finished.artefacts) == {}


def test_an_exam_that_nobody_knows(finished):
    with pytest.raises(UsageError, match="no exam nowhere"):
        detail_of(finished.ledger, finished.artefacts, "nowhere")


def test_pictures_are_the_crops_with_their_heatmaps(finished, detail):
    pictures = pictures_of(detail, finished.artefacts)
    assert list(pictures) == list(detail["images"])
    for name, view in pictures.items():
        image = detail["images"][name]
        scores = heatmaps.decode(finished.artefacts.get(image["heatmaps"]))
        assert np.array_equal(np.stack([view.malignant, view.benign]), heatmaps.maps(scores))
        assert list(view.pixels.shape) == image["heatmap_benign"]["shape"]


def test_the_past_can_be_looked_at(tmp_path):
    finished = finished_workspace(tmp_path)
    before = datetime.now(UTC)
    exams.run(
        finished.source, finished.workspace, models.load(small_bundle(tmp_path / "new", image_seed=5)), ONE_WORKER
    )
    then = detail_of(finished.ledger, finished.artefacts, DONE[0], before.isoformat())
    now = detail_of(finished.ledger, finished.artefacts, DONE[0])
    scores = [
        {(p["side"], p["target"]): p["score"] for p in one["predictions"] if p["model"] == "image-only"}
        for one in (then, now)
    ]
    assert scores[0].keys() == scores[1].keys() and scores[0] != scores[1]
    assert then["as_of"] == before.isoformat(timespec="seconds").replace("+00:00", "Z") and now["as_of"] is None
    with pytest.raises(UsageError, match="was not there"):
        detail_of(finished.ledger, finished.artefacts, DONE[0], before - timedelta(days=1))


def test_a_time_that_is_none_is_said(finished):
    with pytest.raises(UsageError, match="'yesterday' is no time"):
        detail_of(finished.ledger, finished.artefacts, DONE[0], "yesterday")


@given(st.integers(8, 60), st.integers(8, 60))
def test_blocks_divide_a_heatmap_without_gap_or_overlap(height, width):
    heat = np.random.default_rng([height, width]).random((height, width), np.float32)
    found = describe_heatmap(heat)
    blocks = np.array(found["blocks8x8"])
    sizes = [np.diff(np.arange(9) * length // 8) for length in (height, width)]
    assert blocks.shape == (8, 8)
    assert (blocks * np.outer(*sizes)).sum() / heat.size == pytest.approx(found["mean"], abs=1e-6)
    assert found["mean"] == pytest.approx(heat.mean(), abs=1e-6)
    assert found["std"] == pytest.approx(heat.std(), abs=1e-6)
    assert found["max"] == heat.max()
    assert blocks[0, 0] == pytest.approx(heat[: height // 8, : width // 8].mean(), abs=1e-6)


def test_every_key_is_documented(detail):
    page = (Path(__file__).parent.parent.parent / "docs" / "exam-outputs.md").read_text(encoding="utf-8")
    image, step = next(iter(detail["images"].values())), detail["steps"][0]
    keys = {*detail, *image, *image["heatmap_benign"], *detail["predictions"][0], *step}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
