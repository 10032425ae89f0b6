"""docs/exam-images.md: its numbers are those of the code, and its code runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams import reading
from spicula.exams.stages import background, frames, guards, marks, orientation, polarity

PAGE = (Path(__file__).parents[2] / "docs" / "exam-images.md").read_text(encoding="utf-8")
PUBLISHED = ScreeningSettings()


@pytest.mark.parametrize(
    "text",
    [
        f"DICOM, grey, {reading.LEAST_BITS} to 16 bits stored",
        f"nothing thinner than {2 * PUBLISHED.erosions} pixels",
        f"its outermost {orientation.NEAR:.0%}",
        f"in over {orientation.CLEARLY:.0f} times as many rows",
        f"of which {frames.UNIFORM:.0%} have one value (give or take {frames.WAVERS:.0%})",
        f"at most {frames.GOES_ON:.0%} of the next line",
        f"{polarity.ONE_SIDED:.0%} and more of what is not background",
        f"at most {polarity.FADES} of that deep inside",
        f"({background.VICINITY:.0%} of the range of the image) {background.CONSTANT:.0%} have one value",
        f"a standard deviation of up to {background.LARGEST_NOISE:.0%} of the range",
        f"no more than {polarity.OF_MEDIAN} standard deviations",
        f"({marks.least_gap(PUBLISHED)} pixels with the published settings",
        f"at most {marks.LARGEST_MARK:.0%} of the breast's area",
        f"a square of {marks.FLAT} × {marks.FLAT} pixels of one value fits in) beside which"
        f" {marks.BORDERS_ON_BLACK} pixels",
        f"covers under {guards.LEAST_SHARE:.0%} of the image",
        f"under {guards.BLACK:.0%} of it is black",
        f"over {guards.MEETS:.0%} of the border",
    ],
)
def test_the_numbers_of_the_page_are_those_of_the_code(text):
    assert text.replace("%", " %") in " ".join(PAGE.split())
    assert background.LEAST_OF_BORDER == 1 / 4
    assert guards.MEETS_BOTH == 1 / 3


def test_the_code_of_the_page_runs():
    names: dict[str, np.ndarray] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert names["pixels"][30, 10] == 900
    assert names["pixels"][30, 40] == 0
