"""Results as DICOM objects of the exam's study: whose they are, which they are, and what is refused."""

import logging
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_results import ALGORITHM, MADE, image_files, needs_dciodvfy, predictions, results, rewrite, verify
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code
from pydicom.uid import BreastTomosynthesisImageStorage

from spicula import files
from spicula.errors import SpiculaError, UsageError
from spicula.exams.outputs.dicom import codes, export, write
from spicula.exams.types import ImageFile
from spicula.phantoms import make_exams

pytest.importorskip("highdicom", reason="needs highdicom: the extra exams")

IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "AccessionNumber")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One exam with a malignant lesion. Do not write here."""
    folder = make_exams(tmp_path_factory.mktemp("phantom"), 1, seed=3, size=(320, 260), jobs=1, prevalence=1.0)
    return next(folder.glob("phantom-*"))


@pytest.fixture
def exam(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom exam, to change."""
    return Path(shutil.copytree(phantom, tmp_path / "exam"))


def everything(images: list[Any], to: Path, **values: Any) -> list[Path]:
    return write(results(images, **values), to, threshold=0.5, segmentations=True)


def change_all(folder: Path, change: Any) -> None:
    for path in sorted(folder.glob("*.dcm")):
        rewrite(path, change)


def test_every_object_belongs_to_the_study_and_to_a_series_of_its_own(exam, tmp_path):
    change_all(exam, lambda image: image.update({"PatientName": "Doe^Jane", "AccessionNumber": "A-17"}))
    written = everything(image_files(exam), tmp_path / "out")
    source = pydicom.dcmread(next(exam.glob("*.dcm")))
    kinds: dict[str, set[str]] = {}
    for path in written:
        made = pydicom.dcmread(path)
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert {name: made[name].value for name in IDENTITY} == {name: source[name].value for name in IDENTITY}
        assert made.preamble == b"\0" * 128
        assert made.ContentDate == "20261121"
        assert made.ContentQualification == "RESEARCH"
        assert made.SeriesDescription.startswith("RESEARCH ")
        kinds.setdefault(made.Modality, set()).add(made.SeriesInstanceUID)
    assert {kind: len(series) for kind, series in kinds.items()} == {"SR": 1, "OT": 1, "SEG": 1}
    others = {pydicom.dcmread(path).SeriesInstanceUID for path in exam.glob("*.dcm")}
    assert not set.union(*kinds.values()) & others
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in written}) == len(written) == 9


@needs_dciodvfy
def test_dciodvfy_finds_no_error_and_no_warning(phantom, tmp_path):
    found = {path.name: verify(path) for path in everything(image_files(phantom), tmp_path)}
    assert found == {name: ([], []) for name in found}


def test_the_same_results_give_the_same_bytes_and_uids(phantom, tmp_path):
    images = image_files(phantom)
    first = everything(images, tmp_path / "first")
    again = everything(images, tmp_path / "again")
    assert [path.name for path in first] == [path.name for path in again]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


@pytest.mark.parametrize(
    "changed",
    [
        {"made": MADE + timedelta(seconds=1)},
        {"predictions": [*predictions()[:3], {**predictions()[3], "score": 0.0054322}]},
        {"heatmap_algorithm": replace(ALGORITHM, version="1.1")},
    ],
)
def test_other_results_have_other_uids_series_and_names(phantom, tmp_path, changed):
    images = image_files(phantom)
    first = everything(images, tmp_path)
    second = everything(images, tmp_path, **changed)
    assert not {path.name for path in first} & {path.name for path in second}
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        values = [{str(pydicom.dcmread(path)[keyword].value) for path in paths} for paths in (first, second)]
        assert not values[0] & values[1]


def test_the_time_is_that_of_the_study_where_its_header_says_the_zone(exam, tmp_path):
    change_all(exam, lambda image: image.update({"TimezoneOffsetFromUTC": "-0530"}))
    made = pydicom.dcmread(everything(image_files(exam), tmp_path)[0])
    assert (made.ContentDate, made.ContentTime, made.TimezoneOffsetFromUTC) == ("20261121", "040000", "-0530")


