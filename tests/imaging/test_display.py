"""`display` against the equations of DICOM PS3.3, computed here once more, value by value and without numpy."""

import math
import struct

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from spicula.errors import RejectedImageError
from spicula.imaging.display import read_display
from spicula.imaging.readers import read_pixels

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{n}" for n in ("", ".1", ".2", ".1.99"))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def windowed(value, center, width, function):
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1, with y from 0 to 1."""
    if function == "SIGMOID":
        exponent = -4 * (value - center) / width
        return 0.0 if exponent > 700 else 1 / (1 + math.exp(exponent))
    if function == "LINEAR_EXACT":
        if value <= center - width / 2:
            return 0.0
        return 1.0 if value > center + width / 2 else (value - center) / width + 0.5
    if value <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if value > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (value - (center - 0.5)) / (width - 1) + 0.5


def expected(image, brightness, *, slope=1.0, intercept=0.0, inverse=False, padding=None, bits=16):
    """The grey levels of an image, one value after the other."""
    grey = {}
    for value in {int(value) for value in image.ravel()}:
        shown = brightness(slope * value + intercept)
        shown = 1 - shown if inverse else shown
        grey[value] = 0.0 if padding and min(padding) <= value <= max(padding) else shown * (2**bits - 1)
    return np.vectorize(grey.__getitem__, otypes=[float])(image)


def agrees(path, reference, bits=16, **choice):
    pixels = read_display(path, bits=bits, **choice)
    assert (pixels.array.dtype, pixels.bits) == (np.dtype(f"u{bits // 8}"), bits)
    assert np.abs(pixels.array - reference).max() <= 1  # one grey level
    return pixels.array


def reason(path, **choice):
    with pytest.raises(RejectedImageError) as error:
        read_display(path, **choice)
    assert "\n" not in str(error.value)
    assert "CANARY" not in str(error.value)
    return str(error.value)


def all_values(bits, signed=False, columns=64, seed=0):
    """An image of every value that the bits can hold, or 4096 of them, in no order."""
    low = -(2 ** (bits - 1)) if signed else 0
    rng = np.random.default_rng(seed)
    values = np.arange(low, low + 2**bits) if bits <= 12 else rng.integers(low, low + 2**bits, 4096)
    values[:2] = low, low + 2**bits - 1
    values = np.resize(rng.permutation(values), (math.ceil(len(values) / columns), columns))
    return values.astype(("i" if signed else "u") + ("1" if bits <= 8 else "2"))


def test_a_monochrome1_mammogram_with_padding_and_a_sigmoid_from_first_principles(tmp_path):
    """Every byte of the file and every grey level of the result is made here."""

    def element(group, number, vr, value):
        value += b" " if len(value) % 2 and vr != b"UI" else bytes(len(value) % 2)
        long_form = struct.pack("<HI", 0, len(value)) if vr in (b"OW", b"OB") else struct.pack("<H", len(value))
        return struct.pack("<HH2s", group, number, vr) + long_form + value

    def short(value):
        return struct.pack("<H", value)

    rows, columns, center, width, padding = 70, 60, 1800.0, 900.0, 4095
    image = np.arange(rows * columns, dtype="<u2").reshape(rows, columns) % 4096
    image[:, 40:] = padding
    meta = element(2, 0x10, b"UI", EXPLICIT.encode())
    body = [
        element(0x08, 0x60, b"CS", b"MG"),
        element(0x28, 0x02, b"US", short(1)),
        element(0x28, 0x04, b"CS", b"MONOCHROME1"),
        element(0x28, 0x10, b"US", short(rows)),
        element(0x28, 0x11, b"US", short(columns)),
        element(0x28, 0x100, b"US", short(16)),
        element(0x28, 0x101, b"US", short(12)),
        element(0x28, 0x102, b"US", short(11)),
        element(0x28, 0x103, b"US", short(0)),
        element(0x28, 0x120, b"US", short(padding)),
        element(0x28, 0x1050, b"DS", b"1800"),
        element(0x28, 0x1051, b"DS", b"900"),
        element(0x28, 0x1052, b"DS", b"-100"),
        element(0x28, 0x1053, b"DS", b"1.5"),
        element(0x28, 0x1056, b"CS", b"SIGMOID"),
        element(0x2050, 0x20, b"CS", b"INVERSE"),
        element(0x7FE0, 0x10, b"OW", image.tobytes()),
    ]
    length = element(2, 0, b"UL", struct.pack("<I", len(meta)))
    path = tmp_path / "mammogram.dcm"
    path.write_bytes(bytes(128) + b"DICM" + length + meta + b"".join(body))

    shown = read_display(path).array
    for row, column in np.ndindex(image.shape):
        stored = int(image[row, column])
        modality = 1.5 * stored - 100
        voi = 65535 / (1 + math.exp(-4 * (modality - center) / width))
        p_value = 0 if stored == padding else 65535 - voi  # MONOCHROME1: the lowest value is white
        assert abs(int(shown[row, column]) - p_value) <= 1
    assert shown[:, 40:].max() == 0
    assert shown[0, 0] > 65000
    eight = read_display(path, bits=8).array
    assert np.abs(eight - shown / 257).max() <= 1


@MANY
@given(data=st.data())
def test_windows_follow_their_equations(tmp_path, dicom, data):
    bits = data.draw(st.integers(2, 16), "bits")
    signed, inverse = data.draw(st.booleans(), "signed"), data.draw(st.booleans(), "inverse")
    function = data.draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]), "function")
    slope = data.draw(st.sampled_from([1, 0.5, 2.25, -1, -0.125, 1e-4]), "slope")
    intercept = data.draw(st.sampled_from([0, -1024, 0.5, 12.75]), "intercept")
    image = all_values(bits, signed, seed=bits)
    span = abs(slope) * 2**bits
    center = round(data.draw(st.floats(-span, 2 * span), "center"), 3) + intercept
    width = max(round(data.draw(st.floats(0.001, 3 * span), "width"), 3), 1 if function == "LINEAR" else 0.001)
    padding = data.draw(
        st.none() | st.tuples(st.sampled_from(image.ravel()), st.sampled_from(image.ravel())), "padding"
    )
    depth = data.draw(st.sampled_from([8, 16]), "depth")
    extra = {"WindowCenter": f"{center:.8g}", "WindowWidth": f"{width:.8g}"}
    center, width = (float(value) for value in extra.values())
    if function != "LINEAR" or data.draw(st.booleans(), "named"):
        extra["VOILUTFunction"] = function
    if (slope, intercept) != (1, 0):
        extra |= {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
    if padding:
        extra |= {"PixelPaddingValue": int(padding[0]), "PixelPaddingRangeLimit": int(padding[1])}
    allocated = 8 if bits <= 8 else 16
    form = {"bits": bits, "allocated": allocated, "signed": signed}
    path = dicom(
        tmp_path / "a.dcm",
        image.tobytes(),
        image.shape,
        photometric="MONOCHROME1" if inverse else "MONOCHROME2",
        **form,
        **extra,
    )
    reference = expected(
        image,
        lambda value: windowed(value, center, width, function),
        slope=slope,
        intercept=intercept,
        inverse=inverse,
        padding=padding,
        bits=depth,
    )
    agrees(path, reference, depth)


def lut(first, entries, bits, form="OW", order="<"):
    """An item of a LUT sequence: entries as words of VR OW or US, or as bytes."""
    item = Dataset()
    count = len(entries) % 65536
    if first < 0 and count < 32_768:
        item.add_new("LUTDescriptor", "SS", [count, first, bits])
    else:
        item.add_new("LUTDescriptor", "US", [count, first % 65536, bits])
    if form == "bytes":
        item.add_new("LUTData", "OW", bytes(entries) + bytes(len(entries) % 2))
        if order == ">":
            item["LUTData"].value = np.frombuffer(item.LUTData, ">u2").astype("<u2").tobytes()
    elif form == "OW":
        item.add_new("LUTData", "OW", np.array(entries, f"{order}u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(value) for value in entries])
    return item


def mapped(value, first, entries, bits):
    position = math.floor(value + 0.5) - first
    return entries[min(max(position, 0), len(entries) - 1)] / (2**bits - 1)


@MANY
@given(data=st.data())
def test_voi_luts_follow_their_descriptors(tmp_path, dicom, data):
    signed = data.draw(st.booleans(), "signed")
    syntax = data.draw(st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]), "syntax")
    order = ">" if syntax == BIG else "<"
    count = data.draw(st.sampled_from([1, 2, 255, 256, 1001, 4096, 40_000, 65_536]), "count")
    form = data.draw(st.sampled_from(["OW", "US", "bytes"]) if count < 32_768 else st.just("OW"), "form")
    bits = 8 if form == "bytes" else data.draw(st.sampled_from([8, 10, 12, 16]), "bits")
    slope = data.draw(st.sampled_from([None, 0.5, 1.25]), "slope")
    first = data.draw(st.integers(-2048 if signed else 0, 2000), "first")
    entries = [int(v) for v in np.random.default_rng(count).integers(0, 2**bits, count)]
    image = all_values(12, signed)
    path = dicom(
        tmp_path / "a.dcm",
        image.astype(image.dtype.newbyteorder(order)).tobytes(),
        image.shape,
        syntax,
        signed=signed,
        VOILUTSequence=[lut(first, entries, bits, form, order)],
        **({"RescaleSlope": str(slope), "RescaleIntercept": "0"} if slope else {}),
    )
    agrees(path, expected(image, lambda value: mapped(value, first, entries, bits), slope=slope or 1))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_modality_lut_comes_before_the_window(tmp_path, dicom, signed, bits):
    image, first = all_values(12, signed), -2048 if signed else 0
    entries = [round((2**bits - 1) * (n / 4095) ** 2) for n in range(4096)]
    center, width = 2**bits // 3, 2**bits // 2
    extra = {"WindowCenter": str(center), "WindowWidth": str(width), "ModalityLUTType": "US"}
    path = dicom(
        tmp_path / "a.dcm",
        image.tobytes(),
        image.shape,
        signed=signed,
        ModalityLUTSequence=[lut(first, entries, bits)],
        **extra,
    )

    reference = expected(
        image, lambda value: windowed((2**bits - 1) * mapped(value, first, entries, bits), center, width, "LINEAR")
    )
    agrees(path, reference)


def test_a_first_mapped_value_below_zero_that_was_written_as_unsigned(tmp_path, dicom):
    image = all_values(12)
    entries = [round(65535 * n / 3000) for n in range(3001)]
    item = lut(2**16 - 1024, entries, 16)
    extra = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "VOILUTSequence": [item]}
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, **extra)
    agrees(path, expected(image, lambda value: mapped(value, -1024, entries, 16), intercept=-1024))


def test_alternatives_are_numbered_luts_first(tmp_path, dicom):
    image = all_values(12)
    luts = [lut(0, [n >> 4 for n in range(4096)], 8), lut(0, [(4095 - n) << 4 for n in range(4096)], 16)]
    windows = {"WindowCenter": ["2000", "100"], "WindowWidth": ["4000", "50"]}
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, VOILUTSequence=luts, **windows)
    agrees(path, expected(image, lambda value: (int(value) >> 4) / 255))
    agrees(path, expected(image, lambda value: ((4095 - int(value)) << 4) / 65535), window=1)
    agrees(path, expected(image, lambda value: windowed(value, 2000, 4000, "LINEAR")), window=2)
    agrees(path, expected(image, lambda value: windowed(value, 100, 50, "LINEAR")), window=3)
    assert "it has 4 VOI LUTs and windows, numbered from 0; 4 was asked for" in reason(path, window=4)
    assert "-1 was asked for" in reason(path, window=-1)


@pytest.mark.parametrize("extra", [{}, {"RescaleSlope": "-2.5", "RescaleIntercept": "7"}])
def test_without_a_window_the_smallest_and_largest_values_are_the_ends(tmp_path, dicom, extra):
    image = np.random.default_rng(0).integers(300, 1200, (30, 40)).astype(np.uint16)
    image[0, :3] = 300, 1199, 4095
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, PixelPaddingValue=4095, **extra)
    shown = agrees(
        path,
        expected(image, lambda value: (value - 300) / 899, padding=(4095, 4095), inverse=bool(extra)),
    )
    assert shown[0, 0] == (65535 if extra else 0)
    assert "it has 0 VOI LUTs and windows" in reason(path, window=1)


def test_an_image_of_one_value_or_of_padding_alone_is_black(tmp_path, dicom):
    image = np.full((4, 5), 77, np.uint16)
    assert read_display(dicom(tmp_path / "a.dcm", image.tobytes(), image.shape)).array.max() == 0
    padded = dicom(tmp_path / "b.dcm", image.tobytes(), image.shape, PixelPaddingValue=77)
    assert read_display(padded).array.max() == 0


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "", "IDENTITY", "INVERSE"])
def test_monochrome1_or_the_shape_inverts_once(tmp_path, dicom, photometric, shape):
    image = all_values(12)
    extra = {"WindowCenter": "1000", "WindowWidth": "1500"} | ({} if shape is None else {"PresentationLUTShape": shape})
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, photometric=photometric, **extra)
    inverse = photometric == "MONOCHROME1" or shape == "INVERSE"
    agrees(path, expected(image, lambda value: windowed(value, 1000, 1500, "LINEAR"), inverse=inverse))


@pytest.mark.parametrize(
    ("signed", "padding", "stored"),
    [
        (False, {"PixelPaddingValue": 0}, (0, 0)),
        (False, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3000}, (3000, 4095)),
        (False, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 63}, (0, 63)),
        (True, {"PixelPaddingValue": -2048}, (-2048, -2048)),
        (True, {"PixelPaddingValue": -100, "PixelPaddingRangeLimit": 5}, (-100, 5)),
    ],
)
def test_padding_is_black(tmp_path, dicom, signed, padding, stored):
    image = all_values(12, signed)
    extra = {"WindowCenter": "100", "WindowWidth": "9000", **padding}
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, IMPLICIT, signed=signed, **extra)
    shown = agrees(path, expected(image, lambda value: windowed(value, 100, 9000, "LINEAR"), padding=stored))
    assert shown[(image >= stored[0]) & (image <= stored[1])].max() == 0
    low = -2048 if signed else 0
    np.testing.assert_array_equal(read_pixels(path).array, image.astype(int) - low)  # raw keeps what is stored


def test_padding_written_with_the_other_sign_or_beyond_the_stored_bits(tmp_path, dicom):
    window = {"WindowCenter": "0", "WindowWidth": "9000"}
    image = all_values(16, signed=True)
    image[0, 0] = -2000
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, bits=16, signed=True, **window)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    dataset.save_as(path)
    shown = read_display(path).array
    assert shown[image == -2000].max() == 0
    assert shown[image == -1999].size == 0 or shown[image == -1999].min() > 0
    marked = all_values(12)
    marked[3:5] = 0x8000  # a bit that no value has
    path = dicom(tmp_path / "b.dcm", marked.tobytes(), marked.shape, PixelPaddingValue=0x8000, **window)
    shown = read_display(path).array
    assert shown[3:5].max() == 0
    assert shown[marked == 0].min() > 30_000


def test_bits_outside_those_stored_take_no_part(tmp_path, dicom):
    image = all_values(12)
    window = {"WindowCenter": "2000", "WindowWidth": "3000"}
    clean = read_display(dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, **window)).array
    above = image | np.uint16(0xA000)
    np.testing.assert_array_equal(
        read_display(dicom(tmp_path / "b.dcm", above.tobytes(), image.shape, **window)).array, clean
    )
    shifted = image << 4
    np.testing.assert_array_equal(
        read_display(dicom(tmp_path / "c.dcm", shifted.tobytes(), image.shape, HighBit=15, **window)).array, clean
    )
    signed = all_values(12, signed=True)
    held = (signed.astype(np.int32) & 0xFFF).astype(np.uint16) | np.uint16(0x5000)
    path = dicom(tmp_path / "d.dcm", held.tobytes(), image.shape, signed=True, **window)
    agrees(path, expected(signed, lambda value: windowed(value, 2000, 3000, "LINEAR")))


@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_enhanced_multi_frame_images_have_their_values_in_functional_groups(tmp_path, dicom, place):
    frames = [all_values(12, seed=seed) for seed in range(3)]
    groups = []
    for number in range(3 if place.startswith("Per") else 1):
        voi, rescale, group = Dataset(), Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = str(1000 * (number + 1)), "700", "SIGMOID"
        rescale.RescaleSlope, rescale.RescaleIntercept = str(number + 1), "10"
        group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [voi], [rescale]
        groups.append(group)
    path = dicom(
        tmp_path / "a.dcm",
        b"".join(frame.tobytes() for frame in frames),
        frames[0].shape,
        NumberOfFrames=3,
        WindowCenter="1",
        WindowWidth="1",
        **{place: groups},
    )
    for number, image in enumerate(frames):
        step = number + 1 if place.startswith("Per") else 1
        reference = expected(
            image, lambda value, step=step: windowed(value, 1000 * step, 700, "SIGMOID"), slope=step, intercept=10
        )
        agrees(path, reference, frame=number)


@pytest.mark.parametrize(
    ("extra", "cause"),
    [
        ({"WindowCenter": "5", "WindowWidth": "0"}, "width 0"),
        ({"WindowCenter": "5", "WindowWidth": "0.5"}, "width 0.5"),
        ({"WindowCenter": "5", "WindowWidth": "-3", "VOILUTFunction": "SIGMOID"}, "width -3"),
        ({"WindowCenter": "5", "WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"}, "width 0"),
        ({"WindowCenter": ["5", "6"], "WindowWidth": "3"}, "2 window centres and 1 widths"),
        ({"WindowCenter": "5", "WindowWidth": "3", "VOILUTFunction": "CANARY"}, "VOI LUT function is none of"),
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "rescale slope 0"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": "1"}, "give no values"),
        ({"PresentationLUTShape": "CANARY"}, "presentation LUT shape"),
        ({"VOILUTSequence": [Dataset()]}, "descriptor of 0 values"),
        ({"VOILUTSequence": [lut(0, [1, 2], 7)]}, "entries of 7 bits"),
        ({"VOILUTSequence": [lut(0, [1, 2], 17)]}, "entries of 17 bits"),
        ({"VOILUTSequence": [lut(0, [1, 5000], 12)]}, "beyond the 12 bits"),
    ],
)
def test_what_the_standard_does_not_allow_is_refused_and_raw_still_reads(tmp_path, dicom, extra, cause):
    image = all_values(12)
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, **extra)
    assert cause in reason(path)
    np.testing.assert_array_equal(read_pixels(path).array, image)


def test_a_lut_shorter_than_it_says_is_refused(tmp_path, dicom):
    item = lut(0, [1, 2, 3, 4], 16)
    item.LUTDescriptor = [5, 0, 16]
    image = all_values(12)
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape, VOILUTSequence=[item])
    assert "holds 4 entries where its descriptor says 5" in reason(path)


def test_colour_and_other_formats_are_stretched_and_nothing_else(tmp_path, noise, dicom):
    colour = noise(20, 30, 255, channels=3)
    form = {"photometric": "RGB", "bits": 8, "allocated": 8, "WindowCenter": "5", "WindowWidth": "3"}
    path = dicom(tmp_path / "a.dcm", colour.tobytes(), colour.shape, **form)
    np.testing.assert_array_equal(read_display(path, bits=8).array, colour)
    np.testing.assert_array_equal(read_display(path).array, colour.astype(int) * 257)
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_display(tmp_path / "a.png").array, grey)
    np.testing.assert_array_equal(read_display(tmp_path / "a.png", bits=8).array, np.floor(grey / 257 + 0.5))


def test_what_raw_refuses_display_refuses(tmp_path, noise, dicom):
    path = dicom(tmp_path / "a.dcm", noise(20, 20, 4095).tobytes(), (20, 20))
    assert "frame 1 was asked for" in reason(path, frame=1)
    path.write_bytes(path.read_bytes()[:-10])
    assert "cut short" in reason(path)
    (tmp_path / "b.dcm").write_text("text")
    assert "not an image" in reason(tmp_path / "b.dcm")


@pytest.mark.parametrize("name", ["CT2_JPLL", "MR3_J2KR", "bad_sequence.dcm", "MG1_J2KI"])
def test_real_files_agree_with_pydicoms_own_pipeline(test_data, name):
    """pydicom.pixels is an implementation by other people; its windows end at the bits stored."""
    path = test_data / "dicom" / name
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset, index=0).astype(np.float64)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    low, high = low * slope + intercept, (low + 2**dataset.BitsStored - 1) * slope + intercept
    padding = dataset.get("PixelPaddingValue")
    reference = (shown - low) / (high - low) * 65535
    if padding is not None:
        reference[dataset.pixel_array == padding] = 0
    assert np.abs(read_display(path).array - reference).max() <= 1
