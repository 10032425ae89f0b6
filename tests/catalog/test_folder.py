"""The user's own data: class sub-folders, or a CSV with named columns."""

import tarfile

import pytest

from spicula import catalog, index
from spicula.errors import UsageError

IMAGES = ["benign/p1/a.png", "benign/p2/b.png", "malignant/p3/c.png"]


@pytest.fixture
def images(tmp_path, make_image):
    def make(*paths):
        for path in paths or IMAGES:
            make_image(tmp_path / "set" / path)
        return tmp_path / "set"

    return make


def read(folder, **options):
    reading = catalog.index_dataset("folder", folder, folder.parent / "unpacked", options)
    rows = {row["path"]: row for row in reading.index.to_pylist()}
    return rows, {row["path"]: row["reason"] for row in reading.rejected.to_pylist()}


def write_table(folder, *lines, name="table.csv"):
    (folder / name).write_text("\n".join(lines) + "\n")
    return name


def test_class_folders_of_known_labels(images):
    rows, rejected = read(images(*IMAGES, "normal/d.png"))
    assert rejected == {}
    assert {path: row["target"] for path, row in rows.items()} == {
        "benign/p1/a.png": 0,
        "benign/p2/b.png": 0,
        "malignant/p3/c.png": 1,
        "normal/d.png": 0,
    }
    assert rows["normal/d.png"]["label"] == "normal"
    assert rows["normal/d.png"]["patient_id"] is None
    assert rows["normal/d.png"]["width"] == 12


def test_split_folders_above_class_folders(images):
    rows, _ = read(images("train/Benign/a.png", "valid/Malignant/b.png", "test/Benign/c.png"))
    assert [(row["split"], row["label"], row["target"]) for row in rows.values()] == [
        ("test", "Benign", 0),
        ("train", "Benign", 0),
        ("val", "Malignant", 1),
    ]


def test_a_class_that_is_called_test_is_a_class_where_others_are_not_splits(images):
    rows, _ = read(images("test/a.png", "control/b.png"), positive="test")
    assert {row["label"]: (row["target"], row["split"]) for row in rows.values()} == {
        "test": (1, None),
        "control": (0, None),
    }


def test_other_labels_need_positive_and_the_error_says_how(images):
    folder = images("cats/a.png", "dogs/b.png")
    with pytest.raises(UsageError, match=r'which of the labels cats, dogs is to be found.*positive = "dogs"'):
        read(folder)
    with pytest.raises(UsageError, match="positive names mice, but the labels are cats, dogs"):
        read(folder, positive="mice")
    rows, _ = read(folder, positive="cats")
    assert {path: row["target"] for path, row in rows.items()} == {"cats/a.png": 1, "dogs/b.png": 0}


def test_several_labels_can_be_positive(images):
    rows, _ = read(images("a/1.png", "b/2.png", "c/3.png"), positive=["a", "c"])
    assert [row["target"] for row in rows.values()] == [1, 0, 1]


def test_class_names_are_the_labels_where_each_side_is_one(images):
    folder = images("cats/a.png", "dogs/b.png")
    table = catalog.index_dataset("folder", folder, folder, {"positive": "dogs"}).index
    assert catalog.class_names("folder", table) == ("cats", "dogs")
    images("mice/c.png")
    table = catalog.index_dataset("folder", folder, folder, {"positive": "dogs"}).index
    assert catalog.class_names("folder", table) == ("negative", "dogs")
    assert catalog.class_names("idc-patches", table) == ("negative", "idc")


def test_patient_pattern(images):
    rows, rejected = read(images(*IMAGES, "benign/lost.png"), patient_pattern=r"/(p\d+)/")
    assert {path: row["patient_id"] for path, row in rows.items()} == dict(zip(IMAGES, ["p1", "p2", "p3"], strict=True))
    assert list(rejected) == ["benign/lost.png"]
    for pattern, reason in (
        ("(", "not a regular expression"),
        ("p.", "0 groups"),
        ("(a)(b)", "2 groups"),
        (3, "not a"),
    ):
        with pytest.raises(UsageError, match=reason):
            read(images(), patient_pattern=pattern)


