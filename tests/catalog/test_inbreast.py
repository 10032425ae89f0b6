"""INbreast: the patient in the file name, ML for MLO, BI-RADS 4a to 4c, outlines as property lists."""

import plistlib
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mammogram_files import write_mammogram

from spicula import catalog
from spicula.catalog.inbreast import outlines
from spicula.errors import UsageError

ANNA, BEA, CLEO = "6c613a14b80a8591", "e634830794f5c1bd", "98429c0bdf78c0c7"
#: number, patient, side, view in the file name, date, ACR, BI-RADS
IMAGES = [
    ("20586908", ANNA, "R", "CC", "201001", "2", "1"),
    ("20586934", ANNA, "L", "CC", "201001", "2", "5"),
    ("20586960", ANNA, "R", "ML", "201001", "2", "1"),
    ("20586986", ANNA, "L", "ML", "201001", "2", "4c"),
    ("20587012", ANNA, "L", "CC", "200802", "2", "3"),
    ("22670094", BEA, "R", "CC", "200901", "                    ", "6"),
    ("22670147", BEA, "R", "ML", "200901", "4", "2"),
    ("53586361", CLEO, "L", "ML", "201001", "1", "4a"),
]
HEAD = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
TRIANGLE = [(2.5, 3.0), (10.25, 3.5), (6.0, 12.75)]


def outline(name, points, **more):
    """One region as OsiriX exports it."""
    return {
        "Area": 1.5,
        "IndexInImage": 0,
        "Mean": 100.0,
        "Name": name,
        "NumberOfPoints": len(points),
        "Point_mm": ["(0.0, 0.0, 0.0)"] * len(points),
        "Point_px": [f"({x:f}, {y:f})" for x, y in points],
        "Type": 15,
    } | more


def property_list(*outlines):
    images = [{"ImageIndex": 0, "NumberOfROIs": len(outlines), "ROIs": list(outlines)}]
    return plistlib.dumps({"Images": images}, fmt=plistlib.FMT_XML)


@pytest.fixture
def archive(tmp_path):
    def make(images=IMAGES, outlines=None, lines=()):
        root = tmp_path / "INbreast Release 1.0"
        table = [HEAD]
        for number, patient, side, view, date, density, birads in images:
            write_mammogram(
                root / "AllDICOMs" / f"{number}_{patient}_MG_{side}_{view}_ANON.dcm", Manufacturer="SIEMENS"
            )
            table.append(f"removed;removed;{side};{view.replace('ML', 'MLO')};{date};{number};{density};{birads}")
        (root / "INbreast.csv").write_text("\r\n".join([*table, *lines]) + "\r\n")
        (root / "AllXML").mkdir()
        default = {"20586934": property_list(outline("Mass", TRIANGLE))}
        for number, content in (default if outlines is None else outlines).items():
            (root / "AllXML" / f"{number}.xml").write_bytes(content)
        (root / "AllROI").mkdir()
        (root / "AllROI" / "20586934.roi").write_bytes(b"\x04\x0bstreamtyped")
        (root / "PectoralMuscle").mkdir()
        (root / "PectoralMuscle" / "20586960_muscle.xml").write_bytes(property_list(outline("", TRIANGLE)))
        (root / "README.txt").write_text("read me")
        return root

    return make


