"""Conversions with pseudonyms: nothing in the output says who it is of, and the key file alone links it back."""

import numpy as np
import pydicom
import pytest
from small_archive import grey, pixels_of, save_dicom, save_png

from spicula import index
from spicula.convert import Settings, convert
from spicula.deidentify import Pseudonyms
from spicula.errors import UsageError

CANARIES = (b"CANARY", b"canary", b"19610203")


@pytest.fixture
def clinic(tmp_path, indexed):
    """Two people, one of them over 90, with names in paths, ids and headers, and the Index."""
    root = tmp_path / "clinic"
    save_dicom(root / "Canary, Anna/left.dcm", grey(), PatientBirthDate="19610203")
    save_dicom(root / "Canary, Anna/two.dcm", np.stack([grey(seed=1), grey(seed=2)]), SOPInstanceUID="1.2.3.5")
    save_dicom(root / "canary_b.dcm", grey(seed=3), PatientID="CANARY-2", SOPInstanceUID="1.2.3.6")
    save_png(root / "Canary, Anna/mask.png", np.full((24, 20), 9, np.uint8))
    anna = {"patient_id": "CANARY-ID", "exam_id": "CANARY-STUDY", "age": 61}
    mask = {"kind": "mask", "coordinates": [], "mask_path": "Canary, Anna/mask.png"}
    rows = [
        {"path": "Canary, Anna/left.dcm", **anna, "image_id": "CANARY-LEFT", "lesions": [mask]},
        {"path": "Canary, Anna/two.dcm", **anna, "image_id": "CANARY-TWO-0"},
        {"path": "Canary, Anna/two.dcm", **anna, "image_id": "CANARY-TWO-1", "frame": 1},
        {"path": "canary_b.dcm", "patient_id": "CANARY-2", "image_id": "CANARY-B", "age": 97},
    ]
    return indexed(root, rows)


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "private" / "key"


def assert_no_canary(folder):
    for path in folder.rglob("*"):
        text = str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        assert not [canary for canary in CANARIES if canary in text], path


def test_images_get_pseudonyms_for_ids_and_paths(clinic, tmp_path, key_file):
    made = convert(clinic, tmp_path / "out", Settings.of(deidentify=True), key_file=key_file).index
    assert_no_canary(tmp_path / "out")
    pseudonyms = Pseudonyms.open(key_file)
    source = index.read(clinic)
    for column in ("patient_id", "exam_id", "image_id"):
        originals = [one and pseudonyms.original_of(one) for one in made[column].to_pylist()]
        assert originals == source[column].to_pylist()
    for row in made.to_pylist():
        parts = [row["patient_id"], row["exam_id"], f"{row['image_id']}.png"]
        assert row["path"] == "/".join(part for part in parts if part)
    assert made["age"].to_pylist() == [61, 61, 61, 90]
    found = list(pixels_of(made).values())
    for number, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels, grey(seed=number))
    (lesion,) = made["lesions"][0].as_py()
    assert lesion["mask_path"].startswith(made["patient_id"][0].as_py())
    assert (tmp_path / "out" / lesion["mask_path"]).is_file()


def test_the_same_key_file_gives_the_same_pseudonyms(clinic, tmp_path, key_file):
    one, two = (
        convert(clinic, tmp_path / name, Settings.of(deidentify=True), key_file=key_file).index for name in "ab"
    )
    assert index.digest(one) == index.digest(two)
    other = convert(clinic, tmp_path / "c", Settings.of(deidentify=True), key_file=tmp_path / "other-key").index
    assert not set(one["patient_id"].to_pylist()) & set(other["patient_id"].to_pylist())


def test_rejected_files_are_not_named(clinic, tmp_path, key_file):
    (tmp_path / "clinic" / "canary_b.dcm").write_bytes(b"damaged")
    outcome = convert(clinic, tmp_path / "out", Settings.of(deidentify=True), key_file=key_file)
    (rejected,) = outcome.rejected.to_pylist()
    assert "anary" not in rejected["path"]
    (image_id,) = [part for part in rejected["path"].removesuffix(".png").split("/") if part.startswith("I-")]
    assert Pseudonyms.open(key_file).original_of(image_id) == "CANARY-B"
    assert_no_canary(tmp_path / "out")


def test_dicom_keeps_its_pixel_data_and_its_frames(clinic, tmp_path, key_file):
    settings = Settings.of(format="dicom", deidentify=True)
    made = convert(clinic, tmp_path / "out", settings, key_file=key_file).index
    assert_no_canary(tmp_path / "out")
    assert made["frame"].to_pylist() == [0, 0, 1, 0]
    paths = made["path"].to_pylist()
    assert paths[1] == paths[2]
    assert all(path.endswith(".dcm") for path in paths)
    assert made["bits"].to_pylist() == [12] * 4
    for path, source, row in zip(
        index.image_paths(made), index.image_paths(index.read(clinic)), made.to_pylist(), strict=True
    ):
        written = pydicom.dcmread(path)
        assert written.PixelData == pydicom.dcmread(source).PixelData
        assert written.PatientID == row["patient_id"]
    again = convert(clinic, tmp_path / "out", settings, key_file=key_file)
    assert again.made == 0
    assert index.digest(again.index) == index.digest(made)


def test_text_in_the_pixels_is_refused(tmp_path, indexed, key_file):
    root = tmp_path / "clinic"
    save_dicom(root / "header.dcm", grey(), BurnedInAnnotation="YES")
    save_dicom(root / "clean.dcm", grey(seed=1), BurnedInAnnotation="NO", SOPInstanceUID="1.2.3.5")
    save_png(root / "flagged.png", grey(seed=2))
    rows = [{"path": "header.dcm"}, {"path": "clean.dcm"}, {"path": "flagged.png", "flags": ["burned-in-annotation"]}]
    path = indexed(root, rows)
    outcome = convert(path, tmp_path / "out", Settings.of(deidentify=True), key_file=key_file)
    assert len(outcome.index) == 1
    assert all("burned into" in reason for reason in outcome.rejected["reason"].to_pylist())
    assert len(convert(path, tmp_path / "named", Settings.of()).index) == 3


def test_the_key_file_is_needed_and_stays_apart(clinic, tmp_path, key_file):
    with pytest.raises(UsageError, match="needs --key-file"):
        convert(clinic, tmp_path / "out", Settings.of(deidentify=True))
    with pytest.raises(UsageError, match="must not lie in"):
        convert(clinic, tmp_path / "out", Settings.of(deidentify=True), key_file=tmp_path / "out" / "key")
    with pytest.raises(UsageError, match="belongs to --deidentify"):
        convert(clinic, tmp_path / "out", Settings.of(), key_file=key_file)
    assert not (tmp_path / "out").exists()
