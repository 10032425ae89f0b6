import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
import pytest
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from spicula.phantoms import make_exams
from spicula.phantoms.dicom import uid
from spicula.phantoms.parenchyma import gland_volume
from spicula.phantoms.render import render
from spicula.phantoms.woman import draw_woman

SIZE = (320, 260)  # as in conftest


@pytest.fixture(scope="module")
def images(phantoms: Path) -> list[pydicom.FileDataset]:
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        found = [pydicom.dcmread(path) for path in sorted(phantoms.rglob("*.dcm"))]
        for image in found:
            list(image.iterall())  # parse every value
    finally:
        pydicom.config.settings.reading_validation_mode = before
    return found


def test_files_are_whole_dicom_with_an_empty_preamble(phantoms, images):
    assert len(images) == 24
    for path, image in zip(sorted(phantoms.rglob("*.dcm")), images, strict=True):
        assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
        assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert image.SOPClassUID == DigitalMammographyXRayImageStorageForPresentation
        assert image.file_meta.MediaStorageSOPClassUID == image.SOPClassUID
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID


def test_every_attribute_that_the_standard_wants_is_there(images):
    # PS3.3 A.26: types 1 and 2 of the patient, study, series, equipment, image, DX and mammography modules
    type_1 = """StudyInstanceUID SeriesInstanceUID SOPInstanceUID Modality PresentationIntentType ImageType
        SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
        PixelData PixelIntensityRelationship PixelIntensityRelationshipSign RescaleIntercept RescaleSlope RescaleType
        PresentationLUTShape LossyImageCompression BurnedInAnnotation ImagerPixelSpacing PositionerType
        ImageLaterality OrganExposed ViewCodeSequence AnatomicRegionSequence WindowCenter WindowWidth ViewPosition"""
    type_2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID
        AccessionNumber SeriesNumber Manufacturer InstanceNumber PatientOrientation DetectorType
        AcquisitionContextSequence"""
    for image in images:
        for name in type_1.split():
            assert image.get(name) not in (None, ""), name
        for name in type_2.split():
            assert name in image, name
        assert "ViewModifierCodeSequence" in image.ViewCodeSequence[0]


def test_tags_say_which_view_of_which_side_it_is(phantoms, images):
    expected = {
        "L-CC": ("399162004", ["A", "R"]),
        "L-MLO": ("399368009", ["A", "FR"]),
        "R-CC": ("399162004", ["P", "L"]),
        "R-MLO": ("399368009", ["P", "FL"]),
    }
    for path, image in zip(sorted(phantoms.rglob("*.dcm")), images, strict=True):
        code, orientation = expected[path.stem]
        assert f"{image.ImageLaterality}-{image.ViewPosition}" == path.stem
        assert image.ViewCodeSequence[0].CodeValue == code
        assert image.ViewCodeSequence[0].CodingSchemeDesignator == "SCT"
        assert list(image.PatientOrientation) == orientation
        # rows run away from the chest wall in left breasts (A), towards it in right ones (P)
        pixels = image.pixel_array
        air = pixels[0, -1] if image.ImageLaterality == "L" else pixels[0, 0]
        wall = pixels[:, 0] if image.ImageLaterality == "L" else pixels[:, -1]
        assert (wall != air).mean() > 0.3


def test_pixels_are_12_bits_with_the_polarity_that_the_header_says(phantoms, images):
    polarities = set()
    for path, image in zip(sorted(phantoms.rglob("*.dcm")), images, strict=True):
        assert (image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation) == (16, 12, 11, 0)
        assert (image.Rows, image.Columns) == SIZE
        woman = draw_woman(3, int(path.parent.name[-5:]), 0.5)
        side, view = path.stem.split("-")
        dark_low = render(woman, side, view, SIZE, gland_volume(woman, side)).pixels
        inverted = image.PhotometricInterpretation == "MONOCHROME1"
        stored = image.pixel_array
        assert (stored == (4095 - dark_low if inverted else dark_low)).all()
        assert stored.max() <= 4095
        assert image.PresentationLUTShape == ("INVERSE" if inverted else "IDENTITY")
        assert image.PixelIntensityRelationshipSign == (1 if inverted else -1)
        polarities.add(image.PhotometricInterpretation)
    assert polarities == {"MONOCHROME1", "MONOCHROME2"}


def test_the_window_shows_the_breast_well(images):
    for image in images:
        values = image.pixel_array.astype(float)
        centre, width = float(image.WindowCenter), float(image.WindowWidth)
        shown = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
        if image.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        corner = shown[0, -1 if image.ImageLaterality == "L" else 0]
        breast = shown[values != values[0, -1 if image.ImageLaterality == "L" else 0]]
        assert corner == 0  # air is black
        assert 0.08 < np.median(breast) < 0.75
        assert np.mean(breast >= 1) < 0.05


def test_every_file_says_that_it_is_synthetic(images):
    for image in images:
        for name in ("PatientName", "PatientID", "StudyDescription", "SeriesDescription", "Manufacturer"):
            assert str(image[name].value).startswith("SYNTHETIC"), name
        assert "SYNTHETIC" in image.ImageComments
        assert "not a medical device" in image.ImageComments.lower()
        assert image.BurnedInAnnotation == "NO"
        assert image.PatientIdentityRemoved == "YES"


def test_uids_are_uuid_derived_unique_and_nested_as_they_should_be(images):
    instances = [image.SOPInstanceUID for image in images]
    assert len(set(instances)) == len({image.SeriesInstanceUID for image in images}) == len(images)
    assert len({image.StudyInstanceUID for image in images}) == 6
    assert len({(image.PatientID, image.StudyInstanceUID) for image in images}) == 6
    for image in images:
        for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            value = image[name].value
            assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", value)
            assert len(value) <= 64
            assert int(value.split(".")[2]) < 2**128
            assert value.is_valid
    assert uid("a", 1) == uid("a", 1) != uid("a", 2)


def test_no_tag_tells_whether_there_is_a_lesion(tmp_path):
    dumps = []
    for prevalence in (0.0, 1.0):
        folder = make_exams(tmp_path / str(prevalence), 2, size=SIZE, jobs=1, prevalence=prevalence)
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))]
        for header in headers:
            for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
                del header[name]
        dumps.append([header.to_json() for header in headers])
        truths = [json.loads(path.read_text()) for path in sorted(folder.rglob("exam.json"))]
        has_one = [
            any(x["pathology"] == "malignant" for image in truth["images"] for x in image["lesions"])
            for truth in truths
        ]
        assert has_one == [prevalence == 1.0] * 2
    assert dumps[0] == dumps[1]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)")
def test_an_independent_validator_finds_no_error(phantoms):
    paths = sorted(phantoms.rglob("*.dcm"))
    said = [subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr for path in paths]

    assert all("MammographyImageForPresentation" in text for text in said)
    assert [line for text in said for line in text.splitlines() if line.startswith("Error")] == []
