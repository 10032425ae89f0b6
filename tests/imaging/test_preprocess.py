import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from spicula.imaging import preprocess as module
from spicula.imaging.geometry import map_lesions
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.readers import Pixels

MAMMOGRAPHY = Preprocess(size=(200, 160), channels=1, crop="breast", orient=True, keep_aspect=True)


def test_the_defaults_leave_the_colours_of_a_patch_alone():
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    prepared = Preprocess().apply(image)
    np.testing.assert_array_equal(prepared.array, image)
    assert not prepared.geometry.flipped


def test_a_pale_patch_stays_pale():
    image = np.random.default_rng(0).integers(200, 220, (50, 50, 3), np.uint8)
    array = Preprocess().apply(image).array
    assert array.shape == (128, 128, 3)
    assert array.min() >= 200
    assert array.max() <= 219


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(70, 50), (70, 50, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_form_of_image_becomes_the_one_asked_for(channels, bits, shape, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    settings = Preprocess(
        size=(40, 48), channels=channels, bits=bits, contrast="percentile", clahe=2.0, keep_aspect=True, crop="breast"
    )
    array = settings.apply(image).array
    assert array.shape == (40, 48, channels)
    assert array.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert array.flags.c_contiguous
    assert array.max() > 0.8 * np.iinfo(array.dtype).max


def test_full_contrast_goes_by_the_stored_bits():
    image = np.full((10, 10), 1023, np.uint16)
    settings = Preprocess(size=(10, 10), channels=1)
    assert (settings.apply(Pixels(image, 10)).array == 255).all()
    assert (settings.apply(Pixels(image, 12)).array == 64).all()
    assert (settings.apply(image).array == 4).all()


def test_percentiles_are_those_of_the_breast(mammogram):
    image = mammogram(label=True)
    array = MAMMOGRAPHY.model_copy(update={"contrast": "percentile", "percentiles": (0.0, 100.0)}).apply(image).array
    assert array[100, :40].max() > 250  # tissue is white although the label is brighter
    assert MAMMOGRAPHY.apply(image).array[100, :40].max() < 230


def test_black_background_takes_the_label_away(mammogram):
    image = mammogram(label=True)
    image[30:60, 150:180] = 255  # within the crop, beside the breast
    kept = MAMMOGRAPHY.apply(image).array
    blackened = MAMMOGRAPHY.model_copy(update={"background": "black"}).apply(image).array
    assert kept[:40, 60:].max() > 250
    assert blackened[:30, 85:].max() == 0
    assert (blackened[60:140, :50] == kept[60:140, :50]).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_all_breasts_enter_from_the_left(mammogram, side):
    prepared = MAMMOGRAPHY.apply(mammogram(side=side))
    assert prepared.geometry.flipped == (side == "right")
    difference = prepared.array.astype(int) - MAMMOGRAPHY.apply(mammogram(side="left")).array
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lesion_follows_crop_mirror_and_resize(mammogram, side, keep_aspect):
    image = mammogram(side=side, label=False)
    x0, y0, x1, y1 = (40, 180, 60, 210) if side == "left" else (260, 180, 280, 210)
    image[y0:y1, x0:x1] = 255
    settings = MAMMOGRAPHY.model_copy(update={"keep_aspect": keep_aspect})
    prepared = settings.apply(image)
    lesion = {"kind": "box", "coordinates": [x0, y0, x1, y1]}
    (mapped,) = map_lesions([lesion], prepared.geometry)
    assert mapped["inside"] == "whole"
    rows, columns = np.nonzero(prepared.array[..., 0] > 245)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, mapped["coordinates"], atol=1.0)


def test_aspect_is_kept_by_padding_with_black():
    image = np.full((100, 50), 255, np.uint8)
    prepared = Preprocess(size=(80, 80), channels=1, keep_aspect=True).apply(image)
    assert (prepared.array[:, 20:60] == 255).all()
    assert prepared.array[:, :20].max() == prepared.array[:, 60:].max() == 0
    assert prepared.geometry.window == (20, 0, 60, 80)


def test_where_no_breast_is_found_the_whole_image_is_used():
    prepared = MAMMOGRAPHY.apply(np.full((60, 50), 9, np.uint8), laterality="R")
    assert (prepared.geometry.crop_height, prepared.geometry.crop_width) == (60, 50)
    assert not prepared.geometry.flipped


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3, 2, 3)])
def test_slivers_are_prepared_like_anything_else(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    settings = MAMMOGRAPHY.model_copy(update={"contrast": "percentile", "clahe": 2.0, "background": "black"})
    assert settings.apply(image).array.shape == (200, 160, 1)


def test_the_input_is_left_alone(mammogram):
    image = mammogram()
    before = image.copy()
    MAMMOGRAPHY.model_copy(update={"background": "black", "clahe": 2.0}).apply(image)
    np.testing.assert_array_equal(image, before)


def test_the_digest_is_the_same_everywhere_and_for_any_order_of_fields():
    settings = Preprocess(size=(64, 32), clahe=2, crop="breast")
    same = Preprocess.model_validate_json(settings.model_dump_json())
    assert same == settings
    assert same.digest() == settings.digest()
    turned = Preprocess.model_validate({"crop": "breast", "clahe": 2.0, "size": [64, 32]})
    assert turned.digest() == settings.digest()
    code = "from spicula.imaging.preprocess import *; print(Preprocess(crop='breast', size=(64, 32), clahe=2).digest())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == settings.digest()


def test_the_digest_tells_settings_and_algorithms_apart(monkeypatch):
    changes = [
        {}, {"size": (128, 64)}, {"size": (64, 128)}, {"channels": 1}, {"bits": 16}, {"crop": "breast"},
        {"orient": True}, {"background": "black"}, {"keep_aspect": True}, {"contrast": "percentile"},
        {"percentiles": (1, 99)}, {"clahe": 2.0},
    ]  # fmt: skip
    digests = {Preprocess(**change).digest() for change in changes}
    assert len(digests) == len(changes)
    monkeypatch.setattr(module, "ALGORITHM", module.ALGORITHM + 1)
    assert Preprocess().digest() not in digests


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": (0, 128)}, "size.0"),
        ({"size": (128, 10**6)}, "size.1"),
        ({"size": (128,)}, "size"),
        ({"channels": 2}, "channels"),
        ({"bits": 12}, "bits"),
        ({"crop": "lung"}, "crop"),
        ({"percentiles": (99, 1)}, "99.0 and 1.0"),
        ({"percentiles": (-1, 99)}, "percentiles.0"),
        ({"clahe": 0}, "clahe"),
        ({"clahe": float("nan")}, "clahe"),
        ({"colour": True}, "colour"),
    ],
)
def test_impossible_values_are_named(change, named):
    with pytest.raises(ValidationError) as error:
        Preprocess(**change)
    (problem,) = error.value.errors()
    assert named in ".".join(map(str, problem["loc"])) + problem["msg"]


def test_it_cannot_be_changed():
    with pytest.raises(ValidationError):
        Preprocess().size = (1, 1)
