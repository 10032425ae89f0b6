import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import get_frame

from spicula.errors import RejectedImageError
from spicula.imaging import codecs
from spicula.imaging.readers import read_pixels

JPEG, EXTENDED, LOSSLESS, SV1 = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS, JPEG_2000, HTJ2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{n}" for n in ("", ".1", ".2", ".1.99"))


def reason(path, frame=0):
    with pytest.raises(RejectedImageError) as error:
        read_pixels(path, frame)
    assert "CANARY" not in str(error.value)
    return str(error.value)


def jpeg_lossless(image, predictor=1, bits=12):
    return imagecodecs.jpeg8_encode(image, lossless=True, predictor=predictor, bitspersample=bits)


ENCODERS = {
    LOSSLESS: lambda image: jpeg_lossless(image, predictor=4),
    SV1: jpeg_lossless,
    JPEG_LS: imagecodecs.jpegls_encode,
    JPEG_2000: lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", bitspersample=12),
    HTJ2K: imagecodecs.htj2k_encode,
}


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_lossless_codecs_give_the_stored_values(tmp_path, noise, dicom, syntax, photometric):
    image = noise(60, 50, 4095)
    path = dicom(tmp_path / "a.dcm", [ENCODERS[syntax](image)], image.shape, syntax, photometric)
    pixels = read_pixels(path)
    assert (pixels.array.dtype, pixels.bits) == (np.uint16, 12)
    np.testing.assert_array_equal(pixels.array, 4095 - image if photometric == "MONOCHROME1" else image)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_native_pixels_in_every_encoding(tmp_path, noise, dicom, syntax):
    image = noise(31, 27, 4095)
    data = image.astype(">u2" if syntax == BIG else "<u2").tobytes()
    np.testing.assert_array_equal(read_pixels(dicom(tmp_path / "a.dcm", data, image.shape, syntax)).array, image)


def test_rle(tmp_path, noise, dicom):
    image = noise(31, 28, 4095)
    dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm", image.tobytes(), image.shape))
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(read_pixels(tmp_path / "rle.dcm").array, image)


def test_eight_and_twelve_bit_jpeg_are_close(tmp_path, noise, dicom):
    eight, twelve = noise(64, 48, 255), noise(64, 48, 4095)
    frame = imagecodecs.jpeg8_encode(eight, level=98)
    path = dicom(tmp_path / "8.dcm", [frame], eight.shape, JPEG, bits=8, allocated=8)
    assert np.abs(read_pixels(path).array.astype(int) - eight).max() <= 3
    frame = imagecodecs.jpeg8_encode(twelve, level=98, bitspersample=12)
    path = dicom(tmp_path / "12.dcm", [frame], twelve.shape, EXTENDED)
    assert np.abs(read_pixels(path).array.astype(int) - twelve).max() <= 16


def test_signed_values_are_raised_by_half_their_range(tmp_path, dicom):
    image = np.array([[-2048, -1], [0, 2047]], np.int16)
    pixels = read_pixels(dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, signed=True))
    np.testing.assert_array_equal(pixels.array, [[0, 2047], [2048, 4095]])
    inverted = dicom(tmp_path / "b.dcm", image.tobytes(), image.shape, photometric="MONOCHROME1", signed=True)
    np.testing.assert_array_equal(read_pixels(inverted).array, [[4095, 2048], [2047, 0]])


def test_rescale_and_window_leave_stored_values_alone(tmp_path, noise, dicom):
    image = noise(20, 20, 4095)
    extra = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "100", "WindowWidth": "50"}
    np.testing.assert_array_equal(
        read_pixels(dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, **extra)).array, image
    )


def test_bits_above_those_stored_are_no_part_of_the_value(tmp_path, noise, dicom):
    image = noise(20, 20, 4095)
    overlay = image | 0x8000
    np.testing.assert_array_equal(read_pixels(dicom(tmp_path / "a.dcm", overlay.tobytes(), image.shape)).array, image)


def test_one_bit_masks_become_black_and_white(tmp_path, dicom):
    mask = np.random.default_rng(0).random((16, 24)) > 0.5
    data = np.packbits(mask.ravel(), bitorder="little").tobytes()
    pixels = read_pixels(dicom(tmp_path / "a.dcm", data, mask.shape, bits=1, allocated=1))
    assert pixels.bits == 8
    np.testing.assert_array_equal(pixels.array, np.where(mask, 255, 0))


