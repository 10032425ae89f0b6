"""BreakHis: the name grammar against the folders, and the official folds patient by patient."""

import tarfile

import pytest

from spicula import catalog
from spicula.errors import UsageError

BREAST = "BreaKHis_v1/histology_slides/breast"
FILES = {
    "SOB_B_A-14-22549AB-40-001": f"{BREAST}/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
    "SOB_B_TA-14-16184-200-025": f"{BREAST}/benign/SOB/tubular_adenoma/SOB_B_TA_14-16184/200X",
    "SOB_M_DC-14-13412-40-001": f"{BREAST}/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-13412/40X",
    "SOB_M_DC-14-2523-40-010": f"{BREAST}/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/40X",
    "SOB_M_LC-14-13412-40-001": f"{BREAST}/malignant/SOB/lobular_carcinoma/SOB_M_LC_14-13412/40X",
}
# the official first fold has patient 14-13412 on both sides
FOLD = {
    "SOB_B_A-14-22549AB-40-001": "train",
    "SOB_B_TA-14-16184-200-025": "test",
    "SOB_M_DC-14-13412-40-001": "train",
    "SOB_M_DC-14-2523-40-010": "train",
    "SOB_M_LC-14-13412-40-001": "test",
}


@pytest.fixture
def slides(tmp_path, make_image):
    for name, folder in FILES.items():
        make_image(tmp_path / "set" / folder / f"{name}.png", "RGB", (7, 5))
    return tmp_path / "set"


def fold_lines(number, sides):
    return "".join(f"{name}.png|{name.split('-')[3]}|{number}|{side}\n" for name, side in sides.items())


def read(folder, **options):
    reading = catalog.index_dataset("breakhis", folder, folder.parent / "unpacked", options)
    rows = {row["image_id"]: row for row in reading.index.to_pylist()}
    return rows, [(row["path"], row["reason"]) for row in reading.rejected.to_pylist()]


def test_rows_of_a_miniature(slides):
    rows, rejected = read(slides)
    assert rejected == []
    assert sorted(rows) == sorted(FILES)
    row = rows["SOB_B_TA-14-16184-200-025"]
    assert (row["label"], row["target"], row["subtype"]) == ("benign", 0, "tubular_adenoma")
    assert (row["patient_id"], row["magnification"], row["modality"]) == ("14-16184", 200.0, "SM")
    assert rows["SOB_B_A-14-22549AB-40-001"]["patient_id"] == "14-22549AB"
    assert row["pixel_spacing_mm"] is row["exam_id"] is row["split"] is None


def test_the_patient_with_two_carcinomas_stays_one_patient(slides):
    rows, _ = read(slides)
    twin = [rows[f"SOB_M_{kind}-14-13412-40-001"] for kind in ("DC", "LC")]
    assert [row["patient_id"] for row in twin] == ["14-13412", "14-13412"]
    assert [row["subtype"] for row in twin] == ["ductal_carcinoma", "lobular_carcinoma"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("SOB_B_TA-14-16184-200.png", "the name is not SOB_"),
        ("SOB_B_TA-14-16184-200-025.jpg", "the name is not SOB_"),
        ("SOB_B_XX-14-16184-200-026.png", "the tumour type XX"),
        ("SOB_B_DC-14-16184-200-026.png", "the name says benign, but its tumour type DC is malignant"),
        ("SOB_B_TA-14-16184-300-026.png", "the magnification 300"),
        (
            f"{BREAST}/malignant/SOB_B_TA-14-1-40-001.png",
            "lies in the folder malignant, but its name belongs into benign",
        ),
        ("adenosis/SOB_B_TA-14-1-40-001.png", "lies in the folder adenosis, but its name belongs into tubular_adenoma"),
        ("100X/SOB_B_TA-14-1-40-001.png", "lies in the folder 100X, but its name belongs into 40X"),
        ("SOB_B_TA_14-2/SOB_B_TA-14-1-40-001.png", "its name belongs into SOB_B_TA_14-1"),
    ],
)
def test_what_does_not_parse_or_lies_in_the_wrong_folder_is_reported(slides, make_image, path, reason):
    make_image(slides / path, "RGB", (7, 5))
    rows, rejected = read(slides)
    assert len(rows) == len(FILES)
    ((where, why),) = rejected
    assert where == path
    assert reason in why


