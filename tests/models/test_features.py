import subprocess
import sys

import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern

from spicula.errors import UsageError
from spicula.models import features
from spicula.models.settings import FeatureSettings

SETTINGS = FeatureSettings()


def images(count=6, size=(40, 48), channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (count, *size, channels), dtype=dtype, endpoint=True)


def named(batch, settings=SETTINGS):
    values = features.extract(batch, settings)
    return [dict(zip(features.names(settings, batch.shape[1:3], batch.shape[3]), row, strict=True)) for row in values]


@pytest.mark.parametrize("size", [(40, 48), (50, 50), (63, 33)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cells", [2, 8])
def test_every_feature_has_one_name(size, channels, cells):
    settings = FeatureSettings(hog_cells=cells)
    names = features.names(settings, size, channels)
    values = features.extract(images(size=size, channels=channels), settings)
    assert values.shape == (6, len(names))
    assert len(set(names)) == len(names)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_an_image_has_the_same_features_alone_and_in_a_batch_whatever_the_threads():
    batch = images()
    together = features.extract(batch, SETTINGS)
    alone = np.concatenate([features.extract(batch[n : n + 1], SETTINGS, jobs=1) for n in range(len(batch))])
    assert np.array_equal(together, alone)


def test_no_images_have_no_rows():
    assert features.extract(images(count=0), SETTINGS).shape == (0, len(features.names(SETTINGS, (40, 48), 3)))


def test_intensities_are_those_of_the_definition():
    grey = np.zeros((1, 16, 16, 1), np.uint8)
    grey[0, :4] = 255  # a quarter white: the moments of a Bernoulli variable with p = 1/4
    found = named(grey)[0]
    assert found["mean"] == pytest.approx(0.25)
    assert found["std"] == pytest.approx(np.sqrt(3) / 4)
    assert found["skew"] == pytest.approx(0.5 / np.sqrt(3 / 16), rel=1e-5)
    assert found["kurtosis"] == pytest.approx((1 - 6 * 3 / 16) / (3 / 16), rel=1e-5)
    assert found["entropy"] == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3), rel=1e-5)
    assert (found["percentile-50"], found["percentile-99"]) == (0, 1)


def test_a_constant_image_has_no_spread_and_nothing_undefined():
    found = named(np.full((1, 32, 32, 3), 90, np.uint8))[0]
    assert np.isfinite(list(found.values())).all()
    assert found["std"] == found["skew"] == found["kurtosis"] == found["entropy"] == found["red-std"] == 0


def test_textures_are_those_of_scikit_image():
    grey = images(count=1, size=(32, 32), channels=1)
    plain = grey[0, :, :, 0]
    found = named(grey)[0]
    codes = local_binary_pattern(plain.astype(np.uint16), 8, 1.0, method="uniform")
    assert found["lbp-1-3"] == pytest.approx((codes == 3).mean())
    levels = (plain / 255 * 32).clip(0, 31).astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    contrast = graycoprops(graycomatrix(levels, [2], angles, 32, symmetric=True, normed=True), "contrast")
    assert found["glcm-contrast-2-mean"] == pytest.approx(contrast.mean(), rel=1e-6)
    assert found["glcm-contrast-2-range"] == pytest.approx(np.ptp(contrast), rel=1e-5)
    gradients = hog(plain / 255, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    assert [found[f"hog-{n}"] for n in range(36)] == pytest.approx(gradients, abs=1e-6)


def test_colours_tell_a_red_image_from_a_blue_one_and_stains_from_each_other():
    red, blue = np.zeros((2, 1, 16, 16, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 200
    assert named(red)[0]["red-mean"] == pytest.approx(200 / 255)
    assert named(red)[0]["blue-mean"] == 0
    assert named(blue)[0]["haematoxylin-mean"] > named(red)[0]["haematoxylin-mean"]  # haematoxylin stains blue


def test_sixteen_bits_say_the_same_as_eight_where_they_hold_the_same_picture():
    narrow = images(channels=1)
    wide = narrow.astype(np.uint16) * 257
    assert features.extract(wide, SETTINGS) == pytest.approx(features.extract(narrow, SETTINGS), abs=1e-5)


def test_groups_switch_features_on_one_by_one():
    every = features.names(SETTINGS, (32, 32), 3)
    single = [features.names(FeatureSettings(groups=(group,)), (32, 32), 3) for group in SETTINGS.groups]
    assert [name for names in single for name in names] == every
    assert features.names(FeatureSettings(groups=("colour",)), (32, 32), 1) == []


def test_images_too_small_for_the_cells_are_refused():
    with pytest.raises(UsageError, match="12x12 are too small for 8 cells"):
        features.extract(images(size=(12, 12)), FeatureSettings(hog_cells=8))


def test_the_core_install_is_enough():
    code = (
        "import sys; sys.modules.update(torch=None, sklearn=None, timm=None, safetensors=None);"
        "import numpy as np; from spicula.models import features; from spicula.models.settings import FeatureSettings;"
        "print(features.extract(np.zeros((1, 16, 16, 3), np.uint8), FeatureSettings()).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(1, ")
