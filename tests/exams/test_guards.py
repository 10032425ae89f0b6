"""What would silently break the published crop: phantoms with each defect give the crop of the clean phantom."""

import cv2
import numpy as np
import pytest
from exam_pictures import SMALL, phantom, real_exam
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages.centers import centers
from spicula.exams.stages.crop import crop
from spicula.exams.stages.marks import without_marks
from spicula.exams.types import VIEWS, Cropped, Image, RefusedExamError

SIZE = (640, 520)


def cropped(pixels: np.ndarray, view: str = "L-CC") -> Cropped:
    return crop([Image("a", view, pixels, False)], SMALL)[0]


def same_crop(one: Cropped, clean: Cropped, rows: int = 0, columns: int = 0) -> bool:
    """Whether a crop is that of the clean image, which lies so many rows and columns farther in the stored image."""
    top, bottom, left, right = clean.crop.window_location
    moved = (top + rows, bottom + rows, left + columns, right + columns)
    others = ("rightmost_points", "bottommost_points", "distance_from_starting_side")
    return (
        one.crop.window_location == moved
        and all(getattr(one.crop, name) == getattr(clean.crop, name) for name in others)
        and np.array_equal(one.pixels, clean.pixels)
    )


def refusal(pixels: np.ndarray, view: str = "L-CC") -> str:
    with pytest.raises(RefusedExamError) as caught:
        cropped(pixels, view)
    return str(caught.value)


