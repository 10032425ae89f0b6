"""docs/pixels.md: its example runs, and its numbers are those of the code."""

import re
from pathlib import Path

import numpy as np
import pytest

from spicula import headers
from spicula.headers import dicom as dicom_headers
from spicula.imaging import codecs, fragments, luts

PAGE = (Path(__file__).parents[2] / "docs" / "pixels.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path, noise, dicom, monkeypatch):
    image = noise(30, 20, 4095)
    dicom(tmp_path / "image.dcm", image.tobytes(), image.shape, WindowCenter="2048", WindowWidth="4096")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["stored"].bits == 12
    np.testing.assert_array_equal(names["stored"].array, image)
    assert names["shown"].array.dtype == np.uint8
    assert (names["shown"].array.min(), names["shown"].array.max()) == (0, 255)


@pytest.mark.parametrize(
    "text",
    [
        f"{headers.MAX_SIDE:,}; {headers.MAX_PIXELS // 10**6} million; {headers.MAX_FRAMES}; 1 GiB",
        f"{dicom_headers.MAX_HEADER_READS:,} reads, about {dicom_headers.MAX_HEADER_READS // 2:,} elements",
        f"| deflated data set | {dicom_headers.MAX_INFLATED_BYTES // 2**20} MiB",
        f"| fragments | {fragments.MAX_FRAGMENTS:,} |",
        f"| tiles of a JPEG 2000 frame | {codecs.MAX_TILES:,} |",
        *(f"| {name}" for name in luts.FUNCTIONS),
    ],
)
def test_numbers_and_terms_are_those_of_the_code(text):
    assert text in PAGE
