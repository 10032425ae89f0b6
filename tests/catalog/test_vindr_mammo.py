"""VinDr-Mammo: list-valued categories, boxes that reach out, BI-RADS 3, exams as the unit of a split."""

import ast
import csv
import hashlib
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mammogram_files import write_mammogram

from spicula import catalog
from spicula.catalog.vindr_mammo.findings import CATEGORIES, parse_categories
from spicula.errors import UsageError

VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
BREASTS = "study_id,series_id,laterality,image_id,view_position,height,width,breast_birads,breast_density,split"
FINDINGS = (
    "image_id,study_id,series_id,laterality,view_position,height,width,breast_birads,breast_density,"
    "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"
)
#: BI-RADS of the left and of the right breast, density, side of the split.
EXAMS = {
    "a": ("1", "2", "A", "training"),
    "b": ("3", "4", "C", "training"),
    "c": ("5", "3", "D", "test"),
}


def md5(*name):
    return hashlib.md5("/".join(name).encode()).hexdigest()


def image(exam, laterality="L", view="CC"):
    return md5(exam, laterality, view)


def write_csv(path, head, lines):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, head.split(","))
        writer.writeheader()
        writer.writerows(lines)


class Archive:
    """A miniature in the archive's own layout, to be spoilt before it is written."""

    def __init__(self, root):
        self.root = root
        self.breasts = []
        self.findings = []
        self.metadata = []
        for exam, (left, right, density, split) in EXAMS.items():
            for laterality, view in VIEWS:
                line = {
                    "study_id": md5(exam),
                    "series_id": md5(exam, "series"),
                    "laterality": laterality,
                    "image_id": image(exam, laterality, view),
                    "view_position": view,
                    "height": 30,
                    "width": 24,
                    "breast_birads": f"BI-RADS {left if laterality == 'L' else right}",
                    "breast_density": f"DENSITY {density}",
                    "split": split,
                }
                self.breasts.append(line)
                self.metadata.append({"SOP Instance UID": line["image_id"], "Patient's Age": "053Y"})
        self.add_finding("b", "R", "CC", "['Mass', 'Skin Retraction']", "BI-RADS 4", 2.5, 3.25, 10.75, 20)
        self.add_finding("b", "R", "CC", "['Suspicious Calcification']", "BI-RADS 3", 1, 1, 4, 5)
        self.add_finding("c", "L", "MLO", "['Suspicious Lymph Node']", "BI-RADS 5", -0.4, 4, 24.3, 9)
        self.add_finding("a", "L", "CC", "['No Finding']", "", "", "", "", "")

    def line(self, exam, laterality="L", view="CC"):
        return next(line for line in self.breasts if line["image_id"] == image(exam, laterality, view))

    def add_finding(self, exam, laterality, view, categories, birads, *box):
        finding = {key: value for key, value in self.line(exam, laterality, view).items() if key in FINDINGS.split(",")}
        finding |= {"finding_categories": categories, "finding_birads": birads}
        self.findings.append(finding | dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)))

    def write(self):
        for line in self.breasts:
            path = self.root / "images" / line["study_id"] / f"{line['image_id']}.dicom"
            if not path.exists():
                write_mammogram(path, ImagerPixelSpacing=[0.085, 0.085], Manufacturer="SIEMENS")
        self.write_tables()
        return self.root

    def write_tables(self):
        write_csv(self.root / "breast-level_annotations.csv", BREASTS, self.breasts)
        write_csv(self.root / "finding_annotations.csv", FINDINGS, self.findings)
        write_csv(self.root / "metadata.csv", "SOP Instance UID,Patient's Age", self.metadata)


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "physionet.org" / "files" / "vindr-mammo" / "1.0.0"
    root.mkdir(parents=True)
    (root / "LICENSE.txt").write_text("terms")
    (root / "SHA256SUMS.txt").write_text("sums")
    return Archive(root)


