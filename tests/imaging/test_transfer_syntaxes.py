"""Every transfer syntax gives the pixels that were put in, and real files those that another decoder finds."""

import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import slow_jpeg
from PIL import Image
from pydicom.encaps import encapsulate, get_frame

from spicula.errors import RejectedImageError
from spicula.imaging.display import read_display
from spicula.imaging.readers import read_pixels

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{n}" for n in ("", ".1", ".2", ".1.99"))
BASELINE, EXTENDED, LOSSLESS, SV1 = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS, NEAR, JPEG_2000, LOSSY_2000 = (f"1.2.840.10008.1.2.4.{n}" for n in (80, 81, 90, 91))
HTJ2K, HTJ2K_RPCL, LOSSY_HTJ2K = (f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
RLE = "1.2.840.10008.1.2.5"

NATIVE = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big-endian": BIG, "deflated": DEFLATED}


def lossless_jpeg(predictor: int) -> Callable[[np.ndarray, int], bytes]:
    return lambda cells, bits: imagecodecs.jpeg8_encode(cells, lossless=True, predictor=predictor, bitspersample=bits)


def rle(cells: np.ndarray, bits: int) -> bytes:
    """PS3.5 annex G: the bytes of each significance in a segment of their own, the highest first."""
    planes = [cells >> np.array(8 * n).astype(cells.dtype) for n in reversed(range(cells.dtype.itemsize))]
    segments = [
        b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in (plane & 0xFF).astype(np.uint8))
        for plane in planes
    ]
    segments = [segment + bytes(len(segment) % 2) for segment in segments]
    offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return np.array([len(segments), *offsets, *[0] * (15 - len(segments))], "<u4").tobytes() + b"".join(segments)


ENCODERS = {
    **{f"jpeg-lossless-{predictor}": (LOSSLESS, lossless_jpeg(predictor)) for predictor in range(1, 8)},
    "jpeg-lossless-sv1": (SV1, lossless_jpeg(1)),
    "jpeg-ls": (JPEG_LS, lambda cells, bits: imagecodecs.jpegls_encode(cells)),
    "jpeg-2000": (
        JPEG_2000,
        lambda cells, bits: imagecodecs.jpeg2k_encode(cells, level=0, codecformat="j2k", bitspersample=bits),
    ),
    "htj2k": (HTJ2K, lambda cells, bits: imagecodecs.htj2k_encode(cells)),
    "htj2k-rpcl": (HTJ2K_RPCL, lambda cells, bits: imagecodecs.htj2k_encode(cells)),
    "rle": (RLE, rle),
}
DEPTHS = [(8, 8), (10, 16), (12, 16), (14, 16), (16, 16)]


def picture(noise, bits: int, signed: bool = False) -> np.ndarray:
    """Smooth, with every bit in use somewhere; values, not cells."""
    values = noise(40, 50, 2**bits - 1).astype(np.int32)
    values[0, :4] = 0, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1
    return values - 2 ** (bits - 1) if signed else values


def cells_of(values: np.ndarray, bits: int, allocated: int) -> np.ndarray:
    """Two's complement of `bits` in unsigned cells."""
    return (values & (2**bits - 1)).astype(np.uint8 if allocated == 8 else np.uint16)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("form", [(*depth, signed) for depth in DEPTHS for signed in (False, True)], ids=str)
def test_native_encodings_are_exact(tmp_path, noise, dicom, syntax, form):
    bits, allocated, signed = form
    values = picture(noise, bits, signed)
    order = ">" if syntax == "big-endian" else "<"
    data = (
        values.astype(f"{order}i2").tobytes() if allocated == 16 else values.astype(np.int16).astype(np.int8).tobytes()
    )
    path = dicom(tmp_path / "a.dcm", data, values.shape, NATIVE[syntax], bits=bits, allocated=allocated, signed=signed)
    expected = values + (2 ** (bits - 1) if signed else 0)
    np.testing.assert_array_equal(read_pixels(path).array, expected)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("depth", DEPTHS, ids=str)
