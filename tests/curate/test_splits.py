from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spicula import index
from spicula.curate.leakage import check_leakage
from spicula.curate.splits import SplitSettings, assign, parts
from spicula.errors import SpiculaError, UsageError


def table(images, **columns):
    """An Index of (patient, target) pairs, one image each, in that order."""
    rows = [
        {
            "dataset": "made",
            "image_id": f"image {number:04d}",
            "patient_id": patient,
            "path": f"{number}.png",
            "target": target,
            **{name: values[number] for name, values in columns.items()},
        }
        for number, (patient, target) in enumerate(images)
    ]
    return index.from_rows(rows, Path("/data"))


def women(count, images=1, positive=2):
    """`count` patients; every `positive`-th has target 1 in all images."""
    return [(f"woman {w:03d}", int(w % positive == 0)) for w in range(count) for _ in range(images)]


def sides_by_patient(divided, column="split"):
    found = defaultdict(set)
    for patient, side in zip(divided["patient_id"].to_pylist(), divided[column].to_pylist(), strict=True):
        if side is not None:
            found[patient].add(side)
    return found


def side_of_image(divided, column="split"):
    return dict(zip(divided["image_id"].to_pylist(), divided[column].to_pylist(), strict=True))


SETTINGS = st.one_of(
    st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (0.34, 0.33, 0.33)]).map(
        lambda fractions: SplitSettings(fractions=fractions)
    ),
    st.integers(3, 6).map(lambda folds: SplitSettings(folds=folds)),
)
SOME_IMAGES = st.lists(
    st.tuples(st.integers(0, 25).map("woman {}".format), st.sampled_from([0, 0, 1, 1, None])), max_size=60
)
# mostly enough patients for the split to be made, whatever comes on top
IMAGES = st.tuples(SOME_IMAGES, st.sampled_from([0, 12, 14, 20])).map(lambda drawn: [*drawn[0], *women(drawn[1])])


def divided_or_refused(made, chosen, seed, previous=None):
    """The divided Index, or None where it was refused for too few patients."""
    try:
        return assign(made, chosen, seed, previous)
    except SpiculaError as error:
        assert "needs at least" in str(error) or "gets no patient" in str(error)
        return None


@settings(max_examples=200, deadline=None)
@given(images=IMAGES, chosen=SETTINGS, seed=st.integers(0, 5))
def test_no_patient_stands_on_two_sides_whatever_the_table(images, chosen, seed):
    divided = divided_or_refused(table(images), chosen, seed)
    assume(divided is not None)
    column, other = ("fold", "split") if chosen.folds else ("split", "fold")
    assert all(len(sides) == 1 for sides in sides_by_patient(divided, column).values())
    assert not check_leakage(divided).problems
    assert divided[other].null_count == len(divided)
    for target, side in zip(divided["target"].to_pylist(), divided[column].to_pylist(), strict=True):
        assert (side is None) == (target is None)


@settings(max_examples=200, deadline=None)
@given(images=IMAGES, chosen=SETTINGS, seed=st.integers(0, 5))
def test_every_side_has_images_of_both_targets_or_the_split_is_refused_for_cause(images, chosen, seed):
    divided = divided_or_refused(table(images), chosen, seed)
    names = (
        range(chosen.folds) if chosen.folds else [n for n, f in zip(index.SPLITS, chosen.fractions, strict=True) if f]
    )
    if divided is None:
        with_target = [len({p for p, t in images if t == target}) for target in (0, 1)]
        assert min(with_target) < len(names)
        return
    sides = divided["fold" if chosen.folds else "split"].to_pylist()
    present = set(zip(sides, divided["target"].to_pylist(), strict=True)) - {(None, None)}
    assert present == {(name, target) for name in names for target in (0, 1)}


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, chosen=SETTINGS, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_rows_makes_no_difference(images, chosen, shuffle):
    made = table(images)
    divided = divided_or_refused(made, chosen, seed=1)
    assume(divided is not None)
    order = list(range(len(made)))
    shuffle.shuffle(order)
    again = assign(made.take(pa.array(order, type=pa.int64())), chosen, seed=1)
    column = "fold" if chosen.folds else "split"
    assert side_of_image(again, column) == side_of_image(divided, column)


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, more=SOME_IMAGES, chosen=SETTINGS, seeds=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_patients_once_placed_are_never_moved(images, more, chosen, seeds):
    before = divided_or_refused(table(images), chosen, seeds[0])
    assume(before is not None)
    grown = [*images, *[(patient.replace("woman", "new woman"), target) for patient, target in more]]
    after = divided_or_refused(table(grown), chosen, seeds[1], previous=before)
    assume(after is not None)
    column = "fold" if chosen.folds else "split"
    kept = sides_by_patient(after, column)
    assert {patient: kept[patient] for patient in sides_by_patient(before, column)} == sides_by_patient(before, column)
    assert all(len(sides) == 1 for sides in kept.values())


