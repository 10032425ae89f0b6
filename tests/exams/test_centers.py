"""Stage 2 against the published procedure: golden values of a real exam, and its steps taken literally."""

import itertools

import numpy as np
import pytest
from exam_pictures import SMALL, golden, phantom_exam, real_exam
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages.centers import best_center, centers, count_pixels
from spicula.exams.stages.crop import crop
from spicula.exams.types import Crop

IMAGES = arrays(np.uint16, st.tuples(st.integers(2, 24), st.integers(2, 24)), elements=st.sampled_from([0, 7]))
SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30))


def literal_count(pixels: np.ndarray, centre: tuple[int, int], size: tuple[int, int]) -> int:
    (top, bottom), (left, right) = (
        (max(0, c - d // 2), min(n, c + (d - d // 2) + max(0, d // 2 - c)))
        for c, d, n in zip(centre, size, pixels.shape, strict=True)
    )
    return int(np.count_nonzero(pixels[top:bottom, left:right]))


def literal_center(pixels: np.ndarray, found: Crop, view: str, size: tuple[int, int]) -> tuple[int, int]:
    """Stage 2 of the published procedure, step by step, over grids of candidates."""
    half = np.array(size) // 2
    shape = np.array(pixels.shape)
    middle = shape // 2
    first, last = half.copy(), shape - (np.array(size) - half)
    for axis in (0, 1):
        if first[axis] >= last[axis]:
            first[axis] = last[axis] = middle[axis]
    last += 1
    if view.endswith("CC"):
        if first[1] != last[1]:
            x = found.rightmost_points[1] - half[1]
            first[1], last[1] = x - 1, x
    else:
        lowest = min(found.bottommost_points[0], np.nonzero(pixels[:, -size[1] :])[0].max())
        last = np.array([lowest, found.rightmost_points[1]]) - half
        first = last - 1
    grid = list(itertools.product(range(first[0], last[0]), range(first[1], last[1])))
    if len(grid) == 1:
        return grid[0]
    counts = [literal_count(pixels, centre, size) for centre in grid]
    best = [centre for centre, count in zip(grid, counts, strict=True) if count == max(counts)]
    return min(best, key=lambda centre: sum((np.array(centre) - middle) ** 2))


def test_the_real_exam_has_the_golden_centres(test_data):
    wanted = golden(test_data)["images"]
    crops = crop(real_exam(test_data), ScreeningSettings())
    found = centers(crops, ScreeningSettings())
    assert {one.name: list(centre) for one, centre in zip(crops, found, strict=True)} == {
        name: image["best_center"] for name, image in wanted.items()
    }


def test_the_mirrored_real_exam_has_the_centres_of_its_own_geometry(test_data):
    plain, mirrored = (crop(real_exam(test_data, is_mirrored), ScreeningSettings()) for is_mirrored in (False, True))
    pairs = zip(plain, centers(plain, ScreeningSettings()), centers(mirrored, ScreeningSettings()), strict=True)
    for one, (y, x), centre in pairs:  # the tip's distance differs by one, see the mirrored geometry
        assert centre == (y, x + (1 if one.view.startswith("L") else -1))


@given(IMAGES, SIZES, st.integers(-20, 40), st.integers(-20, 40))
def test_windows_are_counted_as_if_pixel_by_pixel(pixels, size, first, x):
    rows = np.arange(first, first + 9)
    counts = count_pixels(pixels, rows, x, size)
    assert counts.tolist() == [literal_count(pixels, (int(y), x), size) for y in rows]


@settings(max_examples=300)
@given(IMAGES, SIZES, st.sampled_from(["L-CC", "R-MLO"]), st.data())
def test_any_image_has_the_centre_of_the_published_steps(pixels, size, view, data):
    height, width = pixels.shape
    tip, lowest = data.draw(st.integers(0, width)), data.draw(st.integers(0, height - 1))
    pixels[data.draw(st.integers(0, height - 1)), -1] = 1  # the tip of the breast is in the last columns
    found = Crop((0, height, 0, width), ((0, 0), tip), (lowest, (0, 0)), 0)
    assert best_center(pixels, found, view, size) == literal_center(pixels, found, view, size)


@pytest.mark.parametrize(
    "size", [SMALL, ScreeningSettings(cc=(200, 150), mlo=(220, 90), erosions=24, buffer=12, resize=4)]
)
def test_small_images_have_the_centres_of_the_published_steps(size):
    crops = crop(phantom_exam(), size)
    wanted = [
        literal_center(one.pixels[:, :: -1 if one.view.startswith("R") else 1], one.crop, one.view, size.size(one.view))
        for one in crops
    ]
    assert centers(crops, size) == wanted


def test_the_lowest_row_of_an_mlo_view_is_looked_for_where_the_window_is():
    pixels = np.zeros((100, 80), np.uint16)
    pixels[:, :40], pixels[:61, 40:] = 1, 1  # only behind the window does the breast go on to the bottom
    found = Crop((0, 100, 0, 80), ((30, 40), 79), (99, (0, 39)), 0)
    assert best_center(pixels, found, "L-MLO", (50, 40)) == (60 - 25 - 1, 79 - 20 - 1)
    assert best_center(pixels, found, "L-MLO", (50, 41)) == (99 - 25 - 1, 79 - 20 - 1)
