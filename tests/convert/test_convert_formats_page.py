"""The page on shards: its Python opens what its commands made."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shard_tools import needs, tell

PAGE = Path(__file__).parents[2] / "docs" / "convert-formats.md"
TEXT = PAGE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the page's commands were run."""
    where = tmp_path_factory.mktemp("page")
    block = re.search(r"<!-- run -->\n```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block[1].splitlines():
        subprocess.run([sys.executable, "-m", *line.split()], cwd=where, check=True, capture_output=True)
    return where


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=["png", "tfrecord", "webdataset", "parquet"])
def test_its_python_runs(snippet, folder):
    for library in ("tensorflow_datasets", "webdataset", "datasets"):
        if re.search(rf"^(import|from) {library}\b", snippet, re.MULTILINE):
            needs(library)
    tell(snippet, cwd=folder)


def test_it_has_code_for_every_format():
    assert len(SNIPPETS) == 4