def read(folder, **options):
    reading = catalog.index_dataset("inbreast", folder, folder.parent / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, reading.rejected.to_pylist()


def reasons(rejected):
    return {(row["path"], row["reason"]) for row in rejected}


def test_rows_of_a_miniature(archive):
    rows, rejected = read(archive())
    assert rejected == []
    assert len(rows) == 8
    row = rows["20586986"]
    assert row["path"] == f"AllDICOMs/20586986_{ANNA}_MG_L_ML_ANON.dcm"
    assert (row["patient_id"], row["exam_id"]) == (ANNA, f"{ANNA}-201001")
    assert (row["laterality"], row["view"], row["birads"], row["density"]) == ("L", "MLO", "4C", "B")
    assert (row["label"], row["target"], row["split"], row["age"]) == ("suspicious", 1, None, None)
    assert (row["modality"], row["manufacturer"], row["bits"], row["flags"]) == ("MG", "SIEMENS", 12, [])


def test_patients_and_exams_come_from_the_file_names_and_the_date(archive):
    rows, _ = read(archive())
    assert {row["patient_id"] for row in rows.values()} == {ANNA, BEA, CLEO}
    assert {row["exam_id"] for row in rows.values()} == {
        f"{ANNA}-201001",
        f"{ANNA}-200802",
        f"{BEA}-200901",
        f"{CLEO}-201001",
    }


def test_an_image_from_below_and_one_without_a_date_are_kept(archive):
    rows, rejected = read(archive([*IMAGES, ("1", BEA, "L", "FB", "removed", "3", "2")]))
    assert rejected == []
    assert (rows["1"]["view"], rows["1"]["patient_id"], rows["1"]["exam_id"]) == ("FB", BEA, None)


@pytest.mark.parametrize("size", [{"Columns": None}, {"Rows": [16, 16]}, {"Rows": 0}])
def test_an_outlined_image_without_a_size_is_rejected(archive, size):
    folder = archive()
    write_mammogram(folder / "AllDICOMs" / f"20586934_{ANNA}_MG_L_CC_ANON.dcm", **size)
    rows, rejected = read(folder)
    assert len(rows) == 7
    assert [row["path"] for row in rejected] == [f"AllDICOMs/20586934_{ANNA}_MG_L_CC_ANON.dcm"]


def test_density_is_lettered_and_blank_where_the_table_has_only_spaces(archive):
    rows, _ = read(archive())
    assert [rows[number]["density"] for number in ("53586361", "20586908", "22670147", "22670094")] == [
        "A",
        "B",
        "D",
        None,
    ]


@pytest.mark.parametrize(("option", "of_3"), [(None, None), ("benign", 0), ("malignant", 1)])
def test_targets_are_those_of_the_images_own_assessment(archive, option, of_3):
    rows, _ = read(archive(), **({"birads_3": option} if option else {}))
    assert {number: row["target"] for number, row in rows.items()} == {
        "20586908": 0,
        "20586934": 1,
        "20586960": 0,
        "20586986": 1,
        "20587012": of_3,
        "22670094": 1,
        "22670147": 0,
        "53586361": 1,
    }


def test_an_outline_is_a_polygon_and_its_finding_is_spelt_properly(archive):
    names = ["Mass", "Calcifications", "Cluster", "Espiculated Region", "Assymetry", "Distortion", "spiculated region "]
    rows, rejected = read(archive(outlines={"20586934": property_list(*(outline(n, TRIANGLE) for n in names))}))
    assert rejected == []
    lesions = rows["20586934"]["lesions"]
    assert [lesion["finding"] for lesion in lesions] == [
        "mass",
        "calcification",
        "cluster",
        "spiculated region",
        "asymmetry",
        "distortion",
        "spiculated region",
    ]
    assert {lesion["kind"] for lesion in lesions} == {"polygon"}
    assert lesions[0]["coordinates"] == [2.5, 3.0, 10.25, 3.5, 6.0, 12.75]
    assert {(lesion["pathology"], lesion["birads"]) for lesion in lesions} == {(None, None)}
    assert rows["20586908"]["lesions"] == []  # no file of outlines: nothing was outlined


def test_marks_of_one_or_two_points_are_boxes_of_exactly_the_marked_pixels(archive):
    marks = [outline("Calcification", [(7.9, 4.2)]), outline("Calcification", [(3.0, 5.5), (5.5, 2.1)])]
    rows, rejected = read(archive(outlines={"20586934": property_list(*marks)}))
    assert rejected == []
    assert [(lesion["kind"], lesion["coordinates"]) for lesion in rows["20586934"]["lesions"]] == [
        ("box", [7, 4, 8, 5]),
        ("box", [3, 2, 6, 6]),
    ]


@pytest.mark.parametrize(
    ("region", "kind", "coordinates", "reason"),
    [
        (
            outline("Mass", [(-1.5, 2), (30, 2), (10, 29)]),
            "polygon",
            [0, 2, 24, 2, 10, 29],
            "reaches out of the image and was cut to it",
        ),
        (outline("Mass", [(30, 2), (40, 2), (35, 9)]), "unlocated", [], "lies outside the image; kept without a place"),
        (outline("Calcification", [(24, 2)]), "unlocated", [], "lies outside the image; kept without a place"),
        (
            outline("Calcification", [(23.9, 2), (24.5, 2)]),
            "box",
            [23, 2, 24, 3],
            "reaches out of the image and was cut to it",
        ),
        (
            outline("Point 1", [(5, 2)]),
            "box",
            [5, 2, 6, 3],
            "is named 'point 1', which says no finding; kept without one",
        ),
        (outline("", TRIANGLE), "polygon", None, "is named '', which says no finding; kept without one"),
    ],
)
def test_what_had_to_be_changed_is_reported(archive, region, kind, coordinates, reason):
    rows, rejected = read(archive(outlines={"20586934": property_list(region)}))
    (lesion,) = rows["20586934"]["lesions"]
    assert lesion["kind"] == kind
    assert coordinates is None or lesion["coordinates"] == coordinates
    assert reasons(rejected) == {("AllXML/20586934.xml", f"outline 1: {reason}")}


@pytest.mark.parametrize(
    "change",
    [
        {"Point_px": ["(1, 2)", "(3; 4)"], "NumberOfPoints": 2},
        {"Point_px": ["(1, 2)", "(nan, 4)"], "NumberOfPoints": 2},
        {"Point_px": ["__import__('os')"], "NumberOfPoints": 1},
        {"Point_px": [7], "NumberOfPoints": 1},
        {"Point_px": [], "NumberOfPoints": 0},
        {"Point_px": "(1, 2)"},
        {"NumberOfPoints": 4},
    ],
)
def test_an_outline_without_readable_points_is_left_out_and_the_others_stay(archive, change):
    broken = outline("Mass", TRIANGLE) | change
    rows, rejected = read(archive(outlines={"20586934": property_list(broken, outline("Mass", TRIANGLE))}))
    assert len(rows["20586934"]["lesions"]) == 1
    assert reasons(rejected) == {("AllXML/20586934.xml", "outline 1: has no points that can be read; left out")}


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<plist version="1.0"><dict><key>Images</key><string>&b;</string></dict></plist>"""
OUTSIDE = b"""<?xml version="1.0"?>
<!DOCTYPE plist [<!ENTITY secret SYSTEM "file:///etc/passwd">]>
<plist version="1.0"><dict><key>Images</key><string>&secret;</string></dict></plist>"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "is not an XML property list"),
        (OUTSIDE, "is not an XML property list"),
        (b"", "is not an XML property list"),
        (
            b"<plist " + b" ".join(b'a%d="1"' % number for number in range(500_000)) + b"><dict/></plist>",
            "is not an XML property list (a tag of over 1000 bytes)",
        ),
        (b"<plist>cut sh", "is not an XML property list"),
        (b"bplist00\xff", "is not an XML property list"),
        (plistlib.dumps({"Images": []}, fmt=plistlib.FMT_BINARY), "is not an XML property list"),
        (b"<plist>" + b"<array>" * 50_000 + b"</array>" * 50_000 + b"</plist>", "is not the outlines of one image"),
        (plistlib.dumps([1]), "is not the outlines of one image"),
        (plistlib.dumps({"Images": [{}, {}]}), "is not the outlines of one image"),
        (plistlib.dumps({"Images": [{"ROIs": "none"}]}), "has no list of up to 10000 outlines"),
    ],
)
def test_a_hostile_or_damaged_file_of_outlines_costs_its_outlines_alone(archive, content, reason):
    rows, rejected = read(archive(outlines={"20586934": content}))
    assert len(rows) == 8
    assert rows["20586934"]["lesions"] == []
    (row,) = rejected
    assert row["path"] == "AllXML/20586934.xml"
    assert row["reason"].startswith(reason)
    assert row["reason"].endswith("; the image is kept without lesions")
    assert "root:" not in row["reason"]


