import struct
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from spicula.errors import RejectedImageError
from spicula.imaging.readers import read_pixels

GREY = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40)
DEEP = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 50
COLOUR = np.dstack([GREY, 255 - GREY, GREY // 2])


def reason(path: Path, frame: int = 0) -> str:
    with pytest.raises(RejectedImageError) as error:
        read_pixels(path, frame)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm", ".bmp.png"])
@pytest.mark.parametrize("image", [GREY, DEEP])
def test_grey_files_give_their_values_back(tmp_path, suffix, image):
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), image)
    pixels = read_pixels(path)
    assert pixels.array.dtype == image.dtype
    assert pixels.bits == 8 * image.dtype.itemsize
    np.testing.assert_array_equal(pixels.array, image)


@pytest.mark.parametrize("suffix", ["png", "tiff", "ppm"])
def test_colour_files_give_rgb(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(COLOUR).save(path)
    np.testing.assert_array_equal(read_pixels(path).array, COLOUR)


def test_jpeg_is_close_and_its_exif_orientation_is_ignored(tmp_path):
    smooth = np.dstack([np.tile(np.linspace(0, 255, 40), (30, 1))] * 3).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees to show
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, exif=exif)
    pixels = read_pixels(tmp_path / "a.jpg")
    assert pixels.array.shape == (30, 40, 3)
    assert np.abs(pixels.array.astype(int) - smooth).max() < 12


def test_the_name_says_nothing(tmp_path):
    (tmp_path / "a.dcm").write_bytes(cv2.imencode(".png", GREY)[1].tobytes())
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm").array, GREY)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_pages_of_a_tiff_are_frames(tmp_path, compression):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif", 1).array, 255 - GREY)
    assert "frame 2 was asked for" in reason(tmp_path / "a.tif", 2)
    assert "frame -1" in reason(tmp_path / "a.tif", -1)


def test_alpha_is_dropped(tmp_path):
    Image.fromarray(np.dstack([COLOUR, GREY])).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "rgba.png").array, COLOUR)
    Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "la.png").array, GREY)


def test_sixteen_bit_grey_with_alpha_stays_grey(tmp_path):
    row = b"".join(struct.pack(">HH", 257 * value, 65535) for value in (0, 100, 255))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 16, 4, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(png + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b""))
    pixels = read_pixels(tmp_path / "a.png")
    assert pixels.bits == 16
    np.testing.assert_array_equal(pixels.array, 257 * np.array([[0, 100, 255]]))