def test_lossless_codecs_are_exact(tmp_path, noise, dicom, name, depth):
    (syntax, encode), (bits, allocated) = ENCODERS[name], depth
    values = picture(noise, bits)
    frame = encode(cells_of(values, bits, allocated), bits)
    path = dicom(tmp_path / "a.dcm", [frame], values.shape, syntax, bits=bits, allocated=allocated)
    pixels = read_pixels(path)
    assert pixels.bits == bits
    np.testing.assert_array_equal(pixels.array, values)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name[-1] not in "567"])
@pytest.mark.parametrize("depth", DEPTHS, ids=str)
def test_lossless_codecs_keep_the_sign(tmp_path, noise, dicom, name, depth):
    (syntax, encode), (bits, allocated) = ENCODERS[name], depth
    values = picture(noise, bits, signed=True)
    cells = cells_of(values, bits, allocated)
    if name.startswith("htj2k"):  # its encoder takes no precision but that of the type
        cells = values.astype(np.int8 if allocated == 8 else np.int16)
    path = dicom(
        tmp_path / "a.dcm", [encode(cells, bits)], values.shape, syntax, bits=bits, allocated=allocated, signed=True
    )
    np.testing.assert_array_equal(read_pixels(path).array, values + 2 ** (bits - 1))


@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (12, 16), (16, 16)])
def test_a_jpeg_2000_codestream_of_signed_samples(tmp_path, noise, dicom, bits, allocated):
    values = picture(noise, bits, signed=True).astype(np.int8 if allocated == 8 else np.int16)
    frame = imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=bits)
    form = {"bits": bits, "allocated": allocated, "signed": True}
    path = dicom(tmp_path / "a.dcm", [frame], values.shape, JPEG_2000, **form)
    np.testing.assert_array_equal(read_pixels(path).array, values.astype(int) + 2 ** (bits - 1))


@pytest.mark.parametrize("top", [2047, 4095])
def test_signed_samples_of_fewer_bits_than_the_header_says_are_read_only_without_a_sign(tmp_path, noise, dicom, top):
    image = noise(24, 20, top)
    path = dicom(tmp_path / "a.dcm", [lossless_jpeg(1)(image, 12)], image.shape, SV1, bits=16, signed=True)
    if top == 2047:
        np.testing.assert_array_equal(read_pixels(path).array, image.astype(int) + 2**15)
    else:
        with pytest.raises(RejectedImageError, match="12 bits a sample, its header says 16 with a sign"):
            read_pixels(path)


LOSSY = {
    "jpeg-baseline": (BASELINE, 8, lambda cells: imagecodecs.jpeg8_encode(cells, level=95), 4),
    "jpeg-extended-8": (EXTENDED, 8, lambda cells: imagecodecs.jpeg8_encode(cells, level=95), 4),
    "jpeg-extended-12": (
        EXTENDED,
        12,
        lambda cells: imagecodecs.jpeg8_encode(cells, level=95, bitspersample=12),
        40,
    ),
    "jpeg-ls-near": (NEAR, 12, lambda cells: imagecodecs.jpegls_encode(cells, level=3), 3),
    "jpeg-2000": (
        LOSSY_2000,
        12,
        lambda cells: imagecodecs.jpeg2k_encode(cells, level=60, codecformat="j2k", bitspersample=12, reversible=False),
        32,
    ),
    "htj2k": (LOSSY_HTJ2K, 12, lambda cells: imagecodecs.htj2k_encode(cells, level=0.0005, reversible=False), 60),
}


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_codecs_are_close(tmp_path, noise, dicom, name):
    syntax, bits, encode, tolerance = LOSSY[name]
    values = np.clip(noise(64, 56, 2**bits - 1), 2**bits // 16, 2**bits - 2**bits // 16)
    path = dicom(
        tmp_path / "a.dcm", [encode(values)], values.shape, syntax, bits=bits, allocated=8 if bits == 8 else 16
    )
    difference = np.abs(read_pixels(path).array.astype(int) - values)
    assert difference.max() <= tolerance
    shown = read_display(path, bits=8).array
    assert shown.max() == 255
    assert shown.min() == 0


@pytest.mark.parametrize("name", ["jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000", "rle"])
@pytest.mark.parametrize("table", ["empty", "filled", "wrong"])
def test_frames_in_one_fragment_each_whatever_the_offset_table(tmp_path, noise, dicom, name, table):
    syntax, encode = ENCODERS[name]
    images = [noise(24, 20, 4095, seed) for seed in range(4)]
    frames = [encode(image, 12) for image in images]
    data = encapsulate(frames, has_bot=table != "empty")
    if table == "wrong":
        data = data[:8] + np.array([0, 7, 10**6, 2**32 - 1], "<u4").tobytes() + data[24:]
    path = dicom(tmp_path / "a.dcm", frames, (24, 20), syntax, PixelData=data)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read_pixels(path, number).array, image)


