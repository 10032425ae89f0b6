import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.curate.similarity import NO_TEXTURE, near_duplicates, perceptual_hashes


def textures(count, seed=0, side=64):
    """Smooth random pictures, uint8, shape (count, side, side, 1)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 12, 12), dtype=np.uint8)
    return np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_CUBIC)[..., None] for one in coarse])


def compressed(image, quality=60):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def test_small_changes_leave_the_hash_nearly_alone():
    image = textures(1)[0, :, :, 0]
    changed = [
        compressed(image),
        cv2.resize(image, (96, 96)),
        cv2.resize(image, (45, 45), interpolation=cv2.INTER_AREA),
        (image * 0.8 + 20).astype(np.uint8),
    ]
    reference = perceptual_hashes(image[None, :, :, None])[0]
    for other in changed:
        assert np.bitwise_count(reference ^ perceptual_hashes(other[None, :, :, None])[0]) <= 4


def test_different_pictures_differ_in_about_half_the_bits():
    hashes = perceptual_hashes(textures(60))
    distances = [int(np.bitwise_count(a ^ b)) for k, a in enumerate(hashes) for b in hashes[:k]]
    assert min(distances) > 8
    assert 28 < np.mean(distances) < 36


def test_the_hash_does_not_depend_on_the_number_of_bits_or_channels():
    image = textures(3)
    eight = perceptual_hashes(image)
    assert np.array_equal(eight, perceptual_hashes(image.astype(np.uint16) * 257))
    assert np.array_equal(eight, perceptual_hashes(image / np.float32(255)))
    assert np.array_equal(eight, perceptual_hashes(np.repeat(image, 3, axis=3)))


def test_batches_give_what_one_array_gives():
    images = textures(7)
    assert np.array_equal(perceptual_hashes(images), perceptual_hashes(iter([images[:3], images[3:3], images[3:]])))
    assert perceptual_hashes(iter([])).shape == (0,)


@pytest.mark.parametrize("kind", ["white", "noise", "gradient"])
def test_blank_images_have_no_texture_and_are_never_near_anything(kind):
    rng = np.random.default_rng(1)
    blank = np.full((6, 50, 50, 3), 240, dtype=np.uint8)
    if kind == "noise":
        blank = (blank + rng.integers(-3, 4, blank.shape)).astype(np.uint8)
    if kind == "gradient":
        blank = (blank - np.linspace(0, 30, 50)[None, :, None, None]).astype(np.uint8)
    hashes = perceptual_hashes(blank)
    assert (hashes == NO_TEXTURE).all()
    assert near_duplicates(hashes, ["train"] * 3 + ["test"] * 3, 64) == []


def test_a_copy_on_another_side_is_listed_and_one_on_the_same_side_is_not():
    images = textures(6)
    images[4] = compressed(images[0, :, :, 0])[:, :, None]  # test copy of a train image
    images[2] = images[1]  # copy within train
    pairs = near_duplicates(perceptual_hashes(images), ["train", "train", "train", "val", "test", "test"])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 4)]


def test_images_without_a_side_take_no_part():
    hashes = perceptual_hashes(np.repeat(textures(1), 3, axis=0))
    assert near_duplicates(hashes, ["train", None, None]) == []


def test_a_cluster_of_look_alikes_is_listed_once_an_image():
    hashes = np.full(2000, 12345, dtype=np.uint64)
    pairs = near_duplicates(hashes, ["train", "test"] * 1000)
    assert len(pairs) == 1999  # all of test with the first of train, all of train with the first of test


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 12), st.sampled_from(["train", "val", "test", None])), max_size=40
    ),
    most=st.integers(0, 4),
)
def test_every_image_is_listed_with_its_nearest_on_another_side(rows, most):
    # hashes in four far-apart clusters, within which a few low bits differ
    centres = np.array(
        [0x0F0F0F0F0F0F0F00, 0xF0F0F0F0F0F0F000, 0x00FF00FF00FF0000, 0xFFFF0000FFFF0000], dtype=np.uint64
    )
    hashes = np.array([centres[c] ^ np.uint64(low) for c, low, _ in rows], dtype=np.uint64)
    sides = [side for _, _, side in rows]
    pairs = near_duplicates(hashes, sides, most)
    listed = {(pair.first, pair.second): pair.distance for pair in pairs}
    for at, (mine, side) in enumerate(zip(hashes, sides, strict=True)):
        others = [k for k, s in enumerate(sides) if None not in (s, side) and s != side]
        distances = {k: int(np.bitwise_count(mine ^ hashes[k])) for k in others}
        nearest = min(distances.values(), default=65)
        mine_listed = [distance for pair, distance in listed.items() if at in pair]
        assert (nearest in mine_listed) == (nearest <= most)
    for (first, second), distance in listed.items():
        assert sides[first] != sides[second]
        assert distance == int(np.bitwise_count(hashes[first] ^ hashes[second])) <= most


def test_real_patches_copies_are_found_and_others_are_not(test_data):
    import zipfile

    archive = zipfile.ZipFile(test_data / "idc-patches" / "IDC_regular_ps50_idx5.zip")
    names = [name for name in sorted(archive.namelist()) if name.endswith(".png")][:400]
    images = [cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names]
    images = [image for image in images if image.shape == (50, 50, 3)]
    copies = [compressed(cv2.resize(image, (60, 60)), quality=85) for image in images[::40]]
    hashes = perceptual_hashes(iter([np.stack(images), np.stack(copies)]))
    pairs = near_duplicates(hashes, ["train"] * len(images) + ["test"] * len(copies))
    expected = {(40 * k, len(images) + k) for k in range(len(copies)) if hashes[40 * k] != NO_TEXTURE}
    assert len(expected) >= 9
    assert {(pair.first, pair.second) for pair in pairs} == expected
