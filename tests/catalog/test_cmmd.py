"""CMMD: the spreadsheet of breasts, sides and views from the headers, breasts that no biopsy was taken from."""

import zipfile
from collections import Counter

import openpyxl
import pytest
from mammogram_files import coded_view, uid, write_mammogram

from spicula import catalog
from spicula.catalog.cmmd import clinical
from spicula.errors import UsageError

SHEET = "CMMD_clinicaldata_revision.xlsx"
HEAD = ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"]
BREASTS = [
    ["D1-0001", "R", 44, 2, "calcification", "Benign", None],
    ["D1-0002", "L", 40.0, 2, "both", "Malignant", None],
    ["D1-0002", "R", 40, 2, "mass", "Benign", None],
    ["D2-0001", "L", 61, 2, "mass", "Malignant", "Luminal A"],
]
SIDES = {"D1-0001": "R", "D1-0002": "LR", "D2-0001": "LR"}


def folder_of(patient):
    """As the archive's own downloader lays them out."""
    return f"CMMD/{patient}/07-18-2010-NA-NA-79377/1.000000-NA-70244"


def write_sheet(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["nothing"])
    book.save(path)


def write_image(folder, patient, number, side, view, **elements):
    return write_mammogram(
        folder / folder_of(patient) / f"1-{number}.dcm",
        **{
            "PatientID": patient,
            "PatientAge": "044Y",
            "StudyInstanceUID": uid("study", patient),
            "SOPInstanceUID": uid(patient, number),
            "ImageLaterality": side,
            "ViewPosition": "",
            "ViewCodeSequence": coded_view(view),
        }
        | elements,
    )


@pytest.fixture
def archive(tmp_path):
    def make(rows=BREASTS, head=HEAD):
        root = tmp_path / "manifest-1616439774456"
        for patient, sides in SIDES.items():
            views = [(side, view) for side in sides for view in ("CC", "MLO")]
            for number, (side, view) in enumerate(views, start=1):
                write_image(root, patient, number, side, view)
            (root / folder_of(patient) / "LICENSE").write_text("CC BY 4.0")
        (root / "metadata.csv").write_text("Series UID,Collection\n")
        (root / "manifest-1616439774456.tcia").write_text("downloadServerUrl=\n")
        write_sheet(root / SHEET, [head, *rows])
        return root

    return make


def read(folder, **options):
    reading = catalog.index_dataset("cmmd", folder, folder.parent / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, reading.rejected.to_pylist()


def reasons(rejected):
    return {(row["path"], row["reason"]) for row in rejected}


def test_rows_of_a_miniature(archive):
    rows, rejected = read(archive())
    assert rejected == []
    assert sorted(rows) == [
        "D1-0001-R-CC",
        "D1-0001-R-MLO",
        "D1-0002-L-CC",
        "D1-0002-L-MLO",
        "D1-0002-R-CC",
        "D1-0002-R-MLO",
        "D2-0001-L-CC",
        "D2-0001-L-MLO",
        "D2-0001-R-CC",
        "D2-0001-R-MLO",
    ]
    row = rows["D2-0001-L-MLO"]
    assert row["path"] == f"{folder_of('D2-0001')}/1-2.dcm"
    assert (row["patient_id"], row["exam_id"]) == ("D2-0001", uid("study", "D2-0001"))
    assert (row["laterality"], row["view"], row["modality"]) == ("L", "MLO", "MG")
    assert (row["label"], row["target"], row["subtype"], row["age"]) == ("malignant", 1, "Luminal A", 61)
    assert (row["birads"], row["density"], row["split"], row["manufacturer"]) == (None, None, None, None)
    assert (row["bits"], row["photometric"], row["flags"]) == (12, "MONOCHROME2", [])


def test_a_row_is_one_breast_and_a_breast_without_a_row_has_no_label(archive):
    rows, _ = read(archive())
    labels = {image: (row["label"], row["target"], row["subtype"]) for image, row in rows.items()}
    for view in ("CC", "MLO"):
        assert labels[f"D1-0002-L-{view}"] == ("malignant", 1, None)
        assert labels[f"D1-0002-R-{view}"] == ("benign", 0, None)
        assert labels[f"D2-0001-R-{view}"] == (None, None, None)
        other = rows[f"D2-0001-R-{view}"]
        assert (other["lesions"], other["age"]) == ([], 44)  # the age of the header: the table has no row


def test_an_exam_has_four_views_and_both_breasts_of_a_patient(archive):
    rows, _ = read(archive())
    views = Counter((row["exam_id"], row["laterality"], row["view"]) for row in rows.values())
    assert set(views.values()) == {1}
    assert sorted(Counter(row["exam_id"] for row in rows.values()).values()) == [2, 4, 4]
    assert len({(row["exam_id"], row["patient_id"]) for row in rows.values()}) == 3


def test_abnormalities_are_lesions_without_a_place(archive):
    rows, _ = read(archive())
    found = [(one["kind"], one["finding"], one["pathology"]) for one in rows["D1-0002-L-CC"]["lesions"]]
    assert found == [("unlocated", "mass", "malignant"), ("unlocated", "calcification", "malignant")]
    found = [(one["kind"], one["finding"], one["pathology"]) for one in rows["D1-0001-R-CC"]["lesions"]]
    assert found == [("unlocated", "calcification", "benign")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["D3-0001", "L", 50, 2, "mass", "Benign", None], "ID1 is 'D3-0001', not a patient (D1-0001)"),
        (["D1-0009", "B", 50, 2, "mass", "Benign", None], "LeftRight is 'B', not one of L, R"),
        (["D1-0009", "L", "old", 2, "mass", "Benign", None], "Age is 'old', not an age in years"),
        (["D1-0009", "L", None, 2, "mass", "Benign", None], "Age is '', not an age in years"),
        (["D1-0009", "L", 50, "two", "mass", "Benign", None], "number is 'two', not a number of images"),
        (
            ["D1-0009", "L", 50, 2, "lump", "Benign", None],
            "abnormality is 'lump', not one of mass, calcification, both",
        ),
        (["D1-0009", "L", 50, 2, "mass", "Normal", None], "classification is 'Normal', not one of Benign, Malignant"),
        (
            ["D1-0009", "L", 50, 2, "mass", "Malignant", "basal"],
            "subtype is 'basal', not one of Luminal A, Luminal B, HER2-enriched, triple negative",
        ),
        (["D1-0009"], "LeftRight is '', not one of L, R"),
        (BREASTS[0], "repeats an earlier line"),
    ],
)
def test_a_malformed_row_is_reported_with_its_number(archive, row, reason):
    rows, rejected = read(archive([*BREASTS, [None] * 7, row]))
    assert len(rows) == 10
    assert reasons(rejected) == {(SHEET, f"line 7: {reason}")}


