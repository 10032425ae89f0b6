import numpy as np
import pytest

from spicula.phantoms.streams import stream
from spicula.phantoms.texture import EXPONENT, field


def spectrum_slope(image: np.ndarray, spacing_mm: float, low: float, high: float) -> float:
    """Return the exponent of the power spectrum, by a line through log power over log frequency."""
    power = np.abs(np.fft.fft2(image)) ** 2
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n, spacing_mm) for n in image.shape), indexing="ij")
    frequency = np.hypot(fy, fx)
    inside = (frequency > low) & (frequency < high)
    slope, _ = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)
    return -float(slope)


@pytest.mark.parametrize("shape", [(256, 200), (101, 64)])
def test_a_field_has_mean_0_and_variance_1(shape):
    fields = [field(stream(seed, "test"), shape, (0.25, 0.25), (0.02, 2.0)) for seed in range(30)]
    assert fields[0].dtype == np.float32
    assert fields[0].shape == shape
    assert np.abs(np.mean(fields, axis=(1, 2))).max() < 1e-4
    assert np.mean(np.square(fields)) == pytest.approx(1.0, abs=0.1)


def test_the_spectrum_follows_the_power_law_within_its_band():
    image = field(stream(0, "law"), (512, 512), (0.25, 0.25), (0.005, 5.0))
    assert spectrum_slope(image, 0.25, 0.05, 1.0) == pytest.approx(EXPONENT, abs=0.1)


def test_a_projected_volume_keeps_the_exponent():
    volume = field(stream(0, "volume"), (96, 96, 96), (1.0, 1.0, 1.0), (0.003, 5.0))
    assert spectrum_slope(volume.sum(axis=2), 1.0, 0.04, 0.4) == pytest.approx(EXPONENT, abs=0.2)


def test_outside_its_band_a_field_has_little_power():
    image = field(stream(0, "band"), (256, 256), (0.25, 0.25), (0.2, 0.5))
    power = np.abs(np.fft.rfft2(image)) ** 2
    fy, fx = np.meshgrid(np.fft.fftfreq(256, 0.25), np.fft.rfftfreq(256, 0.25), indexing="ij")
    outside = (np.hypot(fy, fx) < 0.1) | (np.hypot(fy, fx) > 1.2)
    assert power[outside].sum() < 0.01 * power.sum()


def test_streams_are_repeatable_and_apart():
    draws = {key: stream(*key).random() for key in [(0, 1, "a"), (0, 1, "b"), (1, 0, "a"), (0, "a", 1)]}
    assert len(set(draws.values())) == 4
    assert stream(0, 1, "a").random() == draws[0, 1, "a"]
