from itertools import pairwise

import numpy as np
import pytest

from spicula.phantoms.outline import draw_outline
from spicula.phantoms.woman import draw_woman

ROWS, SPACING = 512, 240.0 / 512
WOMEN = [draw_woman(0, number, 0.5) for number in range(1, 60)]


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_every_breast_fits_into_the_field_and_is_widest_at_the_nipple(view, side):
    for woman in WOMEN:
        outline = draw_outline(woman, side, view, ROWS, SPACING)
        assert outline.edge_mm.shape == (ROWS,)
        assert outline.edge_mm.min() >= 0
        assert 50 < outline.edge_mm.max() < 180
        nipple_x, nipple_y = outline.nipple_mm
        assert outline.edge_mm.max() == pytest.approx(nipple_x, abs=4)
        widest = (np.argmax(outline.edge_mm) + 0.5) * SPACING
        assert widest == pytest.approx(nipple_y, abs=20)


def test_cc_shows_a_whole_half_disc_and_mlo_reaches_the_upper_edge_with_the_muscle():
    for woman in WOMEN:
        cc, mlo = (draw_outline(woman, "L", view, ROWS, SPACING) for view in ("CC", "MLO"))
        assert cc.edge_mm[0] == cc.edge_mm[-1] == 0
        assert cc.muscle_mm is None
        assert mlo.edge_mm[0] > 20
        assert mlo.muscle_mm is not None
        assert (np.diff(mlo.muscle_mm) < 0).all()  # it narrows downwards
        assert mlo.muscle_mm[0] < mlo.edge_mm[0]  # and is covered by the breast
        assert mlo.muscle_mm[-1] < 0 < mlo.muscle_mm[0]


def test_the_two_sides_of_a_woman_are_alike_but_not_the_same():
    own, other = [], []
    for woman, next_woman in pairwise(WOMEN):
        left = draw_outline(woman, "L", "MLO", ROWS, SPACING).edge_mm
        right = draw_outline(woman, "R", "MLO", ROWS, SPACING).edge_mm
        assert not np.allclose(left, right, atol=0.5)
        own.append(np.abs(left - right).mean())
        other.append(np.abs(left - draw_outline(next_woman, "R", "MLO", ROWS, SPACING).edge_mm).mean())
    assert np.mean(own) < 0.6 * np.mean(other)


def test_places_are_shares_of_the_breast():
    outline = draw_outline(WOMEN[0], "L", "CC", ROWS, SPACING)
    x, y = outline.nipple_mm
    assert outline.to_image(1.0, 0.0) == (x, y)
    assert outline.to_image(0.0, 1.0) == (0.0, y - outline.above_mm)
    assert outline.to_image(0.5, -1.0) == (0.5 * x, y + outline.below_mm)
