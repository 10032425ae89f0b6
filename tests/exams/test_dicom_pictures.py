"""Heatmaps as pictures and segmentations: on the same pixels as in the source, whichever way that is stored."""

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_results import DIGEST, image_files, needs_dciodvfy, patch_of, results, rewrite, verify
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from spicula.exams.outputs.dicom import write
from spicula.phantoms import make_exams

hd = pytest.importorskip("highdicom", reason="needs highdicom: the extra exams")
SIZE = (400, 320)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_exams(tmp_path_factory.mktemp("phantom"), 2, seed=3, size=SIZE, jobs=1, prevalence=1.0)
    return sorted(folder.glob("phantom-*"))[0]


def mirror(folder: Path) -> None:
    """Store every image as its mirror image; the headers say nothing of it."""

    def turn(image: pydicom.Dataset) -> None:
        image.PixelData = np.ascontiguousarray(image.pixel_array[:, ::-1]).tobytes()

    for path in folder.glob("*.dcm"):
        rewrite(path, turn)


def spots(folder: Path, images: list[Any]) -> dict[str, tuple[int, int]]:
    """Where the lesion is, (row, column) of the stored image; in views without one, somewhere off the middle."""
    truth = json.loads((folder / "exam.json").read_text())
    found = {}
    for image, told in zip(
        images, sorted(truth["images"], key=lambda one: (one["view"], one["laterality"])), strict=True
    ):
        assert image.view == f"{told['laterality']}-{told['view']}"
        row, column = 290, 210
        if told["lesions"]:
            left, top, right, bottom = told["lesions"][0]["box"]
            row, column = (top + bottom) // 2, (left + right) // 2
        found[image.name] = (row, SIZE[1] - 1 - column if image.mirrored else column)
    return found


def written(exam: Path, to: Path, mirrored: bool | None = None) -> tuple[Any, dict[str, tuple[int, int]], list[Path]]:
    images = image_files(exam, mirrored)
    where = spots(exam, images)
    found = results(images, where)
    return found, where, write(found, to, threshold=0.5, segmentations=True)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_hot_spot_lies_on_the_lesion_in_the_segmentation(exam, tmp_path, mirrored):
    if mirrored:
        mirror(exam)
    found, where, paths = written(exam, tmp_path, mirrored)
    segmentations = [path for path in paths if "segmentation" in path.name]
    assert len(segmentations) == 4
    for image, path in zip(found.images, segmentations, strict=True):
        source = pydicom.dcmread(image.path)
        read = hd.seg.segread(path)
        assert read.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
        masks = read.get_pixels_by_source_instance([source.SOPInstanceUID])
        assert masks.shape == (1, *SIZE, 2)
        malignant = np.zeros(SIZE, np.uint8)
        malignant[patch_of(found.places[image.name], where[image.name])] = 1
        assert malignant[where[image.name]] == 1
        assert np.array_equal(masks[0, :, :, 0], malignant)
        # the other hot patch is where the breast enters, for the classifier at the left: on the right in mirrored ones
        rows, columns = np.nonzero(masks[0, :, :, 1])
        top, _, left, right = found.places[image.name].window
        assert (rows.min(), rows.max(), rows.size) == (top, top + 31, 32 * 32)
        enters_right = (image.view[0] == "R") != mirrored
        assert columns.min() == (right - 32 if enters_right else left)


def test_the_lesion_is_the_brightest_there(phantom, tmp_path):
    # so that the two tests of places are about the picture, too: the phantom's truth and its pixels agree
    found, where, _ = written(phantom, tmp_path)
    image = found.images[0]
    pixels = pydicom.dcmread(image.path).pixel_array
    assert pixels[patch_of(found.places[image.name], where[image.name])].mean() > 1.2 * pixels[pixels > 0].mean()


def test_segments_are_described(phantom, tmp_path):
    _, _, paths = written(phantom, tmp_path)
    read = hd.seg.segread(next(path for path in paths if "segmentation-R-MLO" in path.name))
    assert read.number_of_segments == 2
    for number, finding in ((1, "Malignant"), (2, "Benign")):
        segment = read.get_segment_description(number)
        assert segment.segmented_property_type.meaning == "Lesion"
        modifier = segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
        assert modifier.CodeMeaning == finding
        region = segment.AnatomicRegionSequence[0]
        assert (region.CodeMeaning, region.AnatomicRegionModifierSequence[0].CodeMeaning) == ("Breast", "Right")
        assert segment.SegmentLabel == f"{finding.lower()}: probability 0.5 or more"
        told = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (told.AlgorithmName, told.AlgorithmVersion) == ("four-view screening classifier", "1.0")
        assert f"sha256={DIGEST}" in told.AlgorithmParameters
        assert "threshold=0.5" in told.AlgorithmParameters
    assert "FrameOfReferenceUID" not in read  # a projection has no place in space
    assert (read.ImageLaterality, read.ContentDescription[:17]) == ("R", "Research use only")