def test_new_patients_fill_the_sides_that_fell_behind():
    before = assign(table(women(20)), SplitSettings(), seed=0)
    after = assign(table(women(100)), SplitSettings(), seed=0, previous=before)
    assert Counter(next(iter(s)) for s in sides_by_patient(after).values()) == {"train": 60, "val": 20, "test": 20}


def test_sides_get_their_shares_of_each_class():
    divided = assign(table(women(100, positive=4)), SplitSettings(), seed=3)
    counts = Counter(zip(divided["split"].to_pylist(), divided["target"].to_pylist(), strict=True))
    assert counts == {
        ("train", 0): 45, ("val", 0): 15, ("test", 0): 15, ("train", 1): 15, ("val", 1): 5, ("test", 1): 5,
    }  # fmt: skip


def test_folds_get_equal_shares_of_each_class():
    divided = assign(table(women(50)), SplitSettings(folds=5), seed=3)
    counts = Counter(zip(divided["fold"].to_pylist(), divided["target"].to_pylist(), strict=True))
    assert counts == {(fold, target): 5 for fold in range(5) for target in (0, 1)}


def test_images_are_spread_evenly_where_patients_have_many_or_few():
    images = [(f"woman {w:02d}", w % 2) for w in range(40) for _ in range(1 + 3 * w)]
    shares = []
    for seed in range(5):
        divided = assign(table(images), SplitSettings(fractions=(0.5, 0.25, 0.25)), seed)
        counts = Counter(divided["split"].to_pylist())
        shares.append([counts[side] / len(images) for side in index.SPLITS])
    # a single shuffle is off by a tenth or so
    assert np.abs(np.array(shares) - [0.5, 0.25, 0.25]).max() < 0.02


def test_the_seed_decides_and_repeats():
    made = table(women(40))
    first, again, other = (side_of_image(assign(made, SplitSettings(), seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_patients_with_both_targets_go_where_they_are_needed():
    # two patients with negatives alone, and one with both, for three sides that each need negatives
    images = [("a", 0), ("b", 0), ("c", 0), ("c", 1), *[(f"p{number}", 1) for number in range(9)]]
    for seed in range(5):
        divided = assign(table(images), SplitSettings(), seed)
        assert len({next(iter(sides_by_patient(divided)[patient])) for patient in "abc"}) == 3


def test_a_split_by_image_puts_patients_on_several_sides():
    divided = assign(table(women(10, images=20)), SplitSettings(unit="image"), seed=0)
    assert max(len(sides) for sides in sides_by_patient(divided).values()) == 3
    assert Counter(divided["split"].to_pylist()) == {"train": 120, "val": 40, "test": 40}


def test_images_of_unknown_patients_can_be_split_by_image_alone():
    made = table([(None, number % 2) for number in range(20)])
    assert assign(made, SplitSettings(unit="image"), seed=0)["split"].null_count == 0
    with pytest.raises(SpiculaError, match=r"20 of 20 images have no patient_id .*image 0000.*patient_pattern"):
        assign(made, SplitSettings(), seed=0)


def test_an_image_without_target_needs_no_patient():
    divided = assign(table([*women(20), (None, None)]), SplitSettings(), seed=0)
    assert divided["split"].to_pylist()[-1] is None


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            SplitSettings(folds=5),
            "a split into 5 folds needs at least 5 patients with target 1, there are 3; use fewer",
        ),
        (SplitSettings(fractions=(0.4, 0.3, 0.3)), None),
        (
            SplitSettings(unit="image", folds=4),
            "a split into 4 folds needs at least 4 images with target 1, there are 3",
        ),
    ],
)
def test_too_few_patients_of_a_class(chosen, message):
    made = table([(f"w{number}", int(number < 3)) for number in range(30)])
    if message is None:
        assert assign(made, chosen, seed=0)["split"].null_count == 0
        return
    with pytest.raises(SpiculaError, match=message):
        assign(made, chosen, seed=0)


def test_too_few_patients_for_three_sides():
    with pytest.raises(
        SpiculaError,
        match=r"a split into train, val and test needs at least 3 patients with target 0, there are 1; add",
    ):
        assign(table([("a", 0), *[(f"p{number}", 1) for number in range(9)]]), SplitSettings(), seed=0)


def test_an_earlier_split_that_leaves_a_side_without_a_class_is_refused():
    before = table(women(12, positive=4), split=["train"] * 12)
    with pytest.raises(SpiculaError, match="split val gets no patient with target 1, because"):
        assign(table(women(12, positive=4)), SplitSettings(), seed=0, previous=before)


def test_an_earlier_split_with_a_patient_on_two_sides_is_refused_without_naming_the_patient():
    before = table([("secret", 0), ("secret", 1)], split=["train", "test"])
    with pytest.raises(SpiculaError, match="one patient on two sides") as caught:
        assign(table([("secret", 0), *women(20)]), SplitSettings(), seed=0, previous=before)
    assert "secret" not in str(caught.value)