def test_rows_that_contradict_each_other_give_no_label(archive):
    rows, rejected = read(archive([*BREASTS, ["D1-0001", "R", 44, 2, "calcification", "Malignant", None]]))
    assert {rows[f"D1-0001-R-{view}"]["target"] for view in ("CC", "MLO")} == {None}
    assert reasons(rejected) == {
        (SHEET, "line 6: says something else than an earlier line of the same; neither counts")
    }


def test_breasts_without_images_and_with_fewer_are_reported(archive):
    folder = archive([*BREASTS, ["D2-0749", "R", 50, 2, "mass", "Malignant", "triple negative"]])
    (folder / folder_of("D2-0001") / "1-2.dcm").unlink()
    rows, rejected = read(folder)
    assert len(rows) == 9
    assert reasons(rejected) == {
        (SHEET, "line 5: counts 2 images of this breast, 1 are there"),
        (SHEET, "line 6: no image of this breast is there"),
    }


def test_files_that_are_none_of_the_archive_are_reported_without_what_they_say_of_a_person(archive):
    folder = archive()
    write_image(folder, "D1-0003", 1, "L", "CC", PatientID="Canary^Carla")
    write_image(folder, "D1-0003", 2, "L", "CC", PatientID="")
    write_image(folder, "D1-0003", 3, "L", "CC", PatientID="D1-0003", SOPInstanceUID="")
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    rows, rejected = read(folder)
    assert len(rows) == 10
    stranger = "PatientID is none of the archive's (D1-0001, D2-0001, ...)"
    assert reasons(rejected) == {
        (f"{folder_of('D1-0003')}/1-1.dcm", stranger),
        (f"{folder_of('D1-0003')}/1-2.dcm", stranger),
        (f"{folder_of('D1-0003')}/1-3.dcm", "SOPInstanceUID is missing or no UID"),
        ("broken.dcm", "not a DICOM file"),
        ("picture.png", "is no DICOM file of the archive, by its name"),
    }
    assert "Canary" not in str(rejected)


def test_the_same_image_in_another_folder_is_indexed_once(archive):
    folder = archive()
    original = folder / folder_of("D1-0001") / "1-1.dcm"
    copy = folder / "other" / "deadbeef.dcm"
    copy.parent.mkdir()
    copy.write_bytes(original.read_bytes())
    rows, rejected = read(folder)
    assert len(rows) == 10
    reason = f"is the same image as {original.relative_to(folder)}, by its SOPInstanceUID"
    assert reasons(rejected) == {("other/deadbeef.dcm", reason)}


