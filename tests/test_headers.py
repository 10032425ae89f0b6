"""read_header and read_dicom: right about good files, a typed refusal for everything else."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from spicula import headers
from spicula.errors import RejectedImageError
from spicula.headers import Header, read_dicom, read_header

HUGE = 65_535


def png(width: int, height: int, bits: int = 8, colour: int = 0, size: int = 1024) -> bytes:
    """Return the start of a PNG, filled up with zeros to a file of `size` bytes."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n\0\0\0\r" + body + struct.pack(">I", zlib.crc32(body))
    return head + bytes(max(0, size - len(head)))


def jpeg(width: int, height: int, components: int = 1) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    frame = struct.pack(">BHHB", 8, height, width, components) + parts
    scan = struct.pack(">B", components) + b"".join(bytes([n + 1, 0]) for n in range(components)) + bytes([0, 63, 0])
    return (
        b"\xff\xd8\xff\xc0"
        + struct.pack(">H", 2 + len(frame))
        + frame
        + b"\xff\xda"
        + struct.pack(">H", 2 + len(scan))
        + scan
        + bytes(900)
    )


def tiff(width: int, height: int) -> bytes:
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (262, 3, 1), (273, 4, 200), (277, 3, 1), (279, 4, 100)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(900)


def dicom(path: Path, syntax: str = ExplicitVRLittleEndian, **fields: object) -> Path:
    """Write a small DICOM file, 6 rows by 4 columns of 12 bits; `fields` replace or add elements, None leaves out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
        "SOPInstanceUID": "1.2.3",
        "PatientName": "CANARY^ONE",
        "Modality": "MG",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME1",
        "Rows": 6,
        "Columns": 4,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": bytes(48),
    } | fields
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("L", "png", Header("png", 7, 5, 8, 1, 1, "MONOCHROME2")),
        ("I;16", "png", Header("png", 7, 5, 16, 1, 1, "MONOCHROME2")),
        ("RGB", "png", Header("png", 7, 5, 8, 3, 1, "RGB")),
        ("RGBA", "png", Header("png", 7, 5, 8, 4, 1, "RGB")),
        ("LA", "png", Header("png", 7, 5, 8, 2, 1, "MONOCHROME2")),
        ("P", "png", Header("png", 7, 5, 1, 1, 1, "PALETTE COLOR")),
        ("1", "png", Header("png", 7, 5, 1, 1, 1, "MONOCHROME2")),
        ("L", "jpeg", Header("jpeg", 7, 5, 8, 1, 1, "MONOCHROME2")),
        ("RGB", "jpeg", Header("jpeg", 7, 5, 8, 3, 1, "RGB")),
        ("L", "ppm", Header("pgm", 7, 5, 8, 1, 1, "MONOCHROME2")),
        ("RGB", "ppm", Header("pgm", 7, 5, 8, 3, 1, "RGB")),
        ("L", "tiff", Header("tiff", 7, 5, 8, 1, 1, "MONOCHROME2")),
        ("I;16", "tiff", Header("tiff", 7, 5, 16, 1, 1, "MONOCHROME2")),
        ("RGB", "tiff", Header("tiff", 7, 5, 8, 3, 1, "RGB")),
    ],
)
def test_header_of_each_format(tmp_path, mode, kind, expected):
    path = tmp_path / "no-suffix-that-helps.doc"
    Image.new(mode, (7, 5)).save(path, format=kind)
    assert read_header(path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"P2\n# made by hand\n3 # columns\n2\n4095\n1 2 3 4 5 6\n", Header("pgm", 3, 2, 12, 1, 1, "MONOCHROME2")),
        (b"P3 1 1 255 1 2 3", Header("pgm", 1, 1, 8, 3, 1, "RGB")),
        (b"P5 3 2 65535\n" + bytes(12), Header("pgm", 3, 2, 16, 1, 1, "MONOCHROME2")),
    ],
)
def test_pgm_with_comments_and_depths(tmp_path, text, expected):
    path = tmp_path / "image.pgm"
    path.write_bytes(text)
    assert read_header(path) == expected


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_dicom_header(tmp_path, syntax):
    path = dicom(tmp_path / "image", syntax)
    assert read_header(path) == Header("dicom", 4, 6, 12, 1, 1, "MONOCHROME1")
    dataset = read_dicom(path)
    assert dataset.Modality == "MG"
    assert "PixelData" not in dataset


def test_dicom_without_preamble(tmp_path):
    whole = dicom(tmp_path / "whole").read_bytes()
    (tmp_path / "bare").write_bytes(whole[132:])
    assert read_header(tmp_path / "bare").height == 6


def test_frames_of_tiff(tmp_path):
    path = tmp_path / "three.tif"
    frames = [Image.new("L", (7, 5)) for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert read_header(path).frames == 3
    frames[0].save(path, save_all=True, append_images=[Image.new("L", (8, 5))])
    with pytest.raises(RejectedImageError, match="image 2 differs in size"):
        read_header(path)


@pytest.mark.parametrize(
    "content",
    [
        png(HUGE, HUGE),
        png(0, 10),
        b"P5 65535 65535 255\n" + bytes(1000),
        b"P5 0 5 255\n",
        jpeg(HUGE, HUGE),
        tiff(HUGE, HUGE),
    ],
    ids=["png", "png-empty", "pgm", "pgm-empty", "jpeg", "tiff"],
)
def test_a_small_file_that_declares_an_impossible_size(tmp_path, content):
    path = tmp_path / "bomb"
    path.write_bytes(content)
    with pytest.raises(RejectedImageError, match="both sides must be within 1 to 16384"):
        read_header(path)


def test_a_small_dicom_that_declares_an_impossible_size(tmp_path):
    path = dicom(tmp_path / "bomb.dcm", Rows=HUGE, Columns=HUGE)
    assert path.stat().st_size < 1024
    with pytest.raises(RejectedImageError, match="declares 65535 x 65535 pixels"):
        read_header(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"Rows": 12_000, "Columns": 12_000}, f"at most {headers.MAX_PIXELS}"),
        ({"Rows": headers.MAX_SIDE + 1}, "both sides"),
        ({"NumberOfFrames": headers.MAX_FRAMES + 1}, "201 frames"),
        ({"NumberOfFrames": 0}, "0 frames"),
        ({"Rows": 10_000, "Columns": 10_000, "NumberOfFrames": 10}, "bytes decoded"),
        ({"Rows": None}, "without an image"),
        ({"PixelData": None}, "without pixel data"),
        ({"BitsStored": 20}, "20 of 16 bits"),
        ({"SamplesPerPixel": 4}, "4 samples"),
        ({"PhotometricInterpretation": "CANARY"}, "PhotometricInterpretation is none"),
        ({"PixelData": bytes(46)}, "has 46 bytes where the header declares 48"),
    ],
)
def test_dicom_beyond_a_limit_or_without_what_an_image_needs(tmp_path, fields, reason):
    with pytest.raises(RejectedImageError, match=reason) as caught:
        read_header(dicom(tmp_path / "image.dcm", **fields))
    assert "CANARY" not in str(caught.value)


def test_pixel_and_byte_limits_hold_at_the_border(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png(12_000, 10_000, size=200_000))
    assert read_header(path).width * read_header(path).height == headers.MAX_PIXELS
    path.write_bytes(png(12_001, 10_000, size=200_000))
    with pytest.raises(RejectedImageError, match="at most 120000000"):
        read_header(path)


def test_dicom_cut_short_anywhere_is_refused(tmp_path):
    whole = dicom(tmp_path / "whole.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RejectedImageError):
            read_header(path)


@pytest.mark.parametrize("start", [b"MZ\x90\0", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!/bin/sh\n"])
def test_executable_preamble_is_refused(tmp_path, start):
    whole = dicom(tmp_path / "image.dcm").read_bytes()
    path = tmp_path / "program.dcm"
    path.write_bytes(start + whole[len(start) :])
    for read in (read_header, read_dicom):
        with pytest.raises(RejectedImageError, match="executable"):
            read(path)


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    if vr in (b"SQ", b"OB", b"OW", b"UN"):
        return struct.pack("<HH2sHI", group, number, vr, 0, size) + value
    return struct.pack("<HH2sH", group, number, vr, size) + value


def part10(body: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    uid = syntax.encode() + (b"\0" if len(syntax) % 2 else b"")
    meta = element(2, 0x10, b"UI", uid)
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body


@pytest.mark.parametrize(
    "body",
    [
        element(8, 0x1140, b"OB", b"abc", length=0xFFFFFFF0),
        struct.pack("<HH2sHIHHI", 8, 0x1140, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1) * 500,
        element(0x28, 0x10, b"US", b"\1") * 3,
        element(0x28, 0x10, b"DS", b"patient-canary"),
        b"",
    ],
    ids=["length-beyond-the-file", "nested-500-deep", "odd-values", "not-a-number", "nothing"],
)
def test_malformed_dicom_is_a_refusal_without_patient_data(tmp_path, body):
    path = tmp_path / "bad.dcm"
    path.write_bytes(part10(body))
    with pytest.raises(RejectedImageError) as caught:
        read_header(path)
    assert "canary" not in str(caught.value)


def test_header_of_endless_elements_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(headers.dicom, "MAX_HEADER_READS", 1000)
    path = tmp_path / "many.dcm"
    path.write_bytes(part10(element(9, 0x10, b"LO", b"") * 5000))
    with pytest.raises(RejectedImageError, match="more than 1000 reads"):
        read_header(path)


def test_deflated_bomb_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(headers.dicom, "MAX_INFLATED_BYTES", 2**20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    path = tmp_path / "bomb.dcm"
    path.write_bytes(part10(deflate.compress(bytes(2**24)) + deflate.flush(), DeflatedExplicitVRLittleEndian))
    assert path.stat().st_size < 2**15
    with pytest.raises(RejectedImageError, match="inflates to more than"):
        read_header(path)


def test_pixel_data_longer_than_the_file(tmp_path):
    whole = dicom(tmp_path / "image.dcm").read_bytes()
    path = tmp_path / "long.dcm"
    path.write_bytes(whole[:-52] + struct.pack("<I", 5000) + whole[-48:])
    with pytest.raises(RejectedImageError, match="declared with 5000 bytes"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"just text", "not an image"),
        (b"GIF89a" + bytes(100), "not an image"),
        (b"BM" + bytes(100), "not an image"),
        (png(10, 10)[:30], "cut short"),
        (png(10, 10)[:17] + b"\xff" + png(10, 10)[18:], "checksum"),
        (png(10, 10, bits=3), "colour type 0 with 3 bits"),
        (png(10, 10, colour=5), "colour type 5"),
        (png(16_000, 7_000, size=5_000), "more pixels than its bytes can hold"),
        (b"P5\n100 100 255\n" + bytes(9_999), "more pixels than its bytes can hold"),
        (b"P2\n100 100 255\n" + b"1 " * 5_000, "more pixels than its bytes can hold"),
        (b"P5\n100", "cut short"),
        (b"P5 1 1 70000\n" + bytes(10), "largest value 70000"),
        (b"P6 # a comment without an end" + b"x" * 10_000, "cut short"),
        (b"\xff\xd8\xff", "JPEG header is cut short"),
        (jpeg(10, 10, components=4), "4 colour components"),
        (b"II*\0", "TIFF header is cut short"),
        (b"II*\0\xff\xff\xff\x7f" + bytes(50), "TIFF header is cut short"),
    ],
)
def test_what_is_not_an_image_is_refused_with_a_reason(tmp_path, content, reason):
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(RejectedImageError, match=reason):
        read_header(path)


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("absent", "No such file"), (".", "not a regular file"), ("pipe", "not a regular file")):
        with pytest.raises(RejectedImageError, match=reason):
            read_header(tmp_path / name)
    (tmp_path / "text").write_text("text")
    with pytest.raises(RejectedImageError, match="not a DICOM file"):
        read_dicom(tmp_path / "text")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    contents = [png(20, 10), jpeg(20, 10), tiff(20, 10), b"P5 20 10 255\n" + bytes(200), part10(b"")]
    return [*contents, dicom(folder / "seed.dcm", NumberOfFrames=1).read_bytes()]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path, seeds, data):
    whole = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            header = read_header(path)
        except RejectedImageError:
            return
    assert 1 <= header.width <= headers.MAX_SIDE
    assert header.width * header.height <= headers.MAX_PIXELS
    assert header.channels in (1, 2, 3, 4)


def test_header_agrees_with_the_decoder(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("png", "jpeg", "tiff", "ppm"):
        array = rng.integers(0, 256, (int(rng.integers(1, 40)), int(rng.integers(1, 40)), 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / kind, format=kind)
        header = read_header(tmp_path / kind)
        assert (header.height, header.width, header.channels) == array.shape


def test_real_files(test_data):
    folder = test_data / "dicom"
    film = read_header(folder / "MG1_J2KI")
    assert film == Header("dicom", 3064, 4664, 12, 1, 1, "MONOCHROME2")
    assert read_dicom(folder / "MG1_J2KI").ViewPosition == "MLO"
    assert read_header(folder / "JLSN_RGB_ILV0.dcm").channels == 3
    assert read_header(folder / "liver.dcm").frames == 3
    for path in sorted(folder.iterdir()):
        expected = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        assert (read_header(path).height, read_header(path).width) == (expected.Rows, expected.Columns)
    screening = read_header(test_data / "nyu-exam" / "0_L-CC.png")
    assert (screening.bits, screening.channels) == (16, 1)
    with pytest.raises(RejectedImageError):
        read_header(test_data / "weights" / "mobilenet_v2_imagenet_dequantised.safetensors")
