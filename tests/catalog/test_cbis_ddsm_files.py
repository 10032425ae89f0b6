"""The files of CBIS-DDSM: which is the mask, what contradicts itself, what no table names."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cbis_ddsm_maker import Lesion, Miniature, film, mask, uid, write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from spicula.catalog import cbis_ddsm

ONE = Lesion()


@pytest.fixture
def small(tmp_path):
    miniature = Miniature(tmp_path / "data")
    miniature.write(ONE)
    return miniature


def read(small, **options):
    reading = cbis_ddsm.read(small.root, options)
    return reading.index.to_pylist(), reading.rejected.to_pylist()


def relative(small, what):
    return small.path(ONE, what).relative_to(small.root).as_posix()


def kinds(rows):
    return [lesion["kind"] for row in rows for lesion in row["lesions"]]


COMPRESSED = {"syntax": ExplicitVRLittleEndian, "compress": RLELossless}


@pytest.mark.parametrize("described", [True, False])
def test_compressed_files_are_told_by_description_and_size(small, described):
    words = {} if described else {"SeriesDescription": None}
    small.write_roi(ONE, "mask", mask(), **COMPRESSED, **words)
    small.write_roi(ONE, "crop", film("crop", 8, 6), **COMPRESSED, **words)
    rows, rejected = read(small)
    assert rejected == []
    assert rows[0]["lesions"][0]["mask_path"] == relative(small, "mask")
    assert [row["path"] for row in read(small, level="lesion")[0]] == [relative(small, "crop")]


def test_what_nothing_tells_apart_is_rejected_and_not_guessed(small):
    """Compressed, without description, and both of another size than the mammogram."""
    for what, pixels in (("mask", mask(20, 20)), ("crop", film("crop", 8, 6))):
        small.write_roi(ONE, what, pixels, **COMPRESSED, SeriesDescription=None)
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    reason = f"nothing says whether it is the mask or the cropped image of lesion {ONE.name}: not used"
    assert {row["path"]: row["reason"] for row in rejected} == {
        relative(small, "mask"): reason,
        relative(small, "crop"): reason,
    }


TRUE_WORDS = {"mask": "ROI mask images", "crop": "cropped images"}
PIXELS = {"mask": mask(), "crop": film("crop", 8, 6)}
#: What a header can call a file. What is compressed has nothing but its description and size, so that is true then.
STORED = st.sampled_from(["compressed", None, "something else", *TRUE_WORDS.values(), "full mammogram images"])


@settings(max_examples=60)
@given(
    stored=st.fixed_dictionaries({"mask": STORED, "crop": STORED}),
    lesion=st.builds(Lesion, exchanged=st.booleans(), one_series=st.booleans()),
    without=st.sampled_from([None, None, "full", "mask", "crop"]),
    layout=st.sampled_from(["old", "new", "flat"]),
)
def test_a_file_never_passes_for_the_other_whatever_is_missing_or_wrong(stored, lesion, without, layout):
    with TemporaryDirectory() as folder:
        small = Miniature(Path(folder) / "data", layout)
        small.write(lesion)
        for what, word in stored.items():
            how = {"SeriesDescription": TRUE_WORDS[what], **COMPRESSED} if word == "compressed" else {}
            small.write_roi(lesion, what, PIXELS[what], **{"SeriesDescription": word, **how})
        if without:
            small.path(lesion, without).unlink()
        images, crops = cbis_ddsm.read(small.root, {}), cbis_ddsm.read(small.root, {"level": "lesion"})
        where = {what: small.path(lesion, what).relative_to(small.root).as_posix() for what in stored}
    masks = [one["mask_path"] for row in images.index.to_pylist() for one in row["lesions"] if one["mask_path"]]
    found = crops.index["path"].to_pylist()
    assert set(masks) <= {where["mask"]}
    assert set(found) <= {where["crop"]}
    right = all(word in ("compressed", None, "something else", TRUE_WORDS[what]) for what, word in stored.items())
    if right and not without:
        assert (masks, found) == ([where["mask"]], [where["crop"]])
    assert masks or images.rejected.num_rows
    assert found or crops.rejected.num_rows


def test_the_description_is_missing_and_values_and_size_decide(small):
    small.write_roi(ONE, "mask", mask(), SeriesDescription=None)
    small.write_roi(ONE, "crop", film("crop", 8, 6), SeriesDescription=None)
    rows, rejected = read(small)
    assert rejected == []
    assert rows[0]["lesions"][0]["mask_path"] == relative(small, "mask")


@pytest.mark.parametrize("size", [(35, 21), (41, 24)])
def test_a_mask_of_another_size_leaves_its_lesion_unlocated(small, size):
    small.write_roi(ONE, "mask", mask(*size))
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    assert rejected == [
        {
            "path": relative(small, "mask"),
            "reason": f"a mask of {size[1]} x {size[0]} pixels, but its mammogram has 24 x 40: its lesion is unlocated",
        }
    ]
    assert rows[0]["lesions"][0]["pathology"] == "malignant"
    lesions, rejected = read(small, level="lesion")
    assert ([row["path"] for row in lesions], rejected) == ([relative(small, "crop")], [])


def test_an_empty_mask_leaves_its_lesion_unlocated(small):
    small.write_roi(ONE, "mask", mask(values=()))
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    assert [row["reason"] for row in rejected] == ["an empty mask: its lesion is unlocated"]


def test_a_mask_with_three_values_contradicts_itself(small):
    small.write_roi(ONE, "mask", mask(values=(255, 128)))
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    (row,) = rejected
    assert row["path"] == relative(small, "mask")
    assert row["reason"] == (
        f"a file of lesion {ONE.name}, but a mask by its series description and its size, that of the mammogram,"
        " a cropped image by its values (more than two): not used"
    )
    lesions, _ = read(small, level="lesion")
    assert [row["path"] for row in lesions] == [relative(small, "crop")], "the crop tells itself"


def test_a_wrong_description_contradicts_the_values(small):
    small.write_roi(ONE, "mask", mask(), SeriesDescription="cropped images")
    small.write_roi(ONE, "crop", film("crop", 8, 6), SeriesDescription="ROI mask images")
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    assert len(rejected) == 2
    assert all("a cropped image by" in row["reason"] and "a mask by" in row["reason"] for row in rejected)


def test_two_masks_are_both_refused(small):
    small.write_roi(ONE, "crop", mask(values=(7,)), SeriesDescription="ROI mask images")
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    assert {row["reason"] for row in rejected} == {
        f"one of two files that both look like the mask of lesion {ONE.name}: not used"
    }


def test_a_damaged_mask_is_rejected_and_the_crop_still_found(small):
    path = small.path(ONE, "mask")
    path.write_bytes(path.read_bytes()[:-10])
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    assert [(row["path"], "cut short" in row["reason"]) for row in rejected] == [(relative(small, "mask"), True)]
    assert [row["path"] for row in read(small, level="lesion")[0]] == [relative(small, "crop")]


def test_a_third_file_in_the_series_of_a_lesion(small):
    _, study, series = ONE.place("mask")
    more = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": uid("more")}
    write_dicom(small.path(ONE, "mask").with_name("1-3.dcm"), mask(), **more)
    rows, rejected = read(small)
    assert kinds(rows) == ["unlocated"]
    assert {row["reason"] for row in rejected} == {
        f"one of 3 files, not a mask and a cropped image, of lesion {ONE.name}: not used"
    }


def test_a_copy_in_another_layout_is_reported_and_not_indexed_twice(small):
    copy = Miniature(small.root, "old")
    for what, pixels in (("full", film(ONE.case)), ("crop", film(ONE.name, 8, 6)), ("mask", mask())):
        copy.write_roi(ONE, what, pixels)
    rows, rejected = read(small)
    assert (len(rows), kinds(rows), len(rejected)) == (1, ["mask"], 3)
    assert {row["reason"] for row in rejected} == {"a copy of an image that is there in another place"}


def test_a_second_image_in_the_series_of_a_mammogram_is_refused_with_the_first(small):
    _, study, series = ONE.place("full")
    more = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": uid("more")}
    write_dicom(small.path(ONE, "full").with_name("1-2.dcm"), film("more"), **more)
    rows, rejected = read(small)
    assert rows == []
    assert sorted(row["path"].rpartition("/")[2] for row in rejected if "one of 2 different" in row["reason"]) == [
        "1-1.dcm",
        "1-2.dcm",
    ]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"StudyInstanceUID": "1.2.3"}, "its study is not the one that they name for it"),
        ({"PatientID": "Mass-Training_P_00002_LEFT_CC"}, "its patient id names another case"),
        ({"PatientID": "Mass-Training_P_00001_RIGHT_CC"}, "its patient id names another case"),
        ({"PatientID": "Mass-Training_P_00001_LEFT_CC_1"}, "its patient id names another case"),
        ({"SOPInstanceUID": None}, "has no SOPInstanceUID"),
        ({"SeriesInstanceUID": None}, "DICOM of a series that no table names"),
        ({"SeriesInstanceUID": "1.2.3"}, "DICOM of a series that no table names"),
        ({"SeriesDescription": "ROI mask images"}, "not by its series description"),
    ],
)
def test_a_mammogram_whose_header_says_otherwise_is_rejected(small, elements, reason):
    small.write_full(ONE, **elements)
    rows, rejected = read(small)
    assert rows == []
    (row,) = [row for row in rejected if row["path"] == relative(small, "full")]
    assert reason in row["reason"]
    assert "P_0000" not in row["reason"]


@pytest.mark.parametrize("elements", [{"PatientID": "ANON-7"}, {"PatientID": None}, {"Laterality": None}])
def test_what_a_header_does_not_say_does_not_matter(small, elements):
    small.write_full(ONE, **elements)
    rows, rejected = read(small)
    assert (len(rows), rejected) == (1, [])


@pytest.mark.parametrize("elements", [{"Laterality": "R"}, {"PatientOrientation": "MLO"}])
def test_a_header_of_another_side_or_view_is_reported_and_the_tables_hold(small, elements):
    small.write_full(ONE, **elements)
    rows, rejected = read(small)
    assert (rows[0]["laterality"], rows[0]["view"]) == ("L", "CC")
    assert [row["path"] for row in rejected] == [relative(small, "full")]
    assert "its header names another side or view than the tables" in rejected[0]["reason"]


def test_many_files_that_no_table_names_become_one_row(small):
    for number in range(25):
        write_dicom(small.root / "other" / "deep" / f"{number:02d}.dcm", mask(), SeriesInstanceUID=uid("other"))
    (small.root / "other" / "notes.rtf").write_text("no image")
    rows, rejected = read(small)
    assert len(rows) == 1
    assert rejected == [
        {"path": "other/notes.rtf", "reason": "not a DICOM file"},
        {
            "path": "other",
            "reason": "25 files below: DICOM of a series that no table names; the first is other/deep/00.dcm",
        },
    ]
