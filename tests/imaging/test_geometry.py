import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.imaging.geometry import ELLIPSE_CORNERS, Geometry, map_lesions, resize_area
from spicula.imaging.polygons import polygon_area


@st.composite
def geometries(draw) -> Geometry:
    height, width = draw(st.integers(8, 120)), draw(st.integers(8, 120))
    top, left = draw(st.integers(0, height - 4)), draw(st.integers(0, width - 4))
    scaled_height, scaled_width = draw(st.integers(4, 150)), draw(st.integers(4, 150))
    pad_top, pad_left = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    return Geometry(
        source_height=height,
        source_width=width,
        crop_top=top,
        crop_left=left,
        crop_height=draw(st.integers(4, height - top)),
        crop_width=draw(st.integers(4, width - left)),
        flipped=draw(st.booleans()),
        scaled_height=scaled_height,
        scaled_width=scaled_width,
        pad_top=pad_top,
        pad_left=pad_left,
        height=scaled_height + pad_top + draw(st.integers(0, 20)),
        width=scaled_width + pad_left + draw(st.integers(0, 20)),
    )


def lesion(kind, *coordinates):
    return {"kind": kind, "coordinates": list(coordinates), "mask_path": None, "finding": None, "pathology": "benign"}


def plain(**changes) -> Geometry:
    """The geometry that leaves an image of 100 x 80 alone, but for what is given."""
    values = {
        "source_height": 100,
        "source_width": 80,
        "crop_top": 0,
        "crop_left": 0,
        "crop_height": 100,
        "crop_width": 80,
        "flipped": False,
        "scaled_height": 100,
        "scaled_width": 80,
        "pad_top": 0,
        "pad_left": 0,
        "height": 100,
        "width": 80,
    }
    return Geometry(**{**values, **changes})


@given(geometries(), st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1, max_size=5))
def test_there_and_back_again(geometry, points):
    points = np.array(points)
    np.testing.assert_allclose(geometry.to_source(geometry.to_output(points)), points, atol=1e-9)
    np.testing.assert_allclose(geometry.to_output(geometry.to_source(points)), points, atol=1e-9)


@given(geometries())
def test_the_corners_of_the_crop_are_the_corners_of_the_window(geometry):
    left, top = geometry.crop_left, geometry.crop_top
    box = geometry.box(left, top, left + geometry.crop_width, top + geometry.crop_height)
    assert box == pytest.approx(geometry.window)


@settings(max_examples=300, deadline=None)
@given(geometries(), st.data())
def test_a_painted_box_lands_where_map_lesions_says(geometry, data):
    x0 = data.draw(st.integers(0, geometry.source_width - 2))
    y0 = data.draw(st.integers(0, geometry.source_height - 2))
    x1 = data.draw(st.integers(x0 + 1, geometry.source_width))
    y1 = data.draw(st.integers(y0 + 1, geometry.source_height))
    painted = np.zeros((geometry.source_height, geometry.source_width), np.float32)
    painted[y0:y1, x0:x1] = 1
    image = geometry.placed(geometry.scaled(painted))
    (mapped,) = map_lesions([lesion("box", x0, y0, x1, y1)], geometry)

    window_x0, window_y0, window_x1, window_y1 = geometry.window
    if mapped["inside"] == "none":
        assert image.max() == 0
        return
    left, top, right, bottom = mapped["coordinates"]
    assert window_x0 <= left < right <= window_x1
    assert window_y0 <= top < bottom <= window_y1
    # Every output pixel shows the share of it that the mapped box covers. Linear interpolation, where a side is
    # enlarged, softens an edge by half a source pixel and half an output pixel on either side of it.
    scale_x, scale_y = geometry.scale
    soft_x, soft_y = (0.5 + scale / 2 if scale > 1 else 1.0 for scale in (scale_x, scale_y))
    columns, rows = np.arange(geometry.width), np.arange(geometry.height)
    inner_x = (columns >= left + soft_x) & (columns + 1 <= right - soft_x)
    inner_y = (rows >= top + soft_y) & (rows + 1 <= bottom - soft_y)
    outer_x = (columns + 1 <= left - soft_x) | (columns >= right + soft_x)
    outer_y = (rows + 1 <= top - soft_y) | (rows >= bottom + soft_y)
    assert (image[np.ix_(inner_y, inner_x)] > 0.999).all()
    assert image[outer_y].max(initial=0) < 0.001
    assert image[:, outer_x].max(initial=0) < 0.001


@given(geometries())
def test_shrinking_conserves_area_exactly(geometry):
    if geometry.scaled_height > geometry.crop_height or geometry.scaled_width > geometry.crop_width:
        return
    painted = np.zeros((geometry.source_height, geometry.source_width), np.float32)
    top, left = geometry.crop_top + 1, geometry.crop_left + 1
    painted[top : top + 2, left : left + 2] = 1
    (mapped,) = map_lesions([lesion("box", left, top, left + 2, top + 2)], geometry)
    x0, y0, x1, y1 = mapped["coordinates"]
    assert geometry.placed(geometry.scaled(painted)).sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-4)


