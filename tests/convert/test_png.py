import io
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from spicula.convert import png
from spicula.imaging.readers import read_pixels

IMAGES = st.tuples(
    st.sampled_from([np.uint8, np.uint16]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([(), (3,)]),
).flatmap(lambda kind: arrays.arrays(kind[0], (*kind[1], *kind[2])))


def opened(data):
    """What OpenCV reads, RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., ::-1] if image.ndim == 3 else image


@given(IMAGES)
def test_opencv_reads_the_same_pixels(image):
    read = opened(png.encode(image))
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image)


@given(IMAGES.filter(lambda image: image.dtype == np.uint8 or image.ndim == 2))  # Pillow has no RGB of 16 bits
def test_pillow_reads_the_same_pixels(image):
    data = png.encode(image)
    with Image.open(io.BytesIO(data)) as one:
        one.verify()
    with Image.open(io.BytesIO(data)) as one:
        assert one.mode == ("RGB" if image.ndim == 3 else "L" if image.dtype == np.uint8 else "I;16")
        np.testing.assert_array_equal(np.asarray(one), image)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("direction", ["rows", "columns", "none"])
def test_strict_readers_find_nothing_wrong(tmp_path, dtype, channels, direction):
    """libpng's own checker, on images that take either filter."""
    if not shutil.which("pngcheck"):
        pytest.skip("pngcheck is not installed")
    ramp = np.random.default_rng(0).integers(0, 200, (60, 1, *channels))
    image = np.broadcast_to(ramp, (60, 50, *channels)) if direction == "rows" else np.zeros((60, 50, *channels))
    image = np.broadcast_to(ramp[:50].swapaxes(0, 1), (60, 50, *channels)) if direction == "columns" else image
    path = tmp_path / "image.png"
    path.write_bytes(png.encode(image.astype(dtype)))
    done = subprocess.run(["pngcheck", "-v", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    np.testing.assert_array_equal(read_pixels(path).array, image)


def test_the_filter_follows_the_image():
    noise = np.random.default_rng(0).integers(0, 65536, 300).astype(np.uint16)
    stripes_down, stripes_across = np.tile(noise, (200, 1)), np.tile(noise[:200, None], (1, 300))
    for image in (stripes_down, stripes_across):
        assert len(png.encode(image)) < image.nbytes / 50


def test_a_real_film_is_no_larger_than_by_other_writers(test_data):
    film = read_pixels(test_data / "dicom" / "MG1_J2KI").array
    ours = png.encode(film)
    np.testing.assert_array_equal(opened(ours), film)
    assert len(ours) < 1.02 * len(cv2.imencode(".png", film)[1])


def test_views_and_other_layouts_are_read_as_they_look():
    image = np.arange(600, dtype=np.uint16).reshape(20, 30)
    for view in (image[::-1, ::2], image.T, np.asfortranarray(image)):
        np.testing.assert_array_equal(opened(png.encode(view)), view)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4), ">u2"),
    ],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="grey or RGB"):
        png.encode(image)
