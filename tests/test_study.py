"""A study from end to end, on small generated images, through the command line."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from spicula import index, predictions
from spicula.cli import main

PATIENTS, IMAGES = 18, 4

RECIPE = """
name = "small"
title = "Bright blobs"
question = "Does the network find the blob?"
dataset = "folder"

[options]
table = "table.csv"
positive = "malignant"

[options.columns]
path = "file"
label = "class"
patient_id = "woman"

[preprocess]
size = [32, 32]
channels = 1

[split]
fractions = [0.5, 0.25, 0.25]

[evaluation]
resamples = 200

[[models]]
name = "linear"
line = "linear"

[[models]]
name = "cnn"
line = "cnn"
epochs = 3
batch = 8
"""


def make_data(folder: Path, patients: int = PATIENTS) -> Path:
    """Noise, with a blob in the images of every other patient: one CSV, one PNG an image."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = ["file,class,woman"]
    for patient in range(patients):
        label = "malignant" if patient % 2 else "benign"
        for number in range(IMAGES):
            image = random.normal(100, 20, (48, 48))
            if patient % 2:
                y, x = random.integers(8, 40, 2)
                cv2.circle(image, (int(x), int(y)), 5, 190, -1)
            name = f"p{patient}-{number}.png"
            cv2.imwrite(str(folder / name), image.clip(0, 255).astype(np.uint8))
            rows.append(f"{name},{label},w{patient}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


def spicula(*words: object) -> tuple[int, str, str]:
    """Run a command in this process: exit status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def study(tmp_path_factory, recipe, data):
    out = tmp_path_factory.mktemp("study") / "out"
    status, stdout, stderr = spicula("study", recipe, "--data", data, "--out", out, "--split", "image", "--json")
    assert status == 0, stderr
    return out, json.loads(stdout)


def test_a_study_leaves_all_that_it_promises(study):
    out, result = study
    for name in (
        "study.json",
        "index.parquet",
        "rejected.parquet",
        "predictions.parquet",
        "metrics.json",
        "report.html",
    ):
        assert (out / name).is_file(), name
    assert {path.name for path in (out / "bundle").iterdir()} == {
        "model.onnx",
        "weights.safetensors",
        "bundle.json",
        "MODEL_CARD.md",
    }
    assert set(result["models"]) == {"linear", "cnn"}
    for model in result["models"].values():
        auc = model["levels"]["image"]["metrics"]["auc"]
        assert 0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1


def test_no_patient_stands_on_two_sides_and_predictions_are_of_the_test_side(study):
    out, _ = study
    table = index.read(out / "index.parquet")
    sides = {}
    for patient, split in zip(table["patient_id"].to_pylist(), table["split"].to_pylist(), strict=True):
        assert sides.setdefault(patient, split) == split
    split_of = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    rows = predictions.read(out / "predictions.parquet").to_pylist()
    assert all(split_of[row["id"]] == row["split"] for row in rows)
    assert {row["id"] for row in rows if row["split"] == "test"} == {i for i, s in split_of.items() if s == "test"}


def test_the_split_by_image_is_measured_beside_the_honest_one(study):
    out, _ = study
    flattering = index.read(out / "image-split" / "index.parquet")
    sides = {}
    for patient, split in zip(flattering["patient_id"].to_pylist(), flattering["split"].to_pylist(), strict=True):
        sides.setdefault(patient, set()).add(split)
    assert any(len(found) > 1 for found in sides.values())
    assert set(json.loads((out / "image-split" / "metrics.json").read_text())["models"]) == {"linear", "cnn"}
    status, _, stderr = spicula("bundle", out / "image-split" / "runs" / "cnn", "--to", out / "never")
    assert status == 2
    assert "split by image" in stderr


def test_the_same_command_again_trains_nothing(study, recipe, data):
    out, _ = study
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/weights.safetensors")}
    metrics = (out / "metrics.json").read_text()
    assert len(before) == 2
    assert spicula("study", recipe, "--data", data, "--out", out)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "metrics.json").read_text() == metrics


def test_the_steps_alone_give_the_same_metrics(study, recipe, data, tmp_path):
    out, _ = study
    assert spicula("train", recipe, "--data", data, "--out", tmp_path / "o")[0] == 0
    assert not (tmp_path / "o" / "metrics.json").exists()
    assert spicula("evaluate", tmp_path / "o")[0] == 0
    assert (tmp_path / "o" / "metrics.json").read_text() == (out / "metrics.json").read_text()
    status, stdout, _ = spicula("report", tmp_path / "o")
    assert status == 0
    assert Path(stdout.strip()).read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("model", ["linear", "cnn"])
def test_a_bundle_predicts_what_the_run_predicted(study, data, tmp_path, model):
    out, _ = study
    status, stdout, stderr = spicula("bundle", out / "runs" / model, "--to", tmp_path / "b", "--json")
    assert status == 0, stderr
    assert json.loads(stdout)["max_abs_difference"] < 1e-4
    table = predictions.read(out / "runs" / model / "predictions.parquet").to_pylist()
    expected = {row["id"]: row["score"] for row in table if row["split"] == "test"}
    paths = dict(zip(*(index.read(out / "index.parquet")[c].to_pylist() for c in ("image_id", "path")), strict=True))
    files = [data / paths[image] for image in expected]
    status, stdout, stderr = spicula("predict", tmp_path / "b", *files, "--json")
    assert status == 0, stderr
    scores = [row["score"] for row in json.loads(stdout)["predictions"]]
    np.testing.assert_allclose(scores, list(expected.values()), atol=1e-4)


def test_two_commands_in_one_study_are_refused(study, recipe, data):
    import fcntl

    out, _ = study
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, stderr = spicula("study", recipe, "--data", data, "--out", out)
    assert status == 1
    assert "another command is working in" in stderr


def test_added_patients_move_nobody(study, recipe, tmp_path):
    more = make_data(tmp_path / "images", PATIENTS + 6)
    shutil.copytree(study[0], tmp_path / "o")
    fast = ["--set", "models.cnn.epochs=1"]
    status, _, stderr = spicula("train", recipe, "--data", more, "--out", tmp_path / "o", *fast)
    assert status == 0, stderr
    before, after = (
        {row["patient_id"]: row["split"] for row in index.read(out / "index.parquet").to_pylist()}
        for out in (study[0], tmp_path / "o")
    )
    assert len(after) == PATIENTS + 6
    assert {patient: after[patient] for patient in before} == before


@pytest.mark.slow
def test_kill_in_mid_training_then_the_same_command_gives_the_same_metrics(study, recipe, data, tmp_path):
    out = tmp_path / "o"
    words = [sys.executable, "-m", "spicula", "study", str(recipe), "--data", str(data), "--out", str(out)]
    words += ["--set", "models.cnn.epochs=12"]
    started = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    epochs = out / "runs" / "cnn" / "epochs.jsonl"
    deadline = time.monotonic() + 120
    while not (epochs.is_file() and epochs.read_text().count("\n") >= 3):
        assert started.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert not (out / "metrics.json").exists()
    subprocess.run(words, check=True, capture_output=True)
    undisturbed = tmp_path / "u"
    subprocess.run([*words[:8], str(undisturbed), *words[9:]], check=True, capture_output=True)
    assert json.loads((out / "metrics.json").read_text()) == json.loads((undisturbed / "metrics.json").read_text())


# wrong input: one line, exit status 1 or 2, no traceback


def complaint(*words: object) -> tuple[int, str]:
    status, _, stderr = spicula(*words)
    assert "Traceback" not in stderr
    return status, stderr.strip().splitlines()[-1]


def test_an_unknown_recipe_key(recipe, data, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(recipe.read_text().replace("epochs = 3", "epocs = 3"))
    assert complaint("study", path, "--data", data, "--out", tmp_path / "o") == (
        2,
        f"spicula: {path}: unknown key 'models.cnn.epocs'; did you mean 'epochs'?",
    )


def test_a_missing_data_folder(recipe, tmp_path):
    status, line = complaint("study", recipe, "--data", tmp_path / "nothing", "--out", tmp_path / "o")
    assert status == 2
    assert str(tmp_path / "nothing") in line


def test_a_column_that_is_not_there(recipe, data, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(recipe.read_text().replace('patient_id = "woman"', 'patient_id = "person"'))
    status, line = complaint("study", path, "--data", data, "--out", tmp_path / "o")
    assert status in (1, 2)
    assert "person" in line
    assert "woman" in line


def test_a_split_that_cannot_be_made(recipe, data, tmp_path):
    status, line = complaint(
        "study", recipe, "--data", data, "--out", tmp_path / "o", "--set", f"split.folds={PATIENTS + 1}"
    )
    assert status in (1, 2)
    assert f"a split into {PATIENTS + 1} folds needs at least {PATIENTS + 1} patients" in line


def test_a_truncated_image_among_good_ones_is_rejected_and_the_rest_is_used(recipe, tmp_path):
    data = make_data(tmp_path / "images")
    whole = (data / "p0-0.png").read_bytes()
    (data / "p0-0.png").write_bytes(whole[: len(whole) // 2])
    status, stdout, stderr = spicula("study", recipe, "--data", data, "--out", tmp_path / "o", "--json")
    assert status == 0, stderr
    assert json.loads(stdout)["rejected"] == 1
    rejected = pq.read_table(tmp_path / "o" / "rejected.parquet").to_pylist()
    assert [row["path"] for row in rejected] == ["p0-0.png"]
    assert "cut short" in rejected[0]["reason"]
    assert len(index.read(tmp_path / "o" / "index.parquet")) == PATIENTS * IMAGES - 1


def test_a_bundle_with_a_changed_byte(study, data, tmp_path):
    shutil.copytree(study[0] / "bundle", tmp_path / "b")
    card = tmp_path / "b" / "MODEL_CARD.md"
    content = bytearray(card.read_bytes())
    content[len(content) // 2] ^= 1
    card.write_bytes(content)
    status, line = complaint("predict", tmp_path / "b", data)
    assert status == 1
    assert "MODEL_CARD.md" in line


def test_what_is_no_study_and_no_run_is_said(tmp_path, study):
    assert complaint("report", tmp_path)[0] == 2
    assert complaint("evaluate", tmp_path / "nothing")[0] == 2
    assert complaint("bundle", tmp_path, "--to", tmp_path / "b")[0] in (1, 2)
    assert complaint("index", "minimias", "--from", tmp_path, "--to", tmp_path / "i.parquet")[0] == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(recipe, data, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    status, line = complaint("study", recipe, "--data", data, "--out", tmp_path / "locked" / "o")
    assert status == 1
    assert "cannot write" in line
