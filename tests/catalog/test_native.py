"""A look at values of uncompressed pixel data."""

import numpy as np
import pytest
from cbis_ddsm_maker import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from spicula.catalog import native
from spicula.errors import RejectedImageError

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_small_images_are_looked_at_whole(tmp_path, syntax, dtype):
    pixels = np.arange(6 * 8, dtype=dtype).reshape(6, 8) * 5
    look = native.look(write_dicom(tmp_path / "a.dcm", pixels, syntax))
    assert look is not None
    np.testing.assert_array_equal(look.rows, pixels)
    np.testing.assert_array_equal(look.values, np.unique(pixels))


def test_of_large_images_rows_spread_evenly_are_looked_at(tmp_path):
    pixels = np.repeat(np.arange(1000, dtype=np.uint16), 9).reshape(1000, 9)
    look = native.look(write_dicom(tmp_path / "a.dcm", pixels))
    assert look is not None
    assert look.rows.shape == (native.ROWS, 9)
    assert (look.values[0], look.values[-1]) == (0, 999)
    assert set(np.diff(look.values)) == {15, 16}


@settings(max_examples=30)
@given(row=st.integers(0, 299), column=st.integers(0, 19), value=st.integers(1, 255))
def test_one_pixel_of_another_value_is_found_wherever_it_is(tmp_path_factory, row, column, value):
    pixels = np.zeros((300, 20), np.uint8)
    path = write_dicom(tmp_path_factory.getbasetemp() / "one.dcm", pixels)
    assert native.look(path).values.tolist() == [0]
    pixels[row, column] = value
    assert native.look(write_dicom(path, pixels)).values.tolist() == [0, value]


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_compressed_pixels_are_not_looked_at(tmp_path, syntax):
    pixels = np.eye(16, dtype=np.uint8)
    if syntax is RLELossless:
        path = write_dicom(tmp_path / "a.dcm", pixels, ExplicitVRLittleEndian, compress=RLELossless)
    else:
        path = write_dicom(tmp_path / "a.dcm", pixels, syntax)
    assert native.look(path) is None


def test_colour_and_several_frames_are_not_looked_at(tmp_path):
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB", "Columns": 4}
    assert native.look(write_dicom(tmp_path / "a.dcm", np.zeros((4, 12), np.uint8), **colour)) is None
    frames = {"NumberOfFrames": 2, "Rows": 2}
    assert native.look(write_dicom(tmp_path / "b.dcm", np.zeros((4, 12), np.uint8), **frames)) is None


def test_files_that_are_cut_short_or_no_dicom_are_rejected(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((40, 40), np.uint16))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RejectedImageError, match="cut short"):
        native.look(path)
    path.write_bytes(b"P5 2 2 255\n1234")
    with pytest.raises(RejectedImageError, match="not a DICOM file"):
        native.look(path)
    with pytest.raises(RejectedImageError, match="cannot be opened"):
        native.look(tmp_path / "none.dcm")


def test_elements_after_the_pixels_do_not_matter(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path = write_dicom(tmp_path / "a.dcm", pixels, DataSetTrailingPadding=b"\0" * 5000)
    np.testing.assert_array_equal(native.look(path).rows, pixels)
