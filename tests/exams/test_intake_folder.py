"""Intake of folders: exam folders, exam lists, DICOM studies, all at once; and what is known from the last time."""

import json
import os
import pickle
import shutil

import pytest
from exam_dicoms import CANARIES, FOR_PROCESSING, VIEWS, mammogram, study
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from small_exams import small_exam, small_exams

from spicula import files, index
from spicula.errors import UsageError
from spicula.exams import intake
from spicula.phantoms import make_exams

NAMES = ["L-CC", "R-CC", "L-MLO", "R-MLO"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def by_id(found):
    return {exam.exam_id: exam for exam in found.exams}


def reasons(found):
    return {problem["path"]: problem["reason"] for problem in found.problems}


def age(folder, seconds=1e9):
    """Make all files of a folder old, so that what is known of them counts."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (seconds, seconds))


def test_exam_folders(folder):
    small_exams(folder, range(3))
    small_exam(folder / "exam-0002", 7, ("L_CC",))
    (folder / "exam-0001" / "R_CC.png").unlink()
    (folder / "exam-0000" / "notes.txt").write_text("x")
    found = intake.read(folder)
    exams = by_id(found)
    assert list(exams) == ["exam-0000", "exam-0001", "exam-0002"]
    assert [exam.refusal for exam in exams.values()] == [None, "no R-CC", None]
    image = exams["exam-0000"].images[1]
    assert (image.name, image.view, image.mirrored) == ("R_CC", "R-CC", False)
    assert image.path == str(folder / "exam-0000/R_CC.png")
    assert image.sha256 == files.sha256_file(folder / "exam-0000/R_CC.png")
    assert found.problems == []
    index.validate(found.index)
    assert found.index["height"].to_pylist() == [96] * 11


def test_the_images_of_one_exam_can_lie_in_the_folder_itself(folder):
    small_exam(folder, 1)
    assert list(by_id(intake.read(folder))) == ["in"]


def test_exam_lists_give_order_and_mirroring(folder):
    small_exam(folder, 1)
    for name in ("L_CC", "R_CC", "L_MLO", "R_MLO"):
        (folder / f"{name}.png").rename(folder / f"7_{name}.png")
    small_exam(folder / "more", 2, ("R_MLO",))
    (folder / "more" / "R_MLO.png").rename(folder / "7_R_MLO_0.png")
    entry = {"horizontal_flip": "YES", "L-CC": ["7_L_CC"], "R-CC": ["7_R_CC"], "L-MLO": ["7_L_MLO"]}
    (folder / "list.pkl").write_bytes(pickle.dumps([{**entry, "R-MLO": ["7_R_MLO", "7_R_MLO_0"]}]))
    exam = by_id(intake.read(folder))["7"]
    assert [image.name for image in exam.images] == ["7_L_CC", "7_R_CC", "7_L_MLO", "7_R_MLO", "7_R_MLO_0"]
    assert {image.mirrored for image in exam.images} == {True}
    (folder / "list.pkl").write_bytes(pickle.dumps([{**entry, "R-MLO": ["7_R_MLO_0", "7_R_MLO"]}]))
    known = intake.Known()
    for _ in range(2):
        exam = by_id(intake.read(folder, known=known))["7"]
        assert [image.name for image in exam.images][3:] == ["7_R_MLO_0", "7_R_MLO"]
        age(folder)


def test_masks_are_no_images_of_an_exam(folder):
    small_exam(folder / "a", 1)
    (folder / "a/segmentation").mkdir()
    shutil.copy(folder / "a/L_CC.png", folder / "a/segmentation/L_CC_benign.png")
    found = intake.read(folder)
    assert len(by_id(found)["a"].images) == 4
    assert found.problems == []


def test_phantoms_are_read_as_the_dicom_files_that_they_are(tmp_path):
    folder = make_exams(tmp_path / "phantoms", 2, size=(144, 128), jobs=1)
    found = intake.read(folder)
    assert [exam.refusal for exam in found.exams] == [None, None]
    assert all([image.view for image in exam.images] == NAMES for exam in found.exams)
    assert found.problems == []


def test_dicom_studies(folder):
    study(folder / "a/b", 1)
    study(folder / "c", 2, VIEWS[:3])
    mammogram(
        folder / "c/extra", "2.9", "R", "MLO", PresentationIntentType="FOR PROCESSING", SOPClassUID=FOR_PROCESSING
    )
    mammogram(folder / "a/second", "1.0", "L", "CC")
    mammogram(folder / "a/tomo", "1.8", "L", "CC", NumberOfFrames=3)
    exams = by_id(intake.read(folder))
    assert list(exams) == ["1.2.826.0.2.1", "1.2.826.0.2.2"]
    whole, refused = exams.values()
    assert whole.refusal is None
    assert [image.name for image in whole.images][:2] == ["1.2.826.0.1.1.0", "1.2.826.0.1.1.1"]
    assert [note.partition(" ")[0] for note in whole.notes] == [f"1.2.826.0.1.1.8{of}" for of in ("", "_1", "_2")]
    assert refused.refusal == "no R-MLO (set aside: for processing, not for presentation)"
    assert {image.mirrored for image in whole.images} == {None}


def test_a_spot_compression_view_stands_in_for_nothing(folder):
    study(folder, 1, VIEWS[:3])
    view, modifier = Dataset(), Dataset()
    for item, code in ((view, "399368009"), (modifier, "399055006")):
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "x"
    view.ViewModifierCodeSequence = [modifier]
    mammogram(folder / "spot", "1.4", "R", "MLO", ViewCodeSequence=[view])
    (exam,) = intake.read(folder).exams
    assert exam.refusal == "no R-MLO (set aside: a spot compression view)"


def test_contradicting_tags_are_noted(folder):
    study(folder, 1)
    mammogram(folder / "IM-R-MLO", "1.4", "R", "MLO", SeriesDescription="L MLO")
    found = intake.read(folder)
    (exam,) = found.exams
    assert exam.notes == ("1.2.826.0.1.1.4 (R-MLO): the side is R by ImageLaterality, but L by SeriesDescription",)
    assert reasons(found)["IM-R-MLO"].startswith("indexed, but the side is R")


def test_a_study_with_images_of_two_patients_is_refused(folder):
    study(folder, 1)
    mammogram(folder / "IM-R-MLO", "1.4", "R", "MLO", PatientID="another")
    (exam,) = intake.read(folder).exams
    assert exam.refusal == "its images are of 2 patients"


def test_what_no_header_says_is_not_guessed_from_names(folder):
    study(folder, 1)
    mammogram(folder / "L_MLO.dcm", "1.9", "L", "MLO", ImageLaterality=None, ViewPosition=None)
    mammogram(folder / "nowhere", "1.10", "L", "CC", StudyInstanceUID=None)
    found = intake.read(folder)
    assert reasons(found)["L_MLO.dcm"] == "names no side and no view"
    assert reasons(found)["nowhere"] == "belongs to no exam"
    assert len(by_id(found)["1.2.826.0.2.1"].images) == 4


def test_of_images_with_one_uid_the_first_counts(folder):
    study(folder, 1)
    shutil.copy(folder / "IM-L-CC", folder / "copy")
    mammogram(folder / "z-other", "1.1", "L", "CC", Rows=8, SeriesDescription="other")
    found = intake.read(folder)
    assert len(found.exams[0].images) == 4
    assert reasons(found)["copy"] == "a copy of IM-L-CC, which is used"
    assert reasons(found)["z-other"] == "has the image id but not the content of IM-L-CC, which is used"


def test_below_a_dicomdir_what_it_names_is_read(folder):
    from pydicom.fileset import FileSet

    study(folder / "files", 1)
    medium = FileSet()
    for path in sorted((folder / "files").iterdir()):
        medium.add(path)
    medium.write(folder / "disk")
    medium._stage["t"].cleanup()  # else it warns when it is collected
    mammogram(folder / "disk/EXTRA", "1.7", "L", "CC")
    shutil.rmtree(folder / "files")
    found = intake.read(folder / "disk/DICOMDIR")
    assert len(found.exams[0].images) == 4
    assert "does not name 1 of the files" in reasons(found)["DICOMDIR"]


def test_all_kinds_in_one_folder(folder):
    study(folder / "study", 1)
    small_exam(folder / "pictures", 1)
    (folder / "list.json").write_text(json.dumps([{"L-CC": ["IM-L-CC"]}]))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    (folder / "noise").write_bytes(b"noise")
    (folder / "L_CC.png.part").write_bytes(b"x")
    (folder / "more.zip").write_bytes(b"PK")
    (folder / ".hidden").write_bytes(b"x")
    found = intake.read(folder)
    assert {exam.exam_id: len(exam.images) for exam in found.exams} == {"1.2.826.0.2.1": 4, "pictures": 4}
    told = reasons(found)
    assert set(told) == {"list.json", "broken.png", "noise", "L_CC.png.part", "more.zip"}
    assert told["list.json"] == "DICOM files are put together by their headers, not by this list"
    assert told["L_CC.png.part"] == "has the name of a file that is still being written"
    assert told["more.zip"] == "an archive; unpack it into the folder"
    assert told["noise"].startswith("not an image that Spicula reads")


@pytest.mark.parametrize("content", [{}, {"report.pdf": b"%PDF"}, {"photo": b"text"}])
def test_a_folder_without_exams_is_refused_with_the_way_out(folder, content):
    for name, data in content.items():
        (folder / name).write_bytes(data)
    with pytest.raises(UsageError, match=r"no exams in .*DICOM mammograms.*L_CC\.png.*exam list.*spicula index"):
        intake.read(folder)


def test_no_patient_is_ever_named(folder, capsys):
    study(folder / "a", 1)
    study(folder / "b", 2, VIEWS[:2], ViewPosition=None, SeriesDescription="CANARY^NAME")
    mammogram(folder / "c", "3.1", "L", "CC", Modality="US", SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1")
    mammogram(folder / "d", "3.2", "L", "CC", StudyInstanceUID="CANARY-4711")
    mammogram(folder / "e", "3.3", "L", "CC", PatientID="CANARY-4711", Modality="CANARY-4711")
    mammogram(folder / "f", "1.9", "L", "CC", PatientID=None)
    (folder / "g").write_bytes((folder / "a/IM-L-CC").read_bytes()[:900])
    known = intake.Known(folder.parent / "known.parquet")
    found = intake.read(folder, known=known)
    assert len(found.problems) >= 5
    out = capsys.readouterr()
    shown = repr(found.exams) + repr(found.problems) + str(found.index.to_pylist()) + out.out + out.err
    shown += str(known.rows.to_pylist())
    assert [canary for canary in CANARIES if canary in shown] == []


# what is known from the last time


def same_length(path, data):
    """Replace a file's content by another of its length and time: only who reads it again sees it."""
    before = path.stat()
    path.write_bytes(data)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_unchanged_files_are_not_read_again(folder, tmp_path):
    study(folder / "study", 1)
    small_exam(folder / "pictures", 1)
    (folder / "noise").write_bytes(b"noise")
    age(folder)
    cache = tmp_path / "known.parquet"
    first = intake.read(folder, known=intake.Known(cache))
    for path in folder.rglob("*"):
        if path.is_file():
            same_length(path, bytes(path.stat().st_size))
    again = intake.read(folder, known=intake.Known(cache))
    assert again.exams == first.exams
    assert again.problems == first.problems
    assert again.index.equals(first.index)
    with pytest.raises(UsageError):
        intake.read(folder)


def test_changed_new_and_lost_files_are_seen(folder, tmp_path):
    study(folder / "study", 1)
    small_exam(folder / "pictures", 1)
    age(folder)
    cache = tmp_path / "known.parquet"
    intake.read(folder, known=intake.Known(cache))
    mammogram(folder / "study/IM-R-MLO", "1.4", "L", "MLO")
    (folder / "pictures/L_CC.png").unlink()
    small_exam(folder / "pictures", 5, ("R_CC",))
    small_exam(folder / "new", 2)
    for _ in range(2):
        found = intake.read(folder, known=intake.Known(cache))
        exams = by_id(found)
        assert {exam_id: exam.refusal for exam_id, exam in exams.items()} == {
            "1.2.826.0.2.1": "no R-MLO",
            "pictures": "no L-CC",
            "new": None,
        }
        assert exams["pictures"].images[0].sha256 == files.sha256_file(folder / "pictures/R_CC.png")
        assert found.exams == intake.read(folder).exams
        assert found.problems == intake.read(folder).problems
        age(folder, 1.1e9)


def test_a_file_that_changed_just_now_is_read_again(folder):
    """Within one tick of the file system's clock it can change once more, and nobody would see it."""
    small_exam(folder / "a", 1)
    known = intake.Known()
    before = intake.read(folder, known=known).exams[0].images[0].sha256
    data = (folder / "a/L_CC.png").read_bytes()
    same_length(folder / "a/L_CC.png", data[:-20] + bytes(20))
    assert intake.read(folder, known=known).exams[0].images[0].sha256 != before


def test_a_file_that_could_not_be_opened_is_tried_again(folder, tmp_path):
    study(folder, 1)
    age(folder)
    target = tmp_path / "elsewhere"
    shutil.copy(folder / "IM-R-MLO", target)
    (folder / "IM-R-MLO").unlink()
    (folder / "IM-R-MLO").symlink_to(target)
    os.utime(target, (1e9, 1e9))
    known = intake.Known()
    target.rename(tmp_path / "away")
    found = intake.read(folder, known=known)
    assert (found.exams[0].refusal, reasons(found)["IM-R-MLO"]) == (
        "no R-MLO",
        "cannot be opened: No such file or directory",
    )
    (tmp_path / "away").rename(target)
    assert intake.read(folder, known=known).exams[0].refusal is None


def list_of(prefix, flip="NO"):
    views = {view: [f"{prefix}{view.replace('-', '_')}"] for view in NAMES}
    return pickle.dumps([{"horizontal_flip": flip, **views}])


CHANGES = {
    "a study": lambda folder: study(folder / "study", 1),
    "another patient in it": lambda folder: mammogram(folder / "study/IM-L-CC", "1.1", "L", "CC", PatientID="other"),
    "a copy before it": lambda folder: mammogram(folder / "early", "1.1", "L", "CC", PatientID="CANARY-4711"),
    "without the copy": lambda folder: (folder / "early").unlink(missing_ok=True),
    "without a view": lambda folder: (folder / "study/IM-R-CC").unlink(missing_ok=True),
    "pictures": lambda folder: small_exam(folder / "pictures", 1),
    "other pictures": lambda folder: small_exam(folder / "pictures", 2, ("R_CC", "L_CC")),
    "a picture more": lambda folder: small_exam(folder / "pictures/L_MLO_2", 3, ("L_MLO",)),
    "a list": lambda folder: (folder / "list.pkl").write_bytes(list_of("pictures/", "YES")),
    "another list": lambda folder: (folder / "list.pkl").write_bytes(list_of("nowhere/")),
    "no list": lambda folder: (folder / "list.pkl").unlink(missing_ok=True),
    "noise": lambda folder: (folder / "noise").write_bytes(b"noise"),
    "a study for noise": lambda folder: mammogram(folder / "noise", "2.1", "L", "CC"),
}


@settings(max_examples=20)
@given(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=6))
def test_what_is_known_never_changes_what_is_found(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("exams")
    small_exam(folder / "always", 5)
    known = intake.Known()
    for step, change in enumerate(changes):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
        CHANGES[change](folder)
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_mtime_ns != before.get(path):
                os.utime(path, (1e9 + step, 1e9 + step))
        cached, fresh = intake.read(folder, known=known), intake.read(folder)
        assert cached.exams == fresh.exams
        assert cached.problems == fresh.problems
        assert cached.index.equals(fresh.index)


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more", None])
def test_a_damaged_cache_is_made_anew(folder, tmp_path, damage):
    small_exam(folder / "a", 1)
    age(folder)
    cache = tmp_path / "known.parquet"
    first = intake.read(folder, known=intake.Known(cache))
    if damage is None:
        index.write(cache, first.index)
    else:
        cache.write_bytes(damage)
    assert intake.read(folder, known=intake.Known(cache)).exams == first.exams
    assert intake.Known(cache).rows.num_rows == 4


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = intake.place(str(tmp_path / "ws"), tmp_path / "in")
    assert here.parent == tmp_path / "ws/intake"
    assert here.name != intake.place(str(tmp_path / "ws"), tmp_path / "other").name
    assert intake.place("s3://bucket/ws", tmp_path / "in").parent == tmp_path / "cache/spicula/intake"


def test_the_real_exam(test_data, tmp_path):
    found = intake.read(test_data / "nyu-exam")
    complete = [exam for exam in found.exams if exam.refusal is None]
    assert [[image.name for image in exam.images] for exam in complete] == [["0_L-CC", "0_R-CC", "0_L-MLO", "0_R-MLO"]]
