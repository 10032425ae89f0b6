"""Pictures for the page: what is drawn is where it belongs."""

import base64

import cv2
import numpy as np
import pytest
from report_example import make

from spicula.evaluation.pictures import Album, heat_scale, thumbnail


def decode(source: str) -> np.ndarray:
    """The picture of a data URI, (H, W, 3) in order red, green, blue."""
    kind, data = source.split(",")
    assert kind == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return picture[:, :, ::-1].astype(int)


def test_colours_and_proportions_are_kept():
    image = np.zeros((40, 20, 3), np.uint8)
    image[:20, :, 0] = 255
    image[20:, :, 2] = 255
    picture = decode(thumbnail(image, side_px=100))
    assert picture.shape == (100, 50, 3)
    np.testing.assert_allclose(picture[20, 25], [255, 0, 0], atol=12)
    np.testing.assert_allclose(picture[80, 25], [0, 0, 255], atol=12)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_both_depths_span_black_to_white(dtype, white):
    image = np.zeros((64, 64, 1), dtype)
    image[:, 32:] = white
    picture = decode(thumbnail(image, side_px=64))
    assert picture[:, :24].max() < 12
    assert picture[:, 40:].min() > 243


def test_heat_lies_where_it_was_and_leaves_the_rest():
    image = np.full((64, 64, 1), 90, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[:4, 4:] = 1
    picture, plain = decode(thumbnail(image, heat, side_px=64)), decode(thumbnail(image, side_px=64))
    changed = np.abs(picture - plain).sum(axis=2)
    assert changed[8:24, 40:56].min() > 100
    assert changed[40:, :24].max() < 20


@pytest.mark.parametrize(
    "lesion",
    [
        {"kind": "box", "coordinates": [10, 20, 30, 40]},
        {"kind": "circle", "coordinates": [20, 30, 10]},
        {"kind": "polygon", "coordinates": [10, 20, 30, 20, 30, 40, 10, 40]},
    ],
)
def test_outlines_stand_around_the_lesion(lesion):
    image = np.full((60, 60, 1), 90, np.uint8)
    difference = np.abs(decode(thumbnail(image, lesions=[lesion], side_px=120)) - 90).sum(axis=2) > 60
    rows, columns = np.nonzero(difference)
    assert abs(rows.min() - 40) <= 4 and abs(rows.max() - 80) <= 4
    assert abs(columns.min() - 20) <= 4 and abs(columns.max() - 60) <= 4
    assert not difference[50:70, 32:48].any()  # the lesion itself stays free


def test_lesions_without_a_place_draw_nothing():
    image = np.full((30, 30, 1), 90, np.uint8)
    lesions = [{"kind": "unlocated", "coordinates": []}, {"kind": "mask", "coordinates": []}]
    assert thumbnail(image, lesions=lesions) == thumbnail(image)


def test_the_album_maps_lesions_along_the_preprocessing(tmp_path):
    data = make(tmp_path)
    album = Album(data.store, data.index)
    assert "image-1-0" in album
    assert "nobody" not in album
    shown, bare = (decode(album.show("image-1-0", "alt", outlined=on).src) for on in (True, False))
    rows, columns = np.nonzero(np.abs(shown - bare).sum(axis=2) > 60)
    # the circle of the first image of patient 1: centre (30, 30) of 80 x 96, shown at 224 rows
    assert abs((rows.min() + rows.max()) / 2 - 30 * 224 / 96) <= 3
    assert abs((columns.min() + columns.max()) / 2 - 30 * 187 / 80) <= 3


def test_the_scale_goes_from_clear_to_warm():
    colors = heat_scale()
    assert colors[0] == "rgb(255, 255, 255)"
    assert len(set(colors)) == len(colors)