DEEP_COLOUR = np.dstack([DEEP, 65535 - DEEP, DEEP // 3])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colour_of_sixteen_bits_keeps_them(tmp_path, suffix, alpha):
    bgr = DEEP_COLOUR[..., ::-1]
    cv2.imwrite(str(tmp_path / f"a{suffix}"), np.dstack([bgr, DEEP]) if alpha else bgr)
    pixels = read_pixels(tmp_path / f"a{suffix}")
    assert pixels.bits == 16
    np.testing.assert_array_equal(pixels.array, DEEP_COLOUR)


@pytest.mark.parametrize("form", [{}, {"planarconfig": "separate"}, {"byteorder": ">"}, {"compression": "zlib"}])
def test_colour_tiffs_of_sixteen_bits_in_every_layout(tmp_path, form):
    tifffile = pytest.importorskip("tifffile", reason="writes what OpenCV cannot")
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=form.pop("byteorder", "<")) as file:
        for page in (DEEP_COLOUR, DEEP_COLOUR[::-1]):
            array = page.transpose(2, 0, 1) if form.get("planarconfig") else page
            file.write(np.ascontiguousarray(array), photometric="rgb", **form)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif", 1).array, DEEP_COLOUR[::-1])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_palettes_become_rgb_also_with_transparency(tmp_path):
    image = Image.fromarray(GREY % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png", transparency=b"\x00\x80\xff")
    expected = np.eye(3, dtype=np.uint8)[GREY % 3] * 255
    np.testing.assert_array_equal(read_pixels(tmp_path / "p.png").array, expected)


def test_one_bit_becomes_eight(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    pixels = read_pixels(tmp_path / "a.png")
    assert pixels.bits == 8
    np.testing.assert_array_equal(pixels.array, np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"P2\n# made by hand\n3 2\n255\n0 1 2\n3 4 255\n", [[0, 1, 2], [3, 4, 255]]),
        (b"P5 3 2 255\n\x00\x01\x02\x03\x04\xff", [[0, 1, 2], [3, 4, 255]]),
        (b"P5 2 1 65535\n\x01\x02\xff\xff", [[258, 65535]]),
        (b"P5 2 1 4095\n\x00\x00\x0f\xff", [[0, 65535]]),  # stretched to the whole range
        (b"P2 2 1 100\n0 100\n", [[0, 255]]),
    ],
)
def test_pgm_in_all_its_forms(tmp_path, text, expected):
    (tmp_path / "a.pgm").write_bytes(text)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.pgm").array, expected)


def test_a_file_that_is_no_image_is_rejected(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    assert "not an image" in reason(tmp_path / "a.png")
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png")
    assert reason(tmp_path / "missing.png")
    assert reason(tmp_path)


def test_other_formats_of_pillow_stay_closed(tmp_path):
    for suffix in ("gif", "bmp", "webp"):
        Image.fromarray(GREY).save(tmp_path / f"a.{suffix}")
        assert "not an image that Spicula reads" in reason(tmp_path / f"a.{suffix}")


def test_thirty_two_bit_and_float_tiffs_are_rejected(tmp_path):
    cv2.imwrite(str(tmp_path / "f.tiff"), GREY.astype(np.float32))
    assert "pixel type" in reason(tmp_path / "f.tiff")
    Image.fromarray(DEEP.astype(np.int32)).save(tmp_path / "i.tiff")
    assert "32 bits" in reason(tmp_path / "i.tiff")


def test_a_damaged_png_is_rejected_wherever_the_damage(tmp_path):
    data = bytearray(cv2.imencode(".png", DEEP)[1].tobytes())
    for position in (20, len(data) // 2, len(data) - 14):
        broken = bytearray(data)
        broken[position] ^= 1
        (tmp_path / "a.png").write_bytes(broken)
        assert reason(tmp_path / "a.png")


SAMPLES = {
    "grey.png": cv2.imencode(".png", GREY)[1].tobytes(),
    "deep.png": cv2.imencode(".png", DEEP)[1].tobytes(),
    "grey.jpg": cv2.imencode(".jpg", GREY)[1].tobytes(),
    "colour.jpg": cv2.imencode(".jpg", COLOUR, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "binary.pgm": b"P5 40 30 255\n" + GREY.tobytes(),
    "ascii.pgm": b"P2 40 30 255\n" + " ".join(map(str, GREY.ravel())).encode() + b"\n",
    "colour.png": cv2.imencode(".png", np.dstack([DEEP] * 3))[1].tobytes(),
    "colour.tif": cv2.imencode(".tiff", np.dstack([DEEP] * 3))[1].tobytes(),
    "deep.tif": cv2.imencode(".tiff", DEEP)[1].tobytes(),
    "plain.tif": cv2.imencode(".tiff", GREY, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes(),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(SAMPLES)), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_never_gives_partial_pixels(tmp_path, name, share):
    path = tmp_path / name
    path.write_bytes(SAMPLES[name])
    whole = read_pixels(path).array
    path.write_bytes(SAMPLES[name][: int(share * len(SAMPLES[name]))])
    try:
        np.testing.assert_array_equal(read_pixels(path).array, whole)  # only what follows the pixels was cut
    except RejectedImageError as error:
        assert str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_is_read_or_rejected_and_nothing_else(tmp_path, name, changes):
    data = bytearray(SAMPLES[name])
    for share, value in changes:
        data[int(share * len(data))] = value
    (tmp_path / name).write_bytes(data)
    try:
        pixels = read_pixels(tmp_path / name)
    except RejectedImageError as error:
        assert str(error)
    else:
        assert pixels.array.dtype in (np.uint8, np.uint16)
        assert pixels.array.max() < 2**pixels.bits


def test_threads_that_read_leave_the_warning_filters_as_they_were(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), DEEP)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_pixels(tmp_path / "a.png") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_real_files(test_data):
    for path in sorted((test_data / "nyu-exam").glob("*.png")):
        pixels = read_pixels(path)
        assert pixels.array.dtype == np.uint16
        assert 3000 < pixels.array.max() < 4096
    for path in sorted((test_data / "breakhis").rglob("*.png")):
        assert read_pixels(path).array.shape == (460, 700, 3)
