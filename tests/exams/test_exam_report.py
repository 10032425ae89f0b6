"""The report of an exam as a radiologist, a browser and an attacker meet it."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import cv2
import exam_details
import numpy as np
import pytest

import spicula
from spicula.errors import SpiculaError
from spicula.exams.artefacts import Artefacts
from spicula.exams.outputs import report
from spicula.exams.outputs.views import View

pytest.importorskip("jinja2", reason="the report needs the extra exams")

WHEN = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
HOSTILE = """<script>alert(1)</script>"'&{{ 7 * 7 }} <img src=x onerror=alert(2)> """
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    """A parsed page: refuses tags that do not match, keeps what tests ask for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self):
        seen = (data for place, data in self.texts if not {"script", "style"} & set(place))
        return " ".join(" ".join(seen).split())

    def images(self, kind=""):
        """The pictures of the views, or the layers of that kind over them, as (alt, pixels)."""
        wanted = [a for a in self.all("img") if (a.get("class") or "") == f"heat {kind}".strip() * bool(kind)]
        return [(a["alt"], decoded(a["src"])) for a in wanted]


def decoded(uri):
    data = base64.b64decode(uri.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def page_of(detail=None, pictures=None):
    shown = exam_details.views() if pictures is None else pictures
    return Page(report.render(detail or exam_details.detail(), shown, WHEN))


@pytest.fixture(scope="module")
def page():
    return page_of()


def centre_of(mask):
    """Centre of a mask as shares of width and height: (x, y)."""
    rows, columns = np.nonzero(mask)
    return columns.mean() / mask.shape[1], rows.mean() / mask.shape[0]


@pytest.mark.parametrize("mirrored", [False, True], ids=["as is", "stored mirrored"])
def test_views_hang_as_on_a_workstation(mirrored):
    page = page_of(exam_details.detail(mirrored), exam_details.views(mirrored))
    shown = page.images()
    assert [alt.split(",")[0] for alt, _ in shown] == ["R-CC", "L-CC", "R-MLO", "L-MLO"]
    for alt, pixels in shown:
        at = centre_of(pixels > 40)[0]
        assert (at > 0.5) == alt.startswith("R"), "the chest walls meet in the middle"
        nipple = centre_of(pixels > 250)[0]
        assert (nipple < at) == alt.startswith("R"), "breasts point away from the middle"
    sides = [a["class"].split()[1] for a in page.all("div") if (a.get("class") or "").startswith("side ")]
    assert sides == ["of-right", "of-left", "of-right", "of-left"]
    assert ("stored mirrored, turned back here" in page.text()) == mirrored


@pytest.mark.parametrize("mirrored", [False, True], ids=["as is", "stored mirrored"])
@pytest.mark.parametrize(("kind", "height", "channel"), [("malignant", 0.25, 2), ("benign", 0.75, 1)])
def test_heatmaps_lie_over_the_breast_that_they_are_of(mirrored, kind, height, channel):
    page = page_of(exam_details.detail(mirrored), exam_details.views(mirrored))
    layers = page.images(kind)
    assert [alt for alt, _ in layers] == [
        f"Heatmap over {view}, {kind}: highest 0.87" for view in ("R-CC", "L-CC", "R-MLO", "L-MLO")
    ]
    for alt, pixels in layers:
        x, y = centre_of(pixels[..., 3] > 200)
        assert x == pytest.approx(0.5, abs=0.01)  # columns 40 to 60 of 100
        assert y == pytest.approx(height, abs=0.01)
        assert np.argmax(pixels[0, 0, :3]) == channel
        faint = pixels[..., 3][(pixels[..., 3] > 0) & (pixels[..., 3] < 100)]
        assert np.median(faint) == round(0.1 * 255)
        tissue = centre_of(pixels[..., 3] > 0)[0]
        assert (tissue > 0.5) == alt.startswith("Heatmap over R")


def test_nothing_is_laid_over_the_black_background(page):
    for (_, plain), (_, layer) in zip(page.images(), page.images("benign"), strict=True):
        black = cv2.erode((plain < 5).astype(np.uint8), np.ones((5, 5))) > 0  # JPEG is not exact at edges
        assert black.any()
        assert layer[..., 3][black].max() == 0


def test_scores_of_every_model_stand_under_their_breast(page):
    shown = page.text()
    assert shown.index("Right breast") < shown.index("Left breast")
    cells = [data.strip() for place, data in page.texts if place[-2:] == ("td", "span") and data.strip()]
    assert cells[:8] == ["0.400", "0.229", "0.643", "0.407", "0.374", "0.320", "0.655", "0.398"]
    heads = [data.strip() for place, data in page.texts if place[-1:] == ("th",) and data.strip()]
    assert heads[:9] == [
        "Right breast", "Left breast", "Model", "Malignant", "Benign", "Malignant", "Benign",
        "image-only", "image-and-heatmaps",
    ]  # fmt: skip


def test_it_says_what_scores_are(page):
    shown = page.text()
    assert "not calibrated" in shown
    assert "image-only : no operating point stated." in shown


def test_operating_points_that_are_stated_are_shown():
    detail = exam_details.detail()
    step = next(one for one in detail["steps"] if one["model"] == "image-only")
    step["about"]["operating_points"] = {"malignant": {"sensitivity-0.90": 0.5}}
    shown = page_of(detail).text()
    assert "image-only , operating point sensitivity-0.90: malignant from 0.5000." in shown
    assert "Left breast: reached; Right breast: not reached." in shown
    assert "image-and-heatmaps : no operating point stated." in shown


def test_a_score_that_is_the_threshold_reaches_it():
    threshold = 0.40000004  # a score of this much is 0.4000000 in the exam's detail
    detail = exam_details.detail(
        predictions=exam_details.predictions({("image-only", side, "malignant"): 0.4 for side in ("left", "right")})
    )
    step = next(one for one in detail["steps"] if one["model"] == "image-only")
    step["about"]["operating_points"] = {"malignant": {"youden": threshold}}
    assert "Left breast: reached; Right breast: reached." in page_of(detail).text()


def test_single_images_have_scores_of_their_own():
    scores = {("image-only", view, target): 0.25 for view in ("L-CC", "R-CC") for target in ("benign", "malignant")}
    page = page_of(exam_details.detail(predictions=exam_details.predictions(scores)))
    heads = [data.strip() for place, data in page.texts if place[-1:] == ("th",) and data.strip()]
    assert heads[:2] == ["R-CC", "L-CC"]


def test_several_images_of_a_view_are_all_shown():
    detail, pictures = exam_details.detail(), exam_details.views()
    detail["images"]["second"] = exam_details.image("R-CC")
    pictures["second"] = pictures["image R-CC"]
    shown = page_of(detail, pictures).images()
    assert [alt.split(",")[0] for alt, _ in shown] == ["R-CC", "R-CC", "L-CC", "R-MLO", "L-MLO"]


def test_a_refused_exam_gets_a_report_with_the_reason():
    page = page_of(exam_details.refused("no breast in 0_L-CC: it is black"), {})
    shown = page.text()
    assert "Refused" in shown
    assert "no breast in 0_L-CC: it is black" in shown
    assert "No picture of image L-CC (L-CC)" in shown
    assert not page.all("img") and "Malignant" not in shown
    assert spicula.RESEARCH_NOTICE in shown
    assert "image R-MLO" in shown, "its images are named with their digests"


def test_a_failed_step_is_told_beside_the_scores_of_others():
    steps = [exam_details.step("classify:own", "own", status="failed", error="ValueError: odd")]
    page = page_of(exam_details.detail(status="failed", reasons=["classify:own: ValueError: odd"], steps=steps))
    shown = page.text()
    assert "In part failed" in shown and "ValueError: odd" in shown and "0.643" in shown


def test_an_exam_without_heatmaps_has_no_switch():
    pictures = {name: View(view.pixels) for name, view in exam_details.views().items()}
    page = page_of(pictures=pictures)
    assert len(page.images()) == 4
    assert not [a for a in page.all("input") if a.get("name") == "heat"]


def test_notes_are_told_with_the_image_they_are_about():
    detail = exam_details.detail(notes=["left out a duplicate of L-CC"])
    detail["images"]["image R-CC"]["notes"] = ["a white frame of 3 pixels was set to 0"]
    shown = page_of(detail).text()
    assert "The exam: left out a duplicate of L-CC" in shown
    assert "image R-CC (R-CC): a white frame of 3 pixels was set to 0" in shown


def test_provenance_is_there(page):
    shown = page.text()
    detail = exam_details.detail()
    for image in detail["images"].values():
        assert image["sha256"] in shown
    for step in detail["steps"]:
        assert step["key"] in shown and step["outputs"] in shown and step["step"] in shown
        assert all(digest in shown for digest in step["models"].values())
    for value in (
        "b" * 64,
        "a bundle, 2.3",
        "bf16",
        "erosions 100",
        "cc 2677×1942",
        "12.35",
        "run-17",
        "0.0.7",
        "2026-11-21T10:00:00Z",
    ):
        assert value in shown, value
    assert f"Made by Spicula {spicula.__version__} on 21 November 2026, 09:30 UTC" in shown


def test_the_notice_stays_in_sight(page):
    assert page.text().count(spicula.RESEARCH_NOTICE) == 2
    style = "".join(data for place, data in page.texts if "style" in place)
    assert re.search(r"\.bar \{ position: sticky; top: 0", style)


def test_hostile_text_is_shown_and_never_run():
    detail = exam_details.detail(
        exam_id=HOSTILE,
        reasons=[HOSTILE],
        status="failed",
        notes=[HOSTILE],
        images={HOSTILE: exam_details.image("L-CC", notes=[HOSTILE])},
        predictions=exam_details.predictions({(HOSTILE, "left", HOSTILE): 0.5}),
        steps=[exam_details.step(HOSTILE, HOSTILE, "failed", HOSTILE, **{HOSTILE: HOSTILE})],
    )
    detail["steps"][0]["about"] = {"name": HOSTILE, "version": HOSTILE, "operating_points": {HOSTILE: {HOSTILE: 0.1}}}
    page = page_of(detail, {HOSTILE: exam_details.views()["image L-CC"]})
    assert len(page.all("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    assert page.text().count("<script>alert(1)</script>") >= 8
    assert "49" not in set(page.text().split())


def test_it_loads_nothing_and_its_policy_allows_its_own_script_alone(page):
    assert {a["src"].partition(";")[0] for a in page.all("img")} == {"data:image/jpeg", "data:image/png"}
    assert not any(page.all(tag) for tag in ("link", "iframe", "object", "form"))
    style = "".join(data for place, data in page.texts if "style" in place)
    assert "@import" not in style and "url(" not in style
    (script,) = ["".join(data for place, data in page.texts if place[-1:] == ("script",))]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_every_control_has_a_label_and_every_picture_a_text(page):
    labels = {a["for"] for a in page.all("label") if "for" in a}
    named = {a["id"] for a in page.all("input") if a["type"] != "range"}
    assert named and named == labels
    assert all(a["alt"] for a in page.all("img"))
    idents = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(idents) == len(set(idents))
    assert {a["aria-labelledby"] for _, a in page.elements if a.get("aria-labelledby")} <= set(idents)


def test_it_is_written_whole(tmp_path):
    path = report.write(exam_details.refused("it is black"), Artefacts(tmp_path / "artefacts"), tmp_path / "below")
    assert path == tmp_path / "below" / "report.html"
    assert list(path.parent.iterdir()) == [path]
    assert Page(path.read_text()).text().startswith("Exam exam-4711 – Spicula")


def test_a_target_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpiculaError, match="cannot write"):
        report.write(exam_details.refused("it is black"), Artefacts(tmp_path / "artefacts"), tmp_path / "file")


def test_a_lost_artefact_is_a_clear_error(tmp_path):
    with pytest.raises(SpiculaError, match=r"2{64}\.npz is missing"):
        report.write(exam_details.detail(), Artefacts(tmp_path / "artefacts"), tmp_path)


def test_contrast_is_stretched_over_the_breast():
    pixels = exam_details.crop("L-CC") // 16  # 12-bit values in their low bits: nearly black as they are
    shown = page_of(pictures={"image L-CC": View(pixels)}).images()[0][1]
    assert shown.max() > 250
    assert np.median(shown[pixels == 0]) == 0
