"""DICOM folders: what is a mammogram, exams and patients, duplicates, frames, labels; no id leaks."""

import json
import zipfile

import pytest
from pacs_maker import CANARIES, MG, SECONDARY_CAPTURE, TOMOSYNTHESIS, mammogram

from spicula import catalog, cli, headers
from spicula.catalog.dicom_header import is_uid
from spicula.catalog.pacs import patient_hash
from spicula.errors import UsageError


@pytest.fixture
def export(tmp_path):
    return tmp_path / "export"


def read(folder, **options):
    reading = catalog.index_dataset("dicom", folder, folder.parent / "unpacked", options)
    return {row["image_id"]: row for row in reading.index.to_pylist()}, {
        row["path"]: row["reason"] for row in reading.rejected.to_pylist()
    }


def code(value):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SRT", "x"
    return item


def test_exams_patients_sides_and_views(export):
    for number, (side, view) in enumerate((("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")), start=1):
        mammogram(export / f"DISK/A{number}/I000", number, ImageLaterality=side, ViewPosition=view)
    mammogram(export / "IMG", 5, StudyInstanceUID="1.2.826.0.9", PatientID="another", PatientAge="044Y")
    rows, rejected = read(export)
    assert rejected == {}
    assert len(rows) == 5
    row = rows["1.2.826.0.1.2"]
    assert (row["path"], row["laterality"], row["view"], row["flags"]) == ("DISK/A2/I000", "L", "MLO", [])
    assert (row["exam_id"], row["modality"], row["bits"], row["frame"]) == ("1.2.826.0.2", "MG", 12, 0)
    assert (row["width"], row["height"], row["photometric"]) == (4, 6, "MONOCHROME2")
    assert row["label"] is row["target"] is row["age"] is None
    assert rows["1.2.826.0.1.5"]["age"] == 44
    assert len({row["exam_id"] for row in rows.values()}) == 2
    assert len({row["patient_id"] for row in rows.values()}) == 2


