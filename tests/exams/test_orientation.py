"""Which way breasts point: rules, detection from the pixels, contradictions, and exams with exchanged sides."""

from dataclasses import replace

import numpy as np
import pytest
from exam_pictures import SMALL, phantom, phantom_exam, real_exam
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages.centers import centers
from spicula.exams.stages.crop import crop
from spicula.exams.stages.orientation import faces_left, is_flipped, oriented, side_of_entry
from spicula.exams.types import VIEWS, Image, RefusedExamError


def mirror(image: Image) -> Image:
    return replace(image, pixels=image.pixels[:, ::-1])


def other_side(view: str) -> str:
    return {"L": "R", "R": "L"}[view[0]] + view[1:]


@pytest.mark.parametrize(
    ("view", "mirrored", "left"),
    [
        ("L-CC", False, False),
        ("R-CC", False, True),
        ("L-MLO", True, True),
        ("R-MLO", True, False),
    ],
)
def test_the_published_rule(view, mirrored, left):
    assert faces_left(view, mirrored) is left
    assert is_flipped(view, mirrored) is left
    pixels = np.arange(6).reshape(2, 3)
    assert oriented(pixels, view, mirrored).tolist() == ([[2, 1, 0], [5, 4, 3]] if left else [[0, 1, 2], [3, 4, 5]])


@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.integers(0, 9)),
    st.sampled_from(VIEWS),
    st.booleans(),
)
def test_twice_oriented_is_as_before(array, view, mirrored):
    np.testing.assert_array_equal(oriented(oriented(array, view, mirrored), view, mirrored), array)


@pytest.mark.parametrize("margin", [0, 5, 40])
@pytest.mark.parametrize("view", VIEWS)
def test_the_side_of_entry_is_seen_beside_a_margin_too(view, margin):
    pixels = np.pad(phantom(view), ((30, 30), (margin, margin)))
    (one,) = crop([Image("a", view, pixels, False)], SMALL)
    assert one.notes == ()
    assert not one.mirrored


def test_the_side_of_entry_of_real_breasts_is_seen_away_from_the_border(test_data):
    for image in real_exam(test_data):
        moved = replace(image, pixels=np.pad(image.pixels, ((100, 100), (150, 400))), mirrored=None)
        (one,) = crop([moved], ScreeningSettings())
        assert not one.mirrored, one.notes


def test_a_tip_that_is_cut_off_is_not_taken_for_the_chest_wall_and_is_reported():
    pixels = phantom("L-CC")
    tip = int(np.flatnonzero(pixels.any(axis=0))[-1])
    (one,) = crop([Image("a", "L-CC", pixels[:, : tip - 20], False)], SMALL)
    assert not one.mirrored
    assert [note for note in one.notes if "of the right side of the image: part of it may be missing" in note]


@pytest.mark.parametrize("declared", [False, None, True])
def test_a_mirrored_exam_is_recognised_whatever_the_list_says(declared):
    images = [replace(mirror(image), mirrored=declared) for image in phantom_exam()]
    for image, one in zip(images, crop(images, SMALL), strict=True):
        assert one.mirrored
        if declared:
            assert one.notes == ()
        else:
            side, breast = ("right", "left") if image.view.startswith("L") else ("left", "right")
            says = "nothing says so" if declared is None else "the list or header says otherwise"
            assert one.notes == (
                f"the {breast} breast enters from the {side} side of the image, which therefore is stored mirrored"
                f" (horizontal_flip YES); {says}, and the pixels were believed",
            )


def test_an_exam_wrongly_called_mirrored_is_recognised():
    crops = crop([replace(image, mirrored=True) for image in phantom_exam()], SMALL)
    assert not any(one.mirrored for one in crops)
    assert all("therefore is not stored mirrored (horizontal_flip NO)" in one.notes[0] for one in crops)


def test_an_exam_of_which_nothing_says_that_it_is_plain_needs_no_note():
    assert [one.notes for one in crop([replace(image, mirrored=None) for image in phantom_exam()], SMALL)] == [()] * 4


def test_images_that_contradict_one_another_are_refused():
    images = phantom_exam()
    images[2] = mirror(images[2])
    wanted = (
        r"by the side from which the breast enters, L-MLO \(L-MLO\) would be stored mirrored and L-CC \(L-CC\),"
        r" R-CC \(R-CC\), R-MLO \(R-MLO\) not; a side \(L, R\) may be wrong, or an image was flipped"
    )
    with pytest.raises(RefusedExamError, match=wanted):
        crop(images, SMALL)


def test_a_wrong_label_of_one_image_is_refused():
    images = phantom_exam()
    images[1] = replace(images[1], view="L-CC")
    with pytest.raises(RefusedExamError, match="contradict one another"):
        crop(images, SMALL)


def test_a_mirrored_exam_with_exchanged_sides_is_the_exam_of_the_other_breasts():
    plain = {one.view: one for one in crop(phantom_exam(), SMALL)}
    swapped = crop([replace(mirror(image), view=other_side(image.view)) for image in phantom_exam()], SMALL)
    places = centers(list(plain.values()), SMALL), centers(swapped, SMALL)
    for one, centre, other_centre in zip(swapped, places[1], places[0], strict=True):
        before = plain[other_side(one.view)]
        assert not one.mirrored
        assert one.notes == ()
        # The classifiers see the same pixels, around the same centre but for the published procedure's odd pixel.
        np.testing.assert_array_equal(
            oriented(one.pixels, one.view, one.mirrored), oriented(before.pixels, before.view, before.mirrored)
        )
        assert centre[0] == other_centre[0]
        assert abs(centre[1] - other_centre[1]) == 1


def bar() -> np.ndarray:
    """Something that enters from nowhere and looks the same from both sides."""
    pixels = np.zeros((640, 520), np.uint16)
    half = np.random.default_rng(0).integers(1900, 2100, (400, 100))
    pixels[100:500, 160:360] = np.hstack([half, half[:, ::-1]])
    return pixels


@pytest.mark.parametrize("declared", [True, False])
def test_where_the_pixels_do_not_tell_the_list_does(declared):
    (one,) = crop([Image("a", "L-CC", bar(), declared)], SMALL)
    assert one.mirrored is declared
    said = "is stored mirrored" if declared else "is not stored mirrored"
    assert one.notes == (
        "from which side the breast enters cannot be told from the pixels: it meets both sides of the image, or"
        f" neither; the list or header says that it {said}, and was believed",
    )


def test_where_nothing_tells_the_exam_is_refused():
    with pytest.raises(RefusedExamError, match=r"^a \(L-CC\): from which side the breast enters .*horizontal_flip$"):
        crop([Image("a", "L-CC", bar(), None)], SMALL)


def test_both_sides_alike_do_not_tell():
    mask = np.zeros((50, 40), np.uint8)
    mask[10:30] = 1
    assert side_of_entry(mask) is None
    mask[30:45, :20] = 1
    assert side_of_entry(mask) is None  # 35 rows of 20 are not clearly more
    mask[0:10, :20] = 1
    assert side_of_entry(mask) == "left"
    assert side_of_entry(mask[:, ::-1].copy()) == "right"
