"""DICOMDIR: the files that it names and no others; names that lead out, and DICOMDIRs that cannot be read."""

import pydicom
import pytest
from pacs_maker import mammogram
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from spicula import catalog
from spicula.catalog.pacs import dicomdir


def read(folder):
    reading = catalog.index_dataset("dicom", folder, folder.parent / "unpacked")
    return sorted(row["path"] for row in reading.index.to_pylist()), [
        (row["path"], row["reason"]) for row in reading.rejected.to_pylist()
    ]


@pytest.fixture
def medium(tmp_path):
    """Return a folder with a DICOMDIR as pydicom writes it, of two mammograms and a chest film."""
    files = FileSet()
    for number in (1, 2):
        files.add(mammogram(tmp_path / "in" / str(number), number))
    chest = "1.2.840.10008.5.1.4.1.1.1"
    files.add(mammogram(tmp_path / "in" / "3", 3, SOPClassUID=chest, Modality="CR", ViewPosition="PA"))
    files.write(tmp_path / "cd")
    files._stage["t"].cleanup()  # else it warns when it is collected
    return tmp_path / "cd"


def write_directory(folder, *names, in_use=0xFFFF):
    """Write a DICOMDIR whose records name these files."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.5"
    directory = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    records = []
    for name in names:
        record = Dataset()
        record.RecordInUseFlag = in_use
        record.DirectoryRecordType = "IMAGE"
        if name is not None:
            record.add_new("ReferencedFileID", "CS", name)
        records.append(record)
    directory.DirectoryRecordSequence = records
    folder.mkdir(parents=True, exist_ok=True)
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)


def test_a_medium_as_it_is_written(medium):
    named = sorted(path.relative_to(medium).as_posix() for path in medium.rglob("*") if path.is_file())
    paths, rejected = read(medium)
    assert paths == named[1:3]
    assert named[0] == "DICOMDIR"
    assert rejected == [(named[3], "not mammography: its Modality is CR, and nothing says that it shows a breast")]


def test_the_dicomdir_itself_can_be_named(medium):
    reading = catalog.index_dataset("dicom", medium / "DICOMDIR", medium / "unpacked")
    assert len(reading.index) == 2


def test_files_that_it_does_not_name_are_counted(medium):
    mammogram(medium / "OTHER" / "I1", 7)
    (medium / "viewer.exe").write_bytes(b"MZ")
    paths, rejected = read(medium)
    assert len(paths) == 2
    reason = "does not name 2 of the files beside and below it; to read these, move it away"
    assert ("DICOMDIR", reason) in rejected


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_names_that_lead_out_and_those_that_are_not_there(tmp_path):
    mammogram(tmp_path / "secret", 1)
    folder = tmp_path / "cd"
    mammogram(folder / "a" / "I1", 2)
    mammogram(folder / "a" / "I2", 3)
    write_directory(
        folder, ["A", "I1"], ["..", "secret"], "../secret", "/etc/passwd", ["a", "", "I2"], ["A", "I9"], ["A"] * 9, None
    )
    paths, rejected = read(folder)
    assert paths == ["a/I1"]
    reasons = [reason for path, reason in rejected if path == "DICOMDIR"]
    odd = "names a file in a way that is none of DICOM's"
    assert sorted(reasons) == sorted(
        [f"record {number} {odd}" for number in (2, 3, 4, 5, 7)]
        + ["record 6 names a file that is not there"]
        + ["does not name 1 of the files beside and below it; to read these, move it away"]
    )
    assert not any("secret" in reason or "passwd" in reason for reason in reasons)


def test_case_does_not_count_and_deleted_records_are_let_be(tmp_path):
    folder = tmp_path / "cd"
    mammogram(folder / "images" / "i1", 1)
    write_directory(folder, ["IMAGES", "I1"])
    (folder / "DICOMDIR").rename(folder / "dicomdir")
    assert read(folder) == (["images/i1"], [])
    mammogram(tmp_path / "other" / "I1", 1)
    write_directory(tmp_path / "other", "I1", in_use=0)
    selected, problems = dicomdir.select(tmp_path / "other", ["DICOMDIR", "I1"])
    assert selected == []
    assert len(problems) == 1


@pytest.mark.parametrize("content", [b"", b"not DICOM", b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\xff\xff"])
def test_where_it_cannot_be_read_its_folder_is(tmp_path, content):
    mammogram(tmp_path / "cd" / "I1", 1)
    (tmp_path / "cd" / "DICOMDIR").write_bytes(content)
    paths, rejected = read(tmp_path / "cd")
    assert paths == ["I1"]
    ((path, reason),) = rejected
    assert path == "DICOMDIR"
    assert reason.endswith("all files of its folder are read instead")


def test_one_that_names_nothing(tmp_path):
    mammogram(tmp_path / "cd" / "I1", 1)
    write_directory(tmp_path / "cd")
    assert read(tmp_path / "cd") == (["I1"], [("DICOMDIR", "names no files; all files of its folder are read instead")])


def test_several_media_in_one_folder_each_with_its_own(tmp_path):
    for number, name in enumerate(("cd1", "cd2", "cd2/inner"), start=1):
        mammogram(tmp_path / "all" / name / "I1", number)
        mammogram(tmp_path / "all" / name / "I2", 10 + number)
        write_directory(tmp_path / "all" / name, "I1")
    mammogram(tmp_path / "all" / "loose", 20)
    paths, rejected = read(tmp_path / "all")
    assert paths == ["cd1/I1", "cd2/I1", "cd2/inner/I1", "loose"]
    assert [path for path, _ in rejected] == ["cd1/DICOMDIR", "cd2/DICOMDIR", "cd2/inner/DICOMDIR"]


def test_a_large_one_is_read_whole(tmp_path):
    mammogram(tmp_path / "cd" / "I1", 1)
    write_directory(tmp_path / "cd", *(["MISSING", f"I{number:05d}"] for number in range(24_000)), "I1")
    assert (tmp_path / "cd" / "DICOMDIR").stat().st_size > 2**20
    selected, problems = dicomdir.select(tmp_path / "cd", ["DICOMDIR", "I1"])
    assert selected == ["I1"]
    assert len(problems) == 24_000


def test_what_pydicom_reads_of_it_is_the_same(medium):
    files = FileSet(medium / "DICOMDIR")
    named = {str(instance.path).rpartition("cd/")[2] for instance in files}
    files._stage["t"].cleanup()
    paths = [path.relative_to(medium).as_posix() for path in medium.rglob("*") if path.is_file()]
    selected, problems = dicomdir.select(medium, paths)
    assert set(selected) == named
    assert problems == []
    assert pydicom.dcmread(medium / "DICOMDIR")