def read(folder, **options):
    reading = catalog.index_dataset("vindr-mammo", folder, folder / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, reading.rejected.to_pylist()


def reasons(rejected):
    return {(row["path"], row["reason"]) for row in rejected}


def test_rows_of_a_miniature(archive):
    rows, rejected = read(archive.write())
    assert len(rows) == 12
    row = rows[image("b", "R", "CC")]
    assert (row["patient_id"], row["exam_id"]) == (md5("b"), md5("b"))
    assert row["path"] == f"images/{md5('b')}/{image('b', 'R', 'CC')}.dicom"
    assert (row["laterality"], row["view"], row["split"]) == ("R", "CC", "train")
    assert (row["birads"], row["label"], row["target"], row["density"]) == ("4", "suspicious", 1, "C")
    assert (row["modality"], row["manufacturer"], row["age"]) == ("MG", "SIEMENS", 53)
    assert row["pixel_spacing_mm"] == pytest.approx(0.085)
    assert (row["width"], row["height"], row["bits"], row["flags"]) == (24, 30, 12, [])
    assert len(row["sha256"]) == 64
    assert "physionet.org" in row["source"]
    assert [reason["path"] for reason in rejected] == ["finding_annotations.csv"]


def test_the_split_is_that_of_exams_and_each_exam_has_its_four_views(archive):
    rows, _ = read(archive.write())
    assert Counter((row["exam_id"], row["split"]) for row in rows.values()) == {
        (md5("a"), "train"): 4,
        (md5("b"), "train"): 4,
        (md5("c"), "test"): 4,
    }
    views = Counter((row["exam_id"], row["laterality"], row["view"]) for row in rows.values())
    assert set(views.values()) == {1}


@pytest.mark.parametrize(("option", "of_3"), [(None, None), ("leave-out", None), ("benign", 0), ("malignant", 1)])
def test_breasts_are_assessed_one_by_one_and_birads_3_is_the_users_choice(archive, option, of_3):
    rows, _ = read(archive.write(), **({"birads_3": option} if option else {}))
    targets = {(exam, side): rows[image(exam, side)]["target"] for exam in EXAMS for side in "LR"}
    assert targets == {
        ("a", "L"): 0,
        ("a", "R"): 0,
        ("b", "L"): of_3,
        ("b", "R"): 1,
        ("c", "L"): 1,
        ("c", "R"): of_3,
    }
    assert {rows[image(*key)]["label"] for key in (("b", "L"), ("c", "R"))} == {"probably benign"}


def test_a_wrong_option_is_a_usage_error(archive):
    with pytest.raises(UsageError, match="vindr-mammo: birads_3 is 'maybe'"):
        read(archive.write(), birads_3="maybe")


def test_one_box_is_one_lesion_with_all_its_categories_and_its_own_assessment(archive):
    rows, _ = read(archive.write())
    blank = {"mask_path": None, "pathology": None, "kind": "box"}
    assert rows[image("b", "R", "CC")]["lesions"] == [
        {**blank, "coordinates": [2.5, 3.25, 10.75, 20], "finding": "Mass; Skin Retraction", "birads": "4"},
        {**blank, "coordinates": [1, 1, 4, 5], "finding": "Suspicious Calcification", "birads": "3"},
    ]
    assert rows[image("b", "R", "MLO")]["lesions"] == []
    assert rows[image("a", "L", "CC")]["lesions"] == []  # No Finding


def test_a_box_that_reaches_out_is_cut_to_the_image_and_reported(archive):
    rows, rejected = read(archive.write())
    (lesion,) = rows[image("c", "L", "MLO")]["lesions"]
    assert (lesion["kind"], lesion["coordinates"]) == ("box", [0, 4, 24, 9])
    assert reasons(rejected) == {
        ("finding_annotations.csv", "line 4: the box reached 0.4 pixels out of the image and was cut to it")
    }


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((30, 1, 40, 5), "the box lies outside the image; kept without a place"),
        ((-9, -9, -1, -1), "the box lies outside the image; kept without a place"),
        ((5, 5, 5, 9), "has an empty box; the finding is kept without a place"),
        ((9, 5, 5, 9), "has an empty box; the finding is kept without a place"),
        (("nan", 5, 8, 9), "has an empty box; the finding is kept without a place"),
        ((1, 5, "inf", 9), "has an empty box; the finding is kept without a place"),
        (("x", 5, 8, 9), "has a box that is not four numbers; the finding is kept without a place"),
        (("", 5, 8, 9), "has a box that is not four numbers; the finding is kept without a place"),
    ],
)
def test_a_finding_whose_box_makes_no_sense_is_kept_without_a_place(archive, box, reason):
    archive.findings = []
    archive.add_finding("b", "R", "CC", "['Mass']", "BI-RADS 4", *box)
    rows, rejected = read(archive.write())
    (lesion,) = rows[image("b", "R", "CC")]["lesions"]
    assert (lesion["kind"], lesion["coordinates"], lesion["finding"], lesion["birads"]) == (
        "unlocated",
        [],
        "Mass",
        "4",
    )
    assert reasons(rejected) == {("finding_annotations.csv", f"line 2: {reason}")}


