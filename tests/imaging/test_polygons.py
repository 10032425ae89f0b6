import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.imaging.polygons import clip_polygon, ellipse, polygon_area

WINDOW = (0.0, 0.0, 10.0, 8.0)


def test_areas():
    assert polygon_area(np.array([[0, 0], [4, 0], [4, 3], [0, 3]])) == 12
    assert polygon_area(np.array([[100, 100], [100, 103], [104, 100]])) == 6
    assert polygon_area(ellipse(5, 5, 3, 2, 256)) == pytest.approx(np.pi * 6, rel=1e-3)


def test_inside_nothing_changes_and_outside_nothing_is_left():
    inside = np.array([[1, 1], [5, 1], [3, 6]], float)
    np.testing.assert_array_equal(clip_polygon(inside, WINDOW), inside)
    assert clip_polygon(inside + 100, WINDOW).shape == (0, 2)
    assert clip_polygon(np.array([[-5, 0], [0, 0], [0, 5]], float), WINDOW).shape == (0, 2)  # touches the border only


def test_a_concave_polygon_keeps_its_area():
    # a U whose two legs stand in the window, its bottom below it
    u = np.array([[1, 1], [3, 1], [3, 9], [5, 9], [5, 1], [7, 1], [7, 12], [1, 12]], float)
    assert polygon_area(clip_polygon(u, WINDOW)) == pytest.approx(2 * 2 * 7)


boxes = st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.1, 30), st.floats(0.1, 30))


@given(boxes)
def test_a_box_as_polygon_is_clipped_like_a_box(box):
    x, y, width, height = box
    clipped = clip_polygon(np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]]), WINDOW)
    expected = max(0, min(x + width, 10) - max(x, 0)) * max(0, min(y + height, 8) - max(y, 0))
    assert polygon_area(clipped) == pytest.approx(expected, abs=1e-6) if len(clipped) else expected < 1e-6


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=3, max_size=9))
def test_nothing_reaches_beyond_the_window(points):
    clipped = clip_polygon(np.array(points), WINDOW)
    if len(clipped):
        assert clipped.min() >= -1e-9
        assert (clipped.max(axis=0) <= (10 + 1e-9, 8 + 1e-9)).all()
