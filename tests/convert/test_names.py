import re

from hypothesis import given
from hypothesis import strategies as st

from spicula.convert.names import image_names, mask_names, pseudonymous


def named(*paths):
    """Names of single frames, by path."""
    return {path: name for (path, _), name in image_names((path, 0) for path in paths).items()}


def test_the_suffix_becomes_png():
    assert named("a/b.dcm", "a/c.PGM", "d.jpeg", "e") == {
        "a/b.dcm": "a/b.png",
        "a/c.PGM": "a/c.png",
        "d.jpeg": "d.png",
        "e": "e.png",
    }


def test_dots_that_are_part_of_a_name_stay():
    uid = "1.2.840.113619.77"
    assert named(uid, "scan.v2", "a.b.dcm") == {uid: f"{uid}.png", "scan.v2": "scan.v2.png", "a.b.dcm": "a.b.png"}


def test_frames_are_numbered_where_a_file_has_several():
    names = image_names([("a.dcm", 0), ("a.dcm", 3), ("b.dcm", 0), ("c.dcm", 12)])
    assert names == {
        ("a.dcm", 0): "a-f000.png",
        ("a.dcm", 3): "a-f003.png",
        ("b.dcm", 0): "b.png",
        ("c.dcm", 12): "c-f012.png",
    }


def test_files_that_would_meet_keep_their_suffixes():
    names = named("a.dcm", "a.tif", "a")
    assert (names["a.dcm"], names["a.tif"]) == ("a.dcm.png", "a.tif.png")
    assert re.fullmatch(r"a-[0-9a-f]{16}\.png", names["a"])
    assert named("x/a.dcm", "y/a.tif") == {"x/a.dcm": "x/a.png", "y/a.tif": "y/a.png"}


def test_case_does_not_tell_names_apart():
    names = named("A.dcm", "a.dcm")
    assert len({name.lower() for name in names.values()}) == 2


def test_a_file_is_never_called_like_a_folder():
    names = named("a", "a.png/b.dcm")
    assert names["a.png/b.dcm"] == "a.png/b.png"
    assert names["a"] not in ("a.png", "a.png/b.png")


PATHS = st.lists(
    st.tuples(
        st.sampled_from(["", "d/", "d.png/"]),
        st.sampled_from("aAb"),
        st.sampled_from(["", ".dcm", ".png", ".dcm.png", "-f001"]),
    ).map("".join),
    unique=True,
    max_size=12,
)


@given(PATHS, st.randoms())
def test_names_are_unique_and_do_not_depend_on_the_order(paths, random):
    images = [(path, frame) for path in paths for frame in (0, 1)]
    names = image_names(images)
    shuffled = random.sample(images, len(images))
    assert image_names(shuffled) == names
    flat = [name.casefold() for name in names.values()]
    assert len(set(flat)) == len(images)
    folders = {"/".join(name.split("/")[:depth]) for name in flat for depth in range(1, name.count("/") + 1)}
    assert not folders & set(flat)
    assert all(name.endswith(".png") for name in flat)


def test_masks_keep_away_from_images_and_from_each_other():
    images = image_names([("a.dcm", 0), ("b.dcm", 0)])
    masks = mask_names(
        [("a.dcm", 0, "masks/a.dcm"), ("a.dcm", 0, "b.tif"), ("b.dcm", 0, "masks/a.dcm")], images.values()
    )
    assert masks["a.dcm", 0, "b.tif"] == "b.tif.png"
    assert len({*masks.values(), *images.values()}) == 5
    assert {name.split("/")[0] for (_, _, mask), name in masks.items() if mask == "masks/a.dcm"} == {"masks"}


def test_pseudonymous_paths():
    assert pseudonymous("P-1", "E-2", "I-3", ".png") == "P-1/E-2/I-3.png"
    assert pseudonymous(None, None, "I-3", ".dcm") == "I-3.dcm"
