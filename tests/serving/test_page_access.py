"""The page by touch, by keys alone, in a list, and as accessibility checkers see it; real events, a real service."""

import re
from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="a browser's driver: pip install 'spicula[peers]'")
pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

import cv2
from page_browser import (
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
from playwright.sync_api import expect
from spicula_server import serving

pytestmark = pytest.mark.slow

TABLET = {"viewport": {"width": 1024, "height": 768}, "has_touch": True, "is_mobile": True}
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bundles = two_bundles(tmp_path_factory.mktemp("bundles"))
    with serving(*bundles, "--workspace", tmp_path_factory.mktemp("page") / "ws", "--log", "errors") as running:
        assert running.status is None, running.lines
        yield running


@pytest.fixture(scope="module")
def exams(browser, server):
    """Three exams that are done, oldest first: their numbers."""
    found = []
    for seed in (5, 6, 7):
        with opened(browser, server.url) as page:
            show(page, four_views(seed))
            found.append(page.url.partition("#exam/")[2])
    return found


@pytest.fixture
def page(browser, server):
    with opened(browser, server.url) as found:
        yield found


@pytest.fixture
def tablet(browser, server, exams):
    """An exam on a tablet, and a function that puts fingers on it: each a list of places that it moves through."""
    with opened(browser, f"{server.url}/#exam/{exams[0]}", **TABLET) as page:
        wait_for_views(page)
        session = page.context.new_cdp_session(page)

        def touch(*fingers):
            kinds = ["touchStart"] + ["touchMove"] * (len(fingers[0]) - 1)
            for kind, places in zip(kinds, zip(*fingers, strict=True), strict=True):
                points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        yield page, touch
        # the page itself has neither moved nor grown under the fingers
        assert page.evaluate("[scrollY, visualViewport.scale]") == [0, 1]


def middle(page, view):
    box = page.locator(f'.pane[data-view="{view}"]').bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def zoom(page):
    return int(re.findall(r"Zoom (\d+) %", page.locator(".strip").inner_text())[0])


def line(start, to, steps=8):
    return [tuple(place) for place in np.linspace(start, to, steps + 1)]


def test_two_fingers_zoom_all_views_around_what_lies_between_them(tablet):
    page, touch = tablet
    press(page, "Heatmap")
    before, (x, y) = zoom(page), middle(page, "R-MLO")
    seen = pixels(page, "L-CC")
    touch(line((x, y - 40), (x, y - 120)), line((x, y + 40), (x, y + 120)))
    assert 2.7 * before < zoom(page) < 3.3 * before
    assert changed(seen, pixels(page, "L-CC"))
    touch(line((x, y - 200), (x, y - 20)), line((x, y + 200), (x, y + 20)))
    assert zoom(page) == before  # never smaller than all of it
    assert not changed(seen, pixels(page, "L-CC"))


def test_two_fingers_move(tablet):
    page, touch = tablet
    press(page, "Zoom in")
    press(page, "Zoom in")
    press(page, "Heatmap")
    seen, size, (x, y) = pixels(page, "L-CC"), zoom(page), middle(page, "L-CC")
    touch(line((x - 30, y), (x - 30, y + 60)), line((x + 30, y), (x + 30, y + 60)))
    after = pixels(page, "L-CC")
    assert zoom(page) == size
    kept = slice(100, -100)  # beside what is written over it
    assert np.abs(after[kept] - np.roll(seen, 60, axis=0)[kept]).mean() < 0.2 * np.abs(after[kept] - seen[kept]).mean()


def test_one_finger_changes_the_window_or_moves(tablet):
    page, touch = tablet
    width, (x, y) = page.locator("input[type=number]").nth(1), middle(page, "R-CC")
    before, seen = int(width.input_value()), pixels(page)
    touch(line((x, y), (x - 100, y)))
    assert int(width.input_value()) < 0.7 * before
    press(page, "Auto")
    assert not changed(seen, pixels(page))
    press(page, "Zoom in")
    press(page, "Drag: move")
    seen = pixels(page)
    touch(line((x, y), (x, y - 50)))
    assert int(width.input_value()) == before
    assert changed(seen, pixels(page))


def test_two_taps_show_a_view_alone_and_all_again(tablet):
    page, touch = tablet
    for count in (1, 4):
        where = middle(page, "L-MLO")
        touch([where])
        touch([where])
        expect(page.locator(".pane:visible")).to_have_count(count)
        page.wait_for_timeout(500)  # what comes next is no third tap


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("options", [{}, TABLET], ids=["wide", "tablet"])
def test_no_state_of_the_page_has_a_serious_fault(browser, server, exams, scheme, options):
    """Rules of axe-core, WCAG 2.2's among them: contrast, names, roles, what is hidden and what is in order."""
    pytest.importorskip("axe_playwright_python", reason="rules of accessibility: pip install 'spicula[peers]'")
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    with opened(browser, server.url, color_scheme=scheme, **options) as page:

        def check(state):
            page.evaluate(axe)
            result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            assert len(result["passes"]) > 10
            found = [one for one in result["violations"] if one["impact"] in SERIOUS]
            assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found], state

        page.locator(".recent table").wait_for()
        check("list")
        page.get_by_label("Number or name").fill("none")
        page.get_by_text("There is none like this.").wait_for()
        check("nothing found")
        page.goto(f"{server.url}/#exam/{exams[0]}")
        wait_for_views(page)
        check("exam")
        page.locator("summary").click()
        page.keyboard.press("s")
        page.keyboard.press("i")
        check("exam, all open")
        page.keyboard.press("?")
        check("help")
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Spicula").click()
        bright = cv2.imencode(".png", np.full((60, 80), 250, np.uint8))[1].tobytes()
        drop(page, ("tissue.png", bright), ("text.txt", b"no image"))
        page.locator(".card.refused").wait_for()
        press(page, "Side by side")
        press(page, "As sent")
        check("images")
        press(page, "Read as an exam instead")
        page.get_by_role("heading", name="Why it was refused").wait_for()
        check("refused")
        page.goto(f"{server.url}/#exam/{'f' * 32}")
        page.get_by_role("heading", name="This did not work").wait_for()
        check("no such exam")
        page.route("**/v1/models", lambda route: route.fulfill(status=503, headers={"retry-after": "60"}))
        page.get_by_role("link", name="Spicula").click()
        page.locator("#status").wait_for()
        check("server away")
        page.route("**/v1/models", lambda route: route.fulfill(status=401, json={"detail": "a token is needed"}))
        press(page, "Try now")
        page.locator("#token").wait_for()
        check("token")


