"""BI-RADS as archives write it, and the targets that it stands for."""

import pytest

from spicula.catalog import birads
from spicula.errors import UsageError


@pytest.mark.parametrize(
    ("written", "parsed"),
    [("BI-RADS 1", "1"), ("BI-RADS 5", "5"), ("birads 3", "3"), ("0", "0"), (" 4a ", "4A"), ("4C", "4C"), ("6", "6")],
)
def test_assessments_in_the_spellings_of_the_archives(written, parsed):
    assert birads.parse(written) == parsed


@pytest.mark.parametrize("written", ["", "7", "4D", "5a", "BI-RADS", "4 or 5", "44", "-1", "BI-RADS 4.0"])
def test_what_is_no_assessment_is_an_error(written):
    with pytest.raises(ValueError, match="not a BI-RADS assessment"):
        birads.parse(written)


@pytest.mark.parametrize(
    ("option", "of_3"), [({}, None), ({"birads_3": "leave-out"}, None), ({"birads_3": "benign"}, 0)]
)
def test_targets(option, of_3):
    assert birads.target_of_3("vindr-mammo", option) is of_3
    targets = {assessment: birads.target(assessment, of_3) for assessment in ("0", "1", "2", "3", "4", "4A", "5", "6")}
    assert targets == {"0": None, "1": 0, "2": 0, "3": of_3, "4": 1, "4A": 1, "5": 1, "6": 1}


def test_birads_3_can_count_as_malignant():
    assert birads.target("3", birads.target_of_3("inbreast", {"birads_3": "malignant"})) == 1


@pytest.mark.parametrize("value", ["Malignant", "", 1, True, ["benign"]])
def test_another_value_of_the_option_is_a_usage_error(value):
    with pytest.raises(UsageError, match=r"inbreast: birads_3 is .*; it can be leave-out, benign, malignant"):
        birads.target_of_3("inbreast", {"birads_3": value})


def test_every_assessment_has_a_label():
    assert birads.label("4B") == "suspicious"
    assert [birads.label(str(number)) for number in range(7)] == list(birads.LABELS.values())