def test_files_of_outlines_have_a_largest_size(tmp_path, monkeypatch):
    (tmp_path / "1.xml").write_bytes(property_list(outline("Mass", TRIANGLE)))
    assert len(outlines.read_outline(tmp_path / "1.xml", 24, 30)[0]) == 1
    monkeypatch.setattr(outlines, "MAX_BYTES", 100)
    assert outlines.read_outline(tmp_path / "1.xml", 24, 30) == (
        [],
        ["has more than 100 bytes; the image is kept without lesions"],
    )


@given(st.binary(max_size=200))
def test_any_bytes_give_no_lesions_and_a_reason(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "1.xml"
    path.write_bytes(content)
    lesions, problems = outlines.read_outline(path, 24, 30)
    assert (lesions, len(problems)) == ([], 1)


@given(st.lists(st.tuples(st.floats(-50, 80), st.floats(-50, 80)), min_size=1, max_size=6))
def test_whatever_the_points_the_lesion_lies_in_the_image(tmp_path_factory, points):
    path = tmp_path_factory.mktemp("points") / "1.xml"
    path.write_bytes(property_list(outline("Mass", points)))
    (lesion,), _ = outlines.read_outline(path, 24, 30)
    xs, ys = lesion["coordinates"][::2], lesion["coordinates"][1::2]
    assert all(0 <= x <= 24 for x in xs)
    assert all(0 <= y <= 30 for y in ys)
    assert lesion["kind"] == "unlocated" or (min(xs) < max(xs) and min(ys) < max(ys))


def test_a_folder_without_outlines_is_told(archive):
    folder = archive(outlines={})
    rows, rejected = read(folder)
    assert len(rows) == 8
    assert reasons(rejected) == {("AllXML", "no outlines in the folder: no image has lesions in the Index")}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("removed;removed;B;CC;201001;1;2;1", "Laterality is 'B', not one of L, R"),
        ("removed;removed;L;LM;201001;1;2;1", "View is 'LM', not one of CC, ML, MLO, FB"),
        ("removed;removed;L;CC;201001;one;2;1", "File Name is 'one', not the number of an image"),
        ("removed;removed;L;CC;201001;1;5;1", "ACR is '5', not one of 1, 2, 3, 4"),
        ("removed;removed;L;CC;201001;1;2;4d", "Bi-Rads is '4d', not a BI-RADS assessment (0 to 6, 4A, 4B, 4C)"),
        ("removed;removed;L", "has fewer values than the table has columns"),
        ("average;;;;;;2,3;", "File Name is '', not the number of an image"),
    ],
)
def test_a_malformed_line_is_reported_with_its_number(archive, line, reason):
    rows, rejected = read(archive(lines=[";;;;;;;", line]))
    assert len(rows) == 8
    assert reasons(rejected) == {("INbreast.csv", f"line 11: {reason}")}


