"""Exam lists as pickles and as JSON: exams, labels, what is wrong with an entry."""

import json
import pickle

import numpy as np
import pytest

from spicula.catalog.exam_folders import exam_list
from spicula.errors import SpiculaError

ENTRY = {"horizontal_flip": "NO", "L-CC": ["0_L_CC"], "R-CC": ["0_R_CC"], "L-MLO": ["0_L_MLO"], "R-MLO": ["0_R_MLO"]}
CANCER = {"left_benign": 0, "right_benign": 1, "left_malignant": 0, "right_malignant": 0}


def write(tmp_path, content, name="exam_list.pkl", protocol=4):
    path = tmp_path / name
    path.write_bytes(json.dumps(content).encode() if name.endswith("json") else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("name", ["list.pkl", "list.json", "list.JSON.pickle"])
def test_pickle_and_json_say_the_same(tmp_path, name):
    exams, problems = exam_list.read(write(tmp_path, [ENTRY, {**ENTRY, "horizontal_flip": "YES"}], name))
    assert problems == []
    assert [exam.is_mirrored for exam in exams] == [False, True]
    assert exams[1].position == 1
    assert exams[0].images == {
        ("L", "CC"): ("0_L_CC",),
        ("R", "CC"): ("0_R_CC",),
        ("L", "MLO"): ("0_L_MLO",),
        ("R", "MLO"): ("0_R_MLO",),
    }
    assert exams[0].labels == {"L": None, "R": None}


def test_what_the_cropping_stage_adds_is_let_be(tmp_path):
    entry = ENTRY | {
        "window_location": {"L-CC": [(np.int64(0), 10, 0, 20)]},
        "best_center": {"L-CC": [(np.float64(3.5), 4)]},
        "rightmost_points": {"L-CC": [((1, 2), 3)]},
    }
    (exam,), problems = exam_list.read(write(tmp_path, [entry]))
    assert exam.images["L", "CC"] == ("0_L_CC",)
    assert problems == []


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        (CANCER, ("normal", "benign")),
        ({**CANCER, "left_malignant": np.int64(1)}, ("malignant", "benign")),
        ({**CANCER, "right_malignant": 1}, ("normal", "malignant")),  # both findings: the worse one
        ({**CANCER, "unknown": 0, "benign": 1}, ("normal", "benign")),
        ({**CANCER, "unknown": 1}, (None, None)),
        ({"left_benign": 1}, (None, None)),  # nothing said of malignant findings
        ({**CANCER, "left_benign": None}, (None, "benign")),
        ({**CANCER, "left_malignant": "no"}, (None, "benign")),
        ("benign", (None, None)),
    ],
)
def test_labels_of_breasts(tmp_path, said, labels):
    (exam,), _ = exam_list.read(write(tmp_path, [{**ENTRY, "cancer_label": said}]))
    assert (exam.labels["L"], exam.labels["R"]) == labels


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("0_L_CC", "is a str, not a dictionary"),
        ({}, "names no images"),
        ({"L-CC": []}, "names no images"),
        ({**ENTRY, "L-CC": [["0_L_CC"]]}, "has under L-CC something else than names"),
        ({**ENTRY, "L-CC": [""]}, "has under L-CC something else than names"),
        ({**ENTRY, "L-CC": ["x" * 300]}, "names of at most 255 characters"),
        ({**ENTRY, "R-MLO": 7}, "has under R-MLO something else than a list"),
        ({**ENTRY, "R-MLO": ["a"] * 101}, "has under R-MLO something else than a list of at most 100 names"),
        ({**ENTRY, "horizontal_flip": "PERHAPS"}, "horizontal_flip that is neither YES nor NO"),
        ({**ENTRY, "horizontal_flip": []}, "horizontal_flip that is neither YES nor NO"),
    ],
)
def test_a_bad_entry_is_named_and_the_others_are_read(tmp_path, entry, reason):
    exams, problems = exam_list.read(write(tmp_path, [ENTRY, entry, ENTRY]))
    assert [exam.position for exam in exams] == [0, 2]
    (problem,) = problems
    assert problem.startswith("exam 1: ")
    assert reason in problem


def test_one_name_without_a_list_around_it_and_views_that_are_not_there(tmp_path):
    (exam,), _ = exam_list.read(write(tmp_path, [{"L-CC": "L_CC", "R-CC": None}]))
    assert exam.images == {("L", "CC"): ("L_CC",), ("R", "CC"): (), ("L", "MLO"): (), ("R", "MLO"): ()}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pkl", pickle.dumps({"a": 1}), "holds a dict, not a list of exams"),
        ("a.pkl", b"cos\nsystem\n(S'true'\ntR.", "names os.system"),
        ("a.pkl", b"", "cut short|no pickle"),
        ("a.json", b"[", "is not JSON"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.json", b"\xff", "is not JSON"),
        ("a.json", b"{}", "holds a dict"),
    ],
)
def test_what_is_no_list(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SpiculaError, match=reason) as refusal:
        exam_list.read(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_one_that_is_too_large(tmp_path, monkeypatch):
    with pytest.raises(SpiculaError, match="cannot be read"):
        exam_list.read(tmp_path / "absent.pkl")
    path = write(tmp_path, [ENTRY] * 10, "list.json")
    monkeypatch.setattr(exam_list.pickled_list, "MAX_BYTES", 100)
    with pytest.raises(SpiculaError, match="at most 100 are read"):
        exam_list.read(path)


def test_the_published_list(test_data):
    exams, problems = exam_list.read(test_data / "nyu-exam" / "exam_list_before_cropping.pkl")
    assert problems == []
    assert len(exams) == 4
    assert not any(exam.is_mirrored for exam in exams)
    assert exams[3].images["R", "MLO"] == ("3_R_MLO",)
