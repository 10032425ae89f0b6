"""Exam folders: names, lists, masks; each trap of either."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula import catalog
from spicula.catalog.exam_folders.exam_files import parse
from spicula.errors import UsageError

VIEWS = ("L_CC", "R_CC", "L_MLO", "R_MLO")


@pytest.fixture
def exam(tmp_path, make_image):
    """Return a function that writes images by their names below a folder of exams."""

    def make(*names, size=(12, 10)):
        for name in names:
            make_image(tmp_path / "exams" / name, size=size)
        return tmp_path / "exams"

    return make


def read(folder, **options):
    reading = catalog.index_dataset("exam-folders", folder, folder.parent / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, reading.rejected.to_pylist()


def four(prefix="", joint="_"):
    return [f"{prefix}{view.replace('_', joint)}.png" for view in VIEWS]


def entry(prefix="", **more):
    return {"horizontal_flip": "NO"} | {view.replace("_", "-"): [f"{prefix}{view}"] for view in VIEWS} | more


def write_list(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(entries).encode() if path.suffix == ".json" else pickle.dumps(list(entries)))


@pytest.mark.parametrize(
    ("name", "exam_id", "side", "view"),
    [
        ("L_CC.png", "", "L", "CC"),
        ("a/b/R-MLO.png", "a/b", "R", "MLO"),
        ("7_L-CC.png", "7", "L", "CC"),
        ("images/7_L_MLO.png", "images/7", "L", "MLO"),
        ("a/L_CC_2.png", "a", "L", "CC"),
        ("a/7_R_CC_12.png", "a/7", "R", "CC"),
        ("a/rmlo.PNG", "a", "R", "MLO"),
        ("study-3_left_L CC.tif", "study-3_left", "L", "CC"),
        ("a/L_CC", "a", "L", "CC"),
    ],
)
def test_names(name, exam_id, side, view):
    found = parse(name)
    assert (found.exam, found.side, found.view) == (exam_id, side, view)


@pytest.mark.parametrize("name", ["CC.png", "LEFT_CC.png", "L_ML.png", "XLCC.png", "L_CC_final.png", "B_CC.png", ""])
def test_names_of_no_view(name):
    assert parse(name) is None


@given(st.text(max_size=60))
def test_any_name_is_read(name):
    found = parse(name)
    assert found is None or found.view in ("CC", "MLO")


def test_one_folder_an_exam(exam):
    folder = exam(*four("anna/"), *four("berta/", "-"))
    rows, rejected = read(folder)
    assert rejected == []
    assert len(rows) == 8
    first = rows["anna/L_CC"]
    assert (first["exam_id"], first["laterality"], first["view"], first["modality"]) == ("anna", "L", "CC", "MG")
    assert (first["path"], first["width"], first["height"]) == ("anna/L_CC.png", 12, 10)
    assert {row["exam_id"] for row in rows.values()} == {"anna", "berta"}
    for name in ("patient_id", "label", "target", "source"):
        assert first[name] is None
    assert first["flags"] == first["lesions"] == []


def test_several_exams_in_one_folder_and_several_images_a_view(exam):
    folder = exam(*four("0_"), *four("1_", "-"), "1_L_CC_2.png")
    rows, rejected = read(folder)
    assert rejected == []
    assert {row["exam_id"] for row in rows.values()} == {"0", "1"}
    views = [(row["exam_id"], row["laterality"], row["view"]) for row in rows.values()]
    assert views.count(("1", "L", "CC")) == 2
    assert len(set(views)) == 8


def test_the_folder_of_a_single_exam_has_its_name_with_and_without_a_list(exam):
    folder = exam(*four())
    assert {row["exam_id"] for row in read(folder)[0].values()} == {"exams"}
    write_list(folder / "gen_exam_list_before_cropping.pkl", entry(horizontal_flip="YES"))
    rows, _ = read(folder)
    assert {(row["exam_id"], *row["flags"]) for row in rows.values()} == {("exams", "mirrored")}


def test_an_incomplete_exam_is_indexed_and_reported(exam):
    rows, rejected = read(exam("a/L_CC.png", "a/R_CC.png", "a/R_MLO.png"))
    assert len(rows) == 3
    assert rejected == [{"path": "a", "reason": "the exam has no L-MLO; its other images are indexed"}]


def test_other_files_are_reported_with_their_reason(exam):
    folder = exam(*four("a/"), "a/overview.png")
    (folder / "a" / "notes.txt").write_text("let be")
    (folder / "a" / "L_CC_3.png").write_bytes(b"no picture")
    (folder / "a" / "L_CC.tif").write_bytes((folder / "a" / "L_CC.png").read_bytes())
    rows, rejected = read(folder)
    assert len(rows) == 4
    reasons = {row["path"]: row["reason"] for row in rejected}
    assert reasons["a/overview.png"].startswith("its name is not that of a view")
    assert "not an image" in reasons["a/L_CC_3.png"]
    assert reasons["a/L_CC.tif"] == "has the name of a/L_CC.png, which is indexed"
    assert len(reasons) == 3


def test_patients_by_a_pattern(exam):
    folder = exam(*four("p1-2019/"), *four("p1-2021/"), *four("other/"))
    rows, rejected = read(folder, patient_pattern=r"^(p\d+)-")
    assert {row["patient_id"] for row in rows.values()} == {"p1"}
    assert len(rows) == 8
    assert len(rejected) == 4
    with pytest.raises(UsageError, match=r"exam-folders: patient_pattern .* has 0 groups"):
        read(folder, patient_pattern="p")


@pytest.mark.parametrize("suffix", ["pkl", "json"])
def test_a_list_names_exams_and_those_that_are_mirrored(exam, suffix):
    folder = exam(*four("0_", "-"), *four("1_"))
    write_list(folder / f"exam_list.{suffix}", entry("0_"), entry("1_", horizontal_flip="YES"), entry("2_"))
    rows, rejected = read(folder)
    assert {row["exam_id"] for row in rows.values()} == {"0", "1"}
    assert all(row["flags"] == (["mirrored"] if row["exam_id"] == "1" else []) for row in rows.values())
    assert rejected == [
        {"path": f"exam_list.{suffix}", "reason": "exam 2: none of its 4 images is there"},
    ]


def test_labels_of_a_list_are_those_of_breasts(exam):
    folder = exam(*four("0_"))
    said = {"left_benign": 0, "left_malignant": 1, "right_benign": 0, "right_malignant": 0}
    write_list(folder / "list.json", entry("0_", cancer_label=said))
    rows, rejected = read(folder)
    assert rejected == []
    assert {(row["laterality"], row["label"], row["target"]) for row in rows.values()} == {
        ("L", "malignant", 1),
        ("R", "normal", 0),
    }


def test_lists_beside_their_images_and_in_the_folder_above(exam):
    folder = exam(*four("one/"), *four("two/images/0_"), *four("two/cropped_images/0_"))
    write_list(folder / "one" / "gen_exam_list_before_cropping.pkl", entry(horizontal_flip="YES"))
    write_list(folder / "two" / "exam_list.pkl", entry("0_", horizontal_flip="YES"))
    rows, rejected = read(folder)
    assert rejected == []
    mirrored = {row["exam_id"] for row in rows.values() if row["flags"]}
    assert mirrored == {"one", "two/images/0"}  # not the copies, which no list names
    assert len(rows) == 12


def test_images_with_names_that_say_nothing_are_what_the_list_says(exam):
    folder = exam("im1.png", "im2.png", "im3.png", "im4.png", "im5.png")
    names = {"L-CC": ["im1"], "R-CC": ["im2"], "L-MLO": ["im3", "im5", "im3"], "R-MLO": ["im4"]}
    write_list(folder / "list.json", names)
    rows, rejected = read(folder)
    assert rejected == []
    assert (rows["im3"]["laterality"], rows["im3"]["view"], rows["im3"]["exam_id"]) == ("L", "MLO", "list-0")
    assert len(rows) == 5


def test_two_entries_never_share_an_exam_by_accident(exam):
    folder = exam("L_CC.png", "b/x.png", "b/y.png")
    write_list(folder / "list.json", {"L-CC": ["x"]}, {"R-CC": ["y"]})
    rows, _ = read(folder)
    assert {row["exam_id"] for row in rows.values()} == {"exams", "list-0", "list-1"}


def test_an_image_whose_name_contradicts_its_list_is_left_out(exam):
    folder = exam(*four("0_"))
    write_list(folder / "list.json", entry("0_") | {"L-CC": ["0_R_CC"], "R-CC": ["0_L_CC"]})
    rows, rejected = read(folder)
    assert {row["view"] for row in rows.values()} == {"MLO"}
    reasons = {row["path"]: row["reason"] for row in rejected}
    assert reasons["0_R_CC.png"] == "named as R-CC, but list.json has it as L-CC of exam 0"
    assert "no L-CC, R-CC" in reasons["0"]


def test_lists_that_contradict_each_other_are_reported(exam):
    folder = exam(*four("0_"))
    write_list(folder / "a_list.json", entry("0_"))
    write_list(folder / "b_list.json", entry("0_", horizontal_flip="YES"))
    rows, rejected = read(folder)
    assert {tuple(row["flags"]) for row in rows.values()} == {()}
    assert {row["reason"] for row in rejected} == {"exam 0 of b_list.json says otherwise than an earlier entry"}
    rows, rejected = read(folder, list="b_list.json")
    assert {tuple(row["flags"]) for row in rows.values()} == {("mirrored",)}
    assert rejected == []


@pytest.mark.parametrize("name", ["../secret/L_CC", "/etc/passwd", "..", "a\0b", "ü", "L_CC.png/..", "*"])
def test_names_of_a_list_never_lead_anywhere(exam, make_image, tmp_path, name):
    make_image(tmp_path / "secret" / "L_CC.png")
    folder = exam("0_R_CC.png")
    write_list(folder / "list.pkl", {"L-CC": [name], "R-CC": ["0_R_CC"]})
    rows, rejected = read(folder)
    assert list(rows) == ["0_R_CC"]
    assert any("exam 0: its L-CC" in row["reason"] and "is not there" in row["reason"] for row in rejected)
    assert all(row["reason"].isprintable() for row in rejected)


def test_a_name_that_is_there_several_times_is_not_guessed(exam):
    folder = exam("a/x.png", "b/x.png")
    write_list(folder / "list.json", {"L-CC": ["x"], "R-CC": ["b/x"]})
    rows, rejected = read(folder)
    assert list(rows) == ["b/x"]
    assert rejected[0]["reason"] == "exam 0: its L-CC 'x' is there several times: indexed by their own names alone"


def test_of_names_that_differ_in_case_alone_the_exact_one_is_meant(exam):
    folder = exam("X.png", "x.png")
    write_list(folder / "list.json", {"L-CC": ["x"], "R-CC": ["X"]})
    rows, _ = read(folder)
    assert (rows["x"]["laterality"], rows["X"]["laterality"]) == ("L", "R")


def test_entries_that_share_a_name_are_exams_of_their_own(exam):
    folder = exam(*four("0_"), "0_L_CC_2.png")
    write_list(folder / "list.json", entry("0_"), {"L-CC": ["0_L_CC_2"]})
    rows, _ = read(folder)
    assert rows["0_L_CC"]["exam_id"] == "0"
    assert rows["0_L_CC_2"]["exam_id"] == "list-1"


def test_a_list_that_is_a_program_is_refused_and_the_images_are_read(exam, tmp_path):
    folder = exam(*four("0_"))
    target = tmp_path / "owned"
    (folder / "exam_list.pkl").write_bytes(f"cos\nsystem\n(S'touch {target}'\ntR.".encode())
    rows, rejected = read(folder)
    assert len(rows) == 4
    assert rejected == [
        {"path": "exam_list.pkl", "reason": "names os.system, which is not plain data: refused"},
    ]
    with pytest.raises(UsageError, match=r"the list .*exam_list.pkl names os\.system"):
        read(folder, list="exam_list.pkl")
    assert not target.exists()


def test_masks_are_lesions_with_their_pathology(exam):
    folder = exam(*four("0_"), "segmentation/0_R-CC_benign.png", "segmentation/0_R_CC_malignant.png", *four("x/1_"))
    exam("x/segmentation/1_L_MLO_benign.png")
    rows, rejected = read(folder)
    assert rejected == []
    lesions = rows["0_R_CC"]["lesions"]
    assert {(one["kind"], one["pathology"], one["mask_path"]) for one in lesions} == {
        ("mask", "benign", "segmentation/0_R-CC_benign.png"),
        ("mask", "malignant", "segmentation/0_R_CC_malignant.png"),
    }
    # without a list's word the worst mask is the label of the breast, and of the other breast nothing is known
    assert rows["0_R_CC"]["label"] == rows["0_R_MLO"]["label"] == "malignant"
    assert rows["0_L_CC"]["label"] is None
    assert rows["x/1_L_CC"]["label"] == "benign"


def test_a_mask_of_another_size_has_no_place_in_the_image(exam):
    folder = exam(*four("0_"))
    exam("segmentation/0_L_CC_malignant.png", size=(30, 20))
    rows, rejected = read(folder)
    (lesion,) = rows["0_L_CC"]["lesions"]
    assert (lesion["kind"], lesion["mask_path"], lesion["pathology"]) == ("unlocated", None, "malignant")
    assert rejected[0]["path"] == "segmentation/0_L_CC_malignant.png"
    assert "the mask has 30 x 20 pixels, but 0_L_CC.png 12 x 10" in rejected[0]["reason"]


def test_masks_that_belong_to_nothing_are_reported(exam):
    folder = exam(*four("0_"), "segmentation/0_L_CC.png", "segmentation/9_L_CC_benign.png")
    (folder / "segmentation" / "0_R_CC_benign.png").write_bytes(b"no picture")
    rows, rejected = read(folder)
    reasons = {row["path"]: row["reason"] for row in rejected}
    assert "does not end with _benign or _malignant" in reasons["segmentation/0_L_CC.png"]
    assert reasons["segmentation/9_L_CC_benign.png"] == "a mask of an image that is not there"
    assert "cannot be used" in reasons["segmentation/0_R_CC_benign.png"]
    assert rows["0_R_CC"]["lesions"][0]["kind"] == "unlocated"


def test_a_mask_against_the_list_leaves_no_label(exam):
    folder = exam(*four("0_"), "segmentation/0_L_CC_malignant.png", "segmentation/0_R_CC_benign.png")
    said = {"left_benign": 1, "left_malignant": 0, "right_benign": 0, "right_malignant": 1}
    write_list(folder / "list.json", entry("0_", cancer_label=said))
    rows, rejected = read(folder)
    assert {row["label"] for row in rows.values() if row["laterality"] == "L"} == {None}
    assert {row["label"] for row in rows.values() if row["laterality"] == "R"} == {"malignant"}
    assert rejected == [
        {"path": "0", "reason": "the list calls the breast L benign, but a mask shows a malignant lesion: no label"}
    ]


def test_nothing_found_says_what_is_expected(exam):
    with pytest.raises(UsageError, match=r"no images of exam-folders in .*expected <exam>/L_CC.png"):
        read(exam("holiday.png"))


def test_the_real_exam(test_data, tmp_path):
    reading = catalog.index_dataset("exam-folders", test_data / "nyu-exam", tmp_path)
    rows = {row["image_id"]: row for row in reading.index.to_pylist()}
    assert sorted(rows) == ["0_L-CC", "0_L-MLO", "0_R-CC", "0_R-MLO"]
    assert {row["exam_id"] for row in rows.values()} == {"0"}
    assert {row["bits"] for row in rows.values()} == {16}
    assert all(row["flags"] == [] for row in rows.values())
    assert {row["laterality"]: row["label"] for row in rows.values()} == {"L": None, "R": "benign"}
    assert rows["0_R-CC"]["lesions"][0]["kind"] == "unlocated"  # the masks are those of the uncropped images
    reasons = sorted(row["reason"] for row in reading.rejected.to_pylist())
    assert reasons[:3] == [f"exam {number}: none of its 4 images is there" for number in (1, 2, 3)]
    assert all("1920 x 2944 pixels" in reason for reason in reasons[3:])
    assert len(reasons) == 5
