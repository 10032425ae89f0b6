import cv2
import numpy as np
import pytest

from spicula.imaging.breast import (
    WEAK_EVIDENCE,
    bounding_box,
    faces_left,
    orientation_evidence,
    segment_breast,
    widen,
)
from spicula.imaging.readers import read_pixels


def truth(height, width, side):
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - height / 2) / (height * 0.45)) ** 2 + (columns / (width * 0.6)) ** 2 < 1
    return mask if side == "left" else mask[:, ::-1]


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("top", [255, 4095])
@pytest.mark.parametrize("size", [(400, 320), (1500, 1100), (90, 70)])
def test_the_breast_is_found_and_the_label_is_not(mammogram, side, top, size):
    mask = segment_breast(mammogram(*size, side=side, top=top))
    assert mask.dtype == bool
    assert mask.shape == size
    assert overlap(mask, truth(*size, side)) > 0.95


def test_a_bright_frame_around_the_film_is_cut_off(mammogram):
    image = mammogram(500, 400)
    framed = image.copy()
    framed[:12], framed[-12:], framed[:, -12:] = 250, 250, 250
    _, left, _, right = bounding_box(segment_breast(framed))
    assert right < 0.65 * 400
    assert left == 0
    assert overlap(segment_breast(framed)[20:-20], truth(500, 400, "left")[20:-20]) > 0.93


def test_black_padding_and_blackened_labels_change_nothing(mammogram):
    image = mammogram(500, 400, label=False) + np.uint8(20)  # film is not black
    image[30:90, 330:370] = 0
    padded = np.pad(image, ((0, 0), (60, 60)))
    mask = segment_breast(padded)
    assert overlap(mask[:, 60:-60], truth(500, 400, "left")) > 0.95
    assert not mask[:, :55].any()


def test_colour_counts_as_grey(mammogram):
    image = mammogram()
    np.testing.assert_array_equal(segment_breast(np.dstack([image] * 3)), segment_breast(image))


@pytest.mark.parametrize("image", [np.zeros((50, 40), np.uint8), np.full((60, 60, 3), 200, np.uint16)])
def test_nothing_is_found_where_nothing_is(image):
    mask = segment_breast(image)
    assert not mask.any()
    assert bounding_box(mask) is None
    assert orientation_evidence(mask) == 0
    assert not faces_left(mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 1), (2, 3)])
def test_slivers_do_no_harm(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert segment_breast(image).shape == shape


def test_bounding_box_is_tight_and_margins_stay_in_the_image():
    mask = np.zeros((100, 80), bool)
    mask[10:60, 30:50] = True
    assert bounding_box(mask) == (10, 30, 60, 50)
    assert bounding_box(mask, 0.1) == (5, 25, 65, 55)
    assert bounding_box(mask, 10) == (0, 0, 100, 80)


def test_widen_reaches_farther_on_every_side():
    mask = np.zeros((100, 100), bool)
    mask[50, 50] = True
    assert bounding_box(widen(mask, 0.05)) == (45, 45, 56, 56)


def test_the_pixels_say_where_the_breast_enters(mammogram):
    left, right = segment_breast(mammogram(side="left")), segment_breast(mammogram(side="right"))
    assert orientation_evidence(left) > 0.8
    assert orientation_evidence(right) == pytest.approx(-orientation_evidence(left), abs=0.02)
    assert not faces_left(left, laterality="R")  # the hint does not outweigh them
    assert faces_left(right, laterality="L")
    assert faces_left(mammogram(side="right"))


def test_where_they_say_nothing_the_laterality_decides():
    disk = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 60, 1, -1).astype(bool)
    assert abs(orientation_evidence(disk)) < WEAK_EVIDENCE
    assert faces_left(disk, laterality="R")
    assert not faces_left(disk, laterality="L")


def test_real_mammograms_face_the_way_their_archive_says(test_data, tmp_path):
    import tarfile

    with tarfile.open(test_data / "mini-mias" / "all-mias.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    films = sorted(tmp_path.rglob("*.pgm"))
    assert len(films) == 32
    for path in films:
        mask = segment_breast(read_pixels(path).array)
        assert faces_left(mask) == (int(path.stem[3:]) % 2 == 1), path.stem  # odd numbers are right breasts
        assert abs(orientation_evidence(mask)) > 0.5, path.stem
        assert 0.1 < mask.mean() < 0.75, path.stem
    for path in (test_data / "nyu-exam").glob("*.png"):
        assert faces_left(read_pixels(path).array) == ("_R-" in path.stem)
    frame = segment_breast(read_pixels(test_data / "dicom" / "MG1_J2KI").array)
    assert not faces_left(frame)
    assert bounding_box(frame)[3] < 0.75 * frame.shape[1]  # neither the label nor the white edge of the film