def test_files_are_judged_by_content(images, make_image):
    folder = images()
    (folder / "benign" / "p1" / "notes.doc").write_text("no image")
    (folder / "malignant" / "p3" / "image").write_bytes((folder / IMAGES[0]).read_bytes())
    (folder / "README.txt").write_text("text at the top is no news")
    (folder / "docs").mkdir()
    (folder / "docs" / "readme.md").write_text("a folder of documents is no class")
    (folder / ".hidden.png").write_text("hidden")
    make_image(folder / "top.png")
    rows, rejected = read(folder)
    assert sorted(rows) == sorted([*IMAGES, "malignant/p3/image"])
    assert rejected["top.png"] == "lies in no class folder"
    assert rejected["benign/p1/notes.doc"].startswith("not an image that Spicula reads")
    assert len(rejected) == 2


def test_a_name_that_is_not_unicode_is_reported(images):
    folder = images()
    content = (folder / IMAGES[0]).read_bytes()
    try:
        (folder / "benign" / "caf\udce9.png").write_bytes(content)
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    rows, rejected = read(folder)
    assert len(rows) == 3
    assert list(rejected.values()) == ["the name is not in UTF-8"]


def test_table_with_mapped_columns(images):
    folder = images()
    table = write_table(
        folder,
        "file;woman;exam no;diagnosis;side;age;spacing;part",
        "benign/p1/a.png;anna;e1;benign;left;61.5;0.07;train",
        "benign/p2/b.png;bea;e2;normal;R;;;validation",
        "malignant/p3/c.png;clara;e3;malignant;l;40;0.1;Test",
    )
    columns = {
        "path": "file",
        "patient": "woman",
        "exam_id": "exam no",
        "label": "diagnosis",
        "laterality": "side",
        "age": "age",
        "pixel_spacing_mm": "spacing",
        "split": "part",
    }
    rows, rejected = read(folder, table=table, columns=columns)
    assert rejected == {}
    picked = [
        tuple(row[name] for name in ("patient_id", "exam_id", "label", "target", "laterality", "age", "split"))
        for row in rows.values()
    ]
    assert picked == [
        ("anna", "e1", "benign", 0, "L", 61.5, "train"),
        ("bea", "e2", "normal", 0, "R", None, "val"),
        ("clara", "e3", "malignant", 1, "L", 40.0, "test"),
    ]
    assert rows["benign/p1/a.png"]["pixel_spacing_mm"] == pytest.approx(0.07)


def test_table_with_the_names_of_the_index_needs_no_columns(images):
    folder = images()
    table = write_table(folder, "\ufeffpath,label,patient,hospital", "benign/p1/a.png,benign,p1,here")
    rows, _ = read(folder, table=table)
    assert [(row["patient_id"], row["target"]) for row in rows.values()] == [("p1", 0)]


def test_a_column_that_is_not_there_is_a_usage_error_that_lists_those_there(images):
    folder = images()
    table = write_table(folder, "file,diagnosis", "benign/p1/a.png,benign")
    with pytest.raises(UsageError, match=r"has no column path, label; it has file, diagnosis\. Say which"):
        read(folder, table=table)
    with pytest.raises(UsageError, match="has no column finding; it has file, diagnosis"):
        read(folder, table=table, columns={"path": "file", "label": "finding"})
    with pytest.raises(UsageError, match="columns cannot fill colour; it can fill path, label"):
        read(folder, table=table, columns={"path": "file", "label": "diagnosis", "colour": "file"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("absent.png,benign,,,", "no file absent.png"),
        (",benign,,,", "has no path"),
        ("../outside.png,benign,,,", "lies outside"),
        ("/etc/passwd,benign,,,", "lies outside"),
        ("benign/../../outside.png,benign,,,", "lies outside"),
        ("benign/p1/a.png,benign,,,", "benign/p1/a.png is listed twice"),
        ("benign/p2/../p1/a.png,benign,,,", "is listed twice"),
        ("benign/p2/b.png,benign,both,,", "laterality is 'both', not one of L, R"),
        ("benign/p2/b.png,benign,,old,", "age is 'old', could not convert"),
        ("benign/p2/b.png,benign,,-1,", "age is '-1', not a number from 0"),
        ("benign/p2/b.png,benign,,nan,", "age is 'nan', not a number from 0"),
        ("benign/p2/b.png,benign,,,1.5", "fold is '1.5', not a whole number"),
        ("benign/p2/b.png,benign,,,-1", "fold is '-1', not a whole number"),
        ("benign/p2/b.png,benign,,,99999", "fold is '99999', not a whole number"),
        ("benign/p2/b.png,benign,,,1,extra", "more values than the table has columns"),
    ],
)
def test_a_wrong_line_is_rejected_with_its_number(images, make_image, line, reason):
    folder = images()
    make_image(folder.parent / "outside.png")
    table = write_table(folder, "path,label,laterality,age,fold", "benign/p1/a.png,benign,L,50,2", line)
    rows, rejected = read(folder, table=table)
    assert list(rows) == ["benign/p1/a.png"]
    assert rejected["table.csv"].startswith("line 3: ")
    assert reason in rejected["table.csv"]


