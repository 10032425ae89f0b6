from pathlib import Path

import numpy as np
import pytest

from spicula import index, predictions
from spicula.errors import SpiculaError
from spicula.evaluation.levels import at_level, levels_of, one_fold, scored


def made(rows):
    """An Index of test images and a model's Predictions; a row's `score` goes to the latter."""
    images, scores = [], []
    for number, given in enumerate(rows):
        row = {"image_id": f"i{number}", "target": 0, "split": "test", **given}
        scores.append(
            {
                "id": row["image_id"], "target": "malignant", "label": row["target"], "score": row.pop("score", 0.5),
                "split": row["split"], "model": "m", "model_digest": "d",
            }
        )  # fmt: skip
        images.append({"dataset": "made", "path": f"{number}.png", **row})
    return index.from_rows(images, Path("/data")), predictions.from_rows(scores)


def test_a_patient_has_the_highest_label_and_the_mean_or_the_highest_score():
    part = scored(
        *made([
            {"patient_id": "b", "target": 0, "score": 0.2},
            {"patient_id": "a", "target": 0, "score": 0.9},
            {"patient_id": "b", "target": 1, "score": 0.6},
        ]),
        "test",
        "m",
    )  # fmt: skip
    mean, highest = at_level(part, "patient-mean"), at_level(part, "patient-max")
    assert mean.labels.tolist() == highest.labels.tolist() == [0, 1]
    assert mean.scores == pytest.approx([0.9, 0.4])
    assert highest.scores == pytest.approx([0.9, 0.6])
    assert mean.patients.tolist() == [0, 1]
    assert at_level(part, "image") is part


def test_order_is_by_fold_and_image_whatever_the_order_of_rows():
    rows = [
        {"image_id": name, "patient_id": name, "score": score} for name, score in (("c", 0.3), ("a", 0.1), ("b", 0.2))
    ]
    table, scores = made(rows)
    for order in ([0, 1, 2], [2, 0, 1]):
        part = scored(table, scores.take(order), "test", "m")
        assert part.scores.tolist() == [0.1, 0.2, 0.3]
        assert part.rows.tolist() == [1, 2, 0]


def test_images_without_patient_count_as_patients_of_their_own():
    part = scored(*made([{}, {}, {"patient_id": "a"}, {"patient_id": "a"}]), "test", "m")
    assert part.count == 3
    assert len(at_level(part, "patient-mean").rows) == 3


def test_exams_and_breasts_are_levels_where_they_differ_from_what_is_there():
    def levels(rows):
        return levels_of([scored(*made(rows), "test", "m")])

    patient = ["image", "patient-mean", "patient-max"]
    views = [{"patient_id": p, "laterality": s} for p in "ab" for s in "LR" for _ in range(2)]
    assert levels([{"patient_id": p} for p in "aabb"]) == patient
    assert levels([{"patient_id": p, "exam_id": p} for p in "aabb"]) == patient
    assert levels([{"patient_id": "a", "exam_id": e} for e in "1122"]) == [*patient, "exam-mean", "exam-max"]
    assert levels([{"patient_id": "a", "exam_id": e} for e in ("1", "1", None, "2")]) == patient
    assert levels(views) == [*patient, "breast-mean", "breast-max"]
    assert levels([{"patient_id": p, "laterality": s} for p in "ab" for s in "LR"]) == patient  # breast = image
    assert levels([{"patient_id": p} for p in "abcd"]) == patient  # asked for, though it equals images


def test_an_exam_number_that_two_patients_share_is_two_exams():
    part = scored(*made([{"patient_id": p, "exam_id": e} for p in "ab" for e in "112"]), "test", "m")
    assert len(at_level(part, "exam-mean").rows) == 4


def test_breasts_are_those_of_one_patient():
    part = scored(
        *made([{"patient_id": p, "laterality": s, "score": x} for p, x in (("a", 0.1), ("b", 0.7)) for s in "LRL"]),
        "test",
        "m",
    )
    breasts = at_level(part, "breast-mean")
    assert breasts.scores == pytest.approx([0.1, 0.1, 0.7, 0.7])
    assert breasts.patients.tolist() == [0, 0, 1, 1]


def test_a_mean_of_ones_is_one():
    part = scored(*made([{"patient_id": "a", "score": 1.0} for _ in range(7)]), "test", "m")
    assert at_level(part, "patient-mean").scores[0] <= 1.0


def test_one_fold_alone_is_numbered_from_zero():
    table, scores = made([{"patient_id": p} for p in "ab"])
    rows = [{**row, "fold": fold} for fold, row in enumerate(scores.to_pylist())]
    part = one_fold(scored(table, predictions.from_rows(rows), "test", "m"), 1)
    assert part.rows.tolist() == [1]
    assert part.folds.tolist() == part.patients.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "elsewhere"}, "prediction of image elsewhere, which the Index does not have"),
        ({"label": 1}, r"image i0 has target 0 in the Index, but 1 in the predictions of m"),
        ({"id": "i1"}, "two test predictions of image i1"),
    ],
)
def test_predictions_that_do_not_fit_the_index_are_refused(change, message):
    table, scores = made([{"patient_id": "a"}, {"patient_id": "b"}])
    rows = scores.to_pylist()
    rows[0].update(change)
    with pytest.raises(SpiculaError, match=message):
        scored(table, predictions.from_rows(rows), "test", "m")


@pytest.mark.parametrize(
    ("of_index", "of_prediction", "message"),
    [
        ({"split": "train"}, {}, "on the train side in the Index, but a test image for model m"),
        ({"split": None, "fold": 1}, {"fold": 0}, "in fold 1 of the Index, but fold 0 tested it"),
        ({"target": None}, {"label": None}, "image i0 has no target in the Index"),
    ],
)
def test_predictions_of_another_split_are_refused(of_index, of_prediction, message):
    table, scores = made([{"patient_id": "a"}])
    table = index.from_rows([{**table.to_pylist()[0], **of_index}], Path("/data"))
    with pytest.raises(SpiculaError, match=message):
        scored(table, predictions.from_rows([{**scores.to_pylist()[0], **of_prediction}]), "test", "m")


def test_a_side_without_predictions_is_empty():
    part = scored(*made([{"patient_id": "a"}]), "val", "m")
    assert part.count == 0
    assert part.scores.dtype == np.float64
    assert at_level(part, "patient-mean").scores.shape == (0,)