def test_keys_alone_reach_everything_and_the_focus_is_seen(page, exams):
    page.locator(".recent table").wait_for()
    for name in ("Skip to the content", "Spicula", "Shortcuts ?", "Choose files"):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.labels?.[0]?.innerText ?? document.activeElement.innerText")
        assert focused.split() == name.split()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type(exams[1][:10])
    expect(page.locator(".recent tbody tr")).to_have_count(1)
    page.locator(".recent tbody a").focus()
    page.keyboard.press("Enter")
    wait_for_views(page)
    address, reached = page.url, []
    page.keyboard.press("Tab")
    for _ in range(60):
        reached.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText"))
        ring = page.evaluate(
            "(({ outlineStyle, outlineWidth }) => outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2)"
            "(getComputedStyle(document.activeElement))"
        )
        assert ring or page.evaluate("document.activeElement === document.body"), reached[-1]
        page.keyboard.press("Tab")
    for name in ("Report", "All", "Auto", "Invert", "Zoom in", "Benign", "Side by side", "View R-CC", "View L-MLO"):
        assert name in reached
    assert page.url == address


def test_exams_are_found_by_day_and_score_and_the_way_back_is_kept(page, exams):
    rows, clear = page.locator(".recent tbody tr"), page.get_by_role("button", name="Clear")
    rows.first.wait_for()
    count = rows.count()
    assert count >= 3
    today = page.evaluate("new Date(Date.now() - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 10)")
    page.get_by_label("Received from").fill(today)
    page.get_by_label("Received to").fill(today)
    page.wait_for_url("**/#?from=*&to=*")
    expect(rows).to_have_count(count)
    page.get_by_label("Received to").fill("2020-01-31")
    page.get_by_text("There is none like this.").wait_for()
    clear.click()
    expect(rows).to_have_count(count)
    expect(clear).to_be_hidden()
    page.get_by_label("Order").select_option("score")
    page.wait_for_url("**/#?sort=score")
    expect(rows).to_have_count(count)
    scores = page.evaluate("fetch('/v1/exams?sort=score').then(one => one.json())")["exams"]
    assert scores[0]["score"] > scores[1]["score"] > scores[2]["score"]
    page.get_by_label("Score from").fill(str(scores[1]["score"]))
    expect(rows).to_have_count(2)
    page.get_by_label("Score to").fill(str(scores[1]["score"]))
    expect(rows).to_have_count(1)
    page.get_by_label("Score to").fill("")
    expect(rows).to_have_count(2)
    page.get_by_role("link", name=scores[0]["id"][:12]).click()
    wait_for_views(page)
    press(page, "Next exam")
    page.wait_for_url(f"**/#exam/{scores[1]['id']}")
    wait_for_views(page)
    assert page.get_by_role("button", name="Next exam").is_disabled()
    page.keyboard.press("p")
    page.wait_for_url(f"**/#exam/{scores[0]['id']}")
    wait_for_views(page)
    page.get_by_role("link", name="1 of 2, the list").click()
    expect(rows).to_have_count(2)
    assert page.get_by_label("Order").input_value() == "score"
    assert page.locator("[aria-current]").inner_text() == scores[0]["id"][:12]
    page.reload()
    expect(rows).to_have_count(2)