def test_files_and_lines_that_do_not_fit_together_are_reported(archive):
    folder = archive(lines=["removed;removed;L;CC;201001;777;2;1"], outlines={"999": property_list()})
    images = folder / "AllDICOMs"
    swapped = images / f"20586934_{ANNA}_MG_R_CC_ANON.dcm"
    (images / f"20586934_{ANNA}_MG_L_CC_ANON.dcm").rename(swapped)
    write_mammogram(images / f"888_{ANNA}_MG_L_CC_ANON.dcm")
    write_mammogram(images / f"20586908_{BEA}_MG_R_CC_ANON.dcm")
    write_mammogram(images / "IM0001.dcm")
    (images / f"53586361_{CLEO}_MG_L_ML_ANON.dcm").write_bytes(b"no DICOM")
    rows, rejected = read(folder)
    assert sorted(rows) == ["20586908", "20586960", "20586986", "20587012", "22670094", "22670147"]
    assert reasons(rejected) == {
        (f"AllDICOMs/{swapped.name}", "the name says R CC, INbreast.csv says L CC"),
        (f"AllDICOMs/888_{ANNA}_MG_L_CC_ANON.dcm", "has no valid line in INbreast.csv"),
        (f"AllDICOMs/20586908_{BEA}_MG_R_CC_ANON.dcm", "another file has the number 20586908"),
        (
            "AllDICOMs/IM0001.dcm",
            "the name is not <number>_<patient>_MG_<L or R>_<CC or ML>_ANON.dcm",
        ),
        (f"AllDICOMs/53586361_{CLEO}_MG_L_ML_ANON.dcm", "not a DICOM file"),
        ("AllDICOMs/777", "listed in INbreast.csv but not there"),
        ("AllXML/999.xml", "outlines of an image that the table does not have, or not validly"),
    }


def test_lines_that_contradict_each_other_leave_their_image_out(archive):
    rows, rejected = read(archive(lines=["removed;removed;R;CC;201001;20586908;2;5"]))
    assert "20586908" not in rows
    assert reasons(rejected) == {
        ("INbreast.csv", "line 10: says something else than an earlier line of the same; neither counts"),
        (f"AllDICOMs/20586908_{ANNA}_MG_R_CC_ANON.dcm", "has no valid line in INbreast.csv"),
    }


@pytest.mark.parametrize("where", ["in", "beside", "option"])
def test_archive_with_the_table_in_it_beside_it_or_elsewhere(archive, tmp_path, where):
    folder = archive()
    source = tmp_path / "download"
    source.mkdir()
    with tarfile.open(source / "INbreast.tgz", "w:gz") as output:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (where == "in" or path.name != "INbreast.csv"):
                output.add(path, f"INbreast Release 1.0/{path.relative_to(folder)}")
    options = {}
    if where == "beside":
        (folder / "INbreast.csv").rename(source / "INbreast.csv")
    if where == "option":
        options = {"table": (folder / "INbreast.csv").rename(tmp_path / "elsewhere.csv")}
    rows, rejected = read(source, **options)
    assert (len(rows), rejected) == (8, [])
    assert len(rows["20586934"]["lesions"]) == 1


def test_no_table_is_a_usage_error_that_says_what_to_do(archive):
    folder = archive()
    (folder / "INbreast.csv").rename(folder / "INbreast.xls")
    with pytest.raises(
        UsageError, match=r"no INbreast.csv in .*; expected INbreast.csv, AllDICOMs/.* save it as a CSV"
    ):
        read(folder)


def test_the_official_numbers():
    # Moreira et al. 2012: 90 cases of four images and 25 of two
    assert catalog.get("inbreast").expected == {"images": 90 * 4 + 25 * 2}
