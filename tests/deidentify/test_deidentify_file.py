"""De-identified files carry nothing of the person, keep their pixels byte for byte, and stay valid DICOM."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from spicula.catalog import index_dataset
from spicula.deidentify import Pseudonyms, deidentify_file
from spicula.errors import RejectedImageError
from spicula.imaging.readers import read_pixels
from spicula.phantoms import make_exams

CANARY = "CANARY"
TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR")


@pytest.fixture(scope="module")
def mammogram(tmp_path_factory) -> Path:
    folder = make_exams(tmp_path_factory.mktemp("exams"), 1, size=(160, 128), jobs=1)
    return next(iter(sorted(folder.rglob("*.dcm"))))


@pytest.fixture
def pseudonyms(tmp_path) -> Pseudonyms:
    return Pseudonyms(tmp_path / "private" / "key.sqlite")


def listed_attributes() -> list[tuple[int, int]]:
    """The attributes of table E.1-1 that pydicom knows, ranges by their first."""
    lists = dicom_anonymization_database_selector("dicomfields_2026c")
    return [tuple(entry[:2]) for name, entries in lists.items() if name != "ALL_TAGS" for entry in entries]


def plant(dataset: Dataset) -> int:
    """Write a canary into every text attribute of the table; return into how many."""
    planted = 0
    for tag in listed_attributes():
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            continue
        if vr in TEXT and tag[0] != 2:
            dataset.add_new(tag, vr, CANARY)
            planted += 1
    return planted


def write(source: Path, target: Path, syntax: str | None = None, **values) -> Path:
    dataset = pydicom.dcmread(source)
    for name, value in values.items():
        setattr(dataset, name, value)
    if syntax:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    target.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(target, dataset, enforce_file_format=True, little_endian=syntax != ExplicitVRBigEndian)
    return target


def test_nothing_that_the_table_lists_survives_at_any_depth(mammogram, tmp_path, pseudonyms):
    dataset = pydicom.dcmread(mammogram)
    planted = plant(dataset)
    assert planted > 200
    deep = Dataset()
    plant(deep)
    for _ in range(5):
        around = Dataset()
        around.AnatomicRegionSequence = [deep]  # a sequence that the profile keeps
        deep = around
    dataset.AnatomicRegionSequence = [deep]
    dataset.add_new(0x00091001, "LO", CANARY)
    dataset.add_new(0x00090010, "LO", CANARY)
    dataset.add_new(0x60003000, "OB", CANARY.encode())
    dataset.add_new(0x60204000, "LT", CANARY)
    dataset.file_meta.SourceApplicationEntityTitle = CANARY
    dataset.preamble = (CANARY * 30)[:128].encode()
    source = tmp_path / "in.dcm"
    pydicom.dcmwrite(source, dataset)
    assert CANARY.encode() in source.read_bytes()

    deidentify_file(source, tmp_path / "out.dcm", pseudonyms)

    assert CANARY.encode() not in (tmp_path / "out.dcm").read_bytes()


def deidentified(dataset: Dataset, folder: Path, pseudonyms: Pseudonyms) -> tuple[Dataset, bytes]:
    """Write and de-identify a data set; return the result, and its bytes."""
    pydicom.dcmwrite(folder / "in.dcm", dataset)
    deidentify_file(folder / "in.dcm", folder / "out.dcm", pseudonyms)
    return pydicom.dcmread(folder / "out.dcm"), (folder / "out.dcm").read_bytes()


@pytest.mark.parametrize("items", [1, 2000])
def test_a_sequence_written_as_bytes_of_unknown_kind_goes(mammogram, tmp_path, pseudonyms, monkeypatch, items):
    item = Dataset()
    item.PatientName, item.CodeMeaning = CANARY, "y" * 60
    encoded = DicomBytesIO()
    encoded.is_little_endian = encoded.is_implicit_VR = True
    write_dataset(encoded, item)
    one = struct.pack("<HHI", 0xFFFE, 0xE000, encoded.tell()) + encoded.getvalue()
    dataset = pydicom.dcmread(mammogram)
    with monkeypatch.context() as patch:
        patch.setattr(pydicom.config, "replace_un_with_known_vr", False)
        dataset[0x00082218] = DataElement(
            0x00082218, "UN", one * items
        )  # Anatomic Region Sequence, over 64 KiB if 2000
        pydicom.dcmwrite(tmp_path / "in.dcm", dataset)
    assert CANARY.encode() in (tmp_path / "in.dcm").read_bytes()

    deidentify_file(tmp_path / "in.dcm", tmp_path / "out.dcm", pseudonyms)

    assert CANARY.encode() not in (tmp_path / "out.dcm").read_bytes()


def test_overlays_go_whole(mammogram, tmp_path, pseudonyms):
    dataset = pydicom.dcmread(mammogram)
    dataset.add_new(0x60020010, "US", 160)
    dataset.add_new(0x60020022, "LO", CANARY)
    dataset.add_new(0x60021500, "LO", CANARY)
    dataset.add_new(0x60023000, "OW", b"\0" * 2560)

    after, data = deidentified(dataset, tmp_path, pseudonyms)

    assert CANARY.encode() not in data
    assert not [tag for tag in after if tag.tag.group == 0x6002]


def test_overlays_in_the_unused_bits_of_pixels_are_refused(mammogram, tmp_path, pseudonyms):
    dataset = pydicom.dcmread(mammogram)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)

    with pytest.raises(RejectedImageError, match="an overlay lies in the bits of its pixels"):
        deidentified(dataset, tmp_path, pseudonyms)


def test_pictures_inside_of_sequences_and_what_is_of_no_image_go(mammogram, tmp_path, pseudonyms):
    dataset = pydicom.dcmread(mammogram)
    picture = Dataset()
    picture.PixelData = CANARY.encode()
    picture["PixelData"].VR = "OB"
    dataset.AnatomicRegionSequence[0].update(picture)
    dataset.add_new(0x00041130, "CS", CANARY)  # File-set ID
    dataset.add_new(0x7FE01234, "UN", CANARY.encode())

    after, data = deidentified(dataset, tmp_path, pseudonyms)

    assert CANARY.encode() not in data
    assert after.PixelData == dataset.PixelData


def test_where_the_frames_of_compressed_pixels_lie_is_kept(mammogram, tmp_path, pseudonyms):
    dataset = pydicom.dcmread(mammogram)
    dataset.compress(RLELossless, encapsulate_ext=True, generate_instance_uid=False)

    after, _ = deidentified(dataset, tmp_path, pseudonyms)

    assert after.ExtendedOffsetTable == dataset.ExtendedOffsetTable
    assert after.ExtendedOffsetTableLengths == dataset.ExtendedOffsetTableLengths
    assert after.PixelData == dataset.PixelData
    assert np.array_equal(after.pixel_array, pydicom.dcmread(mammogram).pixel_array)


def test_uids_that_the_table_does_not_list_are_replaced_unless_they_are_of_kinds(mammogram, tmp_path, pseudonyms):
    dataset = pydicom.dcmread(mammogram)
    dataset.SOPInstanceUIDOfConcatenationSource = "1.2.826.0.1.77"
    dataset.RelatedGeneralSOPClassUID = ["1.2.826.0.1.78", "1.2.840.10008.5.1.4.1.1.1.2"]
    dataset.FailedSOPInstanceUIDList = ["1.2.826.0.1.79", "1.2.840.10008.1.2"]

    after, data = deidentified(dataset, tmp_path, pseudonyms)

    assert after.SOPInstanceUIDOfConcatenationSource == pseudonyms.of("uid", "1.2.826.0.1.77")
    assert after.RelatedGeneralSOPClassUID == dataset.RelatedGeneralSOPClassUID
    assert list(after.FailedSOPInstanceUIDList) == [pseudonyms.of("uid", "1.2.826.0.1.79"), "1.2.840.10008.1.2"]
    assert b"1.2.826.0.1.79" not in data


def test_names_and_dates_that_the_table_does_not_list_go_as_well(mammogram, tmp_path, pseudonyms):
    from spicula.deidentify.profile import action_of

    source = write(mammogram, tmp_path / "in.dcm")
    dataset = pydicom.dcmread(source)
    dataset.add_new(0x0012FF01, "PN", "Known^Nobody")  # of no dictionary
    dataset.add_new(0x0012FF02, "DA", "20200229")
    dataset.add_new(0x0012FF03, "UN", b"unknown content")
    pydicom.dcmwrite(source, dataset)
    assert action_of(pydicom.tag.Tag(0x0012FF01), "PN") == "remove"

    deidentify_file(source, tmp_path / "out.dcm", pseudonyms)

    left = (tmp_path / "out.dcm").read_bytes()
    assert not [word for word in (b"Known", b"20200229", b"unknown content") if word in left]


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_pixels_stay_byte_for_byte(mammogram, tmp_path, pseudonyms, syntax):
    source = write(mammogram, tmp_path / "in.dcm", syntax)

    deidentify_file(source, tmp_path / "out.dcm", pseudonyms)

    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "out.dcm")
    assert after.PixelData == before.PixelData
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    assert np.array_equal(read_pixels(tmp_path / "out.dcm").array, read_pixels(source).array)
    assert after.preamble == b"\0" * 128


def test_compressed_pixels_stay_byte_for_byte(test_data, tmp_path, pseudonyms):
    source = test_data / "dicom" / "MG1_J2KI"

    deidentify_file(source, tmp_path / "out.dcm", pseudonyms)

    assert pydicom.dcmread(tmp_path / "out.dcm").PixelData == pydicom.dcmread(source).PixelData
    assert np.array_equal(read_pixels(tmp_path / "out.dcm").array, read_pixels(source).array)


def test_what_the_images_are_about_stays(mammogram, tmp_path, pseudonyms):
    deidentify_file(mammogram, tmp_path / "out.dcm", pseudonyms)

    before, after = pydicom.dcmread(mammogram), pydicom.dcmread(tmp_path / "out.dcm")
    for name in ("Modality", "ImageLaterality", "ViewPosition", "ImagerPixelSpacing", "WindowCenter", "Manufacturer"):
        assert after[name].value == before[name].value, name
    assert after.PatientIdentityRemoved == "YES"
    assert after.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert after.LongitudinalTemporalInformationModified == "REMOVED"
    assert after.StudyDate in ("", None)


def test_uids_are_replaced_alike_in_all_files_and_link_as_before(mammogram, tmp_path, pseudonyms):
    other = sorted(mammogram.parent.glob("*.dcm"))[1]
    reference = Dataset()
    reference.ReferencedSOPClassUID = pydicom.dcmread(mammogram).SOPClassUID
    reference.ReferencedSOPInstanceUID = pydicom.dcmread(mammogram).SOPInstanceUID
    pointing = write(other, tmp_path / "pointing.dcm", SourceImageSequence=[reference])

    deidentify_file(mammogram, tmp_path / "a.dcm", pseudonyms)
    deidentify_file(pointing, tmp_path / "b.dcm", Pseudonyms(pseudonyms.path))

    a, b = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(tmp_path / "b.dcm")
    assert a.StudyInstanceUID == b.StudyInstanceUID != pydicom.dcmread(mammogram).StudyInstanceUID
    assert a.PatientID == b.PatientID
    assert a.SOPInstanceUID != b.SOPInstanceUID
    assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID
    assert a.SOPInstanceUID == a.file_meta.MediaStorageSOPInstanceUID
    assert a.SOPClassUID == pydicom.dcmread(mammogram).SOPClassUID
    assert pseudonyms.original_of(a.PatientID) == pydicom.dcmread(mammogram).PatientID
    assert pseudonyms.original_of(a.SOPInstanceUID) == pydicom.dcmread(mammogram).SOPInstanceUID


def test_a_given_patient_id_is_used(mammogram, tmp_path, pseudonyms):
    deidentify_file(mammogram, tmp_path / "out.dcm", pseudonyms, patient="P-GIVEN")

    after = pydicom.dcmread(tmp_path / "out.dcm")
    assert (after.PatientID, after.PatientName) == ("P-GIVEN", "P-GIVEN")


@pytest.mark.parametrize("value", ["YES", ["NO", "YES"]])
def test_text_burned_into_the_pixels_is_refused(mammogram, tmp_path, pseudonyms, value):
    source = write(mammogram, tmp_path / "in.dcm", BurnedInAnnotation=value)

    with pytest.raises(RejectedImageError, match="text is burned into its pixels"):
        deidentify_file(source, tmp_path / "out.dcm", pseudonyms)

    assert not (tmp_path / "out.dcm").exists()


def test_the_source_stays_as_it_is_and_what_is_no_image_is_refused(mammogram, tmp_path, pseudonyms):
    before = mammogram.read_bytes()
    deidentify_file(mammogram, tmp_path / "out.dcm", pseudonyms)
    assert mammogram.read_bytes() == before

    broken = tmp_path / "broken.dcm"
    broken.write_bytes(before[: len(before) // 2])
    with pytest.raises(RejectedImageError):
        deidentify_file(broken, tmp_path / "broken-out.dcm", pseudonyms)
    assert not (tmp_path / "broken-out.dcm").exists()


def test_a_header_nested_too_deep_is_refused(mammogram, tmp_path, pseudonyms):
    data = mammogram.read_bytes()
    tag = struct.pack("<HH", 0x0008, 0x2218)  # Anatomic Region Sequence
    at = data.index(tag)
    end = at + 12 + struct.unpack("<I", data[at + 8 : at + 12])[0]
    for depth in range(60, 200, 5):
        deep = b""
        for _ in range(depth):
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1) + deep + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            deep = tag + struct.pack("<2sHI", b"SQ", 0, 2**32 - 1) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        (tmp_path / "in.dcm").write_bytes(data[:at] + deep + data[end:])
        try:
            deidentify_file(tmp_path / "in.dcm", tmp_path / "out.dcm", pseudonyms)
        except RejectedImageError as error:
            assert "RecursionError" in str(error)
            break
    else:
        pytest.fail("no depth was refused")


def test_a_header_that_cannot_be_written_again_is_refused_without_quoting_it(mammogram, tmp_path, pseudonyms):
    source = write(mammogram, tmp_path / "in.dcm")
    dataset = pydicom.dcmread(source)
    del dataset.SOPInstanceUID
    dataset.PatientName = CANARY
    pydicom.dcmwrite(source, dataset)

    with pytest.raises(RejectedImageError) as caught:
        deidentify_file(source, tmp_path / "out.dcm", pseudonyms)
    assert CANARY not in str(caught.value)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)")
def test_the_result_is_valid_by_an_independent_validator(mammogram, tmp_path, pseudonyms):
    source = write(mammogram, tmp_path / "in.dcm", AcquisitionDate="20200101", DeviceUID=generate_uid())
    deidentify_file(source, tmp_path / "out.dcm", pseudonyms)

    said = subprocess.run(["dciodvfy", tmp_path / "out.dcm"], capture_output=True, text=True, check=False)

    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
    assert "MammographyImageForPresentation" in said.stderr


def test_a_deidentified_exam_can_be_indexed_again(mammogram, tmp_path, pseudonyms):
    folder = tmp_path / "clean"
    for path in sorted(mammogram.parent.glob("*.dcm")):
        deidentify_file(path, folder / path.name, pseudonyms)

    table = index_dataset("dicom", folder, tmp_path / "unpacked").index

    assert table.num_rows == 4
    assert {tuple(view) for view in zip(table["laterality"].to_pylist(), table["view"].to_pylist(), strict=True)} == {
        ("L", "CC"),
        ("L", "MLO"),
        ("R", "CC"),
        ("R", "MLO"),
    }
    assert len(set(table["exam_id"].to_pylist())) == 1
