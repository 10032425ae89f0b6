"""The files that the page is made of: they are in the package, name each other rightly, and do as the docs say."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src/spicula/serving/page"
FILES = sorted(PAGE.iterdir())


def test_each_is_in_the_package_and_served():
    pytest.importorskip("fastapi", reason="the service needs the extra serve")
    from spicula.serving.routes.page import MEDIA_TYPES

    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["spicula"]
    assert len(FILES) > 10
    for file in FILES:
        assert file.is_file(), "the wheel takes no folders of the page"
        assert any(fnmatch(str(file.relative_to(ROOT / "src/spicula")), one) for one in globs), file.name
        assert file.suffix in MEDIA_TYPES, file.name


def test_each_name_in_them_is_there_and_each_is_named():
    named = {"index.html"}
    for file in FILES:
        text = file.read_text()
        found = re.findall(r'from "\./(\S+?)"', text) + re.findall(r'"/page/(\S+?)"', text)
        assert all((PAGE / name).is_file() for name in found), file.name
        named.update(found)
    assert named == {file.name for file in FILES}


def test_nothing_is_fetched_from_elsewhere():
    for file in FILES:
        text = re.sub(r'xmlns="http://www\.w3\.org/\S+"', "", file.read_text())
        assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]|@import|eval\(|innerHTML|<style| style=", text), file.name


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