def test_mirroring_swaps_the_sides_of_a_box():
    (mapped,) = map_lesions([lesion("box", 10, 20, 30, 50)], plain(flipped=True))
    assert mapped["coordinates"] == [50, 20, 70, 50]
    assert mapped["inside"] == "whole"
    assert mapped["pathology"] == "benign"


def test_what_the_crop_cuts_is_flagged():
    geometry = plain(crop_left=20, crop_width=40, scaled_width=40, width=40)
    inside = [
        mapped["inside"]
        for mapped in map_lesions(
            [
                lesion("box", 25, 10, 30, 20),
                lesion("box", 10, 10, 30, 20),
                lesion("box", 0, 10, 20, 20),
                lesion("circle", 20, 50, 5),
                lesion("circle", 5, 50, 5),
                lesion("polygon", 30, 30, 90, 30, 30, 60),
                lesion("polygon", 0, 0, 10, 0, 0, 10),
                lesion("mask"),
                lesion("unlocated"),
            ],
            geometry,
        )
    ]
    assert inside == ["whole", "part", "none", "part", "none", "part", "none", None, None]


def test_a_lesion_outside_loses_its_place_but_not_its_row():
    (mapped,) = map_lesions([lesion("box", 0, 10, 20, 20)], plain(crop_left=20, crop_width=40))
    assert (mapped["kind"], mapped["coordinates"], mapped["inside"]) == ("unlocated", [], "none")


def test_half_a_circle_keeps_half_its_area():
    geometry = plain(crop_left=20, crop_width=60, scaled_width=60, width=60)
    (mapped,) = map_lesions([lesion("circle", 20, 50, 10)], geometry)
    assert mapped["kind"] == "polygon"
    points = np.array(mapped["coordinates"]).reshape(-1, 2)
    assert points[:, 0].min() >= 0
    assert polygon_area(points) == pytest.approx(np.pi * 50, rel=0.01)


def test_a_circle_stays_one_under_equal_scales_and_becomes_an_ellipse_under_others():
    (same,) = map_lesions([lesion("circle", 40, 50, 8)], plain(scaled_height=50, scaled_width=40, height=50, width=40))
    assert (same["kind"], same["coordinates"]) == ("circle", [20, 25, 4])
    stretched = plain(scaled_height=200, height=200)
    (mapped,) = map_lesions([lesion("circle", 40, 50, 8)], stretched)
    points = np.array(mapped["coordinates"]).reshape(-1, 2)
    assert len(points) == ELLIPSE_CORNERS
    np.testing.assert_allclose((points[:, 0] - 40) ** 2 / 64 + (points[:, 1] - 100) ** 2 / 256, 1)
    assert mapped["inside"] == "whole"


@given(geometries())
def test_masks_follow_boxes(geometry):
    mask = np.zeros((geometry.source_height, geometry.source_width), np.uint8)
    top, left = geometry.crop_top, geometry.crop_left
    mask[top : top + 3, left : left + 3] = 200
    mapped = geometry.mask(mask)
    assert (mapped.dtype, mapped.shape) == (bool, (geometry.height, geometry.width))
    assert mapped.any()  # it never vanishes
    x0, y0, x1, y1 = geometry.box(left, top, left + 3, top + 3)
    rows, columns = np.nonzero(mapped)
    tolerance = 1 + max(geometry.scale) / 2
    assert x0 - tolerance <= columns.min()
    assert columns.max() + 1 <= x1 + tolerance
    assert y0 - tolerance <= rows.min()
    assert rows.max() + 1 <= y1 + tolerance


def test_an_empty_mask_stays_empty():
    assert not plain(scaled_height=10, height=10).mask(np.zeros((100, 80))).any()


def test_a_heatmap_goes_back_over_the_source():
    geometry = plain(
        crop_left=20, crop_width=40, crop_top=10, crop_height=80, flipped=True, scaled_height=40, scaled_width=20,
        pad_left=6, width=32, height=40,
    )  # fmt: skip
    source = np.zeros((100, 80), np.float32)
    source[30:50, 24:34] = 1
    back = geometry.to_source_image(geometry.placed(geometry.scaled(source)))
    assert back.shape == source.shape
    assert back[34:46, 27:31].min() > 0.99
    assert back[:, :20].max() == 0
    assert np.abs(back - source).mean() < 0.01


@given(geometries())
def test_it_survives_a_table(geometry):
    assert Geometry.from_row({"other": 1, **json.loads(json.dumps(geometry.to_row()))}) == geometry


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_resizing_keeps_dtype_and_channels(channels, dtype):
    image = np.full((20, 30, *channels), 7, dtype)
    for size in ((10, 15), (40, 60), (10, 60), (20, 30), (1, 1)):
        resized = resize_area(image, size)
        assert (resized.shape, resized.dtype) == ((*size, *channels), image.dtype)
        assert (resized == 7).all()


def test_shrinking_averages_every_pixel():
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(resize_area(image, (2, 2)), [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_allclose(resize_area(np.arange(3, dtype=np.float32)[None], (1, 2)), [[1 / 3, 5 / 3]], atol=1e-6)