@pytest.mark.parametrize("name", ["Müller^Jürgen", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Иванова^Анна"])
def test_names_in_any_script_are_kept(exam, tmp_path, name):
    def rename(image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet = "ISO_IR 192"
        image.PatientName = name

    change_all(exam, rename)
    for path in everything(image_files(exam), tmp_path):
        assert pydicom.dcmread(path).PatientName == name


def test_a_name_in_an_older_character_set_is_kept(exam, tmp_path):
    def rename(image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet = "ISO_IR 100"
        image.PatientName = "Müller^Jürgen"

    change_all(exam, rename)
    assert pydicom.dcmread(everything(image_files(exam), tmp_path)[0]).PatientName == "Müller^Jürgen"


@needs_dciodvfy
def test_headers_without_what_they_should_have_are_no_hindrance(exam, tmp_path):
    needed = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

    def strip(image: pydicom.Dataset) -> None:
        for element in list(image):
            if element.tag.group != 0x0028 and element.keyword not in (*needed, "PixelData"):
                del image[element.tag]

    change_all(exam, strip)
    written = everything(image_files(exam), tmp_path)
    for path in written:
        made = pydicom.dcmread(path)
        assert all(name in made and not made[name].value for name in IDENTITY)
        errors, warnings = verify(path)
        assert errors == []
        assert all(line.endswith("needed to build DICOMDIR") for line in warnings)  # as of the images themselves


@needs_dciodvfy
def test_odd_headers_give_sound_objects(exam, tmp_path):
    def spoil(image: pydicom.Dataset) -> None:
        image.PatientBirthDate = "about 1950"
        image.PatientSex = "female"
        image.PatientAge = "old"
        image.StudyDate = "yesterday"
        image.StudyTime = "noon"
        image.PatientOrientation = ["X", ""]
        image.WindowWidth = "-1"  # says nothing of how the image is to be shown
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.3.4.5.6"
        image.FrameOfReferenceUID = "1.2.3"
        image.PatientIdentityRemoved = "YES"
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Profile"
        image.DeidentificationMethodCodeSequence = [code, Dataset()]

    change_all(exam, spoil)
    for path in everything(image_files(exam), tmp_path):
        made = pydicom.dcmread(path)
        assert verify(path)[0] == []
        assert not (made.PatientBirthDate or made.PatientSex or made.StudyDate or made.StudyTime)
        assert len(made.DeidentificationMethodCodeSequence) == 1
        assert "1.2.3.4.5.6" in str(made)  # the class of the images, in references


@pytest.mark.parametrize("name", ["A\\B", "7" * 80])
def test_an_odd_patient_id_is_kept_so_that_the_study_is_found(exam, tmp_path, name):
    change_all(exam, lambda image: image.update({"PatientID": name}))
    written = everything(image_files(exam), tmp_path)
    with pydicom.config.disable_value_validation():
        source = pydicom.dcmread(exam / "L-CC.dcm")
        assert [pydicom.dcmread(path).PatientID == source.PatientID for path in written] == [True] * 9


@needs_dciodvfy
@pytest.mark.parametrize("name", ["MG1_J2KI", "CT2_JPLL", "explicit_VR-UN.dcm"])
def test_real_files_of_several_makers_and_compressions_serve_as_sources(test_data, tmp_path, name):
    path = test_data / "dicom" / name
    image = ImageFile("one", "L-MLO", str(path), files.sha256_file(path))
    study = pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID
    found = results([image], predictions=[{**predictions()[0], "side": "L-MLO"}])
    for made in write(found, tmp_path, threshold=0.5, segmentations=True):
        assert verify(made)[0] == []
        assert pydicom.dcmread(made).StudyInstanceUID == study


def test_patient_data_go_into_the_objects_and_nowhere_else(exam, tmp_path, caplog, capsys, recwarn):
    canary = "CANARY"

    def plant(image: pydicom.Dataset) -> None:
        for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyID"):
            setattr(image, keyword, f"{canary}-{keyword[:4]}" * (10 if keyword != "PatientID" else 1))
        image.ReferringPhysicianName = "^^^^^^^CANARY"
        image.PatientComments = image.InstitutionName = image.AdditionalPatientHistory = "CANARY-HISTORY"

    change_all(exam, plant)
    recwarn.clear()
    caplog.set_level(logging.DEBUG)
    written = everything(image_files(exam), tmp_path / "out")
    printed = capsys.readouterr()
    said = [caplog.text, printed.out, printed.err, *(str(one.message) for one in recwarn)]
    assert canary not in "".join(said)
    assert len(recwarn) == 0
    assert not any(canary in str(path) for path in written)
    made = "".join(str(pydicom.dcmread(path)) for path in written)
    assert made.count("CANARY-Pati") == 9 * 11  # the name ten times over, and the id
    assert "CANARY-HISTORY" not in made  # the rest is not needed

    messages = []
    first, *rest = image_files(exam)
    rewrite(Path(first.path), lambda image: image.update({"PatientID": "CANARY-OTHER"}))
    for images in ([replace(first, sha256=files.sha256_file(Path(first.path))), *rest], [first, *rest]):
        with pytest.raises(SpiculaError) as caught:
            everything(images, tmp_path / "out")
        messages.append(str(caught.value))
    assert "several patients" in messages[0]
    assert "changed" in messages[1]
    assert canary not in "".join(messages)


def test_file_names_hold_nothing_of_the_exam(phantom, tmp_path):
    images = [replace(image, name=f"../{number} <x>") for number, image in enumerate(image_files(phantom))]
    written = write(results(images, exam_id="../../etc/passwd"), tmp_path, threshold=0.5, segmentations=True)
    assert {path.parent for path in written} == {tmp_path}
    endings = {path.name[12:] for path in written}
    assert {"-report.dcm", "-heatmap-R-MLO-4.dcm", "-segmentation-L-CC-1.dcm"} < endings


def test_several_images_of_a_view_have_objects_each(exam, tmp_path):
    second = exam / "again.dcm"
    shutil.copy(exam / "L-CC.dcm", second)
    rewrite(second, lambda image: image.update({"SOPInstanceUID": "1.2.840.5"}))
    first, *rest = image_files(exam)
    again = replace(first, name="again", path=str(second), sha256=files.sha256_file(second))
    written = everything([first, again, *rest], tmp_path / "out")
    assert [path.name[13:] for path in written][1:5] == [
        "heatmap-L-CC-1.dcm",
        "segmentation-L-CC-1.dcm",
        "heatmap-L-CC-2.dcm",
        "segmentation-L-CC-2.dcm",
    ]
    assert pydicom.dcmread(written[4]).SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.840.5"


@needs_dciodvfy
def test_a_frame_of_several_is_referred_to_by_its_number(exam, tmp_path):
    path = exam / "L-CC.dcm"

    def repeat(image: pydicom.Dataset) -> None:
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = BreastTomosynthesisImageStorage
        image.NumberOfFrames = 3
        image.PixelData = image.PixelData * 3

    rewrite(path, repeat)
    first, *rest = image_files(exam)
    report, picture, segments, *_ = everything([replace(first, frame=1), *rest], tmp_path)
    for made in (pydicom.dcmread(picture), pydicom.dcmread(segments)):
        assert made.SourceImageSequence[0].ReferencedFrameNumber == 2
    numbers = [e.value for e in pydicom.dcmread(report).iterall() if e.keyword == "ReferencedFrameNumber"]
    assert numbers == [2, 2, 2]  # in the library, and with both scores of the left breast
    assert "ReferencedFrameNumber" not in str(pydicom.dcmread(segments).ReferencedSeriesSequence)
    assert [verify(path) for path in (report, picture, segments)] == [([], [])] * 3


def test_exams_of_png_files_have_no_study(tmp_path, phantom):
    import cv2

    path = tmp_path / "L_CC.png"
    cv2.imwrite(str(path), np.zeros((320, 260), np.uint16))
    first, *rest = image_files(phantom)
    images = [replace(first, path=str(path), sha256=files.sha256_file(path)), *rest]
    with pytest.raises(UsageError, match="is no DICOM file, so that there is no study"):
        write(replace(results(image_files(phantom)), images=images), tmp_path, threshold=0.5, segmentations=True)


@pytest.mark.parametrize(
    ("threshold", "heatmaps", "message"),
    [
        (None, True, "need a threshold"),
        (0.0, True, "above 0 to 1"),
        (1.5, True, "above 0 to 1"),
        (float("nan"), True, "above 0 to 1"),
        (0.5, False, "no heatmaps"),
    ],
)
def test_segmentations_need_a_threshold_and_heatmaps(phantom, tmp_path, threshold, heatmaps, message):
    found = results(image_files(phantom))
    if not heatmaps:
        found = replace(found, heatmaps={}, heatmap_algorithm=None)
    with pytest.raises(UsageError, match=message):
        write(found, tmp_path, threshold=threshold, segmentations=True)
    assert list(tmp_path.iterdir()) == []


def test_without_segmentations_no_threshold_is_needed(phantom, tmp_path):
    written = write(results(image_files(phantom)), tmp_path, threshold=None, segmentations=False)
    assert [path.name[13:] for path in written] == [
        "report.dcm",
        *(f"heatmap-{view}-{number}.dcm" for number, view in enumerate(("L-CC", "R-CC", "L-MLO", "R-MLO"), 1)),
    ]


def test_an_exam_without_heatmaps_has_a_report_alone(phantom, tmp_path):
    found = replace(results(image_files(phantom)), heatmaps={}, heatmap_algorithm=None, places={})
    assert [path.name[13:] for path in write(found, tmp_path, threshold=None, segmentations=False)] == ["report.dcm"]


def test_results_of_other_files_are_refused(exam, tmp_path):
    images = image_files(exam)
    found = results(images)
    place = found.places["image 0"]
    with pytest.raises(SpiculaError, match="not of the same run"):
        wrong = {**found.places, "image 0": replace(place, window=(0, 64, 0, 64))}
        write(replace(found, places=wrong), tmp_path, threshold=0.5, segmentations=True)
    top, bottom, left, right = place.window
    with pytest.raises(SpiculaError, match="its crop lies outside"):
        wrong = {**found.places, "image 0": replace(place, window=(top + 99, bottom + 99, left, right))}
        write(replace(found, places=wrong), tmp_path, threshold=0.5, segmentations=True)
    with pytest.raises(SpiculaError, match="several studies"):
        rewrite(exam / "L-CC.dcm", lambda image: image.update({"StudyInstanceUID": "1.2.3"}))
        everything(image_files(exam), tmp_path)
    with pytest.raises(SpiculaError, match="no valid SeriesInstanceUID"):
        rewrite(exam / "L-CC.dcm", lambda image: image.pop("SeriesInstanceUID"))
        everything(image_files(exam), tmp_path)
    with pytest.raises(SpiculaError, match="no frame 7"):
        everything([replace(image, frame=7) for image in images[1:]], tmp_path)
    (exam / "L-CC.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(SpiculaError, match="cannot be read"):
        write(found, tmp_path, threshold=0.5, segmentations=True)


def test_nothing_is_written_where_one_image_cannot_be_shown(exam, tmp_path):
    def cut(image: pydicom.Dataset) -> None:
        image.BitsAllocated, image.PixelData = 8, image.PixelData[: len(image.PixelData) // 2]
        image.BitsStored, image.HighBit = 8, 3  # the high bit cannot be below the bits stored

    rewrite(exam / "R-MLO.dcm", cut)
    with pytest.raises(
        SpiculaError, match=r"exam exam-1: its image image 3 \(R-MLO\) cannot be read: its high bit is 3"
    ):
        everything(image_files(exam), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def detail(found: Any) -> dict[str, Any]:
    """The exam in full, as far as it is asked for."""
    return {
        "exam_id": "exam-1",
        "status": "ok",
        "reasons": [],
        "images": {
            image.name: {
                "window_location": list(found.places[image.name].window),
                "mirrored": found.places[image.name].mirrored,
            }
            for image in found.images
        },
        "predictions": found.predictions,
        "steps": [
            {"stage": "crop", "status": "ok", "time": "2026-11-21T08:00:00Z"},
            {"stage": "classify", "status": "ok", "time": MADE.isoformat()},
            {"stage": "classify", "status": "failed", "time": "2026-11-22T08:00:00Z"},
            {"stage": "visualize", "status": "ok", "time": "2026-11-22T08:00:00Z"},
            {"stage": "heatmaps", "status": "ok", "time": None},
        ],
    }


def test_export_writes_what_the_ledger_tells(phantom, tmp_path):
    found = results(image_files(phantom))
    options: dict[str, Any] = {
        "algorithms": {"image-only": ALGORITHM},
        "heatmaps": found.heatmaps,
        "heatmap_algorithm": ALGORITHM,
        "threshold": 0.5,
        "segmentations": True,
    }
    exported = export(detail(found), found.images, tmp_path / "exported", **options)
    written = write(found, tmp_path / "written", threshold=0.5, segmentations=True)
    assert [path.name for path in exported] == [path.name for path in written]
    assert [path.read_bytes() for path in exported] == [path.read_bytes() for path in written]
    refused = {**detail(found), "predictions": [], "status": "refused", "reasons": ["view R-MLO is missing"]}
    with pytest.raises(SpiculaError, match=r"exam-1 has no scores .* view R-MLO is missing"):
        export(refused, found.images, tmp_path / "refused", **options)


def test_every_code_is_the_standards():
    mine = [value for value in vars(codes).values() if isinstance(value, Code)]
    mine += [
        code for table in (codes.FINDINGS, codes.PROBABILITIES, codes.SIDES, codes.VIEWS) for code in table.values()
    ]
    assert len(mine) > 20
    for code in mine:
        meanings = [found[code.value][0] for found in concepts[code.scheme_designator].values() if code.value in found]
        # where names of codes collide, the dictionary says of what kind each is: "Source (attribute)"
        assert code.meaning in {re.sub(r" \([a-z ]+\)$", "", meaning) for meaning in meanings}, code
