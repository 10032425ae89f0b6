"""Random windows: those of the published classifier, with images smaller and larger than a window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_windows import published_windows

from spicula.bundle.screening import ScreeningSettings
from spicula.exams.stages import windows
from spicula.exams.stages.windows import Window
from spicula.exams.types import VIEWS

SIZES = {"CC": (64, 48), "MLO": (60, 72)}  # one is higher than wide, the other wider than high
SETTINGS = ScreeningSettings(
    cc=SIZES["CC"], mlo=SIZES["MLO"], patch=32, stride=9, shift=9, resize=13, windows=4, erosions=0, buffer=0
)


@st.composite
def exams(draw):
    """Images of any size around that of a window, with centres in and around them; one to three a view."""
    images, centers = {}, {}
    seed = draw(st.integers(0, 99))
    for view in VIEWS:
        height, width = SIZES[view[2:]]
        images[view], centers[view] = [], []
        for number in range(draw(st.integers(1, 3))):
            shape = draw(st.integers(1, 2 * height)), draw(st.integers(1, 2 * width))
            pixels = np.random.default_rng((seed, number)).integers(0, 4096, shape).astype(np.uint16)
            images[view].append([pixels])
            centers[view].append((draw(st.integers(-50, 2 * height)), draw(st.integers(-50, 2 * width))))
    return images, centers


@given(exams())
def test_windows_are_the_published_ones(exam):
    images, centers = exam
    drawn = windows.draw([len(images[view]) for view in VIEWS], 4)
    for expected, draws in zip(published_windows(images, centers, 4, SIZES, 9, 13), drawn, strict=True):
        for view, one in zip(VIEWS, draws, strict=True):
            (pixels,), center = images[view][one.image], centers[view][one.image]
            found = np.empty(SIZES[view[2:]], np.float32)
            windows.cut(pixels, windows.place(pixels.shape, center, view, SETTINGS, one), found)
            windows.standardise(found)
            np.testing.assert_allclose(found, expected[view][0], rtol=0, atol=1e-4)


def test_every_exam_starts_from_the_same_numbers():
    assert windows.draw([1, 2, 1, 1], 3) == windows.draw([1, 2, 1, 1], 3)


def test_a_single_image_of_a_view_leaves_the_other_numbers_as_they_are():
    rng = np.random.RandomState(0)
    (first,), (second,) = windows.draw([1], 2)
    for one in (first, second):
        assert one.image == 0
        assert one.shift == tuple(rng.uniform(-1, 1, 2))
        assert one.borders == tuple(rng.uniform(-1, 1, 4))


def test_of_several_images_each_is_shown_at_times():
    drawn = windows.draw([1, 3, 1, 1], 50)
    assert {one[1].image for one in drawn} == {0, 1, 2}
    assert {one[0].image for one in drawn} == {0}


def test_what_lies_beyond_the_image_is_0():
    found = np.full((6, 7), 9, np.float32)
    windows.cut(np.ones((3, 4), np.uint16), Window(-2, 4, -1, 6), found)
    expected = np.zeros((6, 7))
    expected[2:5, 1:5] = 1
    np.testing.assert_array_equal(found, expected)


def test_a_window_beside_the_image_is_all_0():
    found = np.full((4, 4), 9, np.float32)
    windows.cut(np.ones((3, 4), np.uint16), Window(5, 10, -9, -3), found)
    assert (found == 0).all()


def test_standardising_has_mean_0_and_deviation_1():
    window = np.random.default_rng(0).random((300, 200), np.float32) * 4000
    windows.standardise(window)
    assert window.mean() == pytest.approx(0, abs=1e-5)
    assert window.std() == pytest.approx(1, abs=1e-5)


def test_a_window_without_tissue_stays_0():
    window = np.zeros((30, 20), np.float32)
    windows.standardise(window)
    assert (window == 0).all()
