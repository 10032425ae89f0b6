"""Patches: where they lie, what stands in them, and that blank ones are taken together."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.exams.stages.patches import Patches, standardise, starts


def published_starts(length, patch, stride):
    """The description of the published layout, sentence by sentence, with the module's own stream of random numbers."""
    number = (length - patch) // stride + 1
    left = (length - patch) % stride
    if left == 0:
        strides = [stride] * (number - 1)
    else:
        overlap = stride - left
        patches = number + 1
        steps = patches - 1
        base = stride - overlap // steps
        shorter = random.sample(range(steps), overlap % steps)
        strides = [base - 1 if step in shorter else base for step in range(steps)]
    places = [0]
    for one in strides:
        places.append(places[-1] + one)
    return places


@given(st.lists(st.tuples(st.integers(256, 4000), st.integers(256, 3000)), min_size=1, max_size=6))
def test_layouts_of_an_exam_are_the_published_ones(sizes):
    random.seed(0)
    draws = random.Random(0)
    for height, width in sizes:
        assert starts(height, 256, 70, draws) == published_starts(height, 256, 70)
        assert starts(width, 256, 70, draws) == published_starts(width, 256, 70)


@given(st.integers(1, 400), st.integers(1, 64), st.data())
def test_patches_cover_all_of_an_axis_and_nothing_beyond(beyond, patch, data):
    stride = data.draw(st.integers(1, patch))
    length = patch + beyond
    places = starts(length, patch, stride, random.Random(1))
    assert places[0] == 0
    assert places[-1] == length - patch
    steps = np.diff(places)
    assert (steps > 0).all()
    assert (steps <= stride).all()
    assert steps.max() - steps.min() <= 1


def test_an_axis_of_exactly_one_patch_has_one():
    assert starts(256, 256, 70, random.Random(0)) == [0]


def test_standardised_values_have_mean_0_and_deviation_1():
    image = np.random.default_rng(0).integers(0, 4096, (300, 200)).astype(np.uint16)
    values = standardise(image)
    assert values.dtype == np.float32
    assert values.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert values.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_an_image_that_is_the_same_everywhere_becomes_0():
    assert (standardise(np.full((40, 40), 700, np.uint16)) == 0).all()


@given(st.integers(32, 90), st.integers(32, 90), st.integers(0, 90), st.integers(0, 90), st.integers(0, 60))
def test_each_place_has_the_patch_that_stands_there(height, width, top, left, size):
    image = np.zeros((height, width), np.uint16)
    tissue = image[top : top + size, left : left + size]
    tissue[:] = np.random.default_rng(size).integers(0, 50, tissue.shape)
    patches = Patches.of(image, 32, 9, random.Random(0))
    cuts = list(patches.cut())
    values = standardise(image)
    assert len(cuts) == patches.count
    for row, y in enumerate(patches.tops):
        for column, x in enumerate(patches.lefts):
            cut = cuts[patches.slots[row, column]]
            assert (cut.shape, cut.dtype, cut.flags.c_contiguous) == ((1, 1, 32, 32), np.float32, True)
            np.testing.assert_array_equal(cut[0, 0], values[y : y + 32, x : x + 32])


def test_blank_patches_are_cut_once():
    image = np.zeros((300, 300), np.uint16)
    image[:40, :40] = 5
    patches = Patches.of(image, 32, 16, random.Random(0))
    blank = sum(not image[y : y + 32, x : x + 32].any() for y in patches.tops for x in patches.lefts)
    assert blank > 100
    assert patches.count == patches.slots.size - blank + 1


def test_an_image_without_any_tissue_is_one_patch():
    patches = Patches.of(np.zeros((100, 100), np.uint16), 32, 9, random.Random(0))
    assert patches.count == 1
    assert (patches.slots == 0).all()