def test_a_finding_without_a_box_is_kept_and_not_reported(archive):
    archive.findings = []
    archive.add_finding("b", "R", "CC", "['Global Asymmetry']", "", "", "", "", "")
    rows, rejected = read(archive.write())
    (lesion,) = rows[image("b", "R", "CC")]["lesions"]
    assert (lesion["kind"], lesion["finding"], lesion["birads"]) == ("unlocated", "Global Asymmetry", None)
    assert rejected == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"finding_categories": "['Lump']"}, "finding_categories has 'Lump', not one of Mass, Suspicious"),
        ({"finding_categories": "['No Finding', 'Mass']"}, "finding_categories has 'No Finding', not one of"),
        ({"finding_categories": "Mass"}, "finding_categories is 'Mass', not a list of words in quotes"),
        ({"finding_categories": "[]"}, "finding_categories is '[]', not a list"),
        ({"finding_categories": "__import__('os').abort()"}, "not a list of words in quotes"),
        ({"finding_categories": "['No Finding']"}, "says No Finding, but has a box or an assessment"),
        ({"finding_birads": "BI-RADS 9"}, "finding_birads is 'BI-RADS 9', not a BI-RADS assessment"),
        ({"image_id": md5("other")}, "is about an image that the table of breasts does not have"),
    ],
)
def test_a_finding_that_makes_no_sense_is_reported_with_its_line(archive, change, reason):
    archive.findings = [archive.findings[0] | change]
    rows, rejected = read(archive.write())
    assert len(rows) == 12
    assert rows[image("b", "R", "CC")]["lesions"] == []
    (row,) = rejected
    assert row["path"] == "finding_annotations.csv"
    assert row["reason"].startswith("line 2: ")
    assert reason in row["reason"]


def test_a_repeated_finding_counts_once(archive):
    archive.findings = [archive.findings[0], archive.findings[0]]
    rows, rejected = read(archive.write())
    assert len(rows[image("b", "R", "CC")]["lesions"]) == 1
    assert reasons(rejected) == {("finding_annotations.csv", "line 3: repeats an earlier line")}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"laterality": "B"}, "laterality is 'B', not one of L, R"),
        ({"view_position": "ML"}, "view_position is 'ML', not one of CC, MLO"),
        ({"breast_birads": "BI-RADS 4D"}, "breast_birads is 'BI-RADS 4D', not a BI-RADS assessment"),
        ({"breast_density": "DENSITY E"}, "breast_density is 'DENSITY E', not DENSITY A to D"),
        ({"split": "validation"}, "split is 'validation', not one of training, test"),
        ({"height": "0"}, "height is '0', not a number of pixels"),
        ({"study_id": "../../etc"}, "study_id is '../../etc', not 32 hexadecimal digits"),
    ],
)
def test_a_malformed_line_is_reported_and_its_image_is_left_out(archive, change, reason):
    folder = archive.write()
    archive.line("a", "R", "MLO").update(change)
    archive.write_tables()
    rows, rejected = read(folder)
    assert len(rows) == 11
    path = f"images/{md5('a')}/{image('a', 'R', 'MLO')}.dicom"
    found = {row["path"]: row["reason"] for row in rejected}
    assert found["breast-level_annotations.csv"].startswith(f"line 5: {reason}")
    assert found[path] == "has no valid line in breast-level_annotations.csv"


def test_lines_that_contradict_each_other_leave_their_image_out(archive):
    archive.breasts.append(archive.line("a", "L", "CC") | {"breast_birads": "BI-RADS 5"})
    archive.breasts.append(dict(archive.line("a", "L", "MLO")))
    rows, rejected = read(archive.write())
    assert image("a", "L", "CC") not in rows
    assert image("a", "L", "MLO") in rows
    table = "breast-level_annotations.csv"
    assert {
        (table, "line 14: says something else than an earlier line of the same; neither counts"),
        (table, "line 15: repeats an earlier line"),
        (f"images/{md5('a')}/{image('a')}.dicom", f"has no valid line in {table}"),
    } <= reasons(rejected)


def test_an_exam_on_two_sides_of_the_split_stands_on_none(archive):
    archive.line("c", "R", "CC")["split"] = "training"
    rows, rejected = read(archive.write())
    assert {row["split"] for row in rows.values() if row["exam_id"] == md5("c")} == {None}
    assert sum("puts its exam on two sides" in row["reason"] for row in rejected) == 4