@needs_dciodvfy
@pytest.mark.parametrize(("threshold", "malignant"), [(0.9, 32 * 32), (0.91, 0)])
def test_the_threshold_is_the_least_that_counts(phantom, tmp_path, threshold, malignant):
    images = image_files(phantom)
    paths = write(results(images, spots(phantom, images)), tmp_path, threshold=threshold, segmentations=True)
    path = next(path for path in paths if "segmentation-L-CC" in path.name)
    masks = hd.seg.segread(path).get_pixels_by_source_instance([pydicom.dcmread(images[0].path).SOPInstanceUID])
    assert masks[..., 0].sum() == malignant  # 0.9 in float32 is a little less than 0.9
    assert verify(path) == ([], [])  # also where a segment is empty


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_picture_shows_the_mammogram_with_the_heat_on_the_lesion(exam, tmp_path, mirrored):
    if mirrored:
        mirror(exam)
    found, where, paths = written(exam, tmp_path, mirrored)
    for image, path in zip(found.images, [path for path in paths if "heatmap" in path.name], strict=True):
        made = pydicom.dcmread(path)
        picture = made.pixel_array.astype(int)
        assert picture.shape[1:] == (SIZE[1], 3)
        red = picture[..., 0] - picture[..., 2] > 60
        red[SIZE[0] :] = False
        rows, columns = np.nonzero(red)
        patch = patch_of(found.places[image.name], where[image.name])
        assert (rows.min(), rows.max() + 1) == (patch[0].start, patch[0].stop)
        assert (columns.min(), columns.max() + 1) == (patch[1].start, patch[1].stop)
        # elsewhere it is the image, on the same side
        entering = slice(0, 60) if (image.view[0] == "L") != mirrored else slice(-60, None)
        stored = pydicom.dcmread(image.path)
        tissue = stored.pixel_array[150:250, entering].astype(float)
        if stored.PhotometricInterpretation == "MONOCHROME1":
            tissue = 4095 - tissue
        shown = picture[150:250, entering]
        grey = (shown[..., 0] == shown[..., 2]) | (np.abs(shown[..., 0] - shown[..., 2]) < 8)
        assert np.corrcoef(tissue[grey], shown[grey][:, 2])[0, 1] > 0.9


def test_the_picture_says_what_it_is(phantom, tmp_path):
    found, _, paths = written(phantom, tmp_path)
    path = next(path for path in paths if "heatmap-L-MLO" in path.name)
    made = pydicom.dcmread(path)
    assert (made.ImageLaterality, made.ViewCodeSequence[0].CodeValue) == ("L", "399368009")
    assert made.BurnedInAnnotation == "YES"
    assert made.ContentQualification == "RESEARCH"
    assert "Research use only. Not a medical device." in made.ImageComments
    assert f"sha256 {DIGEST}" in made.DerivationDescription
    source = pydicom.dcmread(found.images[2].path)
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert made.SourceImageSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert made.PatientOrientation == source.PatientOrientation
    band = made.pixel_array[SIZE[0] :]
    letters = (band.max(axis=2) > 200).mean(axis=1)  # rows of the band that have letters
    starts = np.count_nonzero((letters[1:] > 0) & (letters[:-1] == 0))
    assert len(band) > 40
    assert starts >= 3  # three lines
    assert letters.max() < 0.5


@needs_dciodvfy
def test_an_orientation_that_the_pixels_contradict_is_not_repeated(exam, tmp_path):
    mirror(exam)
    _, _, paths = written(exam, tmp_path, mirrored=True)
    for path in paths[1:]:
        assert pydicom.dcmread(path).PatientOrientation in (None, "")
        assert verify(path) == ([], [])


@pytest.mark.slow
@needs_dciodvfy
def test_large_images_give_pictures_of_a_sensible_size(tmp_path):
    folder = make_exams(tmp_path / "phantom", 1, seed=4, size=(2400, 1800), jobs=1)
    paths = written_plain(next(folder.glob("phantom-*")), tmp_path / "out")
    made = pydicom.dcmread(next(path for path in paths if "heatmap-L-CC" in path.name))
    assert (made.Columns, 1536 < made.Rows < 1700) == (1152, True)
    read = hd.seg.segread(next(path for path in paths if "segmentation-L-CC" in path.name))
    assert (read.Rows, read.Columns) == (2400, 1800)
    assert verify(paths[2]) == ([], [])


def written_plain(exam: Path, to: Path) -> list[Path]:
    return write(results(image_files(exam)), to, threshold=0.5, segmentations=True)


@needs_dciodvfy
def test_compressed_sources_give_the_same_picture(exam, tmp_path):
    plain = written_plain(exam, tmp_path / "plain")

    def compress(image: pydicom.Dataset) -> None:
        data = imagecodecs.ljpeg_encode(image.pixel_array, bitspersample=12)
        image.PixelData = encapsulate([data])
        image["PixelData"].VR = "OB"
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1

    for path in exam.glob("*.dcm"):
        rewrite(path, compress)
    packed = written_plain(exam, tmp_path / "packed")
    for one, other in zip(plain, packed, strict=True):
        assert verify(other) == ([], [])
        if "report" not in one.name:
            assert np.array_equal(pydicom.dcmread(one).pixel_array, pydicom.dcmread(other).pixel_array)


@needs_dciodvfy
def test_a_loss_that_the_source_has_had_is_told(exam, tmp_path):
    for path in exam.glob("*.dcm"):
        rewrite(path, lambda image: image.update({"LossyImageCompression": "01"}))
    paths = written_plain(exam, tmp_path)
    assert {pydicom.dcmread(path).LossyImageCompression for path in paths[1:]} == {"01"}
    assert [verify(path)[0] for path in paths] == [[]] * 9
