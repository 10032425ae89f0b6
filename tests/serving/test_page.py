"""The page in Chromium, with a real service behind it: what is dropped, what is seen, what is said."""

import base64
import io
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="a browser's driver: pip install 'spicula[peers]'")
pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

import bundle_maker  # noqa: E402
from exam_service import png, small_bundle  # noqa: E402
from page_browser import (  # noqa: E402
    SECONDS,
    WITH_PROCESSOR,
    changed,
    chromium,
    drop,
    four_views,
    opened,
    pixels,
    press,
    show,
    two_bundles,
    wait_for_views,
)
from PIL import Image  # noqa: E402
from spicula_server import serving  # noqa: E402

from spicula.bundle.screening import ScreeningSettings  # noqa: E402

pytestmark = pytest.mark.slow

TOKEN = "t" * 43


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return two_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory):
    with serving(*bundles, "--workspace", tmp_path_factory.mktemp("page") / "ws", "--log", "errors") as running:
        assert running.status is None, running.lines
        yield running


@pytest.fixture(scope="module")
def views():
    return four_views()


@pytest.fixture
def page(browser, server):
    """A page that has asked only its own service and kept to its policy when the test is over."""
    with opened(browser, server.url) as found:
        yield found


def test_dropped_views_hang_backs_together(page, views):
    show(page, views)
    assert [one.get_attribute("data-view") for one in page.locator(".pane").all()] == ["R-CC", "L-CC", "R-MLO", "L-MLO"]
    press(page, "Heatmap")
    for view in ("R-CC", "L-CC", "R-MLO", "L-MLO"):
        seen = pixels(page, view)[30:-30]
        near, far = (slice(-20, None), slice(20)) if view.startswith("R") else (slice(20), slice(-20, None))
        assert seen[:, near].mean() > 20 > seen[:, far].mean()
    assert page.get_by_role("note").inner_text() == "Research use only. Not a medical device."


def test_the_views_change_as_they_are_told(page, views):
    show(page, views)
    steps = [("the heatmap", lambda: press(page, "Heatmap"))]
    steps += [
        (f"key {key}", lambda key=key: page.keyboard.press(key)) for key in ("h", "t", "[", "s", "s", "i", "2", "3")
    ]
    steps += [(f"key {key}", lambda key=key: page.keyboard.press(key)) for key in ("+", "ArrowRight", "c", "a", "0")]
    before = pixels(page)
    for what, step in steps:
        step()
        page.wait_for_load_state("networkidle")
        after = pixels(page)
        assert changed(before, after), what
        before = after


def test_window_and_level_are_dragged(page, views):
    show(page, views)
    box, before, width = (
        page.locator(".pane").first.bounding_box(),
        pixels(page),
        page.get_by_label("Width").input_value(),
    )
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 120, y + 40, steps=4)
    page.mouse.up()
    assert int(page.get_by_label("Width").input_value()) < int(width) * 0.7
    assert changed(before, pixels(page))
    press(page, "Auto")
    assert page.get_by_label("Width").input_value() == width
    assert not changed(before, pixels(page))


def test_zoom_and_moving_are_one_for_all_views_and_keep_backs_together(page, views):
    show(page, views)
    press(page, "Heatmap")
    before = [pixels(page, view) for view in ("R-CC", "L-MLO")]
    box = page.locator(".pane").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    page.wait_for_load_state("networkidle")
    for view, old in zip(("R-CC", "L-MLO"), before, strict=True):
        new = pixels(page, view)
        edge = -3 if view.startswith("R") else 2
        assert changed(old, new)
        assert (new[40:-40, edge] > 20).mean() > (old[40:-40, edge] > 20).mean()


def test_both_ways_of_drawing_show_the_same(browser, server, views):
    seen = []
    for script, kind in (("", "2d"), (WITH_PROCESSOR, "webgl2")):
        with opened(browser, server.url) as page:
            page.add_init_script(script)
            page.reload()
            show(page, views)
            assert page.locator(".pane canvas").first.evaluate("(one, kind) => one.getContext(kind) !== null", kind)
            seen.append([])
            for key in ("0", "b", "s", "+", "i"):  # b: nothing
                page.keyboard.press(key)
                page.wait_for_load_state("networkidle")
                seen[-1].append(pixels(page)[40:])
    for one, other in zip(*seen, strict=True):
        assert one.max() > 150
        assert (np.abs(one - other) > 3).mean() < 0.001


