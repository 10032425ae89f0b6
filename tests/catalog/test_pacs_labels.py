"""A hospital's table of labels: by image, study or patient, with or without the side."""

import pytest
from pacs_maker import mammogram

from spicula import catalog
from spicula.errors import UsageError


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    for number, (side, study, patient) in enumerate(
        (("L", "1.2.1", "A"), ("R", "1.2.1", "A"), ("L", "1.2.2", "A"), ("R", "1.2.2", "A"), ("L", "1.2.3", "B")),
        start=1,
    ):
        mammogram(folder / f"I{number}", number, ImageLaterality=side, StudyInstanceUID=study, PatientID=patient)
    return folder


def read(folder, table, **options):
    (folder.parent / "labels.csv").write_text(table)
    options = {"labels": folder.parent / "labels.csv", **options}
    reading = catalog.index_dataset("dicom", folder, folder.parent / "unpacked", options)
    rows = {row["path"]: row for row in reading.index.to_pylist()}
    return rows, [row["reason"] for row in reading.rejected.to_pylist()]


def labels(rows):
    return [rows[f"I{number}"]["label"] for number in range(1, 6)]


def test_by_study_and_side(export):
    rows, rejected = read(
        export, "StudyInstanceUID;laterality;label\n1.2.1;L;malignant\n1.2.1;right;benign\n1.2.2;;normal\n"
    )
    assert labels(rows) == ["malignant", "benign", "normal", "normal", None]
    assert [rows[f"I{number}"]["target"] for number in range(1, 6)] == [1, 0, 0, 0, None]
    assert rejected == []


def test_by_image(export):
    rows, rejected = read(export, "SOPInstanceUID,label,birads,density,split,fold\n1.2.826.0.1.3,benign,2,B,test,1\n")
    assert labels(rows) == [None, None, "benign", None, None]
    row = rows["I3"]
    assert (row["birads"], row["density"], row["split"], row["fold"]) == ("2", "B", "test", 1)
    assert rejected == []


def test_by_patient(export):
    rows, rejected = read(export, "PatientID,label\nB,malignant\nA,benign\n")
    assert labels(rows) == ["benign"] * 4 + ["malignant"]
    assert rejected == []


def test_every_key_of_a_table_must_fit(export):
    rows, rejected = read(export, "PatientID,StudyInstanceUID,label\nA,1.2.1,benign\nB,1.2.2,benign\n")
    assert labels(rows) == ["benign", "benign", None, None, None]
    assert rejected == ["line 3: fits no image"]


def test_other_names_of_columns(export):
    rows, _ = read(
        export,
        "mrn\tbreast\tdiagnosis\nA\tL\tcarcinoma\nB\tL\tcyst\n",
        columns={"patient": "mrn", "laterality": "breast", "label": "diagnosis"},
        positive="carcinoma",
    )
    assert labels(rows) == ["carcinoma", None, "carcinoma", None, "cyst"]
    assert [rows[f"I{number}"]["target"] for number in (1, 2, 5)] == [1, None, 0]
    table = catalog.index_dataset(
        "dicom",
        export,
        export.parent,
        {
            "labels": export.parent / "labels.csv",
            "columns": {"patient": "mrn", "laterality": "breast", "label": "diagnosis"},
            "positive": "carcinoma",
        },
    ).index
    assert catalog.class_names("dicom", table) == ("cyst", "carcinoma")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",L,benign", "line 2: has no StudyInstanceUID"),
        ("1.2.1,X,benign", "line 2: laterality is not one of L, R"),
        ("1.2.9,L,benign", "line 2: fits no image"),
        ("1.2.1,L,benign,more", "line 2: has more values than the table has columns"),
    ],
)
def test_lines_that_cannot_be_used(export, line, reason):
    rows, rejected = read(export, f"StudyInstanceUID,laterality,label\n{line}\n1.2.3,L,benign\n")
    assert labels(rows) == [None] * 4 + ["benign"]
    assert rejected == [reason]


def test_of_contradicting_lines_none_counts_and_a_repeated_one_does_no_harm(export):
    rows, rejected = read(
        export, "StudyInstanceUID,label\n1.2.1,benign\n1.2.1,malignant\n1.2.1,benign\n1.2.3,benign\n1.2.3,benign\n"
    )
    assert labels(rows) == [None] * 4 + ["benign"]
    assert rejected == ["line 3: says something else than line 2 of the same; neither counts"]


@pytest.mark.parametrize(
    ("table", "options", "reason"),
    [
        ("a,label\nx,benign\n", {}, "names neither image, study nor patient"),
        ("PatientID,diagnosis\nA,benign\n", {}, "has no column label in its first line"),
        ("PatientID,label\nA,benign\n", {"columns": {"colour": "x"}}, "columns cannot fill colour; it can fill image"),
        ("PatientID,label\nA,benign\n", {"columns": {"label": "x"}}, "has no column x in its first line"),
        ("PatientID,label\nA,cyst\n", {}, "dicom: which of the labels cyst is to be found"),
        ("PatientID,label\nA,cyst\n", {"positive": "cancer"}, "positive names cancer, but the labels are cyst"),
        ("", {}, "names neither"),
    ],
)
def test_tables_and_options_that_cannot_be_used(export, table, options, reason):
    with pytest.raises(UsageError, match=reason):
        read(export, table, **options)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("CANARY^ANNA,4711\nCANARY^BERTA,4712\n", {}),  # without a line of names
        ("PatientID,CANARY^ANNA\nA,benign\n", {}),
        ("PatientID,CANARY^ANNA\nA,benign\n", {"columns": {"label": "x"}}),
        ("CANARY^ANNA,CANARY^ANNA\nA,benign\n", {}),
        ("PatientID,name\n" + "".join(f"A{n},CANARY^{n}\n" for n in range(30)), {"columns": {"label": "name"}}),
        (
            "PatientID,name\n" + "".join(f"A{n},CANARY^{n}\n" for n in range(30)),
            {"columns": {"label": "name"}, "positive": "x"},
        ),
        ("PatientID,label,name\nA,benign,CANARY^ANNA\n", {"columns": {"laterality": "name"}}),
        ("PatientID,label,name\nA,benign,CANARY^ANNA\n", {"columns": {"fold": "name"}}),
    ],
)
def test_no_message_repeats_what_a_table_holds(export, table, options):
    for number in range(30):
        mammogram(export / f"more{number}", 100 + number, PatientID=f"A{number}", StudyInstanceUID=f"1.2.9.{number}")
    try:
        said = read(export, table, **options)[1]
    except UsageError as error:
        said = [str(error)]
    assert said
    assert "CANARY" not in " ".join(said)


def test_options_for_a_table_that_was_not_given(export):
    for options in ({"columns": {"label": "x"}}, {"positive": "x"}):
        with pytest.raises(UsageError, match="need the option labels"):
            catalog.index_dataset("dicom", export, export.parent, options)
    with pytest.raises(UsageError, match=r"the option labels says absent\.csv, but there is no such file"):
        catalog.index_dataset("dicom", export, export.parent, {"labels": "absent.csv"})