def test_files_and_lines_that_do_not_fit_together_are_reported(archive):
    folder = archive.write()
    images = folder / "images"
    (images / md5("a") / f"{image('a', 'R', 'CC')}.dicom").unlink()
    write_mammogram(images / md5("a") / f"{md5('stranger')}.dicom")
    write_mammogram(images / md5("a") / "IM0001.dcm")
    (images / md5("b") / f"{image('b')}.dicom").rename(images / md5("c") / f"{image('b')}.dicom")
    (images / md5("c") / f"{image('c')}.dicom").write_bytes(b"no DICOM")
    (images / md5("a") / "index.html").write_text("left by a download")
    rows, rejected = read(folder)
    assert len(rows) == 9
    table = "breast-level_annotations.csv"
    assert reasons(rejected) - {row for row in reasons(rejected) if row[0] == "finding_annotations.csv"} == {
        (f"images/{md5('a')}/{image('a', 'R', 'CC')}.dicom", f"listed in {table} but not there"),
        (f"images/{md5('a')}/{md5('stranger')}.dicom", f"has no valid line in {table}"),
        (f"images/{md5('a')}/IM0001.dcm", "is not <study_id>/<image_id>.dicom"),
        (f"images/{md5('c')}/{image('b')}.dicom", f"lies in the folder of another exam than {table} says"),
        (f"images/{md5('c')}/{image('c')}.dicom", "not a DICOM file"),
    }


def test_copies_are_indexed_once(archive):
    folder = archive.write()
    copy = folder / "again" / "images" / md5("a") / f"{image('a')}.dicom"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((folder / "images" / md5("a") / f"{image('a')}.dicom").read_bytes())
    rows, rejected = read(folder)
    assert rows[image("a")]["path"].startswith("images/")
    assert ("again", "1 files below have the name and size of files indexed from elsewhere") in reasons(rejected)


def test_findings_of_an_image_of_another_size_lose_their_place(archive):
    archive.line("b", "R", "CC")["width"] = 25
    rows, rejected = read(archive.write())
    row = rows[image("b", "R", "CC")]
    assert (row["width"], [lesion["kind"] for lesion in row["lesions"]]) == (24, ["unlocated", "unlocated"])
    reason = "has 24 x 30 pixels, breast-level_annotations.csv says 25 x 30: kept, but its findings have no place"
    assert (row["path"], reason) in reasons(rejected)


def test_where_header_and_table_disagree_on_the_view_the_table_counts_and_it_is_reported(archive):
    path = archive.root / "images" / md5("a") / f"{image('a')}.dicom"
    write_mammogram(path, ImageLaterality="R", ViewPosition="CC", PartialView="YES")
    rows, rejected = read(archive.write())
    row = rows[image("a")]
    assert (row["laterality"], row["view"], row["flags"]) == ("L", "CC", ["partial-view"])
    reason = "kept as L CC, as breast-level_annotations.csv says; its header says otherwise"
    assert (row["path"], reason) in reasons(rejected)


def test_the_age_of_the_header_comes_before_that_of_the_table_of_tags(archive):
    write_mammogram(archive.root / "images" / md5("a") / f"{image('a')}.dicom", PatientAge="061Y")
    for number, value in ((1, ""), (2, "old"), (3, "47.0")):
        archive.metadata[number]["Patient's Age"] = value
    rows, rejected = read(archive.write())
    ages = [rows[image("a", *view)]["age"] for view in VIEWS]
    assert ages == [61, None, None, 47]
    assert ("metadata.csv", "line 4: Patient's Age is not an age in years") in reasons(rejected)


def test_the_table_of_tags_can_be_missing_the_others_cannot(archive):
    folder = archive.write()
    (folder / "metadata.csv").unlink()
    rows, _ = read(folder)
    assert {row["age"] for row in rows.values()} == {None}
    for name in ("finding_annotations.csv", "breast-level_annotations.csv"):
        (folder / name).unlink()
        with pytest.raises(UsageError, match=rf"no {name} in .*; expected breast-level_annotations.csv"):
            read(folder)


def test_the_official_numbers_are_those_of_the_paper():
    dataset = catalog.get("vindr-mammo")
    assert dataset.expected == {"images": 20_000, "exams": 5_000}
    # breasts by BI-RADS 1 to 5, as published: two a exam, two images each
    train, test = (5_362, 1_871, 372, 305, 90), (1_341, 467, 93, 76, 23)
    assert (sum(train), sum(test)) == (2 * 4_000, 2 * 1_000)
    assert 2 * (sum(train) + sum(test)) == dataset.expected["images"]


@given(st.lists(st.sampled_from(CATEGORIES), min_size=1), st.booleans())
def test_lists_of_categories_are_read_as_python_prints_them(categories, double):
    text = str(categories)
    assert parse_categories(text.replace("'", '"') if double else text) == tuple(categories)


@given(st.text("[]'\", aM\n"))
@example("['Mass', ]")
@example("['Mass' 'Mass']")
@example("[" * 10_000)
@example("['" + "a, " * 10_000)
def test_any_other_text_is_refused(text):
    try:
        words = parse_categories(text)
    except ValueError as error:
        assert str(error) == "not a list of words in quotes"
    else:
        assert list(words) == ast.literal_eval(text)