def test_all_bits_of_png_are_read(page):
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(67) * 311, np.arange(41) * 97).astype(np.uint16)
    noise = random.integers(0, 65536, (20, 33)).astype(np.uint16)
    files = [(one, png.encode(one)) for one in (smooth, noise)]
    files += [(one, cv2.imencode(".png", one)[1].tobytes()) for one in (smooth, noise, (smooth >> 8).astype(np.uint8))]
    for strategy in (
        cv2.IMWRITE_PNG_FILTER_SUB,
        cv2.IMWRITE_PNG_FILTER_UP,
        cv2.IMWRITE_PNG_FILTER_AVG,
        cv2.IMWRITE_PNG_FILTER_PAETH,
    ):
        files.append((smooth, cv2.imencode(".png", smooth, [cv2.IMWRITE_PNG_FILTER, strategy])[1].tobytes()))
    for image, content in files:
        found = page.evaluate(
            """async text => {
                const { decode } = await import("/page/png.js");
                const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
                const { width, height, pixels } = await decode(bytes.buffer);
                return { width, height, pixels: [...pixels] };
            }""",
            base64.b64encode(content).decode(),
        )
        assert (found["height"], found["width"]) == image.shape
        assert np.array_equal(np.reshape(found["pixels"], image.shape), image)


def test_scores_model_and_results_are_told(page, views):
    show(page, views)
    exam = page.url.partition("#exam/")[2]
    answer = json.loads(page.evaluate("path => fetch(path).then(one => one.text())", f"/v1/exams/{exam}"))
    text = page.locator(".told").inner_text()
    assert all(f"{one['score']:.3f}" in text for one in answer["predictions"])
    assert "The model states none" in text
    assert answer["models"][0]["digest"][:16] in text
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Report").click()
    popup.value.wait_for_load_state()
    assert "Research use only" in popup.value.locator("body").inner_text()


def test_an_exam_has_an_address_and_the_back_button_works(page, views):
    show(page, views)
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    wait_for_views(page)
    page.get_by_role("link", name="Spicula").click()
    page.wait_for_selector(".drop")
    page.go_back()
    wait_for_views(page)
    page.get_by_role("link", name="Spicula").click()
    number = address.partition("#exam/")[2]
    page.get_by_label("Number or name").fill("no such number")
    page.get_by_text("There is none like this.").wait_for()
    page.get_by_label("Number or name").fill(number[:6].upper())
    page.get_by_role("link", name=number[:12]).click()
    wait_for_views(page)
    assert page.url == address


def test_a_single_image_is_shown_with_grad_cam(page, tmp_path):
    bright = np.zeros((60, 80), np.uint8)
    bright[:, 40:] = 250
    drop(page, ("tissue.png", cv2.imencode(".png", bright)[1].tobytes()))
    page.get_by_text("Grad-CAM for bright").wait_for()
    assert "tissue.png" in page.locator(".card").inner_text()
    assert "at the operating point youden" in page.locator(".card").inner_text()
    assert page.locator(".stack img").evaluate_all("all => all.every(one => one.complete && one.naturalWidth === 8)")
    stack = page.locator(".stack")
    before = stack.screenshot()
    page.get_by_label("Heatmap").fill("0")
    clear = stack.screenshot()
    assert clear != before
    heated, plain = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB")).astype(int) for one in (before, clear))
    left, right = (slice(5, -5), slice(5, 40)), (slice(5, -5), slice(-40, -5))  # nothing speaks for it on the dark side
    assert np.abs(heated - plain)[left].max() < 10 < np.abs(heated - plain)[right].mean()
    press(page, "Read as an exam instead")
    page.get_by_role("heading", name="Why it was refused").wait_for()


def test_what_cannot_be_read_is_said_and_its_name_is_only_text(page, tmp_path):
    cut = bundle_maker.dicom(tmp_path / "whole.dcm").read_bytes()[:-100]
    evil = '<img src=x onerror="document.title=1">.txt'
    drop(page, (evil, b"no image"), ("cut.dcm", cut))
    page.wait_for_selector(".card")
    first, second = [one.inner_text() for one in page.locator(".card").all()]
    assert evil in first
    assert "not an image that Spicula reads" in first
    assert "cut short" in second
    assert page.locator(".card img").count() == 0
    press(page, "Read as an exam instead")
    page.get_by_role("heading", name="Why it was refused").wait_for()
    said = page.locator(".reason").inner_text()
    assert "none of the files is an image of a four-view exam" in said
    assert evil in said
    assert page.locator("main img").count() == 0


