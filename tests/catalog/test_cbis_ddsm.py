"""CBIS-DDSM, whole: both layouts and others, several lesions, people on both sides, levels, parts of the archive."""

import shutil

import numpy as np
import pytest
from cbis_ddsm_maker import TABLES, Lesion, Miniature, film, mask

from spicula import catalog, index
from spicula.cli import main
from spicula.errors import UsageError

ONE = Lesion()
#: Of one image: benign and malignant; then another view, another person with a lesion that nobody called back.
SEVERAL = (
    Lesion(person="P_00002", number=1, pathology="BENIGN", assessment="3", words=("OVAL", "N/A")),
    Lesion(person="P_00002", number=2, pathology="MALIGNANT", assessment="5"),
    Lesion(person="P_00002", view="MLO", pathology="BENIGN", assessment="0", density="1"),
    Lesion("Calc", "Test", "P_00003", "RIGHT", pathology="BENIGN_WITHOUT_CALLBACK", assessment="2", density="0"),
)


@pytest.fixture
def small(tmp_path):
    return Miniature(tmp_path / "data")


def read(folder, **options):
    reading = catalog.index_dataset("cbis-ddsm", folder, folder.parent / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, reading.rejected.to_pylist()


def relative(small, lesion, what):
    return small.path(lesion, what).relative_to(small.root).as_posix()


def test_rows_of_a_miniature(small):
    rows, rejected = read(small.write(ONE, *SEVERAL))
    assert rejected == []
    row = rows["Mass-Training_P_00001_LEFT_CC"]
    assert row == row | {
        "dataset": "cbis-ddsm",
        "patient_id": "P_00001",
        "exam_id": "P_00001",
        "path": relative(small, ONE, "full"),
        "modality": "MG",
        "laterality": "L",
        "view": "CC",
        "label": "malignant",
        "target": 1,
        "birads": "4",
        "density": "C",
        "subtype": "MALIGNANT",
        "split": "train",
        "flags": [],
        "width": 24,
        "height": 40,
        "bits": 16,
        "photometric": "MONOCHROME2",
        "age": None,
        "pixel_spacing_mm": None,
    }
    assert row["lesions"] == [
        {
            "kind": "mask",
            "coordinates": [],
            "mask_path": relative(small, ONE, "mask"),
            "finding": "mass, shape IRREGULAR, margins SPICULATED",
            "pathology": "malignant",
            "birads": "4",
        }
    ]


def test_an_image_is_malignant_when_any_lesion_is_and_has_its_highest_assessment(small):
    rows, _ = read(small.write(*SEVERAL))
    both = rows["Mass-Training_P_00002_LEFT_CC"]
    assert (both["label"], both["target"], both["birads"], both["subtype"]) == ("malignant", 1, "5", "MALIGNANT")
    assert [(one["pathology"], one["birads"]) for one in both["lesions"]] == [("benign", "3"), ("malignant", "5")]
    assert both["lesions"][0]["finding"] == "mass, shape OVAL"
    other = rows["Mass-Training_P_00002_LEFT_MLO"]
    assert (other["label"], other["birads"], other["density"], other["exam_id"]) == ("benign", "0", "A", "P_00002")
    quiet = rows["Calc-Test_P_00003_RIGHT_CC"]
    assert (quiet["label"], quiet["target"], quiet["subtype"]) == ("benign", 0, "BENIGN_WITHOUT_CALLBACK")
    assert (quiet["density"], quiet["split"], quiet["laterality"]) == (None, "test", "R")
    assert quiet["lesions"][0]["finding"] == "calcification, type IRREGULAR, distribution SPICULATED"


@pytest.mark.parametrize(("assessments", "highest"), [("04", "4"), ("50", "5"), ("03", "0"), ("20", "0"), ("12", "2")])
def test_an_incomplete_assessment_stands_between_probably_benign_and_suspicious(small, assessments, highest):
    lesions = [Lesion(number=at, assessment=one) for at, one in enumerate(assessments, start=1)]
    rows, _ = read(small.write(*lesions))
    assert [row["birads"] for row in rows.values()] == [highest]


@pytest.mark.parametrize("one_series", [True, False])
@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("layout", ["old", "new", "flat"])
def test_layouts_and_columns_do_not_matter(tmp_path, layout, exchanged, one_series):
    small = Miniature(tmp_path / "data", layout)
    lesion = Lesion(exchanged=exchanged, one_series=one_series)
    rows, rejected = read(small.write(lesion))
    assert rejected == []
    (row,) = rows.values()
    assert row["path"] == relative(small, lesion, "full")
    assert row["lesions"][0]["mask_path"] == relative(small, lesion, "mask")
    crops, rejected = read(small.root, level="lesion")
    assert rejected == []
    assert [row["path"] for row in crops.values()] == [relative(small, lesion, "crop")]


def test_level_lesion_has_a_row_for_each_cropped_image(small):
    rows, rejected = read(small.write(ONE, *SEVERAL), level="lesion")
    assert rejected == []
    assert sorted(rows) == sorted(lesion.name for lesion in small.lesions)
    row = rows["Mass-Training_P_00002_LEFT_CC_1"]
    assert (row["label"], row["target"], row["birads"], row["subtype"]) == ("benign", 0, "3", "BENIGN")
    assert (row["width"], row["height"], row["split"], row["patient_id"]) == (6, 8, "train", "P_00002")
    assert [lesion["kind"] for lesion in row["lesions"]] == ["unlocated"]


PARTED = (
    Lesion("Mass", "Test", "P_00004", "LEFT", "CC", pathology="BENIGN"),
    Lesion("Calc", "Training", "P_00004", "RIGHT", "MLO", pathology="BENIGN"),
    Lesion("Calc", "Test", "P_00005", pathology="BENIGN"),
)


def test_people_on_both_sides_go_to_the_training_side_and_are_named(small, capsys):
    rows, rejected = read(small.write(*PARTED))
    assert {image: row["split"] for image, row in rows.items()} == {
        "Mass-Test_P_00004_LEFT_CC": "train",
        "Calc-Training_P_00004_RIGHT_MLO": "train",
        "Calc-Test_P_00005_LEFT_CC": "test",
    }
    assert rejected == []
    said = capsys.readouterr().err
    assert "in the training set of one abnormality and in the test set of the other: 1 (P_00004);" in said
    assert "test images of theirs that are on the training side now: 1\n" in said


def test_the_published_split_is_kept_when_asked_for_on_the_command_line(small, tmp_path, capsys):
    small.write(*PARTED)
    words = ["index", "cbis-ddsm", "--from", str(small.root), "--to", str(tmp_path / "index.parquet")]
    assert main([*words, "--official-split-as-is"]) == 0
    table = index.read(tmp_path / "index.parquet")
    splits = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert splits["Mass-Test_P_00004_LEFT_CC"] == "test"
    assert "(P_00004); left there, as published" in capsys.readouterr().err


def test_who_is_parted_does_not_depend_on_which_images_are_there(small):
    small.write(*PARTED)
    small.path(PARTED[1], "full").unlink()
    rows, _ = read(small.root)
    assert rows["Mass-Test_P_00004_LEFT_CC"]["split"] == "train"


SHARED = (
    Lesion("Mass", "Training", "P_00006", number=1, pathology="BENIGN", assessment="3", film="one film"),
    Lesion("Calc", "Training", "P_00006", number=2, pathology="MALIGNANT", assessment="5", film="one film"),
)


def test_a_view_in_the_tables_of_both_abnormalities_has_the_lesions_of_both(small):
    rows, rejected = read(small.write(*SHARED))
    assert rejected == []
    mass, calc = rows["Mass-Training_P_00006_LEFT_CC"], rows["Calc-Training_P_00006_LEFT_CC"]
    assert (mass["label"], mass["birads"]) == (calc["label"], calc["birads"]) == ("malignant", "5")
    own, other = relative(small, SHARED[0], "mask"), relative(small, SHARED[1], "mask")
    assert [lesion["mask_path"] for lesion in mass["lesions"]] == [own, other]
    assert [lesion["mask_path"] for lesion in calc["lesions"]] == [other, own]


@pytest.mark.parametrize("other", [film("another film"), film("one film")[:, ::-1], np.full((200, 24), 7, np.uint16)])
def test_a_mask_of_the_other_abnormality_is_used_only_when_the_films_are_the_same(small, other):
    small.write(*SHARED)
    if len(other) == 200:  # as bright everywhere, but of another height
        small.write_full(SHARED[0], other[:100])
        small.write_roi(SHARED[0], "mask", mask(100))
        small.write_roi(SHARED[1], "mask", mask(200))
    small.write_full(SHARED[1], other)
    rows, _ = read(small.root)
    mass = rows["Mass-Training_P_00006_LEFT_CC"]
    assert mass["label"] == "malignant"
    assert [lesion["kind"] for lesion in mass["lesions"]] == ["mask", "unlocated"]


def test_parts_of_the_archive_are_indexed_and_what_is_missing_is_counted(small):
    small.write(ONE, *SEVERAL)
    shutil.rmtree(small.path(SEVERAL[3], "full").parent)
    small.path(SEVERAL[0], "mask").unlink()
    rows, rejected = read(small.root)
    assert sorted(rows) == sorted({lesion.case for lesion in small.lesions[:4]})
    assert [lesion["kind"] for lesion in rows["Mass-Training_P_00002_LEFT_CC"]["lesions"]] == ["unlocated", "mask"]
    mass, calc = TABLES["Mass", "Training"], TABLES["Calc", "Test"]
    assert rejected == [
        {
            "path": mass,
            "reason": "masks that are not there, of mammograms that are: 1 of 4;"
            " the first is Mass-Training_P_00002_LEFT_CC_1",
        },
        {
            "path": calc,
            "reason": "full mammograms that are not there: 1 of 1; the first is Calc-Test_P_00003_RIGHT_CC",
        },
        {
            "path": calc,
            "reason": "lesions that have a mask or crop, but no full mammogram: 1 of 1;"
            " the first is Calc-Test_P_00003_RIGHT_CC_1",
        },
    ]
    small.path(SEVERAL[0], "crop").unlink()
    _, rejected = read(small.root, level="lesion")
    assert [row["reason"] for row in rejected] == [
        "cropped images that are not there: 1 of 4; the first is Mass-Training_P_00002_LEFT_CC_1"
    ]


def test_a_folder_without_images_is_a_usage_error_that_counts_what_is_missing(small):
    small.lesions.append(ONE)
    small.write_tables()
    with pytest.raises(UsageError, match=r"no images of cbis-ddsm .*full mammograms that are not there: 1 of 1"):
        read(small.root)


@pytest.mark.parametrize("where", ["root", "below", "beside", "option"])
def test_tables_may_lie_with_the_images_beside_their_folder_or_elsewhere(small, tmp_path, where):
    small.write(ONE)
    for name in TABLES.values():
        (small.root / name).unlink()
    places = {"root": small.root, "below": small.root / "manifest-1", "beside": tmp_path, "option": tmp_path / "tables"}
    small.write_tables(places[where])
    rows, rejected = read(small.root, **({"tables": places[where]} if where == "option" else {}))
    assert (len(rows), rejected) == (1, [])


def test_a_missing_table_is_named(small):
    small.write(ONE)
    (small.root / TABLES["Calc", "Test"]).unlink()
    with pytest.raises(UsageError, match=r"^cbis-ddsm: no calc_case_description_test_set.csv in .* or beside it; "):
        read(small.root)


def test_an_unknown_level_is_a_usage_error(small):
    with pytest.raises(UsageError, match="the option level is 'breast', not one of image, lesion"):
        read(small.write(ONE), level="breast")
    with pytest.raises(UsageError, match="official_split_as_is is 'yes', not true or false"):
        read(small.root, official_split_as_is="yes")


def test_metadata_of_the_download_is_not_believed_before_the_headers(small):
    """A metadata.csv that gives each series the other's folder changes nothing."""
    small.write(ONE, SEVERAL[2])
    lines = ["Series UID,Subject ID,Number of Images,File Location"]
    for lesion, other in ((ONE, SEVERAL[2]), (SEVERAL[2], ONE)):
        place = small.path(other, "full").parent.relative_to(small.root / "manifest-1")
        lines.append(f"{lesion.place('full')[2]},{lesion.case},1,.\\{str(place).replace('/', chr(92))}")
    (small.root / "manifest-1" / "metadata.csv").write_text("\n".join(lines))
    rows, rejected = read(small.root)
    assert rejected == []
    assert {image: row["path"] for image, row in rows.items()} == {
        lesion.case: relative(small, lesion, "full") for lesion in (ONE, SEVERAL[2])
    }


def test_part_of_the_test_set_has_patient_ids_of_another_form_and_no_description(small):
    lesion = SEVERAL[3]
    small.write(lesion)
    small.write_full(lesion, PatientID="P_00003_RIGHT_CC.dcm", SeriesDescription=None)
    rows, rejected = read(small.root)
    assert (list(rows), rejected) == ([lesion.case], [])


def test_the_index_of_two_layouts_differs_in_paths_alone(tmp_path):
    rows = []
    for layout in ("old", "new"):
        found, _ = read(Miniature(tmp_path / layout, layout).write(ONE, *SEVERAL))
        for row in found.values():
            row["path"] = ""
            for lesion in row["lesions"]:
                lesion["mask_path"] = ""
        rows.append(found)
    assert rows[0] == rows[1]
