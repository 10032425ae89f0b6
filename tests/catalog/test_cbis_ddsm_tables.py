"""The four tables of CBIS-DDSM: the real ones whole, and rows that contradict themselves."""

import re
from collections import Counter
from pathlib import Path

import pytest
from cbis_ddsm_maker import TABLES, Lesion, Miniature, row_of, write_table

from spicula.catalog import cbis_ddsm
from spicula.catalog.cbis_ddsm import split, tables
from spicula.errors import UsageError


@pytest.fixture(scope="module")
def official(test_data) -> tables.Tables:
    folder = test_data / "cbis-ddsm"
    files, rejected = tables.find(folder, [path.name for path in folder.iterdir()], None)
    assert rejected == []
    return tables.read(files)


def test_the_official_tables_parse_without_a_rejection(official):
    assert official.rejected == []
    assert official.doubtful == set()
    by_table = Counter(lesion.table for lesion in official.lesions)
    assert by_table == {
        "mass_case_description_train_set.csv": 1318,
        "mass_case_description_test_set.csv": 378,
        "calc_case_description_train_set.csv": 1546,
        "calc_case_description_test_set.csv": 326,
    }
    assert len(official.lesions) == 3568
    people = {lesion.view.person for lesion in official.lesions}
    images = {lesion.case for lesion in official.lesions}
    assert cbis_ddsm.DATASET.expected == {"images": len(images), "patients": len(people), "exams": len(people)}
    assert (len(images), len(people)) == (3103, 1566)
    assert Counter(image.rpartition("_P_")[0] for image in images) == {
        "Mass-Training": 1231,
        "Mass-Test": 361,
        "Calc-Training": 1227,
        "Calc-Test": 284,
    }


def test_the_official_tables_and_the_manifest_name_the_same_series(official, test_data):
    (manifest,) = (test_data / "cbis-ddsm").glob("*.tcia")
    of_manifest = re.findall(r"^[0-9.]+$", manifest.read_text(), re.MULTILINE)
    of_tables = {lesion.image.series for lesion in official.lesions}
    of_tables |= {place.series for lesion in official.lesions for place in lesion.rois}
    assert len(of_manifest) == len(set(of_manifest)) == 6775
    assert set(of_manifest) == of_tables
    assert Counter(len(lesion.rois) for lesion in official.lesions) == {1: 3464, 2: 104}


def test_words_of_the_official_tables(official):
    lesions = official.lesions
    assert Counter(lesion.pathology for lesion in lesions) == {
        "MALIGNANT": 1457,
        "BENIGN": 1429,
        "BENIGN_WITHOUT_CALLBACK": 682,
    }
    assert Counter(lesion.density for lesion in lesions) == {"A": 536, "B": 1373, "C": 1103, "D": 554, None: 2}
    assert Counter(lesion.birads for lesion in lesions) == {
        "0": 238,
        "1": 3,
        "2": 644,
        "3": 477,
        "4": 1633,
        "5": 573,
    }
    assert all("N/A" not in lesion.finding and "\n" not in lesion.finding for lesion in lesions)
    findings = Counter(lesion.finding for lesion in lesions)
    assert (findings["mass, shape IRREGULAR, margins SPICULATED"], findings["mass"]) == (227, 2)


def test_people_on_both_sides_of_the_official_split(official):
    people = split.parted(official.lesions)
    assert (len(people), people[0], people[-1]) == (31, "P_00016", "P_01883")
    sides = split.by_case(official.lesions, people, as_is=False)
    as_is = split.by_case(official.lesions, people, as_is=True)
    assert Counter(as_is.values()) == {"train": 2458, "test": 645}
    assert Counter(sides.values()) == {"train": 2508, "test": 595}
    assert {case for case in sides if sides[case] != as_is[case]} == {
        lesion.case for lesion in official.lesions if lesion.view.person in people and lesion.split == "test"
    }
    moved = Counter(case.partition("_")[0] for case in sides if sides[case] != as_is[case])
    assert moved == {"Mass-Test": 27, "Calc-Test": 23}
    on_both = {True: set(), False: set()}
    for lesion in official.lesions:
        on_both[sides[lesion.case] == "train"].add(lesion.view.person)
    assert on_both[True] & on_both[False] == set()


def test_views_in_the_official_tables_of_both_abnormalities_number_their_lesions_together(official):
    numbers: dict[tables.View, list[int]] = {}
    cases: dict[tables.View, set[str]] = {}
    malignant: dict[str, bool] = {}
    for lesion in official.lesions:
        numbers.setdefault(lesion.view, []).append(lesion.number)
        cases.setdefault(lesion.view, set()).add(lesion.case)
        malignant[lesion.case] = malignant.get(lesion.case, False) or lesion.is_malignant
    shared = [view for view in cases if len(cases[view]) == 2]
    assert (len(cases), len(shared), len({view.person for view in shared})) == (3032, 71, 46)
    assert [view for view in shared if sorted(numbers[view]) != list(range(1, len(numbers[view]) + 1))] == []
    assert sum(len({malignant[case] for case in cases[view]}) == 2 for view in shared) == 16


GOOD = row_of(Lesion())


def tables_of(folder: Path, *rows: list[str]) -> tables.Tables:
    small = Miniature(folder)
    small.write_tables()
    write_table(folder / TABLES["Mass", "Training"], "Mass", list(rows))
    files, _ = tables.find(folder, [path.name for path in folder.iterdir()], None)
    return tables.read(files)


def altered(at: int, value: str) -> list[str]:
    return [*GOOD[:at], value, *GOOD[at + 1 :]]


