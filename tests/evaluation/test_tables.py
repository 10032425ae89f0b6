"""Counts of the data, and what the runs say of the models."""

import json
from pathlib import Path

import pytest

from spicula import index
from spicula.errors import SpiculaError
from spicula.evaluation import tables


def table(*rows):
    base = {"dataset": "d", "path": "p"}
    return index.from_rows([{**base, "image_id": str(n), **row} for n, row in enumerate(rows)], Path("root"))


def test_sides_count_images_patients_and_classes():
    found = tables.sides(
        table(
            {"patient_id": "a", "split": "train", "target": 1, "label": "malignant"},
            {"patient_id": "a", "split": "train", "target": 0, "label": "normal"},
            {"patient_id": "b", "split": "test", "target": 0, "label": "benign"},
            {"patient_id": "b", "target": None},
            {"split": "test", "target": 1},
            {"split": "test", "target": 1},
        )
    )
    assert [side.name for side in found] == ["Training", "Test", "Not used", "All"]
    train, test, unused, everything = found
    assert (train.patients, train.patients_positive, train.images, train.negative, train.positive) == (1, 1, 2, 1, 1)
    assert (test.patients, test.patients_positive, test.positive) == (3, 2, 2)  # without an id each is its own
    assert unused.labels == {"no label": 1}
    assert everything.images == 6
    assert train.labels == {"malignant": 1, "normal": 1}


def test_folds_take_the_place_of_sides():
    found = tables.sides(table({"fold": 1, "target": 1}, {"fold": 0, "target": 0}, {"fold": 10, "target": 0}))
    assert [side.name for side in found] == ["Fold 0", "Fold 1", "Fold 10", "All"]


def test_images_per_patient():
    assert tables.images_per_patient(table({"patient_id": "a"}, {"patient_id": "a"}, {"patient_id": "b"})) == (
        1,
        1.5,
        2,
    )
    assert tables.images_per_patient(table({})) is None


def run(folder: Path, **card) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"line": "cnn", "settings": {}, **card}))
    return folder


def test_a_card_is_read_over_its_folds(tmp_path):
    first = run(tmp_path / "0", seconds=10.0, images_per_second=100.0, best_epoch=3)
    second = run(tmp_path / "1", seconds=20.5, images_per_second=300.0, best_epoch=5)
    (first / "epochs.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    card = tables.model_card("cnn", [first, second])
    assert card.seconds == 30.5
    assert card.images_per_second == 200.0
    assert card.notes == "best epoch 3, 5"
    assert [len(lines) for lines in card.epochs] == [2, 0]


@pytest.mark.parametrize(
    ("line", "settings", "words"),
    [
        ("linear", {"classifier": "svm"}, "linear support vector machine"),
        ("linear", {"classifier": "logistic"}, "logistic regression"),
        ("cnn", {"expand": "rotate-flip"}, "rotated and flipped"),
        ("cnn", {"weights": None}, "from random weights"),
        (
            "timm:densenet121",
            {"weights": "hub", "train": "head"},
            "pretrained, from the library's hub; only the last layer",
        ),
        (
            "timm:densenet121",
            {"weights": "/a/b/c.safetensors", "train": 2},
            "from c.safetensors; the head and the last 2 stages",
        ),
        ("cnn", {"imbalance": "sampler"}, "imbalance met by sampler"),
    ],
)
def test_a_model_is_described_in_words(tmp_path, line, settings, words):
    card = tables.model_card("m", [run(tmp_path, line=line, settings=settings)])
    assert words in card.description
    assert "/a/b" not in card.description + json.dumps(card.settings)


def test_what_was_chosen_is_told_without_its_tables(tmp_path):
    card = tables.model_card("m", [run(tmp_path, chosen={"C": 0.01, "auc_by_C": {"0.01": 0.9}})])
    assert card.notes == "C 0.01"


def test_a_run_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SpiculaError, match=r"run\.json cannot be read as a run"):
        tables.model_card("m", [tmp_path])
    with pytest.raises(SpiculaError, match="no run of the model m"):
        tables.model_card("m", [])