def test_an_earlier_split_into_more_folds_is_refused():
    before = assign(table(women(40)), SplitSettings(folds=6), seed=0)
    with pytest.raises(SpiculaError, match=r"the earlier split has fold [45], which is none of the 4 asked for"):
        assign(table(women(41)), SplitSettings(folds=4), seed=0, previous=before)


def test_the_official_split_is_taken_as_it_is():
    split = ["train"] * 6 + ["val"] * 4 + ["test"] * 4
    divided = assign(table(women(14), split=split), SplitSettings(official=True), seed=0)
    assert divided["split"].to_pylist() == split


def test_validation_patients_are_taken_from_the_official_training_side():
    made = table(women(60, images=2), split=["train"] * 80 + ["test"] * 40)
    divided = assign(made, SplitSettings(official=True, fractions=(0.6, 0.2, 0.2)), seed=0)
    sides = sides_by_patient(divided)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(next(iter(side)) for side in sides.values()) == {"train": 30, "val": 10, "test": 20}
    assert divided["split"].to_pylist()[80:] == ["test"] * 40
    grown = table(women(70, images=2), split=["train"] * 80 + ["test"] * 40 + ["train"] * 20)
    again = assign(grown, SplitSettings(official=True), seed=9, previous=divided)
    assert again["split"].to_pylist()[:120] == divided["split"].to_pylist()


@pytest.mark.parametrize(("split", "missing"), [([None] * 20, "train"), (["train"] * 20, "test")])
def test_an_official_split_that_the_archive_does_not_have_is_refused(split, missing):
    with pytest.raises(SpiculaError, match=f"no official {missing} side"):
        assign(table(women(20), split=split), SplitSettings(official=True), seed=0)


def test_each_fold_tests_once_the_next_validates_and_the_rest_trains():
    divided = assign(table(women(30, images=2)), SplitSettings(folds=4), seed=0)
    tested = Counter()
    for fold in range(4):
        part = parts(divided, fold)
        for image, of_fold, split in zip(
            part["image_id"].to_pylist(), part["fold"].to_pylist(), part["split"].to_pylist(), strict=True
        ):
            assert split == {fold: "test", (fold + 1) % 4: "val"}.get(of_fold, "train")
            tested[image] += split == "test"
    assert set(tested.values()) == {1}
    assert len(tested) == 60


def test_parts_leaves_a_plain_split_as_it_is():
    divided = assign(table(women(20)), SplitSettings(), seed=0)
    assert parts(divided, None) is divided


def test_parts_refuses_folds_that_are_not_there():
    plain = assign(table(women(20)), SplitSettings(), seed=0)
    with pytest.raises(UsageError, match="the Index has no folds"):
        parts(plain, 0)
    folded = assign(table(women(20)), SplitSettings(folds=4), seed=0)
    with pytest.raises(UsageError, match="no fold 4: the Index has folds 0 to 3"):
        parts(folded, 4)
    with pytest.raises(UsageError, match="say which one, 0 to 3"):
        parts(folded, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fractions": (0.7, 0.2, 0.2)}, "sum to 1.1, not to 1"),
        ({"fractions": (1.2, -0.1, -0.1)}, "not all within 0 to 1"),
        ({"folds": 2}, "folds is 2; it takes 3"),
        ({"folds": 5, "official": True}, "exclude each other"),
        ({"unit": "exam"}, "patient"),
        ({"fraction": (0.6, 0.2, 0.2)}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        SplitSettings(**given)


def test_fractions_that_sum_to_one_up_to_rounding_are_fine():
    assert SplitSettings(fractions=(0.7, 0.2, 0.1)).fractions == (0.7, 0.2, 0.1)


def test_divided_indexes_are_valid_and_keep_their_root(tmp_path):
    divided = assign(table(women(20)), SplitSettings(folds=4), seed=0)
    index.write(tmp_path / "index.parquet", divided)
    assert index.root_of(index.read(tmp_path / "index.parquet")) == Path("/data")


def test_real_patches_of_fifty_women(test_data):
    import re
    import zipfile

    names = zipfile.ZipFile(test_data / "idc-patches" / "IDC_regular_ps50_idx5.zip").namelist()
    images = [
        (match[1], int(match[2]))
        for match in (re.search(r"(\w+)_idx5_.*_class([01])\.png$", n) for n in names)
        if match
    ]
    divided = assign(table(images), SplitSettings(), seed=0)
    assert not check_leakage(divided).problems
    counts = Counter(divided["split"].to_pylist())
    assert abs(counts["test"] / len(images) - 0.2) < 0.03
    assert Counter(next(iter(s)) for s in sides_by_patient(divided).values()) == {"train": 30, "val": 11, "test": 9}
