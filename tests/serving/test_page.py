"""The page in Chromium, with a real service behind it: what is dropped, what is seen, what is said."""

import base64
import io
import json
import re
import shutil
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
import onnx  # noqa: E402
from exam_service import NAMES, PHANTOM_SETTINGS, breast, png, small_bundle  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from PIL import Image  # noqa: E402
from spicula_server import serving  # noqa: E402

from spicula.bundle.screening import ScreeningSettings  # noqa: E402

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PAGE = {"width": 1280, "height": 800}, Path(__file__).parents[2] / "src/spicula/serving/page"
SECONDS = 60_000
TOKEN = "t" * 43
SIZE = (320, 260)
EXPLANATION = {
    "name": "evidence",
    "dtype": "float32",
    "shape": ["batch", 8, 8],
    "meaning": "Grad-CAM before its ReLU",
    "images": 1,
    "max_abs_difference": 0.0,
}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A four-view classifier, and a model of single images whose evidence is the image itself."""
    folder = tmp_path_factory.mktemp("bundles")
    exams = small_bundle(folder / "exams", settings=PHANTOM_SETTINGS, heatmap_threshold=0.3)
    graph = onnx.load_from_string(bundle_maker.brightness_model())
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1]), "channels"))
    graph.graph.node.append(helper.make_node("ReduceMean", ["image", "channels"], ["evidence"], keepdims=0))
    graph.graph.output.append(helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["batch", 8, 8]))
    images = bundle_maker.make(folder / "images", graph.SerializeToString(), explanation=EXPLANATION)
    return exams, images.folder


@pytest.fixture(scope="module")
def server(bundles, tmp_path_factory):
    with serving(*bundles, "--workspace", tmp_path_factory.mktemp("page") / "ws", "--log", "errors") as running:
        assert running.status is None, running.lines
        yield running


@pytest.fixture(scope="module")
def views():
    """The four views of an exam: names and PNG files."""
    return [(f"{name}.png", png.encode(breast(5, name, SIZE))) for name in NAMES]


@pytest.fixture
def page(browser, server):
    """A page that has asked only its own service and kept to its policy when the test is over."""
    with opened(browser, server.url) as found:
        yield found


class opened:
    """A page in a browser of its own, whose faults are the test's."""

    def __init__(self, browser, url, **options):
        self.browser, self.url, self.options, self.asked, self.faults = browser, url, options, [], []

    def __enter__(self):
        self.context = self.browser.new_context(viewport=WIDE, **self.options)
        self.context.set_default_timeout(SECONDS)
        page = self.context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self.hear)
        page.goto(self.url)
        return page

    def hear(self, message):
        if "Content Security Policy" in message.text or (message.type == "error" and "status of" not in message.text):
            self.faults.append(message.text)

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert not [one for one in self.faults if "ERR_CONNECTION_REFUSED" not in one]
            assert not [one for one in self.asked if not one.startswith((self.url, f"blob:{self.url}", "data:"))]


def drop(page, *files):
    """Drop files, each a name and its content."""
    page.wait_for_selector(".drop")
    given = [[name, base64.b64encode(content).decode()] for name, content in files]
    transfer = page.evaluate_handle(
        """files => {
            const made = new DataTransfer();
            for (const [name, text] of files) {
                made.items.add(new File([Uint8Array.from(atob(text), one => one.charCodeAt(0))], name));
            }
            return made;
        }""",
        given,
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})


def show(page, views):
    """Drop an exam and wait for its views."""
    drop(page, *views)
    wait_for_views(page)


def wait_for_views(page):
    page.wait_for_selector(".hanging canvas:visible")
    playwright.expect(page.locator(".hanging .note")).to_have_text([""] * 4, timeout=SECONDS)
    page.wait_for_load_state("networkidle")


def pixels(page, view=None):
    """What is seen of a view, or of all, (H, W, 3)."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    place = page.locator(f'.pane[data-view="{view}"]' if view else ".hanging")
    return np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB")).astype(int)


def changed(before, after):
    return np.abs(before - after).mean() > 0.5


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def test_dropped_views_hang_backs_together(page, views):
    show(page, views)
    assert [one.get_attribute("data-view") for one in page.locator(".pane").all()] == ["R-CC", "L-CC", "R-MLO", "L-MLO"]
    press(page, "Heatmap")
    for view in ("R-CC", "L-CC", "R-MLO", "L-MLO"):
        seen = pixels(page, view)[30:-30]
        near, far = (slice(-20, None), slice(20)) if view.startswith("R") else (slice(20), slice(-20, None))
        assert seen[:, near].mean() > 20 > seen[:, far].mean()
    assert page.get_by_text("Research use only. Not a medical device.").is_visible()


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


def test_the_slow_way_of_drawing_shows_the_same(browser, server, views):
    seen = []
    for is_slow in (False, True):
        with opened(browser, server.url) as page:
            if is_slow:
                page.add_init_script(
                    "const get = HTMLCanvasElement.prototype.getContext;"
                    "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
                    " return kind === 'webgl2' ? null : get.call(this, kind, ...more); };"
                )
                page.reload()
            show(page, views)
            seen.append(pixels(page)[40:])
    assert seen[0].max() > 150
    smooth, coarse = (cv2.blur(one.astype(np.float32), (15, 15)) for one in seen)  # one takes the nearest pixel
    assert np.abs(smooth - coarse).mean() < 3


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
    page.get_by_label("Number begins with").fill("no such number")
    page.get_by_text("There are none.").wait_for()
    page.get_by_label("Number begins with").fill(number[:6].upper())
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
            assert page.get_by_text("There are none.").is_visible()


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


def test_keys_stand_in_the_docs_as_on_the_page():
    rows = re.findall(r'^  \["(.+?)", "\w+", "(.+)"\],$', (PAGE / "keys.js").read_text(), re.M)
    written = (PAGE.parents[3] / "docs/serve-page.md").read_text()
    assert len(rows) == len({key for key, _ in rows}) > 20
    assert re.findall(r"^\| `(.+?)` \| (.+?) \|$", written, re.M) == rows


def test_colours_differ_enough():
    """WCAG 2.2, 1.4.3: a contrast of 4.5, by its relative luminance."""
    style = (PAGE / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in re.findall(r":root \{(.+?)\}", style, re.S)[:2]
    )
    pairs = [(text, ground) for text in ("ink", "soft", "accent", "no") for ground in ("paper", "panel")]
    pairs += [
        ("yes", "yes-panel"),
        ("no", "no-panel"),
        ("warn", "warn-panel"),
        ("ink", "warn-panel"),
        ("ink", "open-panel"),
    ]
    for colors in (light, dark):
        assert all(contrast(colors[text], colors[ground]) >= 4.5 for text, ground in pairs)
        assert contrast(colors["edge"], colors["paper"]) >= 3


def contrast(one, other):
    lights = sorted(
        sum(share * linear(int(color[at : at + 2], 16) / 255) for at, share in ((1, 0.2126), (3, 0.7152), (5, 0.0722)))
        for color in (one, other)
    )
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def linear(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
