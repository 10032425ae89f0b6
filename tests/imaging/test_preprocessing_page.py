"""docs/preprocessing.md: its code runs, its table of settings is complete, and its numbers are those of the code."""

import re
from pathlib import Path

import pytest

from spicula import headers
from spicula.imaging import breast, codecs, decoding, geometry, worker_process, workers
from spicula.imaging.preprocess import MARGIN, Preprocess

PAGE = (Path(__file__).parents[2] / "docs" / "preprocessing.md").read_text(encoding="utf-8")


def test_its_code_runs(tmp_path, monkeypatch, noise, dicom):
    image = noise(1024, 1024, 4095)
    dicom(tmp_path / "image.dcm", image.tobytes(), image.shape)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert names["prepared"].array.shape == (320, 256, 1)
    assert names["mapped"]["inside"] in ("whole", "part", "none")


def test_every_setting_is_listed_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", PAGE, re.MULTILINE))
    assert list(rows) == list(Preprocess.model_fields)
    shown = {
        name: {None: "none", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, str | tuple)
        else f'"{value}"'
        if isinstance(value, str)
        else str(list(value))
        for name, value in Preprocess()
    }
    assert rows == shown


@pytest.mark.parametrize(
    "text",
    [
        f"sides of 1 to {headers.MAX_SIDE:,} pixels, {headers.MAX_PIXELS // 10**6} million pixels, "
        f"{headers.MAX_FRAMES} frames, {headers.MAX_BYTES // 2**30} GiB",
        f"at most {breast.WORKING_SIDE_PX} pixels",
        f"{MARGIN:.0%} wider".replace("%", " %"),
        f"under {breast.WEAK_EVIDENCE:.0%}".replace("%", " %"),
        f"agree to {geometry.ROUND:.0%}".replace("%", " %"),
        f"polygon of {geometry.ELLIPSE_CORNERS} corners",
        f"a kill costs {decoding.SHARD_SECONDS:.0f} seconds of work or {decoding.SHARD_BYTES // 2**20} MiB",
        f"takes over {workers.LIMIT_SECONDS:.0f} seconds or {worker_process.MEMORY_BYTES // 2**30} GiB",
    ],
)
def test_its_numbers_are_those_of_the_code(text):
    assert text in " ".join(PAGE.split())


def test_every_codec_is_named():
    for name in ("JPEG baseline, extended and lossless", "JPEG-LS", "JPEG 2000", "HTJ2K"):
        assert name in PAGE
    assert len(codecs.DECODER_DEPENDENCIES) == 11