def test_frames_are_chosen_and_counted(tmp_path, noise, dicom):
    images = [noise(24, 20, 4095, seed) for seed in range(3)]
    path = dicom(tmp_path / "a.dcm", [imagecodecs.jpegls_encode(image) for image in images], (24, 20), JPEG_LS)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read_pixels(path, number).array, image)
    assert "frame 3 was asked for" in reason(path, 3)


def test_native_colour_and_planes(tmp_path, noise, dicom):
    image = noise(20, 30, 255, channels=3)
    form = {"photometric": "RGB", "bits": 8, "allocated": 8}
    np.testing.assert_array_equal(
        read_pixels(dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, **form)).array, image
    )
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes()
    path = dicom(tmp_path / "b.dcm", planes, image.shape, PlanarConfiguration=1, **form)
    np.testing.assert_array_equal(read_pixels(path).array, image)


@pytest.mark.parametrize(
    "coding",
    [
        (JPEG, "YBR_FULL_422", lambda image: imagecodecs.jpeg8_encode(image, level=99)),
        (JPEG, "YBR_FULL", lambda image: imagecodecs.jpeg8_encode(image, level=99)),
        (JPEG, "RGB", lambda image: imagecodecs.jpeg8_encode(image, level=99, outcolorspace="RGB")),
        (JPEG_2000, "YBR_RCT", lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", mct=True)),
        (JPEG_2000, "RGB", lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", mct=False)),
        (JPEG_LS, "RGB", imagecodecs.jpegls_encode),
    ],
)
def test_colour_comes_out_as_rgb(tmp_path, noise, dicom, coding):
    syntax, photometric, encode = coding
    image = np.dstack([noise(48, 64, 255, seed) for seed in range(3)])
    path = dicom(tmp_path / "a.dcm", [encode(image)], image.shape, syntax, photometric, bits=8, allocated=8)
    difference = np.abs(read_pixels(path).array.astype(int) - image)
    assert difference.max() <= (16 if syntax == JPEG else 0)
    assert difference.mean() < 3


def test_palette_colour(tmp_path, dicom):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    tables = {}
    for name, values in (("Red", [255, 0, 0, 0]), ("Green", [0, 255, 0, 0]), ("Blue", [0, 0, 255, 0])):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        tables[f"{name}PaletteColorLookupTableData"] = bytes(values)
    path = dicom(
        tmp_path / "a.dcm", indices.tobytes(), (2, 2), photometric="PALETTE COLOR", bits=8, allocated=8, **tables
    )
    expected = 255 * np.eye(3, dtype=np.uint8)[indices]
    np.testing.assert_array_equal(read_pixels(path).array, expected)


def test_refusals_name_the_cause(tmp_path, noise, dicom):
    image = noise(20, 20, 4095)
    form = (image.tobytes(), image.shape)
    assert "high bit" in reason(dicom(tmp_path / "a.dcm", *form, HighBit=15))
    assert "32 bits" in reason(dicom(tmp_path / "b.dcm", image.tobytes() * 2, image.shape, bits=32, allocated=32))
    frame = imagecodecs.jpegls_encode(image)
    assert "transfer syntax" in reason(dicom(tmp_path / "c.dcm", [frame], (20, 20), "1.2.840.10008.1.2.4.100"))
    assert "20 x 20 x 1, its header says 20 x 21 x 1" in reason(dicom(tmp_path / "d.dcm", [frame], (20, 21), JPEG_LS))
    assert "cut short" in reason(dicom(tmp_path / "e.dcm", [frame[:-20]], (20, 20), JPEG_LS))
    assert "not JPEG" in reason(dicom(tmp_path / "f.dcm", [b"\x00\x01\xff\xd9"], (20, 20), JPEG_LS))
    high = imagecodecs.jpegls_encode(image * 16)
    assert "12 bits stored but holds values beyond" in reason(dicom(tmp_path / "g.dcm", [high], (20, 20), JPEG_LS))


def test_a_jpeg_2000_frame_of_countless_tiles_is_refused(tmp_path, noise, dicom):
    frame = bytearray(imagecodecs.jpeg2k_encode(noise(256, 256, 255), codecformat="j2k"))
    frame[24:32] = (1).to_bytes(4, "big") * 2  # tile width and height in the SIZ segment
    path = dicom(tmp_path / "a.dcm", [bytes(frame)], (256, 256), JPEG_2000, bits=8, allocated=8)
    assert f"65536 tiles; at most {codecs.MAX_TILES}" in reason(path)


@pytest.mark.parametrize("predictor", [5, 6, 7])
def test_signed_lossless_jpeg_whose_predictor_halves_is_refused(tmp_path, noise, dicom, predictor):
    frame = jpeg_lossless(noise(20, 20, 65535), predictor, 16)
    path = dicom(tmp_path / "a.dcm", [frame], (20, 20), LOSSLESS, bits=16, signed=True)
    assert f"predictor {predictor} of signed samples" in reason(path)
    unsigned = dicom(tmp_path / "b.dcm", [frame], (20, 20), LOSSLESS, bits=16)
    np.testing.assert_array_equal(read_pixels(unsigned).array, noise(20, 20, 65535))


def test_without_a_preamble(tmp_path, noise, dicom):
    image = noise(20, 20, 4095)
    data = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape).read_bytes()
    (tmp_path / "b.dcm").write_bytes(data[132:])
    np.testing.assert_array_equal(read_pixels(tmp_path / "b.dcm").array, image)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    syntax=st.sampled_from([EXPLICIT, DEFLATED, SV1, JPEG_LS, JPEG_2000]),
    damage=st.tuples(
        st.one_of(st.none(), st.floats(0, 1, exclude_max=True)),
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    ),
)
def test_damage_is_read_or_rejected_and_nothing_else(tmp_path, noise, dicom, syntax, damage):
    cut, changes = damage
    image = noise(24, 20, 4095)
    content = [ENCODERS[syntax](image)] if syntax in ENCODERS else image.tobytes()
    data = bytearray(dicom(tmp_path / "a.dcm", content, image.shape, syntax).read_bytes())
    for share, value in changes:
        data[int(share * len(data))] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    (tmp_path / "a.dcm").write_bytes(data)
    try:
        pixels = read_pixels(tmp_path / "a.dcm")
    except RejectedImageError as error:
        assert "CANARY" not in str(error)
    else:
        assert pixels.array.max() < 2**pixels.bits
        if not changes:
            np.testing.assert_array_equal(pixels.array, image)


