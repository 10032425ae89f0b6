"""The page in a browser, with a service behind it: what tests of the page share."""

import base64
import io
import shutil
from contextlib import contextmanager

import bundle_maker
import numpy as np
import onnx
import pytest
from exam_service import NAMES, PHANTOM_SETTINGS, breast, png, small_bundle
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE = {"width": 1280, "height": 800}
SECONDS = 60_000
SIZE = (320, 260)
#: Chromium draws WebGL in software here: a page that believes otherwise uses it.
WITH_PROCESSOR = """
const parameter = WebGL2RenderingContext.prototype.getParameter;
const names = [0x9246, WebGL2RenderingContext.RENDERER];
WebGL2RenderingContext.prototype.getParameter = function (name) {
    return names.includes(name) ? "a graphics processor" : parameter.call(this, name);
};
"""


@contextmanager
def chromium():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM)


def two_bundles(folder):
    """A four-view classifier, and a model of single images whose evidence is the image itself."""
    exams = small_bundle(folder / "exams", settings=PHANTOM_SETTINGS, heatmap_threshold=0.3)
    graph = onnx.load_from_string(bundle_maker.brightness_model())
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1]), "channels"))
    graph.graph.node.append(helper.make_node("ReduceMean", ["image", "channels"], ["evidence"], keepdims=0))
    graph.graph.output.append(helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["batch", 8, 8]))
    images = bundle_maker.make(folder / "images", graph.SerializeToString(), explanation=bundle_maker.EXPLANATION)
    return exams, images.folder


def four_views(seed=5):
    """The four views of an exam: names and PNG files."""
    return [(f"{name}.png", png.encode(breast(seed, name, SIZE))) for name in NAMES]


class opened:
    """A page in a browser of its own, whose faults are the test's."""

    def __init__(self, browser, url, **options):
        self.browser, self.url, self.options, self.asked, self.faults = browser, url, options, [], []

    def __enter__(self):
        self.context = self.browser.new_context(**{"viewport": WIDE, **self.options})
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
        origin = self.url.partition("/#")[0]
        if kind is None:
            assert not [one for one in self.faults if "ERR_CONNECTION_REFUSED" not in one]
            assert not [one for one in self.asked if not one.startswith((origin, f"blob:{origin}", "data:"))]


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
    # no handle: it would keep an exam that has been left in memory
    page.locator(".hanging canvas:visible").first.wait_for()
    expect(page.locator(".hanging .note")).to_have_text([""] * 4, timeout=SECONDS)
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