@pytest.mark.parametrize("table", [False, True])
def test_frames_in_several_fragments(tmp_path, noise, dicom, table):
    images = [noise(24, 20, 4095, seed) for seed in range(3)]
    frames = [imagecodecs.jpegls_encode(image) for image in images]
    path = dicom(
        tmp_path / "a.dcm",
        frames,
        (24, 20),
        JPEG_LS,
        PixelData=encapsulate(frames, fragments_per_frame=3, has_bot=table),
    )
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read_pixels(path, number).array, image)


def test_an_offset_table_that_points_to_where_no_frame_begins(tmp_path, noise, dicom):
    frames = [imagecodecs.jpegls_encode(noise(24, 20, 4095, seed)) for seed in range(2)]
    data = encapsulate(frames, fragments_per_frame=2, has_bot=True)
    wrong = data[:12] + (4).to_bytes(4, "little") + data[16:]
    with pytest.raises(RejectedImageError, match="points to where no frame begins"):
        read_pixels(dicom(tmp_path / "a.dcm", frames, (24, 20), JPEG_LS, PixelData=wrong))


def test_one_frame_of_a_native_file_is_read_alone(tmp_path, noise, dicom):
    images = [noise(24, 20, 4095, seed) for seed in range(5)]
    data = b"".join(image.tobytes() for image in images)
    path = dicom(tmp_path / "a.dcm", data, (24, 20), NumberOfFrames=5)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read_pixels(path, number).array, image)


def test_eight_bit_words_of_a_big_endian_file_are_exchanged(tmp_path, noise, dicom):
    images = [noise(5, 7, 255, seed) for seed in range(3)]  # odd frames: words lie across their borders
    data = b"".join(image.tobytes() for image in images) + b"\0"
    swapped = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    path = dicom(tmp_path / "a.dcm", swapped, (5, 7), BIG, bits=8, allocated=8, NumberOfFrames=3)
    dataset = pydicom.dcmread(path)
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(read_pixels(path, number).array, image)


@pytest.mark.parametrize("syntax", [EXPLICIT, RLE])
def test_overlay_bits_in_native_and_rle_cells_are_masked(tmp_path, noise, dicom, syntax):
    image = noise(24, 20, 4095)
    cells = image | np.uint16(0x8000) * (noise(24, 20, 1, 7).astype(np.uint16))
    data = [rle(cells, 16)] if syntax == RLE else cells.tobytes()
    np.testing.assert_array_equal(read_pixels(dicom(tmp_path / "a.dcm", data, image.shape, syntax)).array, image)


@pytest.mark.parametrize("name", ["jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000"])
def test_overlay_bits_in_codestreams_are_masked_where_the_header_declares_them(tmp_path, noise, dicom, name):
    syntax, encode = ENCODERS[name]
    image = noise(24, 20, 4095)
    frame = encode(image | np.uint16(0x4000), 16)
    path = dicom(tmp_path / "a.dcm", [frame], image.shape, syntax)
    with pytest.raises(RejectedImageError, match="12 bits stored but holds values beyond"):
        read_pixels(path)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 14)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_pixels(path).array, image)


@pytest.mark.parametrize("syntax", [EXPLICIT, RLE])
def test_a_high_bit_above_the_stored_ones(tmp_path, noise, dicom, syntax):
    image = noise(24, 20, 4095)
    cells = image << 4
    data = [rle(cells, 16)] if syntax == RLE else cells.tobytes()
    path = dicom(tmp_path / "a.dcm", data, image.shape, syntax, HighBit=15)
    np.testing.assert_array_equal(read_pixels(path).array, image)