def noisy(pixels: np.ndarray, level: float, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(level, deviation, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("value", [65535, 4095, 300])
@pytest.mark.parametrize("width", [1, 8, 60])
def test_a_frame_is_cut_off(view, value, width):
    clean = cropped(phantom(view), view)
    one = cropped(np.pad(phantom(view), width, constant_values=value), view)
    assert same_crop(one, clean, width, width)
    assert one.notes == (
        f"a frame of one value was cut off: top {width}, bottom {width}, left {width}, right {width} pixels",
    )


@pytest.mark.parametrize("level", [0, 64, 4095])
def test_background_above_a_breast_that_is_cut_off_straight_is_no_frame(level):
    pixels = phantom("L-MLO")
    widest = int(np.argmax(np.count_nonzero(pixels, axis=1)))
    straight = np.pad(pixels[widest:, :320], ((60, 0), (0, 0)))  # more than half of its first row is breast
    clean = cropped(straight, "L-MLO")
    assert clean.crop.window_location[0] == 60 - SMALL.buffer
    changed = np.uint16(level) - straight if level == 4095 else straight + np.uint16(level)
    assert same_crop(cropped(changed, "L-MLO"), clean)


@pytest.mark.parametrize("sides", [(9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 9, 0), (0, 0, 0, 9), (3, 0, 0, 7)])
def test_a_frame_may_have_fewer_sides(sides):
    top, bottom, left, right = sides
    pixels = np.pad(phantom("L-CC"), ((top, bottom), (left, right)), constant_values=4095)
    assert same_crop(cropped(pixels), cropped(phantom("L-CC")), top, left)


def test_a_frame_that_lossy_compression_left_uneven_is_cut_off():
    pixels = np.pad(phantom("L-CC"), 8, constant_values=4000)
    pixels[:3] += np.random.default_rng(0).integers(0, 30, pixels[:3].shape, np.uint16)
    assert same_crop(cropped(pixels), cropped(phantom("L-CC")), 8, 8)


def test_a_bright_chest_wall_is_no_frame():
    pixels = phantom("L-MLO").copy()
    pixels[:, :6] = np.where(pixels[:, :6] > 0, 4095, 0)
    assert cropped(pixels, "L-MLO").notes == ()


def test_a_black_margin_is_no_frame():
    one = cropped(np.pad(phantom("L-CC"), 8))
    assert one.crop.distance_from_starting_side == 8
    assert one.notes == ()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("offset", [1, 40, 2048])
def test_an_offset_is_subtracted(view, offset):
    one = cropped(phantom(view) + np.uint16(offset), view)
    assert same_crop(one, cropped(phantom(view), view))
    assert one.notes == (f"its background was {offset}: that was subtracted everywhere",)


def test_a_background_painted_into_the_range_of_the_breast_is_set_to_0_alone():
    clean = phantom("L-CC")
    level = int(np.percentile(clean[clean > 0], 3))
    one = cropped(np.where(clean == 0, np.uint16(level), clean))
    assert one.crop == cropped(clean).crop
    differs = one.pixels != cropped(clean).pixels
    assert differs.mean() < 1e-3  # some of the breast's own pixels have that value, at its edge
    assert (one.pixels[differs] == 0).all()
    assert len(one.notes) == 1
    assert "pixels are darker: the background alone was set to 0" in one.notes[0]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("level", "deviation"), [(0, 3), (5, 2), (60, 10)])
def test_a_noisy_background_becomes_black(view, level, deviation):
    clean, one = cropped(phantom(view), view), cropped(noisy(phantom(view), level, deviation), view)
    np.testing.assert_allclose(one.crop.window_location, clean.crop.window_location, atol=1)
    assert abs(one.crop.rightmost_points[1] - clean.crop.rightmost_points[1]) <= 1
    assert abs(one.crop.bottommost_points[0] - clean.crop.bottommost_points[0]) <= 1
    assert "its background was noise around" in one.notes[0]
    top, bottom, left, right = one.crop.window_location
    of_breast = phantom(view)[top:bottom, left:right] > 0
    assert np.mean((one.pixels > 0) == of_breast) > 0.998
    inner = cv2.erode(of_breast.astype(np.uint8), np.ones((9, 9)), borderValue=1).astype(bool)
    assert (one.pixels[inner] > 0).all()  # no holes, which the erosion would widen
    difference = one.pixels[inner].astype(int) - phantom(view)[top:bottom, left:right][inner]
    assert abs(difference.mean()) < 1.5


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("white", [4095, 65535])
def test_an_inverted_image_is_turned_over(view, white):
    one = cropped(np.uint16(white) - phantom(view), view)
    assert same_crop(one, cropped(phantom(view), view))
    assert one.notes == ("it was inverted (a white background, as of MONOCHROME1 left as it is): turned over",)


def test_an_inverted_image_with_noise_becomes_black_around_the_breast():
    clean, one = cropped(phantom("L-CC")), cropped(4095 - np.minimum(noisy(phantom("L-CC"), 30, 4), 4095))
    np.testing.assert_allclose(one.crop.window_location, clean.crop.window_location, atol=1)
    assert [note.split(":")[0][:28] for note in one.notes] == [
        "it was inverted (a white bac",
        "its background was noise aro",
    ]


@pytest.mark.parametrize("value", [0, 2000, 65535])
def test_an_inverted_image_in_a_frame_is_turned_over(value):
    pixels = np.pad(np.uint16(4095) - phantom("R-CC"), 10, constant_values=value)
    one = cropped(pixels, "R-CC")
    assert same_crop(one, cropped(phantom("R-CC"), "R-CC"), 10, 10)
    assert len(one.notes) == 2


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("level", [1500, 4095, 65535])
def test_what_was_painted_around_a_breast_is_set_to_0(view, level):
    clean = phantom(view)
    one = cropped(np.where(clean == 0, np.uint16(level), clean), view)
    assert one.crop == cropped(clean, view).crop
    assert np.mean(one.pixels != cropped(clean, view).pixels) < 1e-3  # of the edge, where that has the value itself
    (note,) = one.notes
    assert note.startswith(f"its background was {level}, and ")
    assert note.endswith("pixels are darker: the background alone was set to 0")


@pytest.mark.parametrize("level", [2000, 3000, 4095])
def test_where_nobody_can_tell_whether_an_image_is_inverted_it_is_refused(level):
    pixels = np.full(SIZE, level, np.uint16)  # as bright at its edge as inside
    pixels[100:500, :200] = np.random.default_rng(0).integers(1000, 3000, (400, 200))
    reason = refusal(pixels)
    assert f"its background ({level}) is not dark: " in reason
    assert "whether the image is inverted cannot be told" in reason
    assert reason.endswith("set what is not breast to 0")


def test_an_inverted_image_with_grey_around_the_breast_is_refused():
    clean = phantom("L-CC")
    assert "cannot be told" in refusal(np.where(clean == 0, np.uint16(3000), np.uint16(4095) - clean))


def test_an_image_without_a_background_is_refused():
    texture = np.random.default_rng(0).integers(500, 3000, SIZE, np.uint16)
    assert "no background was found" in refusal(texture)
    assert "only 0 % of that is black; set what is not breast to 0" in refusal(texture)


def test_a_breast_along_most_of_the_border_is_left_as_it_is():
    pixels = np.zeros((300, 900), np.uint16)
    pixels[:, :850] = np.random.default_rng(0).integers(500, 3000, (300, 850))
    one = cropped(pixels)
    assert one.crop.window_location == (0, 300, 0, 862)
    assert one.notes[0].startswith("its background is not even (17 % of its border is black): left as it is")
    np.testing.assert_array_equal(one.pixels, pixels[:, :862])


def test_an_image_of_one_value_is_refused():
    for value in (0, 7, 65535):
        assert "no breast" in refusal(np.full(SIZE, value, np.uint16))


def test_an_image_of_noise_is_refused():
    assert "set what is not breast to 0" in refusal(noisy(np.zeros(SIZE, np.uint16), 50, 5))


def test_a_breast_that_reaches_from_side_to_side_is_refused():
    pixels = phantom("L-CC").copy()
    pixels[150:500] = np.maximum(pixels[150:500], 300)
    assert "reaches from one side of the image to the other in 5" in refusal(pixels)


def test_breasts_that_are_cut_off_are_reported():
    pixels = phantom("L-CC")
    rows = np.flatnonzero(pixels.any(axis=1))
    above, below = pixels[rows[0] + 60 :], pixels[: rows[-1] - 60]
    for part, name in ((above, "top"), (below, "bottom")):
        (note,) = cropped(part).notes
        assert f"% of the {name} of the image: part of it may be missing" in note
    (one,) = crop([Image("a", "L-MLO", above, False)], SMALL)
    assert one.notes == ()  # where the armpit is


def marked(pixels: np.ndarray, row: int, column: int, height: int = 20, width: int = 16) -> np.ndarray:
    changed = pixels.copy()
    changed[row : row + height, column : column + width] = 4095
    return changed


def test_a_mark_beside_the_breast_is_set_to_0():
    clean = cropped(phantom("L-CC"))
    top, _, _, right = clean.crop.window_location
    assert not phantom("L-CC")[top : top + 60, right - 60 : right].any()
    one = cropped(marked(phantom("L-CC"), top + 5, right - 30))
    assert same_crop(one, clean)
    place = f"rows {top + 5} to {top + 24}, columns {right - 30} to {right - 15}"
    assert one.notes == (
        f"objects beside the breast (1, of 320 pixels, the largest in {place}): set to 0, for they are marks and"
        " not tissue",
    )


def test_a_mark_in_a_framed_image_is_where_the_stored_image_has_it():
    top, _, _, right = cropped(phantom("L-CC")).crop.window_location
    framed = np.pad(marked(phantom("L-CC"), top + 5, right - 30), 8, constant_values=4095)
    assert f"rows {top + 13} to {top + 32}, columns {right - 22} to {right - 7}" in cropped(framed).notes[1]


def test_a_mark_outside_the_crop_is_reported_and_dust_is_not():
    clean = cropped(phantom("L-CC"))
    right = clean.crop.window_location[3]
    one = cropped(marked(phantom("L-CC"), 20, right + 30))
    assert same_crop(one, clean)
    assert len(one.notes) == 1
    assert one.notes[0].endswith("outside the crop, left out with the background")
    assert cropped(marked(phantom("L-CC"), 20, right + 30, 3, 3)).notes == ()


def test_a_thick_label_is_not_taken_for_the_breast():
    clean = cropped(phantom("L-CC"))
    assert same_crop(cropped(marked(phantom("L-CC"), 20, 400, 100, 100)), clean)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("near", "left in the crop, for they are within 6 pixels of the breast and may be part of it"),
        ("border", "left in the crop, for they touch the border of the image and may go on outside"),
        ("large", "left in the crop, for they are larger than 10 % of the breast and may be part of it"),
    ],
)
def test_what_may_be_tissue_stays_and_is_reported(place, reason):
    pixels = np.zeros((300, 260), np.uint16)
    pixels[60:240, :120] = np.random.default_rng(0).integers(900, 1100, (180, 120))
    breast = (pixels > 0).astype(np.uint8)
    boxes = {"near": (70, 125, 4, 4), "border": (100, 240, 10, 20), "large": (70, 130, 60, 40)}
    row, column, height, width = boxes[place]
    changed = marked(pixels, row, column, height, width)
    found, notes = without_marks(changed, breast, (0, 300, 0, 260), SMALL)
    np.testing.assert_array_equal(found, changed)
    (note,) = notes
    assert note.endswith(reason)
    found, notes = without_marks(marked(pixels, 70, 127, 4, 4), breast, (0, 300, 0, 260), SMALL)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("view", VIEWS)