GOOD = {
    "CT2_JPLL": ((512, 512), 16),
    "JLSN_RGB_ILV0.dcm": ((256, 256, 3), 8),
    "MG1_J2KI": ((4664, 3064), 12),
    "MR3_J2KR": ((512, 512), 16),
    "NM1_JLSL": ((1024, 256), 16),
    "NM1_JPLY": ((1024, 256), 12),
    "NM1_RLE": ((1024, 256), 16),
    "bad_sequence.dcm": ((512, 512), 12),  # odd header, whole pixels
    "explicit_VR-UN.dcm": ((512, 512), 16),
    "liver.dcm": ((512, 512), 8),
}


@pytest.mark.parametrize("name", GOOD)
def test_real_files_decode(test_data, name):
    pixels = read_pixels(test_data / "dicom" / name)
    assert (pixels.array.shape, pixels.bits) == GOOD[name]
    assert pixels.array.max() > pixels.array.min()


def test_two_codecs_of_one_real_image_agree(test_data):
    np.testing.assert_array_equal(
        read_pixels(test_data / "dicom" / "NM1_RLE").array, read_pixels(test_data / "dicom" / "NM1_JLSL").array
    )


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("emri_small_jpeg_2k_lossless_too_short.dcm", "ends without a delimiter"),
        ("JPEGLossless_1s_1f_i_16_16_bad.dcm", "predictor 6 of signed samples"),
    ],
)
def test_real_broken_files_are_rejected(test_data, name, cause):
    assert cause in reason(test_data / "dicom" / name)


def test_a_real_frame_cut_anywhere_is_rejected(test_data, tmp_path):
    data = (test_data / "dicom" / "CT2_JPLL").read_bytes()
    frame = get_frame(pydicom.dcmread(test_data / "dicom" / "CT2_JPLL").PixelData, 0, number_of_frames=1)
    for share in np.linspace(0.05, 0.99, 12):
        (tmp_path / "a.dcm").write_bytes(data[: len(data) - int(len(frame) * share)])
        assert reason(tmp_path / "a.dcm")