def test_line_breaks_and_odd_spaces_in_fields_do_not_matter(tmp_path):
    plain = tables_of(tmp_path, GOOD).lesions
    odd = [f" {value}\n" for value in GOOD]
    odd[11] = odd[11].replace("/1.2.826", "/1.2\n.8 26")
    assert tables_of(tmp_path, odd).lesions == plain
    assert plain[0].name == "Mass-Training_P_00001_LEFT_CC_1"


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path):
    plain = tables_of(tmp_path, GOOD).lesions
    path = tmp_path / TABLES["Mass", "Training"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    files, _ = tables.find(tmp_path, [path.name for path in tmp_path.iterdir()], None)
    assert tables.read(files).lesions == plain


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (altered(0, "00001"), "has no person"),
        (altered(2, "BOTH"), "has no person"),
        (altered(3, "ML"), "has no person"),
        (altered(3, "MLO"), "has the image file path .*, which is not Mass-Training_P_00001_LEFT_MLO/"),
        (altered(2, "RIGHT"), "has the image file path .*, which is not Mass-Training_P_00001_RIGHT_CC/"),
        (altered(4, "0"), "has the abnormality id '0', not a number from 1"),
        (altered(4, "2"), "has the cropped image file path .*, which is not Mass-Training_P_00001_LEFT_CC_2/"),
        (altered(5, "calcification"), "has the abnormality type 'calcification', not mass"),
        (altered(9, "UNPROVEN"), "has the pathology 'UNPROVEN', not one of MALIGNANT, BENIGN, BENIGN_WITHOUT"),
        (altered(11, "Mass-Training_P_00001_LEFT_CC/../1.2/0.dcm"), "has the image file path"),
        (altered(13, "000000.dcm"), "has the ROI mask file path '000000.dcm'"),
        (GOOD[:-1], "has fewer values than the table has columns"),
        ([*GOOD, "more"], "has more values than the table has columns"),
    ],
)
def test_a_row_that_makes_no_sense_is_reported_with_its_line(tmp_path, row, reason):
    tables = tables_of(tmp_path, GOOD, row)
    assert len(tables.lesions) == 1
    (rejected,) = tables.rejected
    assert rejected["path"] == TABLES["Mass", "Training"]
    # each row ends with a quoted line break, and so takes two lines, but for those that lack their last field
    assert re.match(f"line [45]: {reason}", rejected["reason"])


def test_rows_that_contradict_earlier_rows_are_reported(tmp_path):
    stolen = row_of(Lesion(number=2))
    stolen[12] = GOOD[12].replace("CC_1/", "CC_2/")
    two_images = row_of(Lesion(number=3))
    two_images[11] = two_images[11].replace("/1.2.", "/1.3.")
    tables = tables_of(tmp_path, GOOD, GOOD, stolen, two_images)
    assert len(tables.lesions) == 1
    assert [row["reason"].partition(": ")[2] for row in tables.rejected] == [
        "names Mass-Training_P_00001_LEFT_CC_1 a second time",
        "gives Mass-Training_P_00001_LEFT_CC_2 a series that an earlier row gives to something else",
        "gives Mass-Training_P_00001_LEFT_CC_3 a series that an earlier row gives to something else",
    ]


@pytest.mark.parametrize(("pathology", "label"), [("BENIGN", None), ("MALIGNANT", "malignant")])
def test_an_image_with_a_row_that_is_left_out_gets_no_label_that_could_be_wrong(tmp_path, pathology, label):
    small = Miniature(tmp_path / "data")
    lesion = Lesion(pathology=pathology)
    small.write(lesion)
    bad = row_of(Lesion(number=2))
    bad[9] = "UNPROVEN"
    write_table(small.root / TABLES["Mass", "Training"], "Mass", [row_of(lesion), bad])
    (row,) = cbis_ddsm.read(small.root, {}).index.to_pylist()
    assert (row["label"], row["target"]) == (label, 1 if label else None)


@pytest.mark.parametrize(
    ("at", "value", "left_out"), [(1, "7", True), (8, "C", True), (1, "0", False), (1, "N/A", False), (8, "", False)]
)
def test_values_outside_the_scales_are_left_out_and_reported(tmp_path, at, value, left_out):
    tables = tables_of(tmp_path, altered(at, value))
    (lesion,) = tables.lesions
    assert (lesion.density if at == 1 else lesion.birads) is None
    assert [f"{value!r} is left out" in row["reason"] for row in tables.rejected] == [True] * left_out


def test_a_file_of_the_right_name_that_is_no_table_is_a_usage_error(tmp_path):
    Miniature(tmp_path).write_tables()
    (tmp_path / TABLES["Calc", "Training"]).write_text("patient_id,image view\n")
    files, _ = tables.find(tmp_path, [path.name for path in tmp_path.iterdir()], None)
    with pytest.raises(UsageError, match=r"calc_case_description_train_set.csv has no column left or right breast"):
        tables.read(files)


def test_of_two_tables_of_one_name_the_nearer_is_read_and_the_other_reported(tmp_path):
    Miniature(tmp_path, lesions=[Lesion()]).write_tables()
    Miniature(tmp_path).write_tables(tmp_path / "older")
    paths = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.csv"))]
    files, rejected = tables.find(tmp_path, paths, None)
    assert {path.parent for path in files.values()} == {tmp_path}
    (row,) = rejected
    assert row["path"] == TABLES["Mass", "Training"]
    assert row["reason"].startswith("in older: not read")