# Real files and, for each, another decoder, by other people than the one that Spicula uses.
OTHERS = {
    "CT2_JPLL": "pylibjpeg",
    "JLSN_RGB_ILV0.dcm": "pylibjpeg",
    "MG1_J2KI": "pylibjpeg",
    "MR3_J2KR": "pylibjpeg",
    "NM1_JLSL": "pylibjpeg",
    "NM1_JPLY": "slow_jpeg",
    "NM1_RLE": "pydicom",
    "bad_sequence.dcm": "pylibjpeg",
    "explicit_VR-UN.dcm": "pylibjpeg",
    "liver.dcm": "",
}


def decoded_by(decoder: str, path: Path) -> np.ndarray:
    """What another decoder finds, in our form."""
    dataset = pydicom.dcmread(path, force=True)
    if decoder == "slow_jpeg":  # pylibjpeg refuses this file
        return slow_jpeg.decode(get_frame(dataset.PixelData, 0, number_of_frames=1))
    if decoder == "pylibjpeg":
        pytest.importorskip(decoder, reason="the other decoder")
    array = pydicom.pixels.pixel_array(dataset, index=0, decoding_plugin=decoder)
    if dataset.PixelRepresentation:
        array = array.astype(int) + 2 ** (dataset.BitsStored - 1)
    return array * 255 if dataset.BitsStored == 1 else array


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore")  # pydicom's, about odd headers
def test_real_files_decode_as_another_decoder_does(test_data, name):
    expected = decoded_by(OTHERS[name], test_data / "dicom" / name)
    ours = read_pixels(test_data / "dicom" / name).array
    if name in ("MG1_J2KI", "NM1_JPLY"):  # lossy: decoders may round a level differently
        assert np.abs(ours.astype(int) - expected).max() <= 1
    else:
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("bits", "syntax"), [(8, BASELINE), (12, EXTENDED)])
def test_the_other_jpeg_decoder_agrees_on_generated_frames(tmp_path, noise, dicom, bits, syntax):
    image = noise(43, 37, 2**bits - 1)
    frame = imagecodecs.jpeg8_encode(image, level=90, bitspersample=bits)
    path = dicom(tmp_path / "a.dcm", [frame], image.shape, syntax, bits=bits, allocated=8 if bits == 8 else 16)
    assert np.abs(read_pixels(path).array.astype(int) - slow_jpeg.decode(frame)).max() <= 1


@pytest.mark.parametrize("name", ["CT2_JPLL", "MG1_J2KI", "MR3_J2KR", "NM1_RLE", "bad_sequence.dcm"])
@pytest.mark.parametrize("syntax", ["explicit", "deflated"])
@pytest.mark.filterwarnings("ignore")
def test_real_files_give_the_same_pixels_uncompressed(test_data, tmp_path, name, syntax):
    decoder = "pydicom" if name.endswith("RLE") else "pylibjpeg"
    if decoder == "pylibjpeg":
        for module in ("libjpeg", "openjpeg"):
            pytest.importorskip(module, reason="another decoder to compare with: pip install 'spicula[peers]'")
    dataset = pydicom.dcmread(test_data / "dicom" / name)
    dataset.decompress(decoding_plugin=decoder, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(NATIVE[syntax])
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    ours, native = read_pixels(test_data / "dicom" / name), read_pixels(tmp_path / "a.dcm")
    assert ours.bits == native.bits
    assert np.abs(ours.array.astype(int) - native.array).max() <= (1 if name == "MG1_J2KI" else 0)
    shown = read_display(test_data / "dicom" / name).array, read_display(tmp_path / "a.dcm").array
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= (17 if name == "MG1_J2KI" else 0)


def test_the_real_film_is_decoded_by_pillow_alike(test_data):
    dataset = pydicom.dcmread(test_data / "dicom" / "MG1_J2KI")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    expected = np.asarray(Image.open(io.BytesIO(frame))) >> 4  # Pillow stretches 12 bits to 16
    ours = read_pixels(test_data / "dicom" / "MG1_J2KI").array
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_every_real_file_is_read_or_refused_with_a_reason(test_data):
    outcomes = {}
    for path in sorted((test_data / "dicom").iterdir()):
        try:
            outcomes[path.name] = read_pixels(path)
        except RejectedImageError as error:
            outcomes[path.name] = str(error)
    refused = {name for name, outcome in outcomes.items() if isinstance(outcome, str)}
    assert refused == {"JPEGLossless_1s_1f_i_16_16_bad.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}
    assert outcomes.keys() - refused == OTHERS.keys()
