"""IDC patches: patient, class and position from path and name; disagreement and copies are reported."""

import shutil
import zipfile
from collections import Counter

import pytest

from spicula import catalog
from spicula.errors import UsageError

PATCHES = [
    "10253/0/10253_idx5_x1001_y1001_class0.png",
    "10253/1/10253_idx5_x501_y351_class1.png",
    "8863/0/8863_idx5_x51_y1251_class0.png",
]


@pytest.fixture
def patches(tmp_path, make_image):
    for path in PATCHES:
        make_image(tmp_path / "idc" / path, "RGB", (5, 5))
    return tmp_path / "idc"


def read(folder):
    reading = catalog.index_dataset("idc-patches", folder, folder.parent / "unpacked")
    return reading.index.to_pylist(), {row["path"]: row["reason"] for row in reading.rejected.to_pylist()}


def test_rows_of_a_miniature(patches):
    rows, rejected = read(patches)
    assert rejected == {}
    assert [row["path"] for row in rows] == sorted(PATCHES)
    assert [row["patient_id"] for row in rows] == ["10253", "10253", "8863"]
    assert [(row["label"], row["target"]) for row in rows] == [("negative", 0), ("idc", 1), ("negative", 0)]
    assert rows[0]["image_id"] == "10253_idx5_x1001_y1001_class0"
    assert (rows[0]["width"], rows[0]["height"], rows[0]["photometric"]) == (5, 5, "RGB")
    assert rows[0]["source"].endswith("IDC_regular_ps50_idx5.zip")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("10253/1/10253_idx5_x1_y1_class0.png", "the name says class 0, its folder 1"),
        ("8863/0/10253_idx5_x1_y1_class0.png", "the name says patient 10253, its folder 8863"),
        ("8863_idx5_x1_y1_class0.png", "lies in no folder <patient>/<class>"),
        ("8863/0/8863_idx5_x1_y1_class2.png", "the name is not"),
        ("8863/0/8863_idx5_xA_y1_class0.png", "the name is not"),
        ("8863/0/thumbnail.jpg", "the name is not"),
    ],
)
def test_what_does_not_fit_is_reported(patches, make_image, path, reason):
    make_image(patches / path, "RGB", (5, 5))
    rows, rejected = read(patches)
    assert len(rows) == 3
    assert list(rejected) == [path]
    assert rejected[path].startswith(reason)


def test_a_tree_held_twice_is_indexed_once(patches):
    shutil.copytree(patches, patches / "IDC_regular_ps50_idx5")
    (patches / "IDC_regular_ps50_idx5" / PATCHES[0]).write_bytes(b"another")
    rows, rejected = read(patches)
    assert [row["path"] for row in rows] == sorted(PATCHES)
    assert rejected == {
        "IDC_regular_ps50_idx5": "2 files below have the name and size of files indexed from elsewhere",
        f"IDC_regular_ps50_idx5/{PATCHES[0]}": f"has the name of {PATCHES[0]}, which is indexed, but another size",
    }


def test_a_damaged_patch_is_rejected_and_the_rest_indexed(patches):
    (patches / PATCHES[1]).write_bytes((patches / PATCHES[1]).read_bytes()[:20])
    (patches / "notes.txt").write_text("beside")
    rows, rejected = read(patches)
    assert len(rows) == 2
    assert rejected == {PATCHES[1]: "PNG header is cut short or malformed"}


def test_archive_as_downloaded(patches, tmp_path):
    source = tmp_path / "download"
    source.mkdir()
    with zipfile.ZipFile(source / "IDC_regular_ps50_idx5.zip", "w") as output:
        for path in PATCHES:
            output.write(patches / path, path)
    rows, rejected = read(source)
    assert ([row["path"] for row in rows], rejected) == (sorted(PATCHES), {})
    again, _ = read(source / "IDC_regular_ps50_idx5.zip")
    assert again == rows


def test_nothing_there_is_a_usage_error_with_the_layout(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no images of idc-patches in .*empty; expected IDC_regular_ps50_idx5.zip"):
        read(tmp_path / "empty")


def test_real_images(test_data, tmp_path):
    reading = catalog.index_dataset("idc-patches", test_data / "idc-patches", tmp_path)
    rows = reading.index.to_pylist()
    assert reading.rejected.num_rows == 0
    assert Counter(row["target"] for row in rows) == {0: 1274, 1: 762}
    assert len({row["patient_id"] for row in rows}) == 50
    assert Counter((row["width"], row["height"]) for row in rows)[50, 50] == 2022
    assert len({row["sha256"] for row in rows}) > 2000