def test_a_label_over_the_edge_of_the_breast_is_reported(view):
    clean = cropped(phantom(view), view)
    rows, tip = clean.crop.rightmost_points
    top, _, left, right = clean.crop.window_location
    column = left + tip if view.startswith("L") else right - tip
    row = top + rows[0]
    one = cropped(marked(phantom(view), row, column - 8), view)
    assert one.notes == (
        f"something is written over the edge of the breast (rows {row} to {row + 19}, columns {column - 8} to"
        f" {column + 7}): left in the crop, which may be too large because of it",
    )


def test_even_halos_of_lossy_compression_are_no_label():
    pixels = phantom("L-CC").copy()
    halo = cv2.dilate((pixels > 0).astype(np.uint8), np.ones((17, 17))) > 0
    pixels[halo & (pixels == 0)] = 2
    assert cropped(pixels).notes == ()


def test_specks_all_over_the_background_are_set_to_0_away_from_the_breast():
    clean = cropped(phantom("L-CC"))
    pixels = phantom("L-CC").copy()
    black = np.argwhere(pixels == 0)
    chosen = black[np.random.default_rng(0).choice(len(black), 3000, replace=False)]
    pixels[tuple(chosen.T)] = 3
    one = cropped(pixels)
    assert one.crop.window_location == clean.crop.window_location
    assert np.count_nonzero(one.pixels != clean.pixels) < 150  # those that touch the breast, or nearly so
    assert any("set to 0, for they are marks and not tissue" in note for note in one.notes)


