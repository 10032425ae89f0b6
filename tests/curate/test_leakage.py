from pathlib import Path

import pytest

from spicula import index
from spicula.curate.leakage import check_leakage, refuse_leakage
from spicula.errors import SpiculaError


def table(rows):
    return index.from_rows(
        [
            {"dataset": "made", "image_id": f"image {n}", "path": f"{n}.png", "target": n % 2, **row}
            for n, row in enumerate(rows)
        ],
        Path("/data"),
    )


def test_a_clean_split_has_no_problems():
    made = table(
        [
            {"patient_id": "a", "exam_id": "1", "sha256": "a" * 64, "split": "train"},
            {"patient_id": "a", "exam_id": "1", "sha256": "a" * 64, "split": "train"},
            {"patient_id": "b", "exam_id": "2", "sha256": "b" * 64, "split": "test"},
            {"split": "val"},
            {"split": "test"},
        ]
    )
    found = check_leakage(made)
    assert found.problems == []
    assert len(found.shared_patients) == len(found.shared_exams) == len(found.shared_images) == 0
    refuse_leakage(made)


@pytest.mark.parametrize(
    ("column", "value", "kind", "attribute"),
    [
        ("patient_id", "woman", "patient", "shared_patients"),
        ("exam_id", "exam", "exam", "shared_exams"),
        ("sha256", "c" * 64, "identical image", "shared_images"),
    ],
)
def test_each_kind_of_leak_is_found_and_refused(column, value, kind, attribute):
    made = table([{column: value, "split": "train"}, {"split": "train"}, {column: value, "split": "test"}])
    found = check_leakage(made)
    assert getattr(found, attribute).to_pylist() == [
        {"id": value, "sides": ["train", "test"], "images": ["image 0", "image 2"]}
    ]
    assert found.problems == [f"1 {kind} stands on two sides: image 0 (train) and image 2 (test)"]
    with pytest.raises(SpiculaError, match=r"the split leaks: .*image 0 \(train\) and image 2 \(test\)\. Split by"):
        refuse_leakage(made)


def test_many_are_counted_and_the_first_named_without_the_patients_identity():
    rows = [{"patient_id": f"CANARY{n % 5}", "split": "train" if n < 5 else "val"} for n in range(10)]
    with pytest.raises(SpiculaError, match=r"5 patients stand on two sides: image 0 .*, and 2 more") as caught:
        refuse_leakage(table(rows))
    assert "CANARY" not in str(caught.value)


def test_images_that_take_no_part_do_not_leak():
    made = table([{"patient_id": "a", "split": "train"}, {"patient_id": "a"}])
    assert check_leakage(made).problems == []


def test_folds_are_sides_too():
    made = table([{"patient_id": "a", "fold": 0}, {"patient_id": "a", "fold": 2}, {"patient_id": "b", "fold": 1}])
    assert check_leakage(made).shared_patients.to_pylist()[0]["sides"] == ["fold 0", "fold 2"]
