"""Reading the images of an exam, and storing crops."""

import hashlib
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image as PillowImage

from spicula import stores
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.convert import png
from spicula.errors import RejectedImageError
from spicula.exams import reading
from spicula.exams.reading import StaleImageError, encode_crop, read_crop, read_image, to_16_bits
from spicula.exams.stages.crop import crop
from spicula.exams.types import VIEWS, ImageFile, RefusedExamError
from spicula.files import sha256_file
from spicula.imaging.readers import Pixels, read_pixels
from spicula.phantoms import make_exams


def file_at(path, **others) -> ImageFile:
    return ImageFile("a", "L-CC", str(path), sha256_file(path), **others)


def write(path, array):
    path.write_bytes(png.encode(array))
    return file_at(path)


def refusal(file: ImageFile) -> str:
    with pytest.raises(RefusedExamError) as caught:
        read_image(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return make_exams(tmp_path_factory.mktemp("exams"), 6, seed=3, size=(160, 130), jobs=1)


def test_a_png_of_16_bits_stays_as_it_is(tmp_path):
    array = np.array([[0, 1, 4095], [4096, 65534, 65535]], np.uint16)
    image = read_image(write(tmp_path / "a.png", array))
    np.testing.assert_array_equal(image.pixels, array)
    assert (image.name, image.view, image.mirrored, image.pixels.dtype) == ("a", "L-CC", None, np.uint16)


def test_dicom_is_scaled_to_16_bits_whatever_its_polarity(phantoms):
    import pydicom

    polarities = set()
    for path in sorted(phantoms.rglob("L-CC.dcm")):
        header = pydicom.dcmread(path)
        polarities.add(header.PhotometricInterpretation)
        stored = header.pixel_array.astype(np.float64)
        if header.PhotometricInterpretation == "MONOCHROME1":
            stored = 4095 - stored
        image = read_image(file_at(path, mirrored=True))
        np.testing.assert_array_equal(image.pixels, np.rint(stored * 65535 / 4095))
        assert image.pixels.min() == 0
        assert image.mirrored is True
    assert polarities == {"MONOCHROME1", "MONOCHROME2"}


def test_dicom_studies_need_no_guard(phantoms):
    settings = ScreeningSettings(cc=(167, 121), mlo=(186, 109), erosions=6, buffer=3, shift=10, resize=10)
    for exam in sorted(phantoms.iterdir()):
        paths = {view: exam / f"{view}.dcm" for view in VIEWS}
        images = [read_image(ImageFile(view, view, str(path), sha256_file(path))) for view, path in paths.items()]
        for one in crop(images, settings):
            assert not one.mirrored
            assert all(note.endswith("part of it may be missing") for note in one.notes)  # one meets the lower border


@pytest.mark.parametrize("bits", range(10, 17))
def test_every_value_is_rounded_exactly(bits):
    values = np.arange(2**bits, dtype=np.uint16).reshape(2, -1)
    wanted = [round(int(v) * 65535 / (2**bits - 1)) for v in values.ravel()]
    found = to_16_bits(values.copy(), bits)
    assert found.ravel().tolist() == wanted
    assert found.max() == 65535


def test_the_frame_that_is_asked_for_is_read(tmp_path):
    pages = [np.full((4, 5), value, np.uint16) for value in (100, 200)]
    first, *others = [PillowImage.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    file = file_at(tmp_path / "a.tif", frame=1)
    np.testing.assert_array_equal(read_image(file).pixels, pages[1])


def stale(file: ImageFile) -> str:
    with pytest.raises(StaleImageError) as caught:
        read_image(file)
    return str(caught.value)


def test_a_file_that_changed_is_stale(tmp_path):
    file = write(tmp_path / "a.png", np.ones((4, 5), np.uint16))
    write(tmp_path / "a.png", np.full((4, 5), 2, np.uint16))
    assert stale(file) == "a (L-CC): it changed after it was indexed; index the images again"


def test_a_file_that_changes_while_it_is_read_is_stale(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    file = write(path, np.ones((4, 5), np.uint16))

    def read_what_was_exchanged(asked, frame):
        write(path, np.full((4, 6), 2, np.uint16))
        return read_pixels(asked, frame)

    monkeypatch.setattr(reading, "read_pixels", read_what_was_exchanged)
    assert stale(file) == "a (L-CC): it changed while it was read; index the images again"


def test_a_file_that_is_gone_is_stale(tmp_path):
    file = write(tmp_path / "a.png", np.ones((4, 5), np.uint16))
    (tmp_path / "a.png").unlink()
    assert stale(file) == "a (L-CC): its file is gone; index the images again"


def test_what_the_disk_fails_to_give_is_no_refusal(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_image(ImageFile("a", "L-CC", str(tmp_path), "0" * 64))


def test_a_file_that_is_replaced_while_it_is_read_is_not_refused_for_good(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    file = write(path, np.ones((4, 5), np.uint16))

    def read_what_was_exchanged(asked, frame):
        path.write_bytes(b"half")
        return read_pixels(asked, frame)

    monkeypatch.setattr(reading, "read_pixels", read_what_was_exchanged)
    assert stale(file) == "a (L-CC): it changed while it was read; index the images again"


@pytest.fixture
def stored(object_store, tmp_path, monkeypatch):
    """A function that puts an image into a bucket, and returns how an exam names it; no copy stays on the disk."""
    stores.shared.cache_clear()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def put(array):
        there = write(tmp_path / "a.png", array)
        object_store.put("in/MEIER EVA #1/a.png", (tmp_path / "a.png").read_bytes())
        return replace(there, path=f"{object_store.address}/in/MEIER EVA #1/a.png")

    yield put
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_object_is_read_as_a_file_is(stored):
    array = np.arange(20, dtype=np.uint16).reshape(4, 5)
    np.testing.assert_array_equal(read_image(stored(array)).pixels, array)


def test_an_object_that_changed_or_is_gone_is_stale(stored, object_store):
    file = stored(np.ones((4, 5), np.uint16))
    object_store.put("in/MEIER EVA #1/a.png", b"another")
    assert stale(file) == "a (L-CC): it changed after it was indexed; index the images again"
    object_store.remove("in/MEIER EVA #1/a.png")
    assert stale(file) == "a (L-CC): its file is gone; index the images again"


def test_a_damaged_object_is_refused(stored):
    assert "8 bits a pixel" in refusal(stored(np.ones((4, 5), np.uint8)))


def test_a_store_that_does_not_answer_is_no_refusal(s3_store, monkeypatch):
    stores.shared.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    file = ImageFile("a", "L-CC", f"{s3_store.address}/MEIER/a.png", "0" * 64)
    with pytest.raises(OSError, match=rf"^a \(L-CC\): {s3_store.address} cannot be read: .*127.0.0.1:1") as error:
        read_image(file)
    assert "MEIER" not in str(error.value)
    assert "\n" not in str(error.value)
    stores.shared.cache_clear()


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png.encode(np.ones((40, 50), np.uint16))[:-20])
    assert refusal(file_at(path)).startswith("a (L-CC): it is cut short or damaged")


def test_a_picture_of_8_bits_is_refused(tmp_path):
    assert refusal(write(tmp_path / "a.png", np.ones((4, 5), np.uint8))) == (
        "a (L-CC): it has 8 bits a pixel, the classifier needs 10 or more: give the DICOM file, or a PNG of 16 bits"
    )


def test_a_picture_in_colour_is_refused(tmp_path):
    file = write(tmp_path / "a.png", np.ones((4, 5, 3), np.uint16))
    assert refusal(file) == "a (L-CC): it is in colour; a mammogram is grey: give the original image"


def test_what_a_dicom_file_says_of_a_person_is_in_no_refusal(phantoms, tmp_path, monkeypatch):
    path = next(phantoms.rglob("L-CC.dcm"))
    monkeypatch.setattr(reading, "read_pixels", lambda path, frame: Pixels(np.ones((2, 2), np.uint8), 8))
    assert "SYNTHETIC" not in refusal(file_at(path))
    assert str(path) not in refusal(file_at(path))


@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_crops_come_back_as_they_were(pixels):
    found = read_crop(encode_crop(pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == np.uint16


def test_a_crop_is_always_the_same_bytes():
    pixels = np.random.default_rng(0).integers(0, 4096, (60, 40)).astype(np.uint16)
    assert hashlib.sha256(encode_crop(pixels)).digest() == hashlib.sha256(encode_crop(pixels[:].copy())).digest()


@given(st.data())
def test_a_damaged_crop_is_rejected_or_read(data):
    stored = bytearray(encode_crop(np.arange(600, dtype=np.uint16).reshape(20, 30)))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read_crop(bytes(stored))
    except RejectedImageError:
        return
    np.testing.assert_array_equal(found, np.arange(600, dtype=np.uint16).reshape(20, 30))


@pytest.mark.parametrize("array", [np.ones((2, 3), np.uint8), np.ones((2, 3, 3), np.uint16)])
def test_only_16_bits_of_grey_are_crops(array):
    with pytest.raises(RejectedImageError, match="not a PNG of 16 bits in grey"):
        read_crop(png.encode(array))


def test_bytes_that_are_no_png_are_no_crop():
    for data in (b"", b"PNG", b"\x89PNG\r\n\x1a\n", encode_crop(np.ones((3, 3), np.uint16))[:40]):
        with pytest.raises(RejectedImageError):
            read_crop(data)