@pytest.mark.parametrize("view", VIEWS)
def test_the_real_exam_with_a_defect_has_the_crop_that_it_has_without(test_data, view):
    image = next(image for image in real_exam(test_data) if image.view == view)
    width = ((50, 50), (0, 400)) if view.startswith("L") else ((50, 50), (400, 0))
    whole = np.pad(image.pixels, width)  # as the detector saw it: not cut off so closely
    (clean,) = crop([Image("a", view, whole, False)], ScreeningSettings())
    defects = {
        "frame": np.pad(whole, 25, constant_values=65535),
        "offset": whole + np.uint16(64),
        "inverted": np.uint16(4095) - whole,
        "all": np.pad(np.uint16(4000) - np.minimum(whole, 4000), 25, constant_values=0),
    }
    for name, pixels in defects.items():
        (one,) = crop([Image("a", view, pixels, False)], ScreeningSettings())
        margin = 25 if name in ("frame", "all") else 0
        if name == "all":  # values above 4000 are lost
            assert one.crop.rightmost_points == clean.crop.rightmost_points
        else:
            assert same_crop(one, clean, margin, margin), name


@settings(max_examples=300)
@given(
    arrays(
        np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 0, 5, 900, 65535])
    ),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from([0, 40, 65535]),
    st.sampled_from([None, True]),
)
def test_whatever_an_image_shows_it_is_cropped_or_refused(cells, scale, width, value, declared):
    pixels = np.pad(np.kron(cells, np.ones((scale, scale), np.uint16)), width, constant_values=value)
    before = pixels.copy()
    small = ScreeningSettings(cc=(64, 48), mlo=(72, 44), erosions=1, buffer=2, shift=4, resize=4)
    try:
        (one,) = crop([Image("a", "R-MLO", pixels, declared)], small)
    except RefusedExamError as error:
        assert str(error).startswith("a (R-MLO): ")
        assert "\n" not in str(error)
    else:
        top, bottom, left, right = one.crop.window_location
        assert 0 <= top < bottom <= pixels.shape[0]
        assert 0 <= left < right <= pixels.shape[1]
        assert one.pixels.shape == (bottom - top, right - left)
        assert centers([one], small)
    np.testing.assert_array_equal(pixels, before)
