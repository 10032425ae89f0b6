"""Heatmaps: which patches the network sees, how its answers become maps, and how they are kept."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.bundle.screening import ScreeningSettings
from spicula.errors import SpiculaError
from spicula.exams.stages.heatmaps import decode, encode, heatmaps, maps, oriented_maps
from spicula.exams.stages.patches import standardise, starts
from spicula.exams.types import Crop, Cropped, PatchScores, RefusedExamError

SETTINGS = ScreeningSettings(cc=(64, 48), mlo=(72, 44), patch=32, stride=9, shift=4, resize=4)


def cropped(view, pixels, mirrored=False):
    height, width = pixels.shape
    return Cropped(f"an-{view}", view, mirrored, Crop((0, height, 0, width), ((0, 0), 0), (0, (0, 0)), 0), pixels)


def tissue(seed, height, width):
    return np.random.default_rng(seed).integers(1, 4096, (height, width)).astype(np.uint16)


def score(patch):
    """A stand-in for the patch classifier: malignant is told by the first pixel, benign by the last."""
    return np.array([[patch[0, 0, 0, 0], patch[0, 0, -1, -1], 0, 0]], np.float32) / 8 + 0.5


def network(inputs):
    return (score(patch) for (patch,) in inputs)


def test_every_patch_is_classified_where_it_lies():
    exam = [cropped("L-CC", tissue(0, 70, 83)), cropped("R-CC", tissue(1, 83, 70)), cropped("L-MLO", tissue(2, 97, 75))]
    found = heatmaps(exam, network, SETTINGS)
    draws = random.Random(0)
    for image, one in zip(exam, found, strict=True):
        height, width = image.pixels.shape
        assert (one.height, one.width, one.patch) == (height, width, 32)
        assert one.flipped == (image.view == "R-CC")
        assert one.tops.tolist() == starts(height, 32, 9, draws)
        assert one.lefts.tolist() == starts(width, 32, 9, draws)
        seen = standardise(image.pixels[:, ::-1] if one.flipped else image.pixels)
        for row, y in enumerate(one.tops):
            for column, x in enumerate(one.lefts):
                assert one.malignant[row, column] == seen[y, x] / 8 + np.float32(0.5)
                assert one.benign[row, column] == seen[y + 31, x + 31] / 8 + np.float32(0.5)


def test_blank_patches_are_classified_once_and_all_get_the_answer():
    pixels = np.zeros((120, 120), np.uint16)
    pixels[:50, :50] = tissue(0, 50, 50)
    asked = []

    def counting(inputs):
        for (patch,) in inputs:
            asked.append(patch.copy())
            yield score(patch)

    (found,) = heatmaps([cropped("L-CC", pixels)], counting, SETTINGS)
    blank = np.array([[not pixels[y : y + 32, x : x + 32].any() for x in found.lefts] for y in found.tops])
    assert blank.any()
    assert len(asked) == (~blank).sum() + 1
    assert len({each.tobytes() for each in asked}) == len(asked)
    (plain,) = (each for each in asked if each.min() == each.max())
    assert (found.malignant[blank] == score(plain)[0, 0]).all()
    assert (found.benign[blank] == score(plain)[0, 1]).all()


def test_few_patches_are_in_memory_at_a_time():
    pixels = tissue(0, 700, 700)
    settings = SETTINGS.model_copy(update={"patch": 256, "stride": 16})
    patches = len(starts(700, 256, 16, random.Random(0))) ** 2
    assert patches * 256 * 256 * 4 > 200e6
    tracemalloc.start()
    try:
        heatmaps([cropped("L-CC", pixels)], network, settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6


@pytest.mark.parametrize("size", [(31, 200), (200, 31)])
def test_an_image_smaller_than_a_patch_is_refused(size):
    with pytest.raises(RefusedExamError, match=rf"an-R-CC \(R-CC\): .* {size[0]} x {size[1]} .* 32 x 32"):
        heatmaps([cropped("R-CC", tissue(0, *size))], network, SETTINGS)


def literal_maps(scores):
    """The published way: every patch's probability is added over the pixels that it covers, then divided."""
    total = np.zeros((2, scores.height, scores.width))
    count = np.zeros((scores.height, scores.width))
    for column, x in enumerate(scores.lefts):
        for row, y in enumerate(scores.tops):
            total[:, y : y + scores.patch, x : x + scores.patch] += np.array(
                [scores.malignant[row, column], scores.benign[row, column]]
            )[:, None, None]
            count[y : y + scores.patch, x : x + scores.patch] += 1
    return total / count


@st.composite
def patch_scores(draw):
    patch = draw(st.integers(1, 40))
    height, width = draw(st.integers(patch, 130)), draw(st.integers(patch, 130))
    stride = draw(st.integers(1, patch))
    draws = random.Random(draw(st.integers(0, 9)))
    tops, lefts = (np.array(starts(length, patch, stride, draws), np.int32) for length in (height, width))
    numbers = np.random.default_rng(draw(st.integers(0, 9))).random((2, len(tops), len(lefts)), np.float32)
    return PatchScores(height, width, patch, draw(st.booleans()), tops, lefts, numbers[0], numbers[1])


@given(patch_scores())
def test_maps_are_the_means_over_covering_patches(scores):
    found = maps(scores)
    assert found.dtype == np.float32
    expected = literal_maps(scores)
    np.testing.assert_allclose(oriented_maps(scores), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found, expected[:, :, ::-1] if scores.flipped else expected, rtol=0, atol=1e-6)


@given(patch_scores())
def test_scores_are_kept_as_they_are(scores):
    again = decode(encode(scores))
    assert list(vars(again)) == list(vars(scores))
    for name, value in vars(scores).items():
        np.testing.assert_array_equal(vars(again)[name], value)
        assert np.asarray(vars(again)[name]).dtype == np.asarray(value).dtype
    assert encode(again) == encode(scores)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_damaged_scores_are_refused(keep):
    numbers = np.zeros((1, 1), np.float32)
    place = np.zeros(1, np.int32)
    data = encode(PatchScores(40, 40, 40, False, place, place, numbers, numbers))
    with pytest.raises(SpiculaError, match="damaged"):
        decode(data[:keep])
