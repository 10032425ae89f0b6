"""What the report says, and how firmly: never more than the numbers bear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.evaluation import wording
from spicula.evaluation.wording import Question

QUESTION = Question("Does the CNN beat the linear baseline?", "cnn", "linear")


def compared(value, low, high, p=0.01, clustered=0.01, **more):
    return {
        "a": "cnn", "b": "linear", "level": "image", "metric": "auc",
        "difference": {"value": value, "low": low, "high": high},
        "p_bootstrap": p, "p_delong": 0.0001, "p_delong_clustered": clustered, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (compared(0.05, 0.01, 0.09), "yes"),
        (compared(-0.05, -0.09, -0.01), "no"),
        (compared(0.05, -0.01, 0.11), "not shown"),
        (compared(0.05, 0.0, 0.11), "not shown"),
        (compared(0.05, 0.01, 0.09, p=0.06), "not shown"),
        (compared(0.05, 0.01, 0.09, clustered=0.2), "not shown"),
        (compared(0.05, 0.01, 0.09, clustered=None), "yes"),
        (compared(0.05, None, None), "not shown"),
        (compared(None, None, None), wording.NOT_DEFINED),
    ],
)
def test_verdicts(comparison, verdict):
    assert wording.verdict_of(comparison) == verdict
    assert wording.answer(QUESTION, [comparison], ["image"]).verdict == verdict


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_an_interval_with_zero_never_shows_a_difference(value, below, above, p, clustered):
    low, high = value - below, value + above
    said = wording.answer(QUESTION, [compared(value, low, high, p, clustered)], ["image"])
    if low <= 0 <= high or p >= 0.05 or clustered >= 0.05:
        assert said.verdict == "not shown"
        assert "not shown to differ" in said.sentences[0]
        assert "higher" not in said.sentences[0] and "lower" not in said.sentences[0]
    else:
        assert said.verdict == ("yes" if low > 0 else "no")


def test_the_sentence_carries_interval_and_p_values():
    said = wording.answer(QUESTION, [compared(0.05, 0.01, 0.09, 0.0004, 0.012)], ["image"]).sentences[0]
    plain = said.replace("\N{NO-BREAK SPACE}", " ")
    assert plain == (
        "Image level: cnn has a higher AUC than linear "
        "(difference in AUC +0.050 (0.010 to 0.090); bootstrap p < 0.001, DeLong by patient p = 0.012)."
    )


def test_a_comparison_the_other_way_round_is_turned():
    turned = {**compared(-0.05, -0.09, -0.01), "a": "linear", "b": "cnn"}
    said = wording.answer(QUESTION, [turned], ["image"])
    assert said.verdict == "yes"
    assert "+0.050 (0.010 to 0.090)" in said.sentences[0]


def test_the_image_level_decides_and_the_others_are_told():
    patient = {**compared(0.02, -0.1, 0.1), "level": "patient-mean"}
    said = wording.answer(QUESTION, [patient, compared(0.05, 0.01, 0.09)], ["image", "patient-mean"])
    assert said.verdict == "yes"
    assert "Patient level, mean of the images: cnn and linear are not shown to differ" in said.sentences[1]


def test_a_difference_that_falls_to_the_number_of_comparisons_is_weak():
    said = wording.answer(QUESTION, [compared(0.05, 0.01, 0.09, p_bootstrap_holm=0.12)], ["image"]).sentences[0]
    assert said.endswith("weak evidence.")
    firm = wording.answer(QUESTION, [compared(0.05, 0.01, 0.09, p_bootstrap_holm=0.02)], ["image"]).sentences[0]
    assert "weak" not in firm


def test_what_was_not_compared_or_not_defined_is_said():
    assert wording.answer(QUESTION, [], ["image"]).sentences == ("These two models were not compared.",)
    none = compared(None, None, None)
    none["difference"]["reason"] = "no positive among the 8"
    assert wording.answer(QUESTION, [none], ["image"]).sentences[0].endswith("not defined: no positive among the 8.")


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ({"value": 0.9124, "low": 0.861, "high": 0.9531}, "0.912 (0.861–0.953)"),
        ({"value": 0.5, "low": None, "high": None, "reason": "one patient only"}, "0.500 (no interval)"),
        ({"value": None, "reason": "one class"}, "not defined"),
        (None, "not defined"),
    ],
)
def test_figures_are_printed_with_their_interval(figure, text):
    assert str(wording.shown(figure)) == text
    assert wording.shown(figure).reason == ((figure or {}).get("reason") or "")


@pytest.mark.parametrize(
    ("value", "text"), [(0.05, "+0.050"), (-0.05, "−0.050"), (0.0001, "0.000"), (-0.0001, "0.000"), (0.0, "0.000")]
)
def test_differences_carry_a_real_sign(value, text):
    assert wording.shown({"value": value, "low": -0.1, "high": 0.1}, signed=True).value == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.00099, "p < 0.001"), (0.001, "p = 0.001"), (1.0, "p = 1.000"), (None, "p not defined")]
)
def test_p_values(p, text):
    assert wording.p_value(p).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_counts():
    assert wording.count(1234567) == "1\u202f234\u202f567"
    assert wording.plural(1, "image") == "1 image"
    assert wording.plural(0, "image") == "0 images"