def test_odd_times_and_scores_are_refused_by_the_service(page, server):
    for query in ("since=soon", "since=0001-01-01T00:00:00%2B23:00", "least=2", "most=nan"):
        assert page.request.get(f"{server.url}/v1/exams?{query}").status == 422, query


def test_the_list_follows_exams_that_come_from_elsewhere(browser, server, page, exams):
    rows = page.locator(".recent tbody tr")
    rows.first.wait_for()
    before = rows.count()
    with opened(browser, server.url) as other:
        show(other, four_views(8))
        number = other.url.partition("#exam/")[2]
    expect(rows).to_have_count(before + 1, timeout=SECONDS)
    expect(rows.first).to_contain_text(number[:12])
    expect(rows.first).to_contain_text("done", timeout=SECONDS)


def test_a_waiting_exam_can_be_withdrawn(page, server, exams):
    asked = []

    def answer(route):
        asked.append(route.request.method)
        if route.request.method == "DELETE":
            route.fulfill(status=204)
            return
        found = page.request.get(f"{server.url}/v1/exams/{exams[0]}").json() | {"finished": None, "status": "waiting"}
        found["progress"] |= {"ahead": 3, "done": 0}
        route.fulfill(json=found)

    page.route(f"**/v1/exams/{exams[0]}", answer)
    page.goto(f"{server.url}/#exam/{exams[0]}")
    page.get_by_text("3 exams are before it").wait_for()
    press(page, "Withdraw this exam")
    page.locator(".recent").wait_for()
    assert asked[-1] == "DELETE"


def test_zoom_has_ends_and_one_to_one_is_exact(page, server, exams):
    page.goto(f"{server.url}/#exam/{exams[0]}")
    wait_for_views(page)
    whole = zoom(page)
    assert whole > 100  # a small image is shown as large as it fits
    for _ in range(30):
        page.keyboard.press("+")
    largest = zoom(page)
    page.keyboard.press("+")
    assert zoom(page) == largest >= 1600
    for _ in range(40):
        page.keyboard.press("-")
    assert zoom(page) == whole
    page.set_viewport_size({"width": 340, "height": 800})
    expect(page.locator(".strip")).not_to_contain_text(f"Zoom {whole} %")
    fitting = zoom(page)
    page.keyboard.press("z")
    expect(page.locator(".strip")).to_contain_text("Zoom 100 %")
    page.keyboard.press("z")
    expect(page.locator(".strip")).to_contain_text(f"Zoom {fitting} %")


def test_the_whole_screen_keeps_the_notice(page, server, exams):
    page.goto(f"{server.url}/#exam/{exams[0]}")
    wait_for_views(page)
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    notice = page.locator(".strip .notice")
    expect(notice).to_be_visible()
    assert notice.inner_text() == "Research use only. Not a medical device."
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")


@pytest.mark.parametrize("script", ["", WITH_PROCESSOR], ids=["tables", "processor"])
def test_exams_that_are_left_leave_no_memory_behind(browser, server, exams, script):
    with opened(browser, server.url) as page:
        page.add_init_script(script)
        page.reload()
        session = page.context.new_cdp_session(page)

        def held():
            for _ in range(3):
                session.send("HeapProfiler.collectGarbage")
                page.wait_for_timeout(100)
            found = session.send("Runtime.getHeapUsage")
            return found["usedSize"] + found["backingStorageSize"]

        kept = []
        for turn in range(12):
            page.evaluate("id => { location.hash = `exam/${id}`; }", exams[turn % 3])
            wait_for_views(page)
            page.evaluate("() => { location.hash = ''; }")
            page.locator(".recent table").wait_for()
            kept.append(held())
        assert kept[-1] < kept[3] + 8 * 100_000  # the pictures of one of these exams are more
