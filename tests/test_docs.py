"""The documentation's commands: every one parses, and those marked to be run are run, in order, page by page."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spicula import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?P<run><!-- run -->\n)?```sh\n(?P<text>.*?)```", re.DOTALL)


def commands(page: Path, to_run: bool) -> list[list[str]]:
    """The `spicula` commands in a page's shell blocks, as words; continuation lines are joined."""
    found = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if to_run and not block["run"]:
            continue
        for line in block["text"].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "spicula":
                found.append(words[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_parses(page):
    for words in commands(page, to_run=False):
        options = [word for word in words if word not in ("[...]", "...")]
        try:
            cli._parser().parse_args(options)
        except SystemExit as stop:
            assert stop.code == 0, f"{page.name}: spicula {shlex.join(words)}"


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [one.name for one in cli.COMMANDS if f"`spicula {one.name}" not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, to_run=True)], ids=lambda page: page.name)
def test_commands_that_are_marked_run(page, tmp_path):
    for words in commands(page, to_run=True):
        done = subprocess.run(
            [sys.executable, "-m", "spicula", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"spicula {shlex.join(words)}\n{done.stdout}{done.stderr}"


def test_links_between_pages_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert broken == []
