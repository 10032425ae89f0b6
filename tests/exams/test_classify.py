"""The classifier: which windows its networks get, how their answers become scores, and what is refused."""

import random
import tracemalloc

import numpy as np
import pytest
from published_windows import published_windows

from spicula.bundle.screening import ScreeningSettings
from spicula.exams.stages.classify import classify, classify_single
from spicula.exams.stages.heatmaps import oriented_maps
from spicula.exams.stages.patches import starts
from spicula.exams.types import VIEWS, Crop, Cropped, PatchScores, RefusedExamError, Score

SIZES = {"CC": (64, 48), "MLO": (72, 44)}
SETTINGS = ScreeningSettings(
    cc=SIZES["CC"], mlo=SIZES["MLO"], erosions=2, buffer=2, patch=32, stride=9, shift=4, resize=4, windows=3
)
CENTER = (35, 20)


def image(view, seed=0, mirrored=False, size=(80, 60)):
    pixels = np.random.default_rng((seed, VIEWS.index(view))).integers(0, 4096, size).astype(np.uint16)
    height, width = pixels.shape
    crop = Crop((0, height, 0, width), ((0, 0), 0), (0, (0, 0)), 0)
    return Cropped(f"{view}-{seed}", view, mirrored, crop, pixels)


def heat(cropped, seed=0):
    height, width = cropped.pixels.shape
    tops, lefts = (np.array(starts(length, 32, 9, random.Random(0)), np.int32) for length in (height, width))
    numbers = np.random.default_rng((seed, VIEWS.index(cropped.view))).random((2, len(tops), len(lefts)), np.float32)
    flipped = cropped.view.startswith("R") != cropped.mirrored
    return PatchScores(height, width, 32, flipped, tops, lefts, numbers[0] / 2, numbers[1] / 2)


EXAM = [image(view) for view in VIEWS]


class Network:
    """Keeps what it is shown, and answers with numbers that tell angle, side, class and window apart."""

    def __init__(self, base):
        self.base, self.shown = base, []

    def __call__(self, inputs):
        for number, (left, right) in enumerate(inputs):
            self.shown.append((left.copy(), right.copy()))
            yield np.array([[0.1, 0.2, 0.3, 0.4]], np.float32) + self.base + number / 100


def networks():
    return {"cc": Network(0.0), "mlo": Network(0.2)}


def literal(crops, scores=None):
    """The windows that the description asks for, view by view."""
    images = {view: [] for view in VIEWS}
    for number, one in enumerate(crops):
        flipped = one.view.startswith("R") != one.mirrored
        channels = [one.pixels[:, ::-1] if flipped else one.pixels]
        if scores is not None:
            malignant, benign = oriented_maps(scores[number])
            channels += [benign, malignant]
        images[one.view].append(channels)
    centers = {view: [CENTER] * len(images[view]) for view in VIEWS}
    return list(published_windows(images, centers, 3, SIZES, 4, 4))


def check_windows(made, expected):
    for angle, network in made.items():
        assert len(network.shown) == len(expected)
        for pair, exam in zip(network.shown, expected, strict=True):
            for side, window in zip("LR", pair, strict=True):
                np.testing.assert_allclose(window[0], exam[f"{side}-{angle.upper()}"], rtol=0, atol=1e-4)


def test_a_score_is_the_mean_over_angles_and_windows():
    found = classify(EXAM, [CENTER] * 4, None, networks(), SETTINGS)
    expected = [("L", "benign", 0.21), ("R", "benign", 0.31), ("L", "malignant", 0.41), ("R", "malignant", 0.51)]
    assert [(one.side, one.target) for one in found] == [row[:2] for row in expected]
    assert [one.score for one in found] == pytest.approx([row[2] for row in expected], abs=1e-6)


def test_networks_see_the_published_windows():
    made = networks()
    classify(EXAM, [CENTER] * 4, None, made, SETTINGS)
    check_windows(made, literal(EXAM))
    assert made["cc"].shown[0][0].shape == (1, 1, *SIZES["CC"])


def test_networks_that_read_heatmaps_see_image_benign_malignant():
    made, scores = networks(), [heat(one) for one in EXAM]
    classify(EXAM, [CENTER] * 4, scores, made, SETTINGS)
    check_windows(made, literal(EXAM, scores))
    assert made["mlo"].shown[0][0].shape == (1, 3, *SIZES["MLO"])


def test_of_several_images_of_a_view_one_is_drawn_for_each_window():
    exam = [EXAM[0], EXAM[1], image("R-CC", 1), image("R-CC", 2), EXAM[2], image("L-MLO", 1), EXAM[3]]
    made, scores = networks(), [heat(one, seed) for seed, one in enumerate(exam)]
    classify(exam, [CENTER] * 7, scores, made, SETTINGS)
    check_windows(made, literal(exam, scores))


def test_mirrored_images_get_the_same_scores():
    made, mirrored = networks(), networks()
    turned = [Cropped(one.name, one.view, True, one.crop, one.pixels[:, ::-1]) for one in EXAM]
    scores = [heat(one) for one in EXAM]
    turned_scores = [PatchScores(**{**vars(one), "flipped": not one.flipped}) for one in scores]
    classify(EXAM, [CENTER] * 4, scores, made, SETTINGS)
    classify(turned, [CENTER] * 4, turned_scores, mirrored, SETTINGS)
    for angle, network in made.items():
        np.testing.assert_array_equal(network.shown, mirrored[angle].shown)


def test_a_missing_view_is_refused_by_name():
    with pytest.raises(RefusedExamError, match=r"no image of R-CC and L-MLO: .*single-image"):
        classify([EXAM[0], EXAM[3]], [CENTER] * 2, None, networks(), SETTINGS)


def test_few_windows_are_in_memory_at_a_time():
    settings = SETTINGS.model_copy(update={"windows": 100, "cc": (640, 480), "mlo": (640, 480)})

    def network(inputs):
        return (np.full((1, 4), left.mean() + right.mean()) for left, right in inputs)

    tracemalloc.start()
    try:
        classify(EXAM, [CENTER] * 4, None, {"cc": network, "mlo": network}, settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 640 * 480 * 4  # 400 windows


def test_single_images_show_themselves_on_both_sides_and_count_on_their_own():
    made = networks()
    found = classify_single([EXAM[1], EXAM[2]], [CENTER] * 2, None, made, SETTINGS)
    expected = [
        Score("R-CC", "benign", 0.21),
        Score("R-CC", "malignant", 0.41),
        Score("L-MLO", "benign", 0.31),
        Score("L-MLO", "malignant", 0.51),
    ]
    assert [(one.side, one.target) for one in found] == [(one.side, one.target) for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-6)
    for network in made.values():
        assert all((left == right).all() for left, right in network.shown)


def test_scores_of_a_single_image_do_not_depend_on_the_others():
    def network(inputs):
        return (np.array([[left[0, 0, 7, 7], right[0, 0, 9, 9], left[0, 0, 3, 3], 0]]) for left, right in inputs)

    nets = {"cc": network, "mlo": network}
    together = classify_single(EXAM, [CENTER] * 4, None, nets, SETTINGS)
    alone = [classify_single([one], [CENTER], None, nets, SETTINGS) for one in EXAM]
    assert together == [score for scores in alone for score in scores]
    assert len(together) == 8