def test_the_list_is_sorted_and_turned_over(page):
    asked = []

    def answer(route):
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        if "sort" in query:  # other questions are how many there are
            asked.append(query)
        offset = int(query.get("offset", 0))
        one = {"status": "done", "time": "2026-01-02T03:04:05Z", "finished": None, "score": None, "predictions": []}
        exams = [one | {"id": f"{number:032x}"} for number in range(offset, min(45, offset + int(query["limit"])))]
        route.fulfill(json={"exams": exams, "total": 45, "offset": offset, "notice": ""})

    page.route("**/v1/exams?*", answer)
    page.reload()
    page.get_by_text("1 to 20 of 45").wait_for()
    for text in ("21 to 40 of 45", "41 to 45 of 45"):
        press(page, "Next")
        page.get_by_text(text).wait_for()
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_label("Order").select_option("score")
    page.get_by_text("1 to 20 of 45").wait_for()
    assert asked[-1]["sort"] == "score"
    assert asked[-1]["offset"] == "0"


@pytest.mark.parametrize("width", [820, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_screens_and_follows_light_and_dark(browser, server, views, width, scheme):
    with opened(browser, server.url, color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 1100})
        page.wait_for_selector(".recent")
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(fits)
        show(page, views)
        assert page.evaluate(fits)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 600) == (scheme == "light")
        page.keyboard.press("?")
        assert page.get_by_role("dialog").is_visible()
        assert page.evaluate(fits)


def test_a_token_is_asked_for_once_and_kept_in_the_tab(browser, bundles, views, tmp_path):
    (tmp_path / "tokens").write_text(f"clinic {TOKEN}\n")
    (tmp_path / "tokens").chmod(0o600)
    options = ("--workspace", tmp_path / "ws", "--log", "errors", "--tokens", tmp_path / "tokens")
    with serving(*bundles, *options) as server, opened(browser, server.url) as page:
        page.locator("#token").fill("w" * 43)
        press(page, "Go on")
        page.get_by_text("this token is not known here").wait_for()
        page.locator("#token").fill(TOKEN)
        press(page, "Go on")
        show(page, views)
        with page.expect_download() as download:
            press(page, "Report")
        assert b"Research use only" in Path(download.value.path()).read_bytes()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert TOKEN not in page.content() + page.url


def test_it_waits_for_a_server_that_restarts(browser, bundles, tmp_path):
    options = ("--workspace", tmp_path / "ws", "--log", "errors")
    with serving(*bundles, *options) as server, opened(browser, server.url) as page:
        page.wait_for_selector(".drop")
        server.end()
        page.get_by_label("Order").select_option("score")
        page.get_by_text("The server does not answer: it may be starting or restarting.").wait_for()
        press(page, "Try now")
        with serving(*bundles, *options, "--port", server.port):
            page.wait_for_selector("#status", state="hidden")
            page.get_by_text("There are no exams yet.").wait_for()


def test_a_real_exam_and_a_real_slide(browser, bundles, test_data, tmp_path):
    exams = small_bundle(tmp_path / "bundle", settings=ScreeningSettings())
    files = [(path.name, path.read_bytes()) for path in sorted((test_data / "nyu-exam").glob("*.png"))]
    assert len(files) == 4
    options = ("--workspace", tmp_path / "ws", "--log", "errors")
    with serving(exams, bundles[1], *options) as server, opened(browser, server.url) as page:
        page.context.set_default_timeout(4 * SECONDS)
        show(page, files)
        press(page, "Heatmap")
        for view in ("R-CC", "L-CC", "R-MLO", "L-MLO"):
            seen = pixels(page, view)[40:-40]
            near, far = (slice(-20, None), slice(20)) if view.startswith("R") else (slice(20), slice(-20, None))
            assert seen[:, near].mean() > 2 * seen[:, far].mean()
        page.get_by_role("link", name="Spicula").click()
        slide = min((test_data / "breakhis").rglob("SOB_*.png"))
        drop(page, (slide.name, slide.read_bytes()))
        page.get_by_text("Grad-CAM for bright").wait_for()


def test_its_files_have_types_tags_and_a_policy(page, server):
    def ask(path, **headers):
        return page.request.get(f"{server.url}{path}", headers=headers)

    kinds = {
        "": "text/html",
        "page/style.css": "text/css",
        "page/main.js": "text/javascript",
        "page/icon.svg": "image/svg+xml",
    }
    for path, kind in kinds.items():
        answer = ask(f"/{path}")
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert ask(f"/{path}", **{"If-None-Match": answer.headers["etag"]}).status == 304
    for path in ("page/none.js", "page/..%2fapp.py", "page/"):
        assert ask(f"/{path}").status == 404