def test_lines_without_a_label_have_no_target(images):
    folder = images()
    table = write_table(folder, "path,label", "benign/p1/a.png,benign", "malignant/p3/c.png,")
    rows, _ = read(folder, table=table)
    assert (rows["malignant/p3/c.png"]["label"], rows["malignant/p3/c.png"]["target"]) == (None, None)


def test_paths_are_relative_to_the_table_or_to_the_folder_when_it_lies_elsewhere(images, tmp_path):
    folder = images()
    inner = write_table(folder / "benign", "path,label", "p1/a.png,benign", "../malignant/p3/c.png,malignant")
    rows, rejected = read(folder, table=f"benign/{inner}")
    assert (sorted(rows), rejected) == (["benign/p1/a.png", "malignant/p3/c.png"], {})
    write_table(
        tmp_path, "path,label", "benign/p1/a.png,benign", f"{folder}/malignant/p3/c.png,malignant", name="o.csv"
    )
    rows, rejected = read(folder, table=tmp_path / "o.csv")
    assert (sorted(rows), rejected) == (["benign/p1/a.png", "malignant/p3/c.png"], {})


def test_frames_and_own_image_ids(images):
    folder = images()
    table = write_table(
        folder,
        "path,label,frame,image_id",
        "benign/p1/a.png,benign,,",
        "benign/p1/a.png,benign,1,",
        "benign/p2/b.png,benign,,b",
    )
    reading = catalog.index_dataset("folder", folder, folder, {"table": table})
    assert reading.index["image_id"].to_pylist() == ["benign/p1/a.png", "benign/p1/a.png#1", "b"]
    table = write_table(folder, "path,label,image_id", "benign/p1/a.png,benign,x", "benign/p2/b.png,benign,x")
    _, rejected = read(folder, table=table)
    assert rejected == {"table.csv": "line 3: another line has the image_id x"}


def test_tables_that_are_none_are_usage_errors(images):
    folder = images()
    (folder / "latin.csv").write_bytes("path,label\nä,ö\n".encode("latin-1"))
    (folder / "quote.csv").write_text('path,label\n"a,b\n')
    (folder / "twice.csv").write_text("path,label,path\n")
    for options, reason in (
        ({"table": "absent.csv"}, "no such file"),
        ({"table": "benign"}, "cannot read the table"),
        ({"table": "latin.csv"}, "not in UTF-8"),
        ({"table": "quote.csv"}, "is not CSV"),
        ({"table": "twice.csv"}, "two columns of one name"),
        ({"columns": {"path": "a"}}, "needs the option table"),
        ({"patients": "x"}, "has no option patients; it has table, columns, positive, patient_pattern"),
    ):
        with pytest.raises(UsageError, match=reason):
            read(folder, **options)


def test_archive_of_a_folder_with_its_table(images, tmp_path):
    folder = images()
    write_table(folder, "path,label", "benign/p1/a.png,benign")
    with tarfile.open(tmp_path / "mine.tar", "w") as output:
        output.add(folder, "mine")
    rows, _ = read(tmp_path / "mine.tar", table="mine/table.csv")
    assert list(rows) == ["mine/benign/p1/a.png"]


def test_the_index_survives_writing_and_reading(images, tmp_path):
    folder = images()
    table = catalog.index_dataset("folder", folder, tmp_path).index
    index.write(tmp_path / "index.parquet", table)
    again = index.read(tmp_path / "index.parquet")
    assert again.equals(table)
    assert index.image_paths(again) == [folder / path for path in IMAGES]
