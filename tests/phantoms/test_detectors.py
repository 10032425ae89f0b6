import numpy as np
import pytest

from spicula.phantoms.detectors import AIR, DETECTORS, HIGHEST, present
from spicula.phantoms.streams import stream

BREAST = np.ones((128, 128), bool)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.model)
def test_more_attenuation_is_brighter_up_to_calcifications(detector):
    levels = [
        present(detector, np.full(BREAST.shape, level, np.float32), BREAST, stream(0, "noise")).mean()
        for level in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3)
    ]
    assert (np.diff(levels) > 30).all()
    assert levels[-1] <= HIGHEST
    centre, width = detector.window
    assert centre - width / 2 < levels[1]
    assert levels[4] < centre + width / 2  # fat and gland lie within the window


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.model)
def test_air_has_its_own_value_exactly_and_alone(detector):
    breast = np.zeros((64, 64), bool)
    breast[10:40, :30] = True
    pixels = present(detector, np.zeros(breast.shape, np.float32), breast, stream(0, "noise"))
    assert pixels.dtype == np.uint16
    assert ((pixels == AIR) == ~breast).all()


def test_noise_grows_with_attenuation_and_is_repeatable():
    detector = DETECTORS[0]
    dark, bright = (
        present(detector, np.full(BREAST.shape, level, np.float32), BREAST, stream(0, "noise")) for level in (0.2, 0.6)
    )
    assert bright.std() > 1.2 * dark.std() > 0
    again = present(detector, np.full(BREAST.shape, 0.2, np.float32), BREAST, stream(0, "noise"))
    assert (again == dark).all()


def test_the_systems_are_plainly_invented():
    assert {detector.photometric for detector in DETECTORS} == {"MONOCHROME1", "MONOCHROME2"}
    assert all(detector.manufacturer.startswith("SYNTHETIC ") for detector in DETECTORS)
    assert len({detector.manufacturer for detector in DETECTORS}) == len(DETECTORS)
