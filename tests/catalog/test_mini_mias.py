"""mini-MIAS: pairs of films, several lesions an image, y from the bottom, lines that make no sense."""

import tarfile
from collections import Counter

import pytest

from spicula import catalog
from spicula.errors import UsageError

HEAD = """MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
1st column: MIAS database reference number.
    NORM - Normal
=================================================================

"""
GOOD = """mdb001 G CIRC B 5 4 3
mdb002 G CIRC B 6 8 2
mdb003 D NORM
mdb004 D NORM
mdb005 F MISC B 2 1 1
mdb005 F SPIC M 7 6 2
mdb006 F CALC M *NOTE 3*
mdb007 F CALC B
"""


@pytest.fixture
def films(tmp_path, make_image):
    def make(table=GOOD, numbers=range(1, 8)):
        for number in numbers:
            make_image(tmp_path / "mias" / f"mdb{number:03d}.pgm", size=(12, 10))
        (tmp_path / "mias" / "Info.txt").write_text(HEAD + table)
        return tmp_path / "mias"

    return make


def read(folder, **options):
    reading = catalog.index_dataset("mini-mias", folder, folder.parent / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, reading.rejected.to_pylist()


def test_rows_of_a_miniature(films):
    rows, rejected = read(films())
    assert rejected == []
    assert {image: row["label"] for image, row in rows.items()} == {
        "mdb001": "benign",
        "mdb002": "benign",
        "mdb003": "normal",
        "mdb004": "normal",
        "mdb005": "malignant",
        "mdb006": "malignant",
        "mdb007": "benign",
    }
    assert {row["target"] for row in rows.values() if row["label"] == "malignant"} == {1}
    assert {row["target"] for row in rows.values() if row["label"] != "malignant"} == {0}
    first = rows["mdb001"]
    assert (first["patient_id"], first["laterality"], first["view"]) == ("mdb001-mdb002", "R", "MLO")
    assert (rows["mdb002"]["patient_id"], rows["mdb002"]["laterality"]) == ("mdb001-mdb002", "L")
    assert rows["mdb003"]["patient_id"] == rows["mdb004"]["patient_id"] == "mdb003-mdb004"
    assert (first["density"], first["subtype"], first["modality"]) == ("G", "CIRC", "MG")
    assert first["pixel_spacing_mm"] == pytest.approx(0.2)
    assert (first["width"], first["height"], first["bits"], first["photometric"]) == (12, 10, 8, "MONOCHROME2")
    assert len(first["sha256"]) == 64
    assert first["exam_id"] is None


def test_circles_have_their_y_from_the_top_and_lesions_without_a_place_are_kept(films):
    rows, _ = read(films())
    assert rows["mdb001"]["lesions"] == [
        {
            "kind": "circle",
            "coordinates": [5, 6, 3],
            "mask_path": None,
            "finding": "CIRC",
            "pathology": "benign",
            "birads": None,
        }
    ]
    assert [(lesion["finding"], lesion["coordinates"]) for lesion in rows["mdb005"]["lesions"]] == [
        ("MISC", [2, 9, 1]),
        ("SPIC", [7, 4, 2]),
    ]
    assert rows["mdb005"]["subtype"] is None
    for image, pathology in (("mdb006", "malignant"), ("mdb007", "benign")):
        (lesion,) = rows[image]["lesions"]
        assert (lesion["kind"], lesion["coordinates"], lesion["pathology"]) == ("unlocated", [], pathology)
    assert rows["mdb003"]["lesions"] == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mdb008 G CIRC B 5 x 3", "something else than x, y and radius"),
        ("mdb008 G CIRC B 5 4", "something else than x, y and radius"),
        ("mdb008 G CIRC B 5 4 3 2", "something else than x, y and radius"),
        ("mdb008 G CIRC B -5 4 3", "something else than x, y and radius"),
        ("mdb008 G CIRC B see the notes", "something else than x, y and radius"),
        ("mdb008 G CIRC B 5 4 0", "radius 0"),
        ("mdb008 G CIRC", "no severity"),
        ("mdb008 G CIRC X 5 4 3", "no severity"),
        ("mdb008 G LUMP B 5 4 3", "the class LUMP"),
        ("mdb008 Q NORM", "no tissue character"),
        ("mdb008", "no tissue character"),
        ("mdb008 G NORM 5 4 3", "NORM but goes on"),
        ("mdbxyz G NORM", "does not begin with an image number"),
        ("and some prose", "does not begin with an image number"),
    ],
)
def test_a_malformed_line_is_reported_with_its_number_and_skipped(films, line, reason):
    rows, rejected = read(films(GOOD + line + "\n", range(1, 9)))
    assert len(rows) == 7
    number = (HEAD + GOOD).count("\n") + 1
    (of_table,) = [row for row in rejected if row["path"] == "Info.txt"]
    assert of_table["reason"].startswith(f"line {number}: ")
    assert reason in of_table["reason"]
    (of_image,) = [row for row in rejected if row["path"] != "Info.txt"]
    assert of_image == {"path": "mdb008.pgm", "reason": "has no valid line in Info.txt"}


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("mdb003 D CIRC M 5 4 3", None),  # NORM, yet a lesion
        ("mdb003 F NORM", None),  # another tissue
        ("mdb001 G NORM", None),  # a lesion, yet NORM
        ("mdb001 G SPIC M 5 ? 3", None),  # perhaps a malignant lesion
        ("mdb005 F SPIC B 5 ? 3", "malignant"),  # which it is whatever the line says
    ],
)
def test_an_image_with_a_skipped_line_gets_no_label_that_could_be_wrong(films, line, label):
    rows, rejected = read(films(GOOD + line + "\n"))
    assert len(rejected) == 1
    row = rows[line[:6]]
    assert row["label"] == label
    assert row["target"] == (1 if label else None)


