from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from spicula.phantoms.detectors import DETECTORS, detector_of
from spicula.phantoms.types import DENSITIES
from spicula.phantoms.woman import BENIGN_SHARE, DENSITY_SHARES, draw_woman

MANY = [draw_woman(0, number, 0.5) for number in range(1, 2001)]


def malignant(woman):
    return [lesion for lesion in woman.lesions if lesion.pathology == "malignant"]


def test_the_same_seed_and_number_are_the_same_woman():
    assert draw_woman(4, 7, 0.5) == draw_woman(4, 7, 0.5)
    assert draw_woman(4, 7, 0.5) != draw_woman(4, 8, 0.5)
    assert draw_woman(4, 7, 0.5) != draw_woman(5, 7, 0.5)


@pytest.mark.parametrize("prevalence", [0.0, 0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_any_run_of_exams_comes_close_to_the_prevalence(prevalence, seed):
    has_one = [bool(malignant(draw_woman(seed, number, prevalence))) for number in range(1, 41)]
    for length in (10, 20, 40):
        assert sum(has_one[:length]) == pytest.approx(prevalence * length, abs=2)
    assert prevalence in (0.0, 1.0) or len(set(has_one)) == 2


def test_the_prevalence_changes_nothing_but_the_malignant_lesions():
    for number in range(1, 200):
        without, with_one = draw_woman(0, number, 0.0), draw_woman(0, number, 1.0)
        assert len(malignant(with_one)) == 1
        assert replace(with_one, lesions=without.lesions) == without
        assert [one for one in with_one.lesions if one.pathology == "benign"] == list(without.lesions)
        assert detector_of(with_one) is detector_of(without)


def test_only_the_form_tells_benign_from_malignant():
    lesions = [lesion for woman in MANY for lesion in woman.lesions]
    groups = [[one for one in lesions if one.pathology == pathology] for pathology in ("benign", "malignant")]
    for value in ("radius_mm", "contrast"):
        benign, cancer = ([getattr(one, value) for one in group] for group in groups)
        assert stats.ks_2samp(benign, cancer).pvalue > 0.01
    for axis in range(3):
        benign, cancer = ([one.place[axis] for one in group] for group in groups)
        assert stats.ks_2samp(benign, cancer).pvalue > 0.01
    masses = [np.mean([one.finding == "mass" for one in group]) for group in groups]
    assert masses[0] == pytest.approx(masses[1], abs=0.05)
    assert {one.kind for one in groups[0]} == {"round mass", "coarse calcifications"}
    assert {one.kind for one in groups[1]} == {"spiculated mass", "fine pleomorphic calcifications"}


def test_densities_systems_and_benign_lesions_have_their_shares():
    density = Counter(woman.density for woman in MANY)
    for name, share in zip(DENSITIES, DENSITY_SHARES, strict=True):
        assert density[name] / len(MANY) == pytest.approx(share, abs=0.03)
    systems = Counter(detector_of(woman).model for woman in MANY)
    assert min(systems.values()) / len(MANY) > 1 / len(DETECTORS) - 0.04
    benign = sum(lesion.pathology == "benign" for woman in MANY for lesion in woman.lesions)
    assert benign / len(MANY) / 2 == pytest.approx(BENIGN_SHARE, abs=0.03)


def test_a_density_can_be_chosen_and_changes_nothing_else():
    drawn = draw_woman(0, 1, 0.5)
    for density in DENSITIES:
        assert draw_woman(0, 1, 0.5, density) == replace(drawn, density=density)


def test_two_lesions_of_a_side_lie_apart_in_both_views():
    pairs = 0
    for woman in MANY:
        for side in "LR":
            places = [np.array(one.place) for one in woman.lesions if one.side == side]
            if len(places) == 2:
                pairs += 1
                along, lateral, superior = places[0] - places[1]
                assert np.hypot(along, lateral) >= 0.3
                assert np.hypot(along, (lateral + superior) / np.sqrt(2)) >= 0.3
    assert pairs > 100


def test_birads_follows_the_pathology():
    birads = {(one.pathology, one.birads) for woman in MANY for one in woman.lesions}
    assert {grade for pathology, grade in birads if pathology == "benign"} == {"2", "3"}
    assert {grade for pathology, grade in birads if pathology == "malignant"} == {"4A", "4B", "4C", "5"}
