from functools import cache

import numpy as np
import pytest

from spicula.phantoms.detectors import AIR, HIGHEST
from spicula.phantoms.parenchyma import gland_volume, project
from spicula.phantoms.render import Picture, render
from spicula.phantoms.types import DENSITIES, SIDES, VIEWS
from spicula.phantoms.woman import draw_woman

SIZE = (512, 416)


@cache
def picture(number, side, view, *, lesions=True, density=None) -> Picture:
    woman = draw_woman(0, number, 1.0, density)
    return render(woman, side, view, SIZE, gland_volume(woman, side), lesions=lesions)


def with_lesions(numbers):
    """Every lesion of some women, in both views."""
    for number in numbers:
        for lesion in draw_woman(0, number, 1.0).lesions:
            for view in VIEWS:
                yield number, lesion, view


@pytest.mark.parametrize("view", VIEWS)
def test_a_breast_comes_in_from_its_own_side_before_pure_air(view):
    for side, edge, far in (("L", 0, -1), ("R", -1, 0)):
        pixels = picture(1, side, view).pixels
        assert pixels.shape == SIZE
        assert pixels.dtype == np.uint16
        assert pixels.max() <= HIGHEST
        assert (pixels[:, edge] > AIR).sum() > SIZE[0] / 3
        assert (pixels[:, far] == AIR).all()
        assert 0.15 < (pixels == AIR).mean() < 0.85


def test_only_mlo_shows_the_pectoral_muscle():
    for number in range(1, 6):
        corner = {view: picture(number, "L", view, density="A").pixels[5:40, :20] for view in VIEWS}
        fat = np.median(picture(number, "L", "MLO", density="A").pixels[250:300, 20:60])
        assert corner["MLO"].mean() > 1.4 * fat
        assert corner["CC"].mean() < fat


def test_boxes_hold_the_contrast_that_a_lesion_adds():
    seen = set()
    for number, lesion, view in with_lesions(range(1, 25)):
        whole, healthy = (picture(number, lesion.side, view, lesions=shown) for shown in (True, False))
        added = np.abs(whole.pixels.astype(float) - healthy.pixels)
        boxes = whole.boxes
        for other, (x0, y0, x1, y1) in boxes.items():
            if other != lesion.number:
                added[y0:y1, x0:x1] = 0  # another lesion's
        x0, y0, x1, y1 = boxes[lesion.number]
        assert 0 <= x0 < x1 <= SIZE[1]
        assert 0 <= y0 < y1 <= SIZE[0]
        inside = added[y0:y1, x0:x1].sum()
        assert inside > 0.9 * added.sum() > 0
        # and is no larger than it must be: along each of its borders the lesion adds something
        borders = (
            added[y0 : y0 + 4, x0:x1],
            added[y1 - 4 : y1, x0:x1],
            added[y0:y1, x0 : x0 + 4],
            added[y0:y1, x1 - 4 : x1],
        )
        assert min(border.max() for border in borders) > 0.02 * added.max()
        assert max(x1 - x0, y1 - y0) * whole.spacing_mm < 7.5 * lesion.radius_mm
        seen.add(lesion.kind)
    assert len(seen) == 4


def test_lesions_add_brightness_where_their_box_is_and_boxes_do_not_depend_on_drawing_them():
    for number, lesion, view in with_lesions(range(1, 10)):
        whole, healthy = (picture(number, lesion.side, view, lesions=shown) for shown in (True, False))
        assert whole.boxes == healthy.boxes
        x0, y0, x1, y1 = whole.boxes[lesion.number]
        assert whole.pixels[y0:y1, x0:x1].mean() > healthy.pixels[y0:y1, x0:x1].mean()


def test_a_lesion_is_as_far_from_the_chest_wall_in_both_views():
    distances = []
    for number in range(1, 30):
        for lesion in draw_woman(0, number, 1.0).lesions:
            middle = []
            for view in VIEWS:
                shown = picture(number, lesion.side, view)
                x0, _, x1, _ = shown.boxes[lesion.number]
                x = (x0 + x1) / 2 if lesion.side == "L" else SIZE[1] - (x0 + x1) / 2
                middle.append(x * shown.spacing_mm)
            distances.append(middle)
    cc, mlo = np.array(distances).T
    assert np.corrcoef(cc, mlo)[0, 1] > 0.9
    assert np.abs(cc - mlo).max() < 20  # mm


def test_without_lesions_a_picture_does_not_depend_on_prevalence():
    for number in (1, 2, 3):
        some, none = (draw_woman(0, number, prevalence) for prevalence in (1.0, 0.0))
        for side in SIDES:
            volume = gland_volume(some, side)
            one, other = (render(woman, side, "CC", SIZE, volume, lesions=False).pixels for woman in (some, none))
            assert (one == other).all()


def test_density_a_to_d_is_more_and_more_glandular():
    for number in range(1, 7):
        for view in VIEWS:
            pictures = [picture(number, "R", view, lesions=False, density=density) for density in DENSITIES]
            shares = [one.glandular_share for one in pictures]
            assert shares == sorted(shares)
            assert shares[0] < 0.1
            assert shares[3] > 0.2
            means = [one.pixels[one.pixels > AIR].mean() for one in pictures]
            assert means == sorted(means)


def test_the_two_breasts_of_a_woman_are_alike_but_not_the_same():
    maps = {
        (number, side): project(gland_volume(draw_woman(0, number, 0.5, "C"), side), "CC")
        for number in range(1, 9)
        for side in SIDES
    }
    average = np.mean(list(maps.values()), axis=0)

    def alike(one, other):
        return np.corrcoef((maps[one] - average).ravel(), (maps[other] - average).ravel())[0, 1]

    own = [alike((n, "L"), (n, "R")) for n in range(1, 9)]
    others = [alike((n, "L"), (m, "R")) for n in range(1, 9) for m in range(1, 9) if n != m]
    assert 0.5 < np.mean(own) < 0.95
    assert np.mean(own) > np.mean(others) + 0.4
    assert not (picture(1, "L", "CC").pixels == picture(1, "R", "CC").pixels[:, ::-1]).all()


def test_rendering_is_repeatable_and_each_view_has_its_own_noise():
    woman = draw_woman(0, 2, 0.5)
    first, again = (render(woman, "L", "CC", SIZE, gland_volume(woman, "L")) for _ in range(2))
    assert (first.pixels == again.pixels).all()
    assert first.boxes == again.boxes


@pytest.mark.parametrize("size", [(128, 104), (256, 256), (200, 400), (1024, 832)])
def test_the_field_measures_the_same_whatever_the_size(size):
    woman = draw_woman(0, 2, 1.0)
    lesion = woman.lesions[-1]
    volume = gland_volume(woman, lesion.side)
    shown = render(woman, lesion.side, "CC", size, volume)
    reference = render(woman, lesion.side, "CC", SIZE, volume)
    for one in (shown, reference):
        assert one.pixels.shape[0] * one.spacing_mm >= 235
    area = [(one.pixels > AIR).sum() * one.spacing_mm**2 for one in (shown, reference)]
    assert area[0] == pytest.approx(area[1], rel=0.03)
    width = [(box[2] - box[0]) * one.spacing_mm for one in (shown, reference) for box in [one.boxes[lesion.number]]]
    assert width[0] == pytest.approx(width[1], rel=0.25, abs=4)
