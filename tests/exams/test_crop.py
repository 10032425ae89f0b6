"""Stage 1 against the published procedure: golden values of a real exam, and its steps taken literally."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from exam_pictures import SMALL, golden, literal_crop, phantom, phantom_exam, real_exam
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages.crop import crop, find_breast, measure
from spicula.exams.stages.morphology import dilate, erode, largest_component
from spicula.exams.types import VIEWS, Image, RefusedExamError

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.sampled_from([1, 1, 1, 0]))


def test_the_real_exam_has_the_golden_geometry_and_its_pixels_are_not_touched(test_data):
    wanted, images = golden(test_data)["images"], real_exam(test_data)
    crops = crop(images, ScreeningSettings())
    assert [one.view for one in crops] == list(VIEWS)
    for image, one in zip(images, crops, strict=True):
        found = json.loads(json.dumps(asdict(one.crop)))
        assert found == {name: wanted[image.name][name] for name in found}
        np.testing.assert_array_equal(one.pixels, image.pixels)
        assert not one.mirrored


def test_what_stays_in_the_real_exam_beside_the_breast_is_reported(test_data):
    notes = {one.view: one.notes for one in crop(real_exam(test_data), ScreeningSettings())}
    places = {
        "L-CC": "of 1085 pixels, the largest in rows 0 to 34, columns 770 to 800",
        "L-MLO": "of 3038 pixels, the largest in rows 380 to 477, columns 950 to 980",
        "R-MLO": "of 2940 pixels, the largest in rows 380 to 477, columns 0 to 29",
    }
    why = "left in the crop, for they touch the border of the image and may go on outside"
    assert notes == {
        view: (f"objects beside the breast (1, {places[view]}): {why}",) if view in places else () for view in VIEWS
    }


def test_the_mirrored_real_exam_has_the_mirrored_geometry(test_data):
    plain = crop(real_exam(test_data), ScreeningSettings())
    for image, one, other in zip(
        mirrored := real_exam(test_data, is_mirrored=True), crop(mirrored, ScreeningSettings()), plain, strict=True
    ):
        assert one.mirrored
        np.testing.assert_array_equal(one.pixels, image.pixels)
        top, bottom, left, right = other.crop.window_location
        width = image.pixels.shape[1]
        assert one.crop.window_location == (top, bottom, width - right, width - left)
        assert one.crop.distance_from_starting_side == other.crop.distance_from_starting_side
        # Distances are counted to a column's left edge from the left side, and from its left edge to the right side.
        step = 1 if image.view.startswith("L") else -1
        rows, tip = other.crop.rightmost_points
        assert one.crop.rightmost_points == (rows, tip + step)
        row, (first, last) = other.crop.bottommost_points
        assert one.crop.bottommost_points == (row, (first + step, last + step))


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_the_real_exam_follows_the_published_steps(test_data, is_mirrored):
    image = real_exam(test_data, is_mirrored)[0]
    found = crop([image], ScreeningSettings())[0].crop
    assert found == literal_crop(image.pixels, is_mirrored, 100, 50)


@given(MASKS, st.integers(0, 12))
def test_many_erosions_at_once_equal_one_after_the_other(mask, steps):
    wanted = ndimage.binary_erosion(mask, iterations=steps) if steps else mask
    np.testing.assert_array_equal(erode(mask, steps), wanted)


@given(MASKS, st.integers(0, 12))
def test_many_dilations_at_once_equal_one_after_the_other(mask, steps):
    wanted = ndimage.binary_dilation(1 - mask, iterations=steps) if steps else 1 - mask
    np.testing.assert_array_equal(dilate(1 - mask, steps), wanted)


@pytest.mark.parametrize("steps", [100, 253, 254, 255, 300])
def test_erosions_and_dilations_beyond_8_bits_are_equal_too(steps):
    mask = np.ones((640, 700), np.uint8)
    mask[150, 40], mask[630, 600] = 0, 0
    np.testing.assert_array_equal(erode(mask, steps), ndimage.binary_erosion(mask, iterations=steps))
    seeds = 1 - mask
    np.testing.assert_array_equal(dilate(seeds, steps), ndimage.binary_dilation(seeds, iterations=steps))


@given(MASKS)
def test_the_largest_component_is_the_first_of_the_largest(mask):
    labels, count = ndimage.label(mask)
    found = largest_component(mask)
    if not count:
        assert found is None
    else:
        np.testing.assert_array_equal(found, labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))


def test_of_equal_components_the_first_from_the_top_left_is_taken():
    mask = np.zeros((40, 40), np.uint8)
    mask[20:30, 2:12], mask[3:13, 25:35], mask[15:25, 25:35] = 1, 1, 1
    found = largest_component(mask)
    assert found is not None
    assert np.argwhere(found)[0].tolist() == [3, 25]
    assert found.sum() == 100


@settings(max_examples=300)
@given(
    arrays(np.uint16, st.tuples(st.integers(8, 30), st.integers(8, 30)), elements=st.sampled_from([9, 9, 9, 9, 9, 0])),
    st.integers(0, 3),
    st.integers(0, 6),
    st.booleans(),
)
def test_any_image_follows_the_published_steps(pixels, erosions, buffer, left_facing):
    breast = find_breast(pixels, erosions)
    found = None if breast is None else measure(breast, left_facing, buffer)
    assert found == literal_crop(pixels, left_facing, erosions, buffer)


def test_small_images_follow_the_published_steps_with_small_settings():
    for one in crop(phantom_exam(), SMALL):
        pixels = phantom(one.view)
        assert one.crop == literal_crop(pixels, one.view.startswith("R"), 24, 12)
        top, bottom, left, right = one.crop.window_location
        np.testing.assert_array_equal(one.pixels, pixels[top:bottom, left:right])
        assert one.notes == ()


def test_several_images_of_a_view_keep_their_order():
    images = [Image(name, "L-CC", phantom("L-CC"), False) for name in ("b", "a", "c")]
    assert [one.name for one in crop(images, SMALL)] == ["b", "a", "c"]


def test_a_crop_does_not_hold_on_to_its_image():
    (one,) = crop([Image("a", "L-CC", phantom("L-CC"), False)], SMALL)
    assert one.pixels.base is None
    assert one.pixels.flags.c_contiguous


def test_an_image_without_a_breast_is_refused():
    black = np.zeros((640, 520), np.uint16)
    label = black.copy()
    label[20:80, 30:90] = 4095
    for pixels, reason in ((black, "wider than 48 pixels"), (label, "covers 0.7 % of it")):
        with pytest.raises(RefusedExamError, match=f"^a \\(L-CC\\): no breast: .*{reason}.*full resolution"):
            crop([Image("a", "L-CC", pixels, False)], SMALL)


def test_an_image_too_small_for_the_settings_is_refused():
    with pytest.raises(RefusedExamError, match=r"wider than 200 pixels.*full resolution"):
        crop([Image("a", "L-CC", phantom("L-CC", (160, 130)), False)], ScreeningSettings())
    low = np.zeros((200, 150), np.uint16)
    low[:12, :80] = 1000
    with pytest.raises(RefusedExamError, match="lower than a third of its crop"):
        crop([Image("a", "L-MLO", low, False)], ScreeningSettings(erosions=2, buffer=100))
