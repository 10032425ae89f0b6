"""Golden inputs: the same everywhere, recorded by an export, missed by nobody who has an older bundle."""

import hashlib

import numpy as np
import pytest
from bundle_maker import make

from spicula import bundle
from spicula.bundle import golden
from spicula.imaging.preprocess import Preprocess

GOLDEN_DIGEST = "9ff65cbaa871da3c7ffc788140de9ff7dc393ebbd559043f1673135828f1917b"


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_fit_the_model_and_use_the_whole_range(bits, dtype, channels):
    made = golden.images(Preprocess(size=(48, 40), channels=channels, bits=bits))
    assert made.shape == (4, 48, 40, channels)
    assert made.dtype == dtype
    assert made.min() == 0
    assert made.max() == np.iinfo(dtype).max
    assert len({image.tobytes() for image in made}) == 4
    np.testing.assert_array_equal(made[1::2], np.iinfo(dtype).max - made[::2])


def test_images_are_the_same_for_ever():
    made = golden.images(Preprocess(size=(16, 12), channels=3))
    assert made[0, 15, 11].tolist() == [255] * 3
    assert made[0, 0, 6].tolist() == [6 * 255 // 11 // 2] * 3
    assert made[2, 3, 5].tolist() == [(37 * 3 + 101 * 5 + 59 * channel + 15) % 256 for channel in range(3)]
    assert hashlib.sha256(made.tobytes()).hexdigest() == GOLDEN_DIGEST


def test_the_record_is_what_the_bundle_answers(tmp_path):
    made = make(tmp_path / "plain")
    record = golden.record(made)
    again = make(tmp_path / "bundle", golden=record)
    assert bundle.load(again.folder).info["golden"] == record
    images = golden.images(again.preprocess)
    found = again.probabilities(images)
    np.testing.assert_allclose(found[:, 1], images.mean(axis=(1, 2, 3)) / 255, atol=1e-6)
    assert golden.difference(again, found) == 0
    assert golden.difference(again, found + np.array([0.25, -0.25])) == pytest.approx(0.25)
    assert golden.difference(again, found[:2]) == float("inf")


def test_an_older_bundle_records_none(tmp_path):
    made = make(tmp_path / "plain")
    assert "golden" not in made.info
    assert golden.difference(made, np.zeros((4, 2))) is None
