"""Pictures of heatmaps: colours, places, orientation and size."""

import numpy as np
import pytest

from spicula.exams.stages.visualize import MOST_ROWS, grey_picture, lay_over, visualize
from spicula.exams.types import Crop, Cropped, PatchScores


def one_image(height, width, view="L-CC", *, flipped=False, malignant=0.0, benign=0.0):
    """A breast on the left half of an image, and one patch's scores over its upper left quarter."""
    pixels = np.zeros((height, width), np.uint16)
    pixels[:, : width // 2] = np.random.default_rng(0).integers(1000, 3000, (height, width // 2))
    side = height // 2
    tops, lefts = np.array([0, height - side], np.int32), np.array([0, width - side], np.int32)
    scores = np.zeros((2, 2, 2), np.float32)
    scores[:, 0, 0] = malignant, benign
    crop = Crop((0, height, 0, width), ((0, 0), 0), (0, (0, 0)), 0)
    cropped = Cropped("an-image", view, False, crop, pixels)
    return cropped, PatchScores(height, width, side, flipped, tops, lefts, scores[0], scores[1])


def halves(picture, width):
    """The two mammograms of a picture, as signed numbers."""
    shown = picture.astype(int)
    return shown[:, :width], shown[:, -width:]


def test_malignant_is_red_where_the_patch_lies():
    cropped, scores = one_image(200, 200, malignant=0.8)
    (picture,) = visualize([cropped], [scores])
    assert picture.dtype == np.uint8
    plain, heat = (half[:200] for half in halves(picture, 200))
    assert (plain[..., 0] == plain[..., 1]).all()
    assert (plain[..., 0] == plain[..., 2]).all()
    here = heat[5:90, 5:90]
    assert (here[..., 0] > here[..., 1]).all()
    np.testing.assert_array_equal(here[..., 1], here[..., 2])
    np.testing.assert_array_equal(heat[110:], plain[110:])
    assert (heat[:, 110:] == 0).all()


def test_benign_is_green():
    cropped, scores = one_image(200, 200, benign=0.8)
    (picture,) = visualize([cropped], [scores])
    here = halves(picture, 200)[1][5:90, 5:90]
    assert (here[..., 1] > here[..., 0]).all()
    np.testing.assert_array_equal(here[..., 0], here[..., 2])


def test_higher_scores_have_more_colour():
    strength = []
    for score in (0.1, 0.4, 0.9):
        cropped, scores = one_image(200, 200, malignant=score)
        (picture,) = visualize([cropped], [scores])
        here = halves(picture, 200)[1][5:90, 5:90]
        strength.append((here[..., 0] - here[..., 1]).mean())
    assert 10 < strength[0] < strength[1] < strength[2]


def test_background_gets_no_colour():
    cropped, scores = one_image(200, 200, malignant=0.9)
    scores.malignant[:] = 0.9
    (picture,) = visualize([cropped], [scores])
    heat = halves(picture, 200)[1][:200]
    assert (heat[:, 101:] == 0).all()
    assert (heat[:, :100, 0] > heat[:, :100, 1]).all()


def test_heatmaps_are_mirrored_back_onto_the_stored_image():
    cropped, scores = one_image(200, 200, view="R-CC", flipped=True, malignant=0.9)
    turned = Cropped(cropped.name, "R-CC", False, cropped.crop, cropped.pixels[:, ::-1])
    (picture,) = visualize([turned], [scores])
    heat = halves(picture, 200)[1][:200]
    assert (heat[5:90, 110:195, 0] > heat[5:90, 110:195, 1]).all()
    assert (heat[:, :99] == 0).all()


@pytest.mark.parametrize("size", [(3000, 1000), (64, 48), (1200, 40)])
def test_pictures_are_of_limited_height(size):
    cropped, scores = one_image(*size)
    (picture,) = visualize([cropped], [scores])
    rows = min(size[0], MOST_ROWS)
    assert rows < len(picture) < rows + 40
    assert picture.shape[1] > 2 * round(size[1] * rows / size[0])
    assert picture[rows:].max() > 0  # the strip that says what it is


def test_contrast_is_that_of_the_breast():
    pixels = np.zeros((100, 100), np.uint16)
    pixels[:, :30] = np.linspace(1500, 1700, 3000).reshape(100, 30)
    picture = grey_picture(pixels)
    assert picture[0, 99].tolist() == [0, 0, 0]
    assert picture[2, 0, 0] < 20
    assert picture[98, 0, 0] > 235


def test_an_image_without_tissue_is_black():
    assert (grey_picture(np.zeros((50, 40), np.uint16)) == 0).all()


def test_both_classes_at_once_mix():
    picture = np.full((10, 10, 3), 100, np.uint8)
    heat = np.full((2, 20, 20), 0.5, np.float32)
    red, green, blue = lay_over(picture, heat, np.ones((20, 20), bool))[5, 5].tolist()
    assert red == green > 100 > blue
