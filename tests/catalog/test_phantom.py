import json
import shutil
from pathlib import Path

import pydicom
import pytest

from spicula import index
from spicula.catalog import index_dataset
from spicula.catalog.phantom import DATASET, TRUTH, read
from spicula.errors import UsageError
from spicula.phantoms import exams, make_exams

SIZE = (256, 208)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_exams(tmp_path_factory.mktemp("made"), 4, seed=2, size=SIZE, jobs=1)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "phantoms"))


def test_every_image_of_every_exam_becomes_a_row(made):
    reading = read(made, {})
    assert reading.rejected.num_rows == 0
    rows = index.validate(reading.index).to_pylist()
    assert len(rows) == 16
    truths = {path.parent.name: json.loads(path.read_text()) for path in made.rglob(TRUTH)}
    for row in rows:
        truth = truths[row["exam_id"]]
        image = next(one for one in truth["images"] if row["path"] == f"{row['exam_id']}/{one['file']}")
        header = pydicom.dcmread(made / row["path"], stop_before_pixels=True)
        assert row["dataset"] == "phantom"
        assert row["image_id"] == f"{row['exam_id']}-{row['laterality']}-{row['view']}"
        assert row["patient_id"] == header.PatientID
        assert (row["laterality"], row["view"]) == (header.ImageLaterality, header.ViewPosition)
        assert (row["modality"], row["photometric"]) == ("MG", header.PhotometricInterpretation)
        assert (row["manufacturer"], row["model"]) == (header.Manufacturer, header.ManufacturerModelName)
        assert row["pixel_spacing_mm"] == pytest.approx(float(header.ImagerPixelSpacing[0]))
        assert row["age"] == float(header.PatientAge[:3])
        assert (row["density"], row["birads"]) == (truth["density"], image["birads"])
        assert "synthetic" in row["source"]
        assert [one["coordinates"] for one in row["lesions"]] == [one["box"] for one in image["lesions"]]
        for lesion in row["lesions"]:
            assert lesion["kind"] == "box"
            assert lesion["finding"] in ("mass", "calcification")
            assert 0 <= lesion["coordinates"][0] < lesion["coordinates"][2] <= SIZE[1]
            assert 0 <= lesion["coordinates"][1] < lesion["coordinates"][3] <= SIZE[0]
    assert len({row["patient_id"] for row in rows}) == len({row["exam_id"] for row in rows}) == 4


def test_label_target_and_subtype_come_from_the_worst_lesion_of_the_image(made):
    labels = set()
    for row in read(made, {}).index.to_pylist():
        pathologies = {one["pathology"] for one in row["lesions"]}
        worst = "malignant" if "malignant" in pathologies else "benign" if pathologies else "normal"
        assert row["label"] == worst
        assert row["target"] == (1 if worst == "malignant" else 0)
        labels.add((worst, row["subtype"]))
    malignant = {subtype for label, subtype in labels if label == "malignant"}
    assert malignant
    assert malignant <= {"spiculated mass", "fine pleomorphic calcifications"}
    assert ("normal", None) in labels


def test_the_adapter_reads_the_format_that_is_written():
    assert exams.TRUTH == TRUTH
    assert DATASET.read is read


def test_the_catalog_finds_it_by_name_and_describes_the_files(made, tmp_path):
    reading = index_dataset("phantom", made, tmp_path)
    assert reading.index.num_rows == 16
    assert reading.rejected.num_rows == 0
    row = reading.index.to_pylist()[0]
    assert (row["height"], row["width"], row["bits"]) == (*SIZE, 12)
    assert row["sha256"]


def test_a_single_exam_can_be_read(made):
    reading = read(made / "phantom-0002-00003", {})
    assert reading.index["path"].to_pylist() == ["L-CC.dcm", "L-MLO.dcm", "R-CC.dcm", "R-MLO.dcm"]


def spoil_truth(exam: Path, change) -> None:
    truth = json.loads((exam / TRUTH).read_text())
    change(truth)
    (exam / TRUTH).write_text(json.dumps(truth))


def swap_files(exam: Path) -> None:
    (exam / "L-CC.dcm").rename(exam / "x")
    (exam / "R-CC.dcm").rename(exam / "L-CC.dcm")
    (exam / "x").rename(exam / "R-CC.dcm")


@pytest.mark.parametrize(
    ("spoil", "reasons"),
    [
        (lambda exam: (exam / TRUTH).unlink(), dict.fromkeys(["L-CC.dcm", "R-MLO.dcm"], "the exam is not whole")),
        (lambda exam: (exam / TRUTH).write_text("{"), {TRUTH: "is not the truth of a phantom exam"}),
        (lambda exam: spoil_truth(exam, lambda t: t.pop("density")), {TRUTH: "density Field required"}),
        (lambda exam: spoil_truth(exam, lambda t: t.update(format="other")), {TRUTH: "format"}),
        (
            lambda exam: spoil_truth(exam, lambda t: t["images"][0].update(file="../../L-CC.dcm")),
            {TRUTH: "images.0.file"},
        ),
        (lambda exam: (exam / "L-CC.dcm").unlink(), {"L-CC.dcm": "named in exam.json but not there"}),
        (lambda exam: (exam / "L-CC.dcm").write_bytes(b"none"), {"L-CC.dcm": "not a DICOM file"}),
        (swap_files, dict.fromkeys(["L-CC.dcm", "R-CC.dcm"], "its SOPInstanceUID is not 2.25.")),
        (
            lambda exam: shutil.copy(exam / "L-CC.dcm", exam / "again.dcm"),
            {"again.dcm": "no exam.json beside it names it"},
        ),
    ],
)
def test_what_is_not_as_it_was_written_is_rejected_with_the_reason_and_the_rest_is_read(folder, spoil, reasons):
    spoil(folder / "phantom-0002-00001")
    reading = read(folder, {})
    rejected = {row["path"]: row["reason"] for row in reading.rejected.to_pylist()}
    for name, reason in reasons.items():
        assert reason in rejected[f"phantom-0002-00001/{name}"]
    rows = reading.index.to_pylist()
    assert sum(row["exam_id"] != "phantom-0002-00001" for row in rows) == 12
    assert not {row["path"] for row in rows} & set(rejected)


def test_a_folder_without_exams_is_a_usage_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images of phantom"):
        index_dataset("phantom", tmp_path / "empty", tmp_path)
