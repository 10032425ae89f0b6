"""Promise 20: what a DICOM header says of a patient comes out nowhere, whatever is asked of a workspace."""

import pyarrow.parquet as pq
import pydicom
import pytest
from small_bundle import small_bundle

from spicula.bundle.screening import ScreeningSettings
from spicula.cli import main

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")

SETTINGS = ScreeningSettings(
    cc=(220, 160), mlo=(240, 150), erosions=6, buffer=6, patch=64, stride=60, shift=8, resize=8, windows=2
)
CANARY, BIRTH_DATE = "CANARY", "19010203"
KEYWORDS = (
    *("PatientName", "PatientID", "PatientBirthName", "OtherPatientNames", "PatientAddress", "PatientComments"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ImageComments", "DerivationDescription"),
    *("OperatorsName", "ReferringPhysicianName", "InstitutionName", "StationName", "ProtocolName"),
)
STAGES = {
    "crop": ["exams"],
    "centers": ["crop"],
    "heatmaps": ["crop"],
    "visualize": ["crop", "heatmaps"],
    "classify": ["crop", "centers", "heatmaps"],
}


def plant(path, **elements):
    dataset = pydicom.dcmread(path)
    for keyword in KEYWORDS:
        setattr(dataset, keyword, f"{CANARY}-{keyword}"[:16])
    dataset.PatientBirthDate = BIRTH_DATE
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return str(dataset.StudyInstanceUID)


def test_no_output_for_people_or_programs_names_a_patient(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["phantom", "--exams", "3", "--size", "320", "260", "--to", "exams", "--jobs", "1"]) == 0
    whole, incomplete, damaged = sorted((tmp_path / "exams").iterdir())
    ids = {plant(path) for folder in (whole, incomplete, damaged) for path in sorted(folder.glob("*.dcm"))}
    plant(incomplete / "R-CC.dcm", ImageLaterality=CANARY)
    plant(damaged / "L-CC.dcm", PixelData=b"\0" * 10)
    small_bundle(tmp_path / "bundle", settings=SETTINGS)

    workspace = ["--workspace", "ws"]
    one_worker = ["--cpu-workers", "1", "--model-workers", "1", "--streams", "1"]
    commands = [
        ["run", "exams", *workspace, "--bundle", "bundle", *one_worker, "--json"],
        ["run", "exams", *workspace, "--bundle", "bundle", *one_worker],
        *(["status", *workspace, *more] for more in ([], ["--json"])),
        *([what, exam, *workspace, *more] for what in ("show", "history") for exam in ids for more in ([], ["--json"])),
        *(["report", exam, *workspace, "--to", f"page-{exam}"] for exam in ids),
        ["diff", *workspace, "--model", "image-only", "--model", "image-and-heatmaps"],
        ["export", "predictions", *workspace, "--model", "image-only", "--to", "p.csv"],
        ["export", "predictions", *workspace, "--to", "p.parquet"],
        *(
            ["stage", stage, *(word for one in inputs for word in ("--from", one)), "--models", "bundle", "--to", stage]
            for stage, inputs in STAGES.items()
        ),
    ]
    assert [main(["exams", *command]) for command in commands] == [0] * len(commands)

    said = capfd.readouterr()
    assert said.out.count("Research use only") >= len(ids)
    assert "refused" in said.err, "the damaged and the incomplete exam are told"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "exams" not in path.parents]
    tables = [path for path in written if path.suffix == ".parquet"]
    assert len(tables) > 4
    texts = {"stdout": said.out, "stderr": said.err} | {
        str(path): repr(pq.read_table(path).to_pylist()) for path in tables
    }
    texts |= {str(path): path.read_bytes().decode("latin-1") for path in written}
    assert [name for name, text in texts.items() if CANARY in text + name or BIRTH_DATE in text] == []
