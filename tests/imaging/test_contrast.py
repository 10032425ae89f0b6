import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spicula.imaging import contrast


def test_grey_is_luma_and_colour_repeats_grey():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_array_equal(contrast.to_grey(image), [[76, 150, 29, 255]])
    grey = contrast.to_grey(image)
    assert contrast.to_grey(grey) is grey
    np.testing.assert_array_equal(contrast.to_rgb(grey), np.dstack([grey] * 3))
    assert contrast.to_rgb(image) is image


def test_rescale_stretches_and_clips():
    values = np.array([0, 100, 150, 200, 1000], np.uint16)
    result = contrast.rescale(values, 100, 200)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(contrast.rescale(values, 100, 100), 0)


def test_value_range_counts_the_mask_only():
    image = np.array([[0, 10], [20, 1000]], np.float32)
    assert contrast.value_range(image, (0, 100), None) == (0, 1000)
    assert contrast.value_range(image, (0, 100), image < 500) == (0, 20)
    assert contrast.value_range(image, (50, 100), np.zeros((2, 2), bool)) == (15, 1000)


@given(hnp.arrays(np.uint8, (5, 4)), st.sampled_from([8, 16]))
def test_the_full_range_survives_the_way_to_floating_point_and_back(image, bits):
    result = contrast.quantise(contrast.rescale(image, 0, 255), bits)
    np.testing.assert_array_equal(result, image if bits == 8 else image.astype(np.uint16) * 257)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_normalise_goes_from_zero_to_one(dtype):
    top = np.iinfo(dtype).max
    result = contrast.normalise(np.array([0, top // 2, top], dtype))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [0, (top // 2) / top, 1], atol=1e-7)


def test_clahe_raises_local_contrast_within_limits(noise):
    flat = noise(256, 256, 60) + np.uint8(90)
    mild, strong = contrast.clahe(flat, 1.5), contrast.clahe(flat, 6)
    assert flat.std() < mild.std() < strong.std()
    assert strong.dtype == np.uint8


def test_both_depths_of_clahe_agree(noise):
    image = noise(512, 384, 255)
    # OpenCV hands what it clipped out in whole pixels, the darkest bins first: a few grey levels with low limits.
    for limit, mean, largest in ((2.0, 2.5, 8), (40.0, 0.5, 3)):
        eight = contrast.clahe(image, limit).astype(float)
        sixteen = contrast.clahe(image.astype(np.uint16) * 257, limit) / 257
        assert np.abs(eight - sixteen).mean() < mean
        assert np.abs(eight - sixteen).max() < largest


def test_sixteen_bit_clahe_keeps_fine_steps(noise):
    image = noise(256, 256, 65535)
    assert len(np.unique(contrast.clahe(image, 2.0))) > 10_000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_clahe_of_colour_changes_the_lightness_and_not_the_hue(noise, dtype):
    grey = noise(128, 128, 80).astype(np.float32) + 60
    image = np.rint(np.dstack([grey, 0.9 * grey, 0.8 * grey]) / 255 * np.iinfo(dtype).max).astype(dtype)
    result = contrast.clahe(image, 2.0)
    assert (result.dtype, result.shape) == (image.dtype, image.shape)
    before, after = (cv2.cvtColor(contrast.normalise(each), cv2.COLOR_RGB2LAB) for each in (image, result))
    assert after[..., 0].std() > 1.3 * before[..., 0].std()
    unclipped = (result > 0).all(axis=-1) & (result < np.iinfo(dtype).max).all(axis=-1)
    assert unclipped.mean() > 0.8
    np.testing.assert_allclose(after[unclipped][:, 1:], before[unclipped][:, 1:], atol=1.5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (9, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_clahe_takes_images_smaller_than_its_tiles(shape, dtype):
    assert contrast.clahe(np.full(shape, 7, dtype), 2.0).shape == shape
