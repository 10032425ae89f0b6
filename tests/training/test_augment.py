import numpy as np
import pytest
import torch

from spicula.models.settings import AugmentSettings
from spicula.training.augment import augment, rotate_flip

OFF = {"flip_horizontal": 0, "flip_vertical": 0, "rotate": 0, "scale": 0, "intensity": 0}


def images(count=8, size=(12, 12), seed=0):
    return torch.rand((count, 3, *size), generator=torch.Generator().manual_seed(seed))


def changed(batch, seed=0, **values):
    return augment(batch, AugmentSettings(**(OFF | values)), torch.Generator().manual_seed(seed))


def test_the_threefold_set_is_rotated_then_flipped():
    batch = images(3)
    made = rotate_flip(batch, torch.tensor([0, 1, 2])).numpy()
    plain = batch.numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(made[0].transpose(1, 2, 0), plain[0])
    assert np.array_equal(made[1].transpose(1, 2, 0), np.fliplr(np.rot90(plain[1])))
    assert np.array_equal(made[2].transpose(1, 2, 0), np.fliplr(np.rot90(plain[2], 2)))


def test_nothing_switched_on_changes_nothing():
    assert torch.equal(changed(images()), images())


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
def test_flips_are_exact_and_as_frequent_as_asked(name, axis):
    assert torch.equal(changed(images(), **{name: 1}), images().flip(axis))
    batch = images(2000)
    flipped = (changed(batch, **{name: 0.3}) != batch).flatten(1).any(1)
    assert 0.25 < flipped.float().mean() < 0.35
    assert torch.equal(changed(batch, **{name: 0.3})[flipped], batch[flipped].flip(axis))


def test_each_image_turns_by_its_own_angle_around_the_middle():
    # a disc off the middle keeps its distance from it, and its angle stays within the range
    rr, cc = np.mgrid[:64, :96] - np.array([31.5, 47.5]).reshape(2, 1, 1)
    disc = ((rr + 0) ** 2 + (cc - 20) ** 2 < 9).astype(np.float32)
    batch = torch.from_numpy(disc).expand(200, 3, 64, 96)
    made = changed(batch, rotate=30).numpy()[:, 0]
    mass = made.sum(axis=(1, 2))
    y, x = (made * rr).sum((1, 2)) / mass, (made * cc).sum((1, 2)) / mass
    assert np.hypot(x, y) == pytest.approx(np.full(200, 20), abs=0.3)
    angles = np.degrees(np.arctan2(y, x))
    assert -31 < angles.min() < -25
    assert 25 < angles.max() < 31
    assert mass == pytest.approx(np.full(200, disc.sum()), rel=0.15)


def test_scale_enlarges_and_shrinks():
    rr, cc = np.mgrid[:64, :64] - 31.5
    disc = torch.from_numpy((rr**2 + cc**2 < 100).astype(np.float32)).expand(200, 1, 64, 64)
    areas = changed(disc, scale=0.2).sum((1, 2, 3)) / disc[0].sum()
    assert 0.62 < areas.min() < 0.7
    assert 1.35 < areas.max() < 1.46


def test_what_turns_in_from_beyond_the_edge_is_no_black_corner():
    assert changed(torch.full((50, 1, 20, 30), 0.7), rotate=180, scale=0.5) == pytest.approx(0.7, abs=1e-5)


def test_intensity_changes_contrast_and_brightness_within_0_and_1():
    made = changed(images(500), intensity=0.2)
    assert made.min() >= 0
    assert made.max() <= 1
    grey = changed(torch.full((500, 1, 2, 2), 0.5), intensity=0.2)[:, 0, 0, 0]
    assert 0.4 <= grey.min() < 0.42
    assert 0.58 < grey.max() <= 0.6


def test_the_same_seed_gives_the_same_changes_and_another_seed_others():
    usual = AugmentSettings().model_dump()
    assert torch.equal(changed(images(), seed=3, **usual), changed(images(), seed=3, **usual))
    assert not torch.equal(changed(images(), seed=3, **usual), changed(images(), seed=4, **usual))


def test_one_setting_does_not_move_what_another_draws():
    batch = images(100)
    alone = changed(batch, flip_horizontal=0.5)
    with_brightness = changed(batch, flip_horizontal=0.5, intensity=1e-6)
    assert torch.allclose(alone, with_brightness, atol=1e-5)