@pytest.mark.parametrize("given", ["file", "folder", "relative"])
def test_official_fold_becomes_the_split_and_no_patient_stands_on_two_sides(slides, tmp_path, given):
    folds = slides if given == "relative" else tmp_path / "folds"
    folds.mkdir(exist_ok=True)
    for number in (1, 2):
        (folds / f"dsfold{number}.txt").write_text(fold_lines(number, FOLD))
    where = {"file": folds / "dsfold1.txt", "folder": folds, "relative": "dsfold1.txt"}[given]
    rows, rejected = read(slides, folds_file=where, fold=1)
    assert {name: row["split"] for name, row in rows.items()} == {**FOLD, "SOB_M_DC-14-13412-40-001": None}
    assert rejected == [
        (
            "dsfold1.txt",
            "fold 1 has the patient 14-13412 in train and in test; 1 training images get no split",
        )
    ]
    sides = {}
    for row in rows.values():
        if row["split"]:
            sides.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())


def test_fold_files_that_do_not_match_the_images_are_reported(slides, tmp_path):
    sides = {name: side for name, side in FOLD.items() if "13412" not in name} | {"SOB_B_F-14-1-40-001": "train"}
    path = tmp_path / "dsfold2.txt"
    path.write_text(fold_lines(2, sides) + "SOB_B_F-14-1-40-002.png|40|2|perhaps\n\nrubbish\n")
    rows, rejected = read(slides, folds_file=path)
    assert sum(row["split"] is None for row in rows.values()) == 2
    reasons = [reason for _, reason in rejected]
    assert any(reason.startswith("line 5: is not filename|magnification|fold|train or test") for reason in reasons)
    assert any(reason.startswith("line 7: ") for reason in reasons)
    assert "does not list 2 of the images, which get no split" in reasons
    assert "lists 1 images that are not there" in reasons
    assert len(rejected) == 4


def test_fold_options_that_do_not_go_together_are_usage_errors(slides, tmp_path):
    path = tmp_path / "dsfold1.txt"
    path.write_text(fold_lines(1, FOLD))
    both = tmp_path / "both.txt"
    both.write_text(fold_lines(1, FOLD) + fold_lines(2, FOLD))
    text = tmp_path / "text.txt"
    text.write_text("no fold file")
    for options, reason in (
        ({"fold": 1}, "needs folds_file"),
        ({"folds_file": tmp_path / "absent.txt"}, "no such file"),
        ({"folds_file": path, "fold": 6}, "is 6, not one of"),
        ({"folds_file": path, "fold": 2}, r"holds the folds \[1\], not fold 2"),
        ({"folds_file": both}, "say which"),
        ({"folds_file": tmp_path}, "is a folder; say which"),
        ({"folds_file": tmp_path, "fold": 3}, "no fold file .*dsfold3.txt"),
        ({"folds_file": text}, "is no fold file"),
        ({"folds": 1}, "no option folds; it has folds_file, fold"),
    ):
        with pytest.raises(UsageError, match=reason):
            read(slides, **options)
    assert read(slides, folds_file=both, fold="2")[0]["SOB_B_TA-14-16184-200-025"]["split"] == "test"


def test_archive_as_downloaded(slides, tmp_path):
    source = tmp_path / "download"
    source.mkdir()
    with tarfile.open(source / "BreaKHis_v1.tar.gz", "w:gz") as output:
        output.add(slides / "BreaKHis_v1", "BreaKHis_v1")
    rows, rejected = read(source)
    assert (sorted(rows), rejected) == (sorted(FILES), [])


def test_real_images(test_data, tmp_path):
    reading = catalog.index_dataset("breakhis", test_data / "breakhis", tmp_path)
    rows = reading.index.to_pylist()
    assert reading.rejected.num_rows == 0
    assert len(rows) == 8
    assert sum(row["target"] for row in rows) == 4
    assert len({row["subtype"] for row in rows}) == len({row["patient_id"] for row in rows}) == 8
    assert {row["magnification"] for row in rows} == {40.0, 100.0, 200.0, 400.0}
    assert {(row["width"], row["height"], row["photometric"]) for row in rows} == {(700, 460, "RGB")}