def test_folders_and_names_of_other_downloaders_do_not_matter(archive):
    folder = archive()
    flat = folder.parent / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        path.rename(flat / f"{number}.dcm")
    (folder / SHEET).rename(flat / SHEET)
    rows, rejected = read(flat)
    assert (len(rows), rejected) == (10, [])
    assert rows["D2-0001-L-CC"]["target"] == 1


def test_an_image_without_a_side_has_no_label_and_two_of_one_view_have_names_of_their_own(archive):
    folder = archive()
    write_image(folder, "D1-0001", 2, "R", "CC")  # two CC views, no MLO
    write_image(folder, "D2-0001", 1, "", "CC")
    rows, rejected = read(folder)
    assert {"D1-0001-R-CC", "D1-0001-R-CC-2", "D2-0001-X-CC"} <= set(rows)
    row = rows["D2-0001-X-CC"]
    assert (row["laterality"], row["label"], row["target"]) == (None, None, None)
    assert (
        f"{folder_of('D2-0001')}/1-1.dcm",
        "kept, but the header names no side, so the image has no label",
    ) in reasons(rejected)


def test_contradictions_in_a_header_are_reported(archive):
    folder = archive()
    write_image(folder, "D1-0001", 1, "R", "CC", Laterality="L")
    rows, rejected = read(folder)
    assert rows["D1-0001-R-CC"]["label"] == "benign"
    ((path, reason),) = reasons(rejected)
    assert path.endswith("1-1.dcm")
    assert reason.startswith("kept, but the side is R by ImageLaterality")


@pytest.mark.parametrize("how", ["in", "option"])
def test_the_spreadsheet_can_lie_elsewhere(archive, tmp_path, how):
    folder = archive()
    options = {}
    if how == "option":
        options = {"clinical": (folder / SHEET).rename(tmp_path / "clinical.xlsx")}
    rows, rejected = read(folder, **options)
    assert (len(rows), rejected) == (10, [])


def test_without_a_spreadsheet_it_is_a_usage_error(archive):
    folder = archive()
    (folder / SHEET).unlink()
    with pytest.raises(UsageError, match=r"no CMMD_clinicaldata_revision.xlsx in .*option clinical"):
        read(folder)


def test_another_spreadsheet_is_a_usage_error(archive):
    with pytest.raises(UsageError, match=r"has no column LeftRight, subtype; it has ID1, Side, Age.*archive's own\?"):
        read(archive(head=["ID1", "Side", "Age", "number", "abnormality", "classification", "x"]))


def truncated(path):
    path.write_bytes(path.read_bytes()[:2000])


def not_a_sheet(path):
    with zipfile.ZipFile(path, "w") as parts:
        parts.writestr("hello.txt", "hello")


def empty(path):
    path.write_bytes(b"")


def without_rows(path):
    write_sheet(path, [])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "is not an XLSX spreadsheet"),
        (not_a_sheet, "is not an XLSX spreadsheet"),
        (empty, "is not an XLSX spreadsheet"),
        (without_rows, "has no column ID1, .*; it has none"),
    ],
)
def test_a_damaged_spreadsheet_is_a_usage_error(archive, spoil, message):
    folder = archive()
    spoil(folder / SHEET)
    with pytest.raises(UsageError, match=message):
        read(folder)


def test_a_spreadsheet_that_inflates_too_far_or_has_too_many_rows_is_refused(archive, monkeypatch):
    folder = archive()
    monkeypatch.setattr(clinical, "MAX_ROWS", 4)
    with pytest.raises(UsageError, match="has more than 4 rows"):
        read(folder)
    monkeypatch.setattr(clinical, "MAX_BYTES", 1000)
    with pytest.raises(UsageError, match=r"inflates to \d+ bytes; at most 1000 are read"):
        read(folder)


def test_the_official_numbers_are_those_of_the_public_index_of_the_archive():
    assert catalog.get("cmmd").expected == {"images": 5_202, "patients": 1_775, "exams": 1_775}
    idc_index = pytest.importorskip("idc_index_data", reason="needs the index of the Imaging Data Commons")
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["collection_id", "PatientID", "StudyInstanceUID", "instanceCount"]
    series = pq.read_table(idc_index.IDC_INDEX_PARQUET_FILEPATH, columns=columns)
    series = series.filter(pc.equal(series["collection_id"], "cmmd"))
    patients = series["PatientID"].to_pylist()
    counts = series["instanceCount"].to_pylist()
    assert sum(counts) == 5_202
    assert len(set(patients)) == len(set(series["StudyInstanceUID"].to_pylist())) == 1_775
    assert Counter(counts) == {2: 949, 4: 826}
    assert Counter(patient[:2] for patient in patients) == {"D1": 1_026, "D2": 749}
    assert all(clinical.PATIENT.fullmatch(patient) for patient in patients)
