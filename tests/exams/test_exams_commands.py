"""What the commands below `exams` print of a workspace: for people, and as JSON."""

import json
import time
from datetime import UTC, datetime

import pytest
from small_bundle import small_bundle
from small_exams import small_exams

from spicula import RESEARCH_NOTICE
from spicula.cli import main

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Three exams, one of them without R-MLO, run with one patch network and then with another."""
    folder = tmp_path_factory.mktemp("commands")
    source = small_exams(folder / "in", range(3))
    (source / "exam-0002" / "R_MLO.png").unlink()
    times = []
    for seed in (1, 2):
        bundle = small_bundle(folder / f"bundle-{seed}", patch_seed=seed, name="small")
        run = ["run", str(source), "--workspace", str(folder / "ws"), "--bundle", str(bundle)]
        assert main(["exams", *run, "--cpu-workers", "1", "--model-workers", "1", "--streams", "1"]) == 0
        times.append(datetime.now(UTC))
        time.sleep(0.01)
    return folder / "ws", times


@pytest.fixture
def say(workspace, capsys):
    """Run a command on the workspace, and return what it prints on stdout."""

    def run(*words, status=0):
        assert main(["exams", *words, "--workspace", str(workspace[0])]) == status
        return capsys.readouterr().out

    return run


def test_status_counts_every_step(say):
    found = json.loads(say("status", "--json"))
    assert (found["exams"], found["refused"]) == (3, 1)
    assert {name: (count["done"], count["left"]) for name, count in found["steps"].items()} == dict.fromkeys(
        ["crop", "centers", "heatmaps", "visualize", "classify:image-only", "classify:image-and-heatmaps"], (2, 0)
    )
    text = say("status")
    assert "3 exams, 1 of them refused" in text
    assert "exam-0002 at intake: no R-MLO" in text


def test_show_names_scores_sides_and_geometry_as_the_published_classifier_does(say):
    found = json.loads(say("show", "exam-0000", "--json"))
    assert {(one["model"], one["side"], one["target"]) for one in found["predictions"]} == {
        (model, side, target)
        for model in ("image-only", "image-and-heatmaps")
        for side in ("left", "right")
        for target in ("benign", "malignant")
    }
    assert all(one["score"] == round(one["score"], 7) for one in found["predictions"])
    assert [image["view"] for image in found["images"].values()] == ["L-CC", "R-CC", "L-MLO", "R-MLO"]
    for image in found["images"].values():
        top, bottom, left, right = image["window_location"]
        assert image["heatmap_malignant"]["shape"] == [bottom - top, right - left]
        assert len(image["best_center"]) == 2
    assert found["horizontal_flip"] == "NO"
    text = say("show", "exam-0000")
    assert "exam-0000: ok" in text
    assert "Research use only" in text


def test_show_goes_back_in_time(say, workspace):
    def heatmap(*words):
        (step,) = [
            s for s in json.loads(say("show", "exam-0000", "--json", *words))["steps"] if s["step"] == "heatmaps"
        ]
        return step["key"]

    first = heatmap("--as-of", workspace[1][0].isoformat())
    assert first != heatmap()
    assert heatmap("--as-of", workspace[1][1].isoformat()) == heatmap()


def test_history_has_every_result_in_order(say):
    rows = json.loads(say("history", "exam-0001", "--json"))
    assert [row["step"] for row in rows if row["what"] == "step"].count("heatmaps") == 2
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert len(say("history", "exam-0001").splitlines()) == len(rows) == 1 + 6 + 3


def test_diff_lists_the_largest_change_first(say, workspace):
    def scores(*words):
        found = json.loads(say("show", "exam-0000", "--json", *words))["predictions"]
        own = [one for one in found if one["model"] == "image-and-heatmaps"]
        return own[0]["bundle"], {(one["side"][0].upper(), one["target"]): one["score"] for one in own}

    (old, before), (new, after) = scores("--as-of", workspace[1][0].isoformat()), scores()
    models = ["--model", f"image-and-heatmaps@{old}", "--model", f"image-and-heatmaps@{new}"]
    rows = json.loads(say("diff", *models, "--json"))
    assert len(rows) == 2 * 4
    changes = [abs(row["change"]) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0
    for row in rows:
        if row["exam_id"] == "exam-0000":
            where = row["side"], row["target"]
            assert row["change"] == pytest.approx(after[where] - before[where], abs=2e-7)
    *lines, blank, notice = say("diff", *models).splitlines()
    assert len(lines) == 1 + len(rows)
    assert (blank, notice) == ("", RESEARCH_NOTICE)


def test_predictions_are_written_in_both_forms(say, tmp_path):
    said = say("export", "predictions", "--model", "image-only", "--to", str(tmp_path / "p.csv"))
    assert "p.csv: 2 exams; without scores:" in said and RESEARCH_NOTICE in said
    head, *rows = (tmp_path / "p.csv").read_text().splitlines()
    assert head.startswith("index,left_benign,right_benign,left_malignant,right_malignant")
    assert len(rows) == 2
    shown = {
        (one["side"], one["target"]): one["score"]
        for one in json.loads(say("show", "exam-0000", "--json"))["predictions"]
        if one["model"] == "image-only"
    }
    columns = [("left", "benign"), ("right", "benign"), ("left", "malignant"), ("right", "malignant")]
    assert [float(one) for one in rows[0].split(",")[1:5]] == pytest.approx([shown[c] for c in columns], abs=5.1e-5)
    say("export", "predictions", "--to", str(tmp_path / "p.parquet"))
    from spicula import predictions

    assert predictions.read(tmp_path / "p.parquet").num_rows == 2 * 2 * 4


def test_a_page_is_written_for_an_exam_and_for_a_refused_one(say, tmp_path):
    for exam, word in (("exam-0000", "image-and-heatmaps"), ("exam-0002", "no R-MLO")):
        page = say("report", exam, "--to", str(tmp_path / exam)).strip()
        text = (tmp_path / exam / "report.html").read_text()
        assert page.endswith("report.html")
        assert word in text
        assert "Research use only" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "nobody"], "nobody"),
        (["history", "nobody"], "nobody"),
        (["diff", "--model", "image-only"], "two models"),
        (["diff", "--model", "nothing", "--model", "image-only"], "nothing"),
        (["export", "dicom", "exam-0000", "--to", "x", "--no-segmentations"], "DICOM"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(workspace, capsys, words, said):
    assert main(["exams", *words, "--workspace", str(workspace[0])]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
