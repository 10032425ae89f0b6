"""The report as a reader, a browser and an attacker meet it."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from report_example import CANARY, SETTINGS, make

import spicula
from spicula import index
from spicula.errors import SpiculaError
from spicula.evaluation.report import render, write_report
from spicula.evaluation.report_input import NearDuplicate, ReportInput
from spicula.evaluation.wording import Question

SECTIONS = (
    "summary", "data", "models", "comparison", "curves", "confusion", "training", "subgroups", "mistakes", "gradcam",
    "checks", "recipe", "reading",
)  # fmt: skip
HOSTILE = """<script>alert(1)</script>"'&{{ 7 * 7 }}$x_1$ id="x" """
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Page(HTMLParser):
    """A parsed page: refuses tags that do not match, keeps what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"closes nothing: {tag}"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))
        if "table" in self.open and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += " " + data.strip() if data.strip() else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        """What a reader sees, spaces made single."""
        seen = (data for place, data in self.texts if not {"script", "style"} & set(place))
        return " ".join(" ".join(seen).split())

    def rows(self, heading: str) -> list[list[str]]:
        """Rows of the first table that has such a column."""
        for table in self.tables:
            if any(heading == cell.strip() for cell in table[0]):
                return [[" ".join(cell.split()) for cell in row] for row in table]
        raise AssertionError(f"no table has a column {heading}")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ReportInput:
    return make(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def text(data) -> str:
    return render(data)


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Page:
    return Page(render(make(tmp_path_factory.mktemp("hostile"), hostile=HOSTILE)))


def test_every_section_is_there_once_and_in_the_navigation(page):
    idents = [attributes.get("id") for attributes in page.all("section")]
    assert idents == list(SECTIONS)
    links = [attributes["href"] for attributes in page.all("a") if attributes.get("href", "").startswith("#")]
    assert [link for link in links if link[1:] in SECTIONS][: len(SECTIONS)] == [f"#{ident}" for ident in SECTIONS]


def test_ids_are_unique_and_every_reference_has_its_target(page, text):
    idents = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(idents) == len(set(idents))
    pointed = re.findall(r'(?:href="|url\()#([^")]+)', text)
    labelled = [a["aria-labelledby"] for _, a in page.elements if a.get("aria-labelledby")]
    assert pointed
    assert set(pointed + labelled) <= set(idents)


def test_it_loads_nothing(page, text):
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in page.all("img"))
    assert not page.all("link") and not page.all("iframe") and not page.all("object")
    assert all("src" not in attributes for attributes in page.all("script"))
    outside = [a["href"] for a in page.all("a") if not (a.get("href") or "").startswith("#")]
    assert outside == ["https://example.org/made-up"]
    style = "".join(data for place, data in page.texts if "style" in place)
    assert "@import" not in style and "url(" not in style
    assert {address for address in re.findall(r"https?://[^\s\"'<)]+", text) if "w3.org" not in address} == set(outside)


def test_its_policy_allows_its_own_script_and_no_other(page):
    scripts = ["".join(data for place, data in page.texts if place and place[-1] == "script")]
    assert len(page.all("script")) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_text_is_shown_and_never_run(hostile):
    assert len(hostile.all("script")) == 1
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    shown = hostile.text()
    wanted = " ".join(HOSTILE.split())
    for place in ("A made-up study", "broken", "cut short", "free", "image-0-0", "malignant", "Does anything help?"):
        assert f"{place}{wanted}" in shown or f"{place} {wanted}" in shown, place
    assert all("alert" not in str(a.get("src")) for a in hostile.all("img"))
    assert any(wanted in " ".join(str(a.get("alt")).split()) for a in hostile.all("img"))


def test_patients_are_counted_and_never_named(text, page):
    assert CANARY not in text
    assert page.rows("Patients")[-1][:3] == ["All", "30", "10"]


def test_paths_of_this_machine_do_not_appear(text):
    assert "/home/someone" not in text
    assert "dense.safetensors" in text


def test_counts_are_those_of_the_index(page, data):
    rows = {row[0]: row for row in page.rows("Side")[1:]}
    sides = data.index["split"].to_pylist()
    targets = data.index["target"].to_pylist()
    for name, side in (("Training", "train"), ("Validation", "val"), ("Test", "test")):
        chosen = [target for target, one in zip(targets, sides, strict=True) if one == side]
        assert rows[name][3:6] == [str(len(chosen)), str(chosen.count(0)), str(chosen.count(1))]
    heading = page.rows("Side")[0]
    assert rows["All"][heading.index("labelled normal")] == "12"


@pytest.mark.parametrize("metric", ["auc", "average_precision", "brier", "calibration_error"])
def test_the_table_shows_the_metrics(page, data, metric):
    headings = {"auc": "AUC", "average_precision": "Average precision", "brier": "Brier score",
                "calibration_error": "Calibration error"}  # fmt: skip
    table = page.rows("Brier score")
    column = table[0].index(headings[metric])
    for row in table[1:]:
        figure = data.metrics["models"][row[0]]["levels"]["image"]["metrics"][metric]
        assert row[column] == f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


@pytest.mark.parametrize("metric", ["Accuracy", "Balanced accuracy", "Sensitivity", "Specificity", "Precision", "F1"])
def test_the_table_shows_the_decisions(page, data, metric):
    table = page.rows("F1")
    assert len(table) == 1 + len(SETTINGS)
    for row in table[1:]:
        values = data.metrics["models"][row[0]]["levels"]["image"]["metrics"]["youden"]
        figure = values[metric.lower().replace(" ", "_")]
        assert row[table[0].index(metric)].startswith(f"{figure['value']:.3f} (")


def test_the_confusion_matrices_show_the_counts(page, data):
    tables = [table for table in page.tables if table[0][0].strip() == "Truth"]
    for table, name in zip(tables, SETTINGS, strict=False):
        counts = data.metrics["models"][name]["levels"]["image"]["confusion"]["youden"]
        cells = [cell.split()[0] for row in table[1:] for cell in row[1:]]
        assert cells == [str(counts[key]) for key in ("tn", "fp", "fn", "tp")]


def test_differences_are_later_minus_earlier_with_their_tests(page, data):
    first = data.metrics["comparisons"][0]
    assert (first["a"], first["b"], first["metric"], first["level"]) == ("linear", "cnn", "auc", "image")
    row = page.rows("p, bootstrap")[1]
    assert row[0] == "cnn − linear"
    value = -first["difference"]["value"]
    assert row[1].split()[0] == f"{value:+.3f}".replace("-", "−")
    assert row[4] == (f"{first['p_delong_clustered']:.3f}" if first["p_delong_clustered"] >= 0.001 else "< 0.001")


def test_the_questions_are_answered_in_words(page):
    shown = page.text()
    assert "Does the CNN beat the linear baseline?" in shown
    assert "Does the pretrained dense beat the CNN?" in shown
    assert "The same network trained from random weights would tell." in shown
    assert re.search(r"Image level: cnn and linear are not shown to differ: the interval includes 0", shown)


def test_questions_of_the_caller_come_instead(data):
    own = Question("Is dense better than linear?", "dense", "linear")
    shown = Page(render(ReportInput(**{**vars(data), "questions": [own]}))).text()
    assert own.text in shown
    assert "Does the CNN beat" not in shown


def test_a_small_sample_and_synthetic_images_are_said(page):
    shown = page.text()
    assert "patients on the test side: intervals are wide" in shown
    assert "these figures say nothing about patients" in shown


def test_every_picture_of_a_phantom_says_so(page, data):
    pictures = page.all("img")
    assert len(pictures) > 40
    assert all(attributes["alt"].endswith("(synthetic)") for attributes in pictures)
    badges = [data for place, data in page.texts if place[-1:] == ("em",) and data == "synthetic"]
    assert len(badges) == len(pictures)
    real = Page(render(ReportInput(**{**vars(data), "synthetic": False})))
    assert "synthetic" not in real.text().lower()


def test_the_notice_and_the_version_are_there(page):
    shown = page.text()
    assert shown.count(spicula.RESEARCH_NOTICE) >= 2
    assert f"Made by Spicula {spicula.__version__} on 21 November 2026, 09:30 UTC" in shown


def test_provenance_is_exact(page, data):
    shown = page.text()
    assert data.recipe_text.strip() in shown
    assert data.digests["Index"] in shown
    for name in SETTINGS:
        assert name.encode().hex().ljust(64, "0") in shown


def test_mistakes_are_the_most_confident_ones(page, data):
    rows = data.predictions["linear"].to_pylist()
    missed = [row for row in rows if row["split"] == "test" and row["label"] == 1]
    threshold = data.metrics["models"]["linear"]["levels"]["image"]["thresholds"]["youden"][0]
    surest = min(missed, key=lambda row: row["score"])
    assert surest["score"] < threshold
    alts = [attributes["alt"] for attributes in page.all("img")]
    assert f"Missed by linear: image {surest['id']}, truth malignant, score {surest['score']:.3f} (synthetic)" in alts


def test_networks_are_explained_and_the_linear_model_is_not(page):
    alts = [attributes["alt"] for attributes in page.all("img") if "Grad-CAM" in attributes["alt"]]
    assert {alt.split(" over ")[0] for alt in alts} == {
        "Grad-CAM of cnn",
        "Grad-CAM of cnn-augmented",
        "Grad-CAM of dense",
    }


def test_an_empty_map_is_explained(data):
    name, maps = "cnn", {image_id: heat * 0 for image_id, heat in data.cams["cnn"].items()}
    shown = Page(render(ReportInput(**{**vars(data), "cams": {name: maps}}))).text()
    assert "nothing spoke for malignant" in shown
    assert "nothing spoke for malignant" not in Page(render(data)).text()


def test_a_subgroup_column_of_pure_groups_has_no_table_of_auc(data):
    pure = {"value": None, "low": None, "high": None, "reason": "no positive among the 3"}
    sizes = {"n": 3, "patients": 3, "positive": 0, "auc": pure, "sensitivity": pure, "specificity": pure}
    models = {
        name: {**model, "subgroups": {"birads": {"1": sizes, "2": sizes}}}
        for name, model in data.metrics["models"].items()
    }
    page = Page(render(ReportInput(**{**vars(data), "metrics": {**data.metrics, "models": models}})))
    shown = page.text()
    assert "By BI-RADS" in shown
    assert "AUC is not defined in any of these subgroups" in shown
    assert "no positive among the 3" in shown  # sensitivity and specificity still say why


def test_without_maps_it_says_so(data):
    shown = Page(render(ReportInput(**{**vars(data), "cams": {}}))).text()
    assert "No network of this study has a Grad-CAM map to show." in shown


def test_what_is_not_defined_says_why(tmp_path):
    page = Page(render(make(tmp_path, only_negative_tests=True)))
    row = page.rows("Brier score")[1]
    assert row[1] == "not defined no positive among the 24"
    shown = page.text()
    assert "The curves are not defined: no positive among the 24." in shown
    assert "No model has an AUC on the test side" in shown
    assert "the difference in AUC is not defined: no positive among the 24" in shown


def test_folds(tmp_path):
    page = Page(render(make(tmp_path, folds=3)))
    assert [row[0] for row in page.rows("Fold")[1:]] == ["Fold 0", "Fold 1", "Fold 2", "All"]
    assert "Every patient is tested once" in page.text()
    assert "AUC, mean of folds" in page.rows("Brier score")[0]


def test_one_image_a_patient_makes_one_level(tmp_path):
    shown = Page(render(make(tmp_path, patients=36, images=1))).text()
    assert "Every patient has one image, so patient level is the same as image level." in shown
    assert "Patient level, mean of the images" not in shown


def test_the_split_by_image_stands_beside_when_asked_for(data):
    better = {"value": 0.987, "low": 0.951, "high": 0.999}
    other = {
        "models": {
            name: {"levels": {"image": {"metrics": {"auc": better, "average_precision": None}}}} for name in SETTINGS
        }
    }
    page = Page(render(ReportInput(**{**vars(data), "image_split_metrics": other})))
    assert "image-split" in [attributes.get("id") for attributes in page.all("section")]
    honest = data.metrics["models"]["cnn"]["levels"]["image"]["metrics"]["auc"]["value"]
    row = next(row for row in page.tables if "by image (flattering)" in " ".join(row[1]))[3]
    assert row[0].split() == ["cnn"]
    assert row[1].split()[0] == f"{honest:.3f}"
    assert " ".join(row[2].split()) == "0.987 (0.951–0.999)"
    assert row[3].split() == [f"{0.987 - honest:+.3f}"]
    assert row[5].split() == ["not", "defined"]


def test_a_split_by_image_of_the_study_itself_is_called_flattered(data):
    shown = Page(render(ReportInput(**{**vars(data), "split_unit": "image"}))).text()
    assert "every figure here is flattered" in shown


def test_rejected_files_and_near_duplicates_are_counted_and_listed(data):
    rejected = pa.Table.from_pylist(
        [{"path": f"{n}.png", "reason": "truncated"} for n in range(130)], schema=index.REJECTED
    )
    ids = data.index["image_id"].to_pylist()
    near = [NearDuplicate(ids[0], other, 1 + place) for place, other in enumerate(ids[20:23])]
    page = Page(render(ReportInput(**{**vars(data), "rejected": rejected, "near_duplicates": near})))
    shown = page.text()
    assert "130 files could not be used" in shown
    assert "And 30 more." in shown
    assert "3 pairs of images on different sides" in shown
    assert [row[0] for row in page.rows("Reason")[1:3]] == ["0.png", "1.png"]
    assert [row[4] for row in page.rows("Differing bits of 64")[1:]] == ["1", "2", "3"]


def test_nothing_rejected_is_said_too(data):
    shown = Page(
        render(ReportInput(**{**vars(data), "rejected": index.REJECTED.empty_table(), "near_duplicates": ()}))
    ).text()
    assert "None: every file could be used." in shown
    assert "None found." in shown


def test_tables_and_pictures_can_be_read_without_sight(page):
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("main") and page.all("nav") and page.all("footer")
    charts = [attributes for attributes in page.all("svg") if "viewbox" in attributes and "role" in attributes]
    assert len(charts) == len(page.all("svg")) - 1  # all but the mark in the header, which is hidden
    assert len(page.all("title")) == 1 + len(charts)


def test_the_same_study_makes_the_same_file_and_a_small_one(data, text, tmp_path):
    write_report(tmp_path / "deep" / "report.html", data)
    written = (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert written == text
    assert len(written) < 3_000_000


def test_an_unfinished_or_missing_run_is_told(data, tmp_path):
    with pytest.raises(SpiculaError, match=r"run\.json"):
        render(ReportInput(**{**vars(data), "runs": {**data.runs, "cnn": [tmp_path]}}))
    card = (Path(data.runs["cnn"][0]) / "run.json").read_text().replace('"complete"', '"started"')
    (tmp_path / "run.json").write_text(card)
    shown = Page(render(ReportInput(**{**vars(data), "runs": {**data.runs, "cnn": [tmp_path]}}))).text()
    assert "Training of cnn did not end" in shown
