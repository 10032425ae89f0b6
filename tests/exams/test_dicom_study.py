"""The study that results are put beside: odd, poor and several-framed sources, and where patient data go."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from dicom_results import (
    IDENTITY,
    change_all,
    everything,
    image_files,
    needs_dciodvfy,
    predictions,
    results,
    rewrite,
    verify,
)
from pydicom.dataset import Dataset
from pydicom.uid import BreastTomosynthesisImageStorage

from spicula import files
from spicula.errors import SpiculaError
from spicula.exams.outputs.dicom import write
from spicula.exams.types import ImageFile

pytest.importorskip("highdicom", reason="needs highdicom: the extra exams")


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
    whole = pydicom.dcmread(segments).ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert "ReferencedFrameNumber" not in whole
    assert [verify(path) for path in (report, picture, segments)] == [([], [])] * 3