def test_images_without_lines_lines_without_images_and_damaged_images_are_reported(films):
    folder = films(GOOD, [1, 2, 3, 4, 5, 6, 9])
    (folder / "mdb002.pgm").write_bytes((folder / "mdb002.pgm").read_bytes()[:-1])
    rows, rejected = read(folder)
    assert sorted(rows) == ["mdb001", "mdb003", "mdb004", "mdb005", "mdb006"]
    reasons = {row["path"]: row["reason"] for row in rejected}
    assert reasons["mdb009.pgm"] == "has no valid line in Info.txt"
    assert reasons["mdb007.pgm"] == "listed in Info.txt but not there"
    assert "cut short" in reasons["mdb002.pgm"]
    assert len(rejected) == 3


def test_a_circle_outside_the_image_loses_its_place_and_is_reported(films):
    rows, rejected = read(films(GOOD.replace("5 4 3", "500 4 3")))
    assert rows["mdb001"]["lesions"][0]["kind"] == "unlocated"
    assert (
        rejected[0]["reason"]
        == f"line {HEAD.count(chr(10)) + 1}: the circle of mdb001 has its centre outside the image"
    )


@pytest.mark.parametrize("where", ["in", "beside", "option"])
def test_archive_with_the_table_in_it_beside_it_or_elsewhere(films, tmp_path, where):
    folder = films()
    source = tmp_path / "download"
    source.mkdir()
    with tarfile.open(source / "all-mias.tar.gz", "w:gz") as output:
        for path in sorted(folder.iterdir()):
            if where == "in" or path.suffix == ".pgm":
                output.add(path, path.name)
    options = {}
    if where == "beside":
        (folder / "Info.txt").rename(source / "Info.txt")
    if where == "option":
        options = {"info": (folder / "Info.txt").rename(tmp_path / "elsewhere.txt")}
    rows, rejected = read(source, **options)
    assert (len(rows), rejected) == (7, [])


def test_no_table_is_a_usage_error_that_says_what_is_expected(films):
    folder = films()
    (folder / "Info.txt").unlink()
    with pytest.raises(UsageError, match=r"no Info.txt in .*expected all-mias.tar.gz, or its files unpacked"):
        read(folder)


def test_films_held_twice_are_indexed_once(films, make_image):
    folder = films()
    (folder / "again").mkdir()
    for number in (1, 2):
        name = f"mdb{number:03d}.pgm"
        (folder / "again" / name).write_bytes((folder / name).read_bytes())
    make_image(folder / "again" / "mdb003.pgm", size=(4, 4))
    rows, rejected = read(folder)
    assert rows["mdb001"]["path"] == "mdb001.pgm"
    assert {row["path"]: row["reason"] for row in rejected} == {
        "again": "2 files below have the name and size of files indexed from elsewhere",
        "again/mdb003.pgm": "has the name of mdb003.pgm, which is indexed, but another size",
    }


def test_real_images(test_data, tmp_path):
    reading = catalog.index_dataset("mini-mias", test_data / "mini-mias", tmp_path)
    rows = reading.index.to_pylist()
    assert reading.rejected.num_rows == 0
    assert len(rows) == 32
    assert len({row["patient_id"] for row in rows}) == 16
    assert Counter(row["label"] for row in rows) == {"normal": 19, "benign": 7, "malignant": 6}
    assert sum(row["target"] for row in rows) == 6
    by_id = {row["image_id"]: row for row in rows}
    assert [lesion["coordinates"] for lesion in by_id["mdb144"]["lesions"]] == [[233, 30, 29], [313, 484, 27]]
    assert [lesion["pathology"] for lesion in by_id["mdb144"]["lesions"]] == ["benign", "malignant"]
    assert {(row["width"], row["height"], row["bits"]) for row in rows} == {(1024, 1024, 8)}
    assert all((row["laterality"] == "L") == (int(row["image_id"][3:]) % 2 == 0) for row in rows)