def test_flagged_images_are_indexed_with_their_flags(export):
    mammogram(export / "raw", 1, SOPClassUID=MG + ".1", PresentationIntentType="FOR PROCESSING")
    view = code("R-10242")
    view.ViewModifierCodeSequence = [code("R-102D5")]
    mammogram(export / "id", 2, BreastImplantPresent="YES", ViewCodeSequence=[view])
    mammogram(export / "cview", 3, ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"])
    mammogram(export / "mag", 4, ViewPosition="MCC")
    rows, rejected = read(export)
    assert rejected == {}
    assert {row["path"]: row["flags"] for row in rows.values()} == {
        "raw": ["for-processing"],
        "id": ["implant", "implant-displaced"],
        "cview": ["synthetic-2d"],
        "mag": ["magnification"],
    }
    assert {row["view"] for row in rows.values()} == {"CC"}


ROOT = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "WSD"}, "a secondary capture"),
        ({"SOPClassUID": SECONDARY_CAPTURE + ".2"}, "a secondary capture"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "DF", "Modality": "RG"}, "nothing says that it shows"),
        ({"SOPClassUID": ROOT + "88.50", "Modality": "SR"}, "computer-aided detection"),
        ({"SOPClassUID": ROOT + "88.33", "Modality": "SR"}, "a structured report"),
        ({"SOPClassUID": ROOT + "88.59", "Modality": "KO"}, "a structured report"),
        ({"SOPClassUID": ROOT + "11.1", "Modality": "PR"}, "a presentation state"),
        ({"SOPClassUID": ROOT + "66.4", "Modality": "SEG"}, "a segmentation"),
        ({"SOPClassUID": ROOT + "66"}, "raw data"),
        ({"SOPClassUID": ROOT + "104.1", "Modality": "DOC"}, "an encapsulated document"),
        ({"SOPClassUID": ROOT + "2", "Modality": "CT"}, "not mammography: its Modality is CT"),
        # magnetic resonance and ultrasound of a breast are no mammograms either
        ({"SOPClassUID": ROOT + "4", "Modality": "MR", "BodyPartExamined": "BREAST"}, "its Modality is MR"),
        ({"SOPClassUID": ROOT + "6.1", "Modality": "US", "BodyPartExamined": "BREAST"}, "its Modality is US"),
        ({"SOPClassUID": ROOT + "1", "Modality": "CR", "BodyPartExamined": "CHEST"}, "nothing says that it shows"),
        ({"SOPClassUID": ROOT + "1", "Modality": None}, "its Modality is missing or odd"),
        ({"QualityControlImage": "YES"}, "a quality control image"),
        ({"SOPInstanceUID": "../../etc/passwd"}, "no valid SOPInstanceUID"),
        ({"SOPInstanceUID": None}, "no valid SOPInstanceUID"),
        ({"Rows": None}, "without an image"),
        ({"NumberOfFrames": 999_999}, "no number of frames from 1 to 200"),
        ({"NumberOfFrames": 2_000_000_000}, "no number of frames from 1 to 200"),
        ({"Rows": 60_000}, "60000 pixels; both sides must be within"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_is_no_mammogram_is_rejected_with_the_reason(export, fields, reason):
    mammogram(export / "good", 1)
    mammogram(export / "bad", 2, **fields)
    rows, rejected = read(export)
    assert [row["path"] for row in rows.values()] == ["good"]
    assert list(rejected) == ["bad"]
    assert reason in rejected["bad"]


@pytest.mark.parametrize(
    "fields",
    [
        {"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "DF", "Modality": "RG", "BodyPartExamined": "BREAST"},
        {"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "DF"},
        {"SOPClassUID": ROOT + "1", "Modality": "CR", "ViewPosition": "MLO"},
        {"SOPClassUID": ROOT + "1.1", "Modality": "DX", "AnatomicRegionSequence": [code("T-04000")]},
        {"SOPClassUID": ROOT + "1.1", "Modality": "DX", "PositionerType": "MAMMOGRAPHIC"},
        {"Modality": "OT"},  # the class says that it is a mammogram
    ],
)
def test_mammograms_in_other_clothes(export, fields):
    mammogram(export / "image", 1, **fields)
    rows, rejected = read(export)
    assert len(rows) == 1
    assert rejected == {}


def test_files_that_are_no_dicom_and_damaged_ones(export):
    mammogram(export / "good", 1)
    whole = mammogram(export / "cut", 2).read_bytes()
    (export / "cut").write_bytes(whole[:-20])
    (export / "viewer.exe").write_bytes(b"MZ" + bytes(300))
    (export / "empty").touch()
    (export / "program").write_bytes(b"MZ" + bytes(126) + whole[128:])
    (export / "README.TXT").write_text("let be")
    (export / "more.zip").write_bytes(b"PK")
    rows, rejected = read(export)
    assert len(rows) == 1
    assert rejected["viewer.exe"] == rejected["empty"] == "not a DICOM file"
    assert "cut short" in rejected["cut"]
    assert "executable" in rejected["program"]
    assert rejected["more.zip"].startswith("an archive; name it with --from")
    assert len(rejected) == 5


def test_a_whole_copy_is_taken_when_the_first_was_cut_short(export):
    image = mammogram(export / "b", 1)
    (export / "a").write_bytes(image.read_bytes()[:-20])
    (export / "c").write_bytes(image.read_bytes())
    rows, rejected = read(export)
    assert [row["path"] for row in rows.values()] == ["b"]
    assert "cut short" in rejected.pop("a")
    assert rejected == {"c": "a copy of b, which is indexed"}


def test_names_of_files_cannot_steer_the_terminal(export, tmp_path, capsys):
    mammogram(export / "whole", 1)
    (export / "broken\nspicula: fine\x1b[2J").write_bytes(b"text")

    assert cli.main(["index", "dicom", "--from", str(export), "--to", str(tmp_path / "i.parquet")]) == 0

    assert r"rejected broken\nspicula: fine\x1b[2J: not a DICOM file" in capsys.readouterr().err.splitlines()


def test_copies_and_conflicting_copies(export):
    image = mammogram(export / "a", 1)
    (export / "b").write_bytes(image.read_bytes())
    mammogram(export / "c", 1, ViewPosition="MLO")
    rows, rejected = read(export)
    assert [row["path"] for row in rows.values()] == ["a"]
    assert rejected == {
        "b": "a copy of a, which is indexed",
        "c": "has the SOPInstanceUID but not the content of a, which is indexed",
    }


def test_one_row_a_frame(export):
    mammogram(export / "tomo", 1, SOPClassUID=TOMOSYNTHESIS, NumberOfFrames=3)
    rows, rejected = read(export)
    assert rejected == {}
    assert {(row["image_id"], row["frame"]) for row in rows.values()} == {
        ("1.2.826.0.1.1", 0),
        ("1.2.826.0.1.1#1", 1),
        ("1.2.826.0.1.1#2", 2),
    }
    assert {tuple(row["flags"]) for row in rows.values()} == {("tomosynthesis-slice",)}


def test_contradictions_are_indexed_and_reported(export):
    mammogram(export / "a", 1, ImageLaterality="L", Laterality="R")
    mammogram(export / "b", 2, StudyInstanceUID=None)
    mammogram(export / "c", 3, PatientID="another")
    rows, rejected = read(export)
    assert len(rows) == 3
    assert rows["1.2.826.0.1.1"]["laterality"] == "L"
    assert rows["1.2.826.0.1.2"]["exam_id"] is None
    assert rejected == {
        "a": "indexed, but the side is L by ImageLaterality, but R by Laterality",
        "b": "indexed, but it has no valid StudyInstanceUID and so belongs to no exam",
        "c": "indexed, but its study has images of another patient",
    }


def test_patients_are_hashed_unless_asked_for_as_they_are(export):
    mammogram(export / "a", 1)
    mammogram(export / "b", 2, StudyInstanceUID="1.2.3", PatientID=None)
    rows, _ = read(export)
    assert rows["1.2.826.0.1.1"]["patient_id"] == patient_hash("CANARY-4711")
    assert rows["1.2.826.0.1.2"]["patient_id"] is None
    assert read(export, ids="as-is")[0]["1.2.826.0.1.1"]["patient_id"] == "CANARY-4711"
    with pytest.raises(UsageError, match="ids is 'plain', not one of hashed, as-is"):
        read(export, ids="plain")


def test_hashes_of_patients():
    first = patient_hash("1")
    assert first == patient_hash("1", "")
    assert len(first) == 16
    assert set(first) <= set("0123456789abcdef")
    assert len({patient_hash("1"), patient_hash("2"), patient_hash("1", "A"), patient_hash("A\0001")}) == 4
    assert patient_hash("") is patient_hash(None) is None


def test_a_patient_with_and_without_an_issuer_is_reported(export):
    mammogram(export / "a", 1, IssuerOfPatientID="HOSPITAL")
    mammogram(export / "b", 2, StudyInstanceUID="1.2.3")
    rows, rejected = read(export)
    assert len({row["patient_id"] for row in rows.values()}) == 2
    assert list(rejected) == ["b"]
    assert "another issuer or none" in rejected["b"]
    assert read(export, ids="as-is")[1] == {}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_no_id_leaks_into_index_reports_or_errors(export, tmp_path, capsys):
    mammogram(export / "a", 1, IssuerOfPatientID="X", SeriesDescription="R MLO CANARY^NAME", Laterality="R")
    mammogram(export / "b", 2, StudyInstanceUID="CANARY", PatientAge="CANARY-4711"[:4], Modality="MG")
    mammogram(export / "c", 3, Modality="CANARY-4711", SOPClassUID=ROOT + "1")
    table = tmp_path / "labels.csv"
    table.write_text("PatientID,label\nCANARY-4711,benign\nCANARY-4711,malignant\nCANARY-4712,benign\n,benign\n")
    target = tmp_path / "out" / "index.parquet"
    assert cli.main(["index", "dicom", "--from", str(export), "--to", str(target), "--option", f"labels={table}"]) == 0
    shown = capsys.readouterr()
    reading = catalog.index_dataset("dicom", export, tmp_path / "unpacked", {"labels": table})
    everything = "\n".join([shown.out, shown.err, json.dumps(reading.index.to_pylist() + reading.rejected.to_pylist())])
    assert "line 3: says something else than line 2" in everything
    assert [canary for canary in CANARIES if canary in everything] == []


def test_an_archive_is_unpacked(export, tmp_path):
    mammogram(export / "DICOM" / "I1", 1)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.write(export / "DICOM" / "I1", "DICOM/I1")
    rows, rejected = read(tmp_path / "export.zip")
    assert rows["1.2.826.0.1.1"]["path"] == "DICOM/I1"
    assert rejected == {}


@pytest.mark.parametrize("value", ["1.2.3", "0", "1.2.826.0.1.3680043", "1.02.3", "2.25.1"])
def test_uids(value):
    assert is_uid(value)


@pytest.mark.parametrize("value", ["", ".", "1.", "1..2", "1.2.a", "../1", "1.2\n", "1." + "2" * 64, "١.٢"])
def test_what_is_no_uid(value):
    assert not is_uid(value)


def test_the_real_files(test_data, tmp_path):
    reading = catalog.index_dataset("dicom", test_data / "dicom", tmp_path)
    (row,) = reading.index.to_pylist()
    assert (row["path"], row["modality"], row["laterality"], row["view"]) == ("MG1_J2KI", "RG", "L", "MLO")
    assert (row["width"], row["height"], row["bits"], row["flags"]) == (3064, 4664, 12, [])
    others = {path.name for path in (test_data / "dicom").iterdir()} - {"MG1_J2KI"}
    assert {rejection["path"] for rejection in reading.rejected.to_pylist()} == others


def test_phantoms_are_mammograms(tmp_path):
    from spicula.phantoms import make_exams

    make_exams(tmp_path / "phantoms", 2, size=(128, 128), jobs=1)
    rows, rejected = read(tmp_path / "phantoms")
    assert len(rows) == 8
    assert rejected == {}
    assert {(row["laterality"], row["view"]) for row in rows.values()} == {(s, v) for s in "LR" for v in ("CC", "MLO")}
    assert len({row["exam_id"] for row in rows.values()}) == len({row["patient_id"] for row in rows.values()}) == 2


def test_a_header_read_by_any_road_is_the_same(export):
    mammogram(export / "a", 1)
    assert headers.read_dicom(export / "a").PatientID == "CANARY-4711"  # so that the canaries above are there at all
