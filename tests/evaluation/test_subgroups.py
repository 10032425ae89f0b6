from pathlib import Path

import pytest

from spicula import index
from spicula.evaluation.subgroups import NOT_KNOWN, subgroups


def found(column, values):
    table = index.from_rows(
        [{"dataset": "d", "image_id": str(n), "path": f"{n}.png", column: value} for n, value in enumerate(values)],
        Path("/data"),
    )
    return [(name, value, mask.nonzero()[0].tolist()) for name, value, mask in subgroups(table)]


def test_each_value_is_a_subgroup_and_what_is_not_known_is_one_more():
    assert found("density", ["B", "A", None, "B"]) == [
        ("density", "A", [1]),
        ("density", "B", [0, 3]),
        ("density", NOT_KNOWN, [2]),
    ]


def test_a_column_with_one_value_makes_no_subgroups():
    assert found("view", ["CC", "CC", None]) == []


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("magnification", [400.0, 40.0, 100.0, 40.0], ["40x", "100x", "400x"]),
        ("age", [71.0, 40.0, 49.9, 12.0, 95.0, 60.0], ["under 40", "40 to 49", "60 to 69", "70 and over"]),
        ("birads", ["4B", "2", "4", "4A", "0"], ["0", "2", "4", "4A", "4B"]),
        ("laterality", ["R", "L"], ["L", "R"]),
        ("manufacturer", ["Beta", "Alpha"], ["Alpha", "Beta"]),
        ("subtype", ["ductal_carcinoma", "adenosis"], ["adenosis", "ductal_carcinoma"]),
    ],
)
def test_values_stand_in_their_natural_order(column, values, expected):
    assert list(dict.fromkeys(value for _, value, _ in found(column, values))) == expected


def test_age_bands_hold_the_ages_they_name():
    bands = {value: rows for _, value, rows in found("age", [39.9, 40.0, 49.9, 50.0, 69.9, 70.0, None])}
    assert bands == {
        "under 40": [0], "40 to 49": [1, 2], "50 to 59": [3], "60 to 69": [4], "70 and over": [5], NOT_KNOWN: [6],
    }  # fmt: skip
