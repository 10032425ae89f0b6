"""The first three commands, one after the other: an archive becomes pictures."""

import json
import subprocess
import sys

import numpy as np

from spicula import index
from spicula.imaging.readers import read_pixels


def spicula(*words):
    done = subprocess.run(
        [sys.executable, "-m", "spicula", *map(str, words), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_download_index_convert(nbia, tmp_path):
    server = nbia(series=6, side=64)
    server.faults({"series": 1, "kind": "busy", "times": 2})

    fetched = spicula("download", "tcia:GENERATED", "--to", tmp_path / "data", "--server", server.url)
    listed = spicula("index", "dicom", "--from", tmp_path / "data", "--to", tmp_path / "index.parquet")
    made = spicula("convert", tmp_path / "index.parquet", "--to", tmp_path / "png")

    assert (fetched["complete"], fetched["failed"]) == (6, [])
    assert listed["images"] == made["images"] > 6
    before, after = index.read(tmp_path / "index.parquet"), index.read(tmp_path / "png" / "index.parquet")
    assert before["image_id"].to_pylist() == after["image_id"].to_pylist()
    for source, result in zip(index.image_paths(before), index.image_paths(after), strict=True):
        assert result.relative_to(tmp_path / "png").with_suffix("") == source.relative_to(
            tmp_path / "data"
        ).with_suffix("")
        assert np.array_equal(read_pixels(result).array, read_pixels(source).array)
