"""The figures as the page gets them: one well-formed element each, with the numbers, in the models' colours."""

from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from spicula.evaluation import figures
from spicula.evaluation.figures import ForestRow

LOOKS = figures.styles(["linear", "cnn"])
LEVEL = {
    "n": 40,
    "positive": 10,
    "metrics": {"auc": {"value": 0.8765}, "average_precision": {"value": 0.4321}},
    "confusion": {"youden": {"tp": 8, "fn": 2, "fp": 6, "tn": 24}},
    "curves": {
        "roc": {"x": [0, 0.2, 1], "y": [0, 0.8, 1], "low": [0, 0.6, 1], "high": [0, 0.9, 1]},
        "pr": {"x": [0, 0.5, 1], "y": [1, 0.6, 0.25]},
        "calibration": {"predicted": [0.1, 0.6], "observed": [0.2, 0.5], "count": [30, 10]},
    },
}
UNDEFINED = {
    "n": 40,
    "positive": 0,
    "metrics": {"auc": {"value": None, "reason": "no positive"}, "average_precision": {"value": None}},
    "confusion": {"youden": None},
    "curves": {"roc": None, "pr": None, "calibration": {"predicted": [], "observed": [], "count": []}},
}
SCORES, LABELS = np.linspace(0, 1, 40), np.arange(40) % 4 // 3
EPOCHS = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_auc": 0.5 + 0.1 * e} for e in (1, 2, 3)]


def forest(*rows: ForestRow, ident: str = "f") -> str:
    return figures.forest(rows, ident, title="AUC", axis="AUC", reference=0.5, columns="AUC (95 % interval)")


def drawn(level=LEVEL, name: str = "linear") -> dict[str, str]:
    look = LOOKS["linear"]
    return {
        "forest": forest(ForestRow(name, 0.8, 0.7, 0.9, "0.800", look)),
        "roc": figures.roc({name: level}, {name: look}, "roc", "ROC"),
        "pr": figures.precision_recall({name: level}, {name: look}, "pr", "Precision"),
        "calibration": figures.calibration(level, SCORES, LABELS, look=look, ident="calibration", model=name),
        "training": figures.training([EPOCHS], look, "training", name),
    }


def texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.mark.parametrize("kind", drawn())
def test_each_figure_is_one_named_element(kind):
    svg = drawn()[kind]
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    title = root[0]
    assert title.get("id") == root.get("aria-labelledby")
    assert title.text
    assert "<style" not in svg  # would rule the whole page
    assert "DejaVu" not in svg
    assert len(svg) < 80_000


@pytest.mark.parametrize("kind", drawn())
def test_ids_carry_the_prefix_and_are_unique(kind):
    svg = drawn()[kind]
    prefix = "f" if kind == "forest" else kind
    idents = [element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")]
    assert len(idents) > 3
    assert len(set(idents)) == len(idents)
    assert all(ident.startswith(f"{prefix}-") for ident in idents)


def test_a_model_has_its_colour_in_every_figure():
    color = LOOKS["linear"].color.lower()
    assert all(color in svg.lower() for svg in drawn().values())
    assert all(LOOKS["cnn"].color.lower() not in svg.lower() for svg in drawn().values())


def test_text_axes_and_grid_follow_the_page():
    for svg in drawn().values():
        assert "var(--ink)" in svg and "var(--line)" in svg
        assert "#01020" not in svg


def test_the_same_data_draw_the_same_figure():
    assert drawn() == drawn()


def test_settings_of_matplotlib_are_left_alone():
    before = dict(mpl.rcParams)
    drawn()
    assert dict(mpl.rcParams) == before


def test_numbers_stand_in_the_legends():
    assert "linear 0.876" in texts(drawn()["roc"]) or "linear 0.877" in texts(drawn()["roc"])
    assert "linear 0.432" in texts(drawn()["pr"])


@pytest.mark.parametrize("name", ["<script>&\"'", "$x_1$", 'id="x" url(#y) #010203', "m" * 200])
def test_any_name_is_shown_as_it_is(name):
    for kind, svg in drawn(name=name).items():
        shown = texts(svg)
        start = name[:15]
        assert any(text.startswith(start) for text in shown), kind
        assert ElementTree.fromstring(svg)[0].text


def test_a_curve_that_is_not_defined_is_left_out():
    svg = figures.roc({"linear": UNDEFINED, "cnn": LEVEL}, LOOKS, "roc", "ROC")
    assert LOOKS["cnn"].color.lower() in svg.lower()
    assert LOOKS["linear"].color.lower() not in svg.lower()
    for part in drawn(UNDEFINED).values():
        ElementTree.fromstring(part)


def test_the_band_is_drawn_only_when_the_data_have_one():
    bare = {**LEVEL, "curves": {**LEVEL["curves"], "roc": {"x": [0, 0.2, 1], "y": [0, 0.8, 1]}}}
    assert "opacity: 0.15" in figures.roc({"linear": LEVEL}, LOOKS, "roc", "ROC")
    assert "opacity: 0.15" not in figures.roc({"linear": bare}, LOOKS, "roc", "ROC")


def test_forest_rows_stand_where_their_values_are():
    look = LOOKS["linear"]
    svg = forest(
        ForestRow("Image level", heading=True),
        ForestRow("a", 0.6, 0.55, 0.7, "0.600", look),
        ForestRow("b", 0.9, 0.8, 0.95, "0.900", look),
        ForestRow("", text="not defined: no positive"),
    )
    marks = [
        float(element.get("x"))
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}use")
        if look.color.lower() in (element.get("style") or "")
    ]
    assert len(marks) == 2
    assert marks[0] < marks[1]
    assert {"Image level", "a", "b", "0.600", "0.900", "not defined: no positive", "AUC (95 % interval)"} <= set(
        texts(svg)
    )


def test_training_marks_the_best_epoch_and_survives_gaps():
    gaps = [[{"epoch": 1, "train_loss": 0.5, "val_loss": None, "val_auc": None}]]
    ElementTree.fromstring(figures.training(gaps, LOOKS["cnn"], "t", "cnn"))
    two = figures.training([EPOCHS, EPOCHS], LOOKS["cnn"], "t", "cnn")
    assert texts(two).count("training") == 1  # one legend for all folds


def test_many_models_all_look_different():
    looks = figures.styles([f"m{n}" for n in range(20)])
    assert len({(look.color, str(look.dash)) for look in looks.values()}) == 20
