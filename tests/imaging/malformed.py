"""Malformed DICOM files, several hundred of them, each with what must become of it.

Nothing here uses a DICOM library: files are put together from bytes, so that every byte can be wrong.
"""

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import imagecodecs
import numpy as np

CANARY = b"CANARY^PATIENT"

#: Must be refused by every reader.
REFUSED = "refused"
#: The pixels are there and read as stored; `display` must refuse.
RAW = "raw"
#: Odd, but still well defined, or damaged in a way that cannot be told from an image: refused or read, nothing else.
EITHER = "either"
#: Odd, but the standard or its readers say what it means: must be read.
READ = "read"


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: what is wrong with it, as a file name.
        data: its bytes.
        fate: REFUSED, RAW, EITHER or READ.
    """

    name: str
    data: bytes
    fate: str


IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99"))
ROWS, COLUMNS = 20, 24
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"UC", b"UR", b"OL", b"OD", b"OV", b"SV", b"UV")
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Element:
    """An element as it will stand in the file, with a length that need not be its own."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None

    def encode(self, implicit: bool = False, order: str = "<") -> bytes:
        length = len(self.value) if self.length is None else self.length
        tag = struct.pack(f"{order}HH", self.tag >> 16, self.tag & 0xFFFF)
        if implicit:
            return tag + struct.pack(f"{order}I", length) + self.value
        if self.vr in LONG:
            return tag + self.vr + struct.pack(f"{order}HI", 0, length) + self.value
        return tag + self.vr + struct.pack(f"{order}H", length & 0xFFFF) + self.value


def text(tag: int, vr: str, value: str | bytes) -> Element:
    value = value.encode() if isinstance(value, str) else value
    return Element(tag, vr.encode(), value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))


def short(tag: int, *values: int, order: str = "<") -> Element:
    return Element(tag, b"US", struct.pack(f"{order}{len(values)}H", *values))


def items(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content for content in contents)


DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def fragments(*parts: bytes, table: bytes = b"") -> bytes:
    return items(table, *(part + bytes(len(part) % 2) for part in parts)) + DELIMITER


@dataclass
class File:
    """A good file, to be spoilt: its elements in order, and how they are written."""

    syntax: str = EXPLICIT
    elements: dict[str, Element] = field(default_factory=dict)
    preamble: bytes = bytes(128)
    implicit: bool = False
    order: str = "<"

    def encode(self) -> bytes:
        meta = text(0x00020010, "UI", self.syntax).encode()
        head = self.preamble + b"DICM" + Element(0x00020000, b"UL", struct.pack("<I", len(meta))).encode() + meta
        return head + self.body()

    def body(self) -> bytes:
        return b"".join(element.encode(self.implicit, self.order) for element in self.elements.values())

    def with_(self, **elements: Element | None) -> "File":
        """Return a copy with elements replaced, added in the order of tags, or left out (None)."""
        merged = {name: element for name, element in {**self.elements, **elements}.items() if element is not None}
        ordered = dict(sorted(merged.items(), key=lambda pair: pair[1].tag))
        return File(self.syntax, ordered, self.preamble, self.implicit, self.order)


IMAGE = (np.add.outer(np.arange(ROWS) * 150, np.arange(COLUMNS) * 40) % 4096).astype(np.uint16)


def good(syntax: str = EXPLICIT, pixels: Element | None = None, bits: int = 12, order: str = "<") -> File:
    """Return a file that every reader reads, unless the pixels say otherwise."""
    allocated = 8 if bits == 8 else 16
    data = IMAGE.astype(f"{order}u2").tobytes()
    elements = {
        "charset": text(0x00080005, "CS", "ISO_IR 100"),
        "sop": text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.1.2"),
        "modality": text(0x00080060, "CS", "MG"),
        "patient": text(0x00100010, "PN", CANARY),
        "birth": text(0x00100030, "DA", "19010203"),
        "samples": short(0x00280002, 1, order=order),
        "photometric": text(0x00280004, "CS", "MONOCHROME2"),
        "frames": text(0x00280008, "IS", "1"),
        "rows": short(0x00280010, ROWS, order=order),
        "columns": short(0x00280011, COLUMNS, order=order),
        "allocated": short(0x00280100, allocated, order=order),
        "stored": short(0x00280101, bits, order=order),
        "high": short(0x00280102, bits - 1, order=order),
        "signed": short(0x00280103, 0, order=order),
        "center": text(0x00281050, "DS", "2000"),
        "width": text(0x00281051, "DS", "3000"),
        "pixels": pixels or Element(0x7FE00010, b"OW", data),
    }
    return File(syntax, elements, implicit=syntax == IMPLICIT, order=order)


def rle(cells: np.ndarray) -> bytes:
    planes = [(cells >> 8).astype(np.uint8), (cells & 0xFF).astype(np.uint8)]
    segments = [b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane) for plane in planes]
    segments = [segment + bytes(len(segment) % 2) for segment in segments]
    return struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + b"".join(segments)


# name -> transfer syntax, frame, bits
CODECS: dict[str, tuple[str, bytes, int]] = {
    "jpeg": ("1.2.840.10008.1.2.4.50", imagecodecs.jpeg8_encode((IMAGE >> 4).astype(np.uint8)), 8),
    "jpeg12": ("1.2.840.10008.1.2.4.51", imagecodecs.jpeg8_encode(IMAGE, bitspersample=12), 12),
    "lossless": (
        "1.2.840.10008.1.2.4.70",
        imagecodecs.jpeg8_encode(IMAGE, lossless=True, predictor=1, bitspersample=12),
        12,
    ),
    "jpegls": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode(IMAGE), 12),
    "jpeg2k": ("1.2.840.10008.1.2.4.90", imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="j2k"), 12),
    "htj2k": ("1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode(IMAGE), 12),
    "rle": ("1.2.840.10008.1.2.5", rle(IMAGE), 12),
}
# Codecs whose decoder reads the other's codestreams as well.
_ALIKE = [{"jpeg", "jpeg12", "lossless"}, {"jpeg2k", "htj2k"}]


def pixels(data: bytes, length: int | None = UNDEFINED, vr: bytes = b"OB") -> Element:
    return Element(0x7FE00010, vr, data, length)


def compressed(name: str, *parts: bytes, table: bytes = b"") -> File:
    syntax, frame, bits = CODECS[name]
    return good(syntax, pixels(fragments(*(parts or (frame,)), table=table)), bits)


def cases() -> list[Case]:
    """Return all of them; the names are unique."""
    found = [case for make in _MAKERS for case in make()]
    assert len({case.name for case in found}) == len(found)
    return found


_MAKERS: list[Callable[[], Iterator[Case]]] = []


def _maker(make: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
    _MAKERS.append(make)
    return make


@_maker
def truncated() -> Iterator[Case]:
    """Cut at every element: before it, in its head, after its head, in its value."""
    file = good()
    at = len(file.encode()) - len(file.body())
    for name, element in file.elements.items():
        size = len(element.encode())
        head = size - len(element.value)
        for where, offset in (("before", 0), ("in-head", 5), ("after-head", head), ("in-value", head + 1)):
            yield Case(f"cut-{where}-{name}", file.encode()[: at + offset], REFUSED)
        at += size
    whole = file.encode()
    for length in (0, 1, 64, 128, 130, 132, 140, 150):
        yield Case(f"cut-at-{length}", whole[:length], REFUSED)
    for name in CODECS:
        whole = compressed(name).encode()
        start = len(whole) - len(compressed(name).elements["pixels"].value)
        for share in (0.0, 0.02, 0.3, 0.6, 0.95):
            length = start + int((len(whole) - start) * share)
            yield Case(f"cut-{name}-at-{share}", whole[:length], REFUSED)
        yield Case(f"cut-{name}-without-delimiter", whole[:-8], REFUSED)
        frame = CODECS[name][1]
        for share in (0.1, 0.5, 0.9):  # whole as DICOM, but the frame inside is not
            yield Case(
                f"frame-cut-{name}-at-{share}", compressed(name, frame[: int(len(frame) * share)]).encode(), REFUSED
            )


@_maker
def wrong_vr() -> Iterator[Case]:
    for name in ("samples", "photometric", "frames", "rows", "columns", "allocated", "stored", "high", "signed"):
        element = good().elements[name]
        for vr in (b"SS", b"LO", b"OB", b"SQ", b"FD", b"AT", b"ZZ", b"\0\0", b"\xff\xff"):
            file = good().with_(**{name: Element(element.tag, vr, element.value)})
            yield Case(f"vr-{name}-{vr.hex()}", file.encode(), EITHER)
    for vr in (b"US", b"LO", b"SQ", b"FD", b"ZZ", b"\0\0"):
        yield Case(f"vr-pixels-{vr.hex()}", good(pixels=Element(0x7FE00010, vr, IMAGE.tobytes())).encode(), REFUSED)


@_maker
def wrong_lengths() -> Iterator[Case]:
    for name, element in good().elements.items():
        if name == "pixels":
            continue
        for length in (0, 1, 3, len(element.value) + 2, 0xFFFE):
            file = good().with_(**{name: Element(element.tag, element.vr, element.value, length)})
            yield Case(f"length-{name}-{length}", file.encode(), REFUSED if length == 0xFFFE else EITHER)
    for length in (0x7FFFFFFF, 0xFFFFFFF0, 5000):
        for vr in (b"OB", b"UN", b"UT"):
            file = good().with_(extra=Element(0x00091001, vr, b"abcd", length))
            yield Case(f"length-beyond-{vr.decode()}-{length:x}", file.encode(), REFUSED)
    for group in (0x00080000, 0x00280000):
        for value in (0, 3, UNDEFINED):
            file = good().with_(length=Element(group, b"UL", struct.pack("<I", value)))
            yield Case(f"group-length-{group:08x}-{value}", file.encode(), READ)
    data = good().encode()
    for value in (0, 4, 1000, UNDEFINED):
        yield Case(f"meta-length-{value}", data[:140] + struct.pack("<I", value) + data[144:], EITHER)


@_maker
def sequences() -> Iterator[Case]:
    undefined_item = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    item_end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    opening = Element(0x00081140, b"SQ", b"", UNDEFINED).encode() + undefined_item
    for depth in (500, 5000):
        body = opening * depth
        yield Case(f"nested-{depth}-open", _before(body, good()), REFUSED)
        yield Case(f"nested-{depth}-closed", _before(body + (item_end + DELIMITER) * depth, good()), REFUSED)
    defined = b""
    for _ in range(500):
        defined = Element(0x00081140, b"SQ", items(defined)).encode()
    yield Case("nested-500-defined", _before(defined, good()), EITHER)
    for vr in (b"SQ", b"UN", b"OB"):
        for name, value in (("nothing", b""), ("item", undefined_item), ("text", b"abcdefgh" * 4)):
            file = good().with_(extra=Element(0x00081140, vr, value, UNDEFINED))
            yield Case(f"undefined-{vr.decode()}-{name}", file.encode(), REFUSED)
    for tag in (0x00091001, 0x00291010):
        file = good().with_(extra=Element(tag, b"UN", b"private bytes without an end", UNDEFINED))
        yield Case(f"undefined-private-{tag:08x}", file.encode(), REFUSED)
    for name, tag in (("item", 0xFFFEE000), ("item-end", 0xFFFEE00D), ("sequence-end", 0xFFFEE0DD)):
        stray = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, 0)
        yield Case(f"stray-{name}", _before(stray, good()), EITHER)
    nested = items(good().elements["pixels"].encode())
    file = good().with_(pixels=None, icon=Element(0x00880200, b"SQ", nested))
    yield Case("pixels-in-a-sequence-only", file.encode(), REFUSED)


def _before(body: bytes, file: File) -> bytes:
    """Return a file with bytes before its first element."""
    whole = file.encode()
    at = len(whole) - len(file.body())
    return whole[:at] + body + whole[at:]


@_maker
def pixel_data() -> Iterator[Case]:
    raw = IMAGE.tobytes()
    for name, element in {
        "none": None,
        "empty": pixels(b"", 0, b"OW"),
        "odd": pixels(raw[:-1], None, b"OW"),
        "one-short": pixels(raw[:-2], None, b"OW"),
        "half": pixels(raw[: len(raw) // 2], None, b"OW"),
        "longer-than-file": pixels(raw, 10**6, b"OW"),
        "undefined-native": pixels(raw),
        "undefined-native-delimited": pixels(raw + DELIMITER),
        "fragments-native": pixels(fragments(raw)),
        "float": Element(0x7FE00008, b"OF", bytes(4 * ROWS * COLUMNS)),
    }.items():
        yield Case(f"pixels-{name}", good().with_(pixels=element).encode(), REFUSED)
    yield Case("pixels-longer-than-needed", good(pixels=pixels(raw + bytes(100), None, b"OW")).encode(), READ)
    yield Case("pixels-trailing-garbage", good().encode() + random.Random(0).randbytes(300), READ)
    twice = good().with_(again=pixels(bytes(len(raw)), None, b"OW"))
    yield Case("pixels-twice", twice.encode(), EITHER)
    for name, (syntax, stream, bits) in CODECS.items():
        frame = stream + bytes(len(stream) % 2)
        spoilt = {
            "not-encapsulated": pixels(frame, None),
            "no-items": pixels(DELIMITER),
            "table-only": pixels(items(b"") + DELIMITER),
            "empty-fragment": pixels(fragments(b"")),
            "wrong-tag": pixels(b"\xfe\xff\x01\xe0" + fragments(frame)[4:]),
            "fragment-too-long": pixels(items(b"") + struct.pack("<HHI", 0xFFFE, 0xE000, 10**7) + frame + DELIMITER),
            "fragment-undefined": pixels(
                items(b"") + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + frame + DELIMITER
            ),
            "zeros": pixels(fragments(bytes(len(frame)))),
            "garbage": pixels(fragments(random.Random(1).randbytes(400))),
            "raw": pixels(fragments(raw)),
        }
        for what, element in spoilt.items():
            yield Case(f"{name}-{what}", good(syntax, element, bits).encode(), REFUSED)
    many = pixels(items(*[b""] * 100_200) + DELIMITER)
    yield Case("fragments-without-number", good(CODECS["jpegls"][0], many).encode(), REFUSED)


@_maker
def wrong_syntax() -> Iterator[Case]:
    for name, (syntax, _, bits) in CODECS.items():
        for other, (_, frame, _) in CODECS.items():
            if name != other:
                alike = any({name, other} <= group for group in _ALIKE)
                file = good(syntax, pixels(fragments(frame)), bits)
                yield Case(f"{other}-as-{name}", file.encode(), EITHER if alike else REFUSED)
    for syntax in (
        "1.2.840.10008.1.2.4.100",
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.94",
        "1.2.3.4",
        "1",
        "x" * 64,
    ):
        yield Case(
            f"syntax-{syntax}",
            compressed("jpegls")
            .with_()
            .encode()
            .replace(text(0x00020010, "UI", CODECS["jpegls"][0]).encode(), text(0x00020010, "UI", syntax).encode()),
            REFUSED,
        )
    little, big = good(), good(order=">")
    yield Case("big-endian-as-little", File(EXPLICIT, big.elements, order=">").encode(), REFUSED)
    yield Case("little-endian-as-big", File(BIG, little.elements).encode(), REFUSED)
    yield Case("implicit-as-explicit", File(EXPLICIT, little.elements, implicit=True).encode(), EITHER)
    yield Case("explicit-as-implicit", File(IMPLICIT, little.elements).encode(), EITHER)
    yield Case("plain-as-deflated", File(DEFLATED, little.elements).encode(), REFUSED)


@_maker
def lying_headers() -> Iterator[Case]:
    lies: dict[str, tuple[dict[str, Element | None], str]] = {
        "rows-0": ({"rows": short(0x00280010, 0)}, REFUSED),
        "rows-65535": ({"rows": short(0x00280010, 65_535)}, REFUSED),
        "both-65535": ({"rows": short(0x00280010, 65_535), "columns": short(0x00280011, 65_535)}, REFUSED),
        "rows-16384": ({"rows": short(0x00280010, 16_384)}, REFUSED),
        "rows-one-more": ({"rows": short(0x00280010, ROWS + 1)}, REFUSED),
        "rows-twice": ({"rows": short(0x00280010, ROWS, 40)}, REFUSED),
        "rows-none": ({"rows": None}, REFUSED),
        "columns-none": ({"columns": None}, REFUSED),
        "columns-one-more": ({"columns": short(0x00280011, COLUMNS + 1)}, REFUSED),
        "frames-2": ({"frames": text(0x00280008, "IS", "2")}, REFUSED),
        "frames-0": ({"frames": text(0x00280008, "IS", "0")}, REFUSED),
        "frames-minus": ({"frames": text(0x00280008, "IS", "-1")}, REFUSED),
        "frames-huge": ({"frames": text(0x00280008, "IS", "999999999999")}, REFUSED),
        "frames-text": ({"frames": text(0x00280008, "IS", CANARY)}, REFUSED),
        "frames-two-values": ({"frames": text(0x00280008, "IS", "1\\1")}, REFUSED),
        "frames-fraction": ({"frames": text(0x00280008, "IS", "1.5")}, REFUSED),
        "allocated-0": ({"allocated": short(0x00280100, 0)}, REFUSED),
        "allocated-12": ({"allocated": short(0x00280100, 12)}, REFUSED),
        "allocated-24": ({"allocated": short(0x00280100, 24)}, REFUSED),
        "allocated-32": ({"allocated": short(0x00280100, 32)}, REFUSED),
        "allocated-65535": ({"allocated": short(0x00280100, 65_535)}, REFUSED),
        "allocated-none": ({"allocated": None}, REFUSED),
        "stored-0": ({"stored": short(0x00280101, 0)}, REFUSED),
        "stored-17": ({"stored": short(0x00280101, 17)}, REFUSED),
        "stored-65535": ({"stored": short(0x00280101, 65_535)}, REFUSED),
        "high-3": ({"high": short(0x00280102, 3)}, REFUSED),
        "high-20": ({"high": short(0x00280102, 20)}, REFUSED),
        "high-15": ({"high": short(0x00280102, 15)}, REFUSED),  # the low bits are in use
        "samples-0": ({"samples": short(0x00280002, 0)}, EITHER),
        "samples-2": ({"samples": short(0x00280002, 2)}, REFUSED),
        "samples-3": ({"samples": short(0x00280002, 3)}, REFUSED),
        "samples-65535": ({"samples": short(0x00280002, 65_535)}, REFUSED),
        "photometric-none": ({"photometric": None}, REFUSED),
        "photometric-canary": ({"photometric": text(0x00280004, "CS", CANARY)}, REFUSED),
        "photometric-rgb": ({"photometric": text(0x00280004, "CS", "RGB")}, REFUSED),
        "photometric-palette": ({"photometric": text(0x00280004, "CS", "PALETTE COLOR")}, REFUSED),
        "photometric-two-values": ({"photometric": text(0x00280004, "CS", "MONOCHROME2\\RGB")}, REFUSED),
        "signed-2": ({"signed": short(0x00280103, 2)}, EITHER),
    }  # fmt: skip
    for name, (elements, fate) in lies.items():
        yield Case(f"lie-{name}", good().with_(**elements).encode(), fate)
    for name in CODECS:
        for lie in ("both-65535", "rows-one-more", "columns-one-more", "frames-2", "samples-3", "stored-17"):
            yield Case(f"lie-{name}-{lie}", compressed(name).with_(**lies[lie][0]).encode(), REFUSED)
    for name in ("lossless", "jpegls"):
        file = compressed(name).with_(stored=short(0x00280101, 10), high=short(0x00280102, 9))
        yield Case(f"lie-{name}-stored-10", file.encode(), REFUSED)
    rows = good().elements["rows"].encode()
    for name, again in (("same", rows), ("other", short(0x00280010, 999).encode())):
        data = good().encode()
        fate = READ if name == "same" else REFUSED
        yield Case(f"duplicate-rows-{name}", data.replace(rows, rows + again), fate)
    data = good()
    shuffled = dict(random.Random(0).sample(list(data.elements.items())[:-1], len(data.elements) - 1))
    yield Case("tags-out-of-order", File(EXPLICIT, {**shuffled, "pixels": data.elements["pixels"]}).encode(), READ)
    palette = {
        "photometric": text(0x00280004, "CS", "PALETTE COLOR"),
        **{f"{n}d": short(0x00281101 + n, 4096, 0, 16) for n in range(3)},
        **{f"{n}t": Element(0x00281201 + n, b"OW", bytes(2 * 4096)) for n in range(3)},
    }
    yield Case("palette", good().with_(**palette).encode(), READ)
    for name, elements in {
        "short-table": {"0t": Element(0x00281201, b"OW", bytes(100))},
        "no-table": {"1t": None},
        "no-descriptor": {"2d": None},
        "entries-9": {"0d": short(0x00281101, 9, 0, 16)},
        "bits-99": {f"{n}d": short(0x00281101 + n, 4096, 0, 99) for n in range(3)},
        "one-value": {"0d": short(0x00281101, 4096)},
    }.items():
        fate = EITHER if name == "no-descriptor" else REFUSED  # the other two say the same
        yield Case(f"palette-{name}", good().with_(**{**palette, **elements}).encode(), fate)


@_maker
def damaged_codestreams() -> Iterator[Case]:
    for name, (_, frame, _) in CODECS.items():
        for seed in range(8):
            rng = random.Random(seed)
            flipped = bytearray(frame)
            for _ in range(1 + seed):
                flipped[rng.randrange(2, len(frame) - 2)] = rng.randrange(256)
            yield Case(f"damaged-{name}-bytes-{seed}", compressed(name, bytes(flipped)).encode(), EITHER)
        for fill in (0x00, 0xFF):
            at = len(frame) // 2
            blank = frame[:at] + bytes([fill]) * (len(frame) // 4) + frame[at + len(frame) // 4 :]
            yield Case(f"damaged-{name}-filled-{fill:02x}", compressed(name, blank).encode(), EITHER)
        yield Case(f"damaged-{name}-twice", compressed(name, frame, frame).encode(), EITHER)
        yield Case(f"damaged-{name}-head-only", compressed(name, frame[:40] + b"\xff\xd9").encode(), REFUSED)
    for name in ("jpeg", "jpeg12", "lossless", "jpegls"):  # rows and columns in the start of frame
        frame = CODECS[name][1]
        size = struct.pack(">HH", ROWS, COLUMNS)
        for rows, columns in ((65_535, 65_535), (0, COLUMNS), (ROWS, 0), (ROWS * 4, COLUMNS * 4)):
            other = frame.replace(size, struct.pack(">HH", rows, columns), 1)
            yield Case(f"damaged-{name}-says-{rows}x{columns}", compressed(name, other).encode(), REFUSED)
    for name in ("jpeg2k", "htj2k"):  # the SIZ segment
        frame = CODECS[name][1]
        for what, at, value in (
            ("width", 8, 65_535),
            ("huge", 8, 2**31),
            ("left", 16, 2**31),
            ("tile-0", 24, 0),
            ("tiles-1", 24, 1),
            ("components", 40, 0x40000707),
            ("depth", 42, 0x25010100),
        ):
            other = frame[:at] + struct.pack(">I", value) + frame[at + 4 :]
            fate = EITHER if what in ("tiles-1",) else REFUSED
            yield Case(f"damaged-{name}-{what}", compressed(name, other).encode(), fate)
    frame = CODECS["rle"][1]
    for what, header in {
        "segments-0": struct.pack("<16I", 0, *[64] * 15),
        "segments-15": struct.pack("<16I", 15, *[64] * 15),
        "segments-huge": struct.pack("<16I", 2**31, *[64] * 15),
        "offset-outside": struct.pack("<16I", 2, 64, 10**8, *[0] * 13),
        "offset-in-header": struct.pack("<16I", 2, 0, 80, *[0] * 13),
        "offsets-exchanged": struct.pack("<16I", 2, len(frame) - 10, 64, *[0] * 13),
        "offset-huge": struct.pack("<16I", 2, 2**32 - 1, 2**32 - 1, *[0] * 13),
    }.items():
        yield Case(f"damaged-rle-{what}", compressed("rle", header + frame[64:]).encode(), REFUSED)


@_maker
def offset_tables() -> Iterator[Case]:
    frame = CODECS["jpegls"][1]
    frame += bytes(len(frame) % 2)
    halves = (frame[: len(frame) // 2 // 2 * 2], frame[len(frame) // 2 // 2 * 2 :])
    two = {"frames": text(0x00280008, "IS", "2")}
    length = len(frame) + 16
    for name, table, fate in (
        ("right", (0, length), READ),
        ("none", (), READ),
        ("outside", (0, 10**8), REFUSED),
        ("inside-a-fragment", (0, 5), REFUSED),
        ("backwards", (length, 0), REFUSED),
        ("same", (0, 0), REFUSED),
        ("one", (0,), REFUSED),
        ("three", (0, length, length), REFUSED),
        ("huge", (0, 2**32 - 1), REFUSED),
    ):
        data = struct.pack(f"<{len(table)}I", *table)
        file = compressed("jpegls", *halves, *halves, table=data).with_(**two)
        yield Case(f"offsets-{name}", file.encode(), fate)
    for name, count in (("few", 1), ("many", 3)):
        file = compressed("jpegls", *[frame] * count).with_(**two)
        yield Case(f"frames-too-{name}", file.encode(), REFUSED)
    extended = {
        "offsets": Element(0x7FE00001, b"OV", struct.pack("<2Q", 2**63, 2**64 - 1)),
        "lengths": Element(0x7FE00002, b"OV", struct.pack("<2Q", 2**63, 2**64 - 1)),
    }
    yield Case("offsets-extended-outside", compressed("jpegls", frame, frame).with_(**two, **extended).encode(), READ)


def lut(descriptor: tuple[int, ...], data: bytes) -> bytes:
    return short(0x00283002, *descriptor).encode() + Element(0x00283006, b"OW", data).encode()


@_maker
def shown_values() -> Iterator[Case]:
    """Files whose pixels are fine and whose way to the screen is not."""
    numbers = ("NaN", "inf", "-inf", "1e400", "9" * 400, "1e", "abc", CANARY.decode(), "--5", "0x10", "1,5")
    for name, tag, vr in (("center", 0x00281050, "DS"), ("width", 0x00281051, "DS")):
        for value in numbers:
            yield Case(f"window-{name}-{value[:20]}", good().with_(**{name: text(tag, vr, value)}).encode(), RAW)
    for value in ("0", "-1", "0.0", "1e-320", "0.99"):
        yield Case(f"window-width-{value}", good().with_(width=text(0x00281051, "DS", value)).encode(), RAW)
    yield Case("window-widths-2", good().with_(width=text(0x00281051, "DS", "5\\6")).encode(), RAW)
    yield Case("window-width-none", good().with_(width=None).encode(), RAW)
    yield Case("window-center-long", good().with_(center=text(0x00281050, "DS", "9" * 200)).encode(), READ)
    yield Case("window-width-huge", good().with_(width=text(0x00281051, "DS", "1e308")).encode(), READ)
    yield Case("window-function", good().with_(function=text(0x00281056, "CS", CANARY)).encode(), RAW)
    yield Case("window-functions-2", good().with_(function=text(0x00281056, "CS", "LINEAR\\SIGMOID")).encode(), RAW)
    sigmoid = text(0x00281056, "CS", "SIGMOID")
    yield Case("sigmoid-steep", good().with_(function=sigmoid, width=text(0x00281051, "DS", "1e-300")).encode(), READ)
    for value in ("NaN", "inf", "1e308", "0", "abc", "1\\2"):
        file = good().with_(slope=text(0x00281053, "DS", value), intercept=text(0x00281052, "DS", "1"))
        yield Case(f"slope-{value.replace(chr(92), '-')}", file.encode(), RAW)
    yield Case("intercept-NaN", good().with_(intercept=text(0x00281052, "DS", "NaN")).encode(), RAW)
    yield Case("shape", good().with_(shape=text(0x20500020, "CS", CANARY)).encode(), RAW)
    yield Case("padding-text", good().with_(padding=text(0x00280120, "LO", CANARY)).encode(), RAW)
    yield Case("padding-two-values", good().with_(padding=short(0x00280120, 1, 2)).encode(), RAW)
    yield Case("padding-range-alone", good().with_(limit=short(0x00280121, 9)).encode(), READ)
    tables = {
        "entries-missing": lut((4096, 0, 16), bytes(100)),
        "entries-too-many": lut((16, 0, 16), bytes(8192)),
        "entries-0": lut((0, 0, 16), bytes(64)),
        "bits-0": lut((4096, 0, 0), bytes(8192)),
        "bits-7": lut((4096, 0, 7), bytes(8192)),
        "bits-65535": lut((4096, 0, 65_535), bytes(8192)),
        "beyond-its-bits": lut((4096, 0, 10), b"\xff\xff" * 4096),
        "two-values": lut((4096, 0), bytes(8192)),
        "four-values": lut((4096, 0, 16, 1), bytes(8192)),
        "no-descriptor": Element(0x00283006, b"OW", bytes(8192)).encode(),
        "no-data": short(0x00283002, 4096, 0, 16).encode(),
        "empty": b"",
    }
    for name, content in tables.items():
        for tag, where in ((0x00283000, "modality"), (0x00283010, "voi")):
            yield Case(f"lut-{where}-{name}", good().with_(lut=Element(tag, b"SQ", items(content))).encode(), RAW)
    yield Case("lut-not-a-sequence", good().with_(lut=text(0x00283010, "LO", CANARY)).encode(), EITHER)
    yield Case("lut-cut-short", good().with_(lut=Element(0x00283010, b"SQ", items(b"abc")[:-1])).encode(), EITHER)
    yield Case("lut-without-items", good().with_(lut=Element(0x00283010, b"SQ", b"")).encode(), READ)
    group = Element(0x00289132, b"SQ", items(text(0x00281050, "DS", "x").encode())).encode()
    for name, content in (("empty", items(b"")), ("no-items", b""), ("window", items(group)), ("text", b"abcdefgh")):
        for tag in (0x52009229, 0x52009230):
            file = good().with_(groups=Element(tag, b"SQ", content))
            fate = RAW if name == "window" else EITHER if name == "text" else READ
            yield Case(f"groups-{tag:08x}-{name}", file.encode(), fate)


@_maker
def surroundings() -> Iterator[Case]:
    programs = {
        "windows": b"MZ\x90\0",
        "elf": b"\x7fELF\x02\x01",
        "script": b"#!/bin/sh\n",
        "mach-o-32": b"\xfe\xed\xfa\xce",
        "mach-o-64": b"\xcf\xfa\xed\xfe",
        "mach-o-universal": b"\xca\xfe\xba\xbe",
    }
    for name, start in programs.items():
        file = good()
        file.preamble = start + bytes(128 - len(start))
        yield Case(f"program-{name}", file.encode(), REFUSED)
    file = good()
    file.preamble = b"II*\0\x08\0\0\0" + bytes(120)  # a TIFF header, as PS3.10 7.1 allows
    yield Case("preamble-tiff", file.encode(), READ)
    yield Case("no-preamble", good().encode()[132:], READ)
    yield Case("meta-alone", good().with_().encode()[: 128 + 4 + 12 + 8 + 20], REFUSED)
    for charset in (
        "ISO_IR 999",
        "ISO 2022 IR 87\\ISO 2022 IR 58",
        "\\ISO 2022 IR 149",
        CANARY.decode(),
        "\xff\xfe",
        "",
    ):
        name = text(0x00100010, "PN", b"\x1b$B" + CANARY + b"\xff\xfe\x80=" * 3)
        file = good().with_(charset=text(0x00080005, "CS", charset.encode("latin-1")), patient=name)
        yield Case(f"charset-{charset.encode('latin-1').hex()}", file.encode(), READ)
    for tag in (0x60000010, 0x60020102, 0x60FF3000, 0x50000010):
        yield Case(f"overlay-odd-{tag:08x}", good().with_(overlay=short(tag, 65_535)).encode(), READ)
    yield Case("overlay-position", good().with_(overlay=short(0x60000102, 14)).encode(), READ)
    many = b"".join(Element(0x00091000 + n % 256, b"LO", b"").encode() for n in range(150_000))
    yield Case("elements-150000", _before(many, good()), EITHER)
    for name, body in {
        "garbage": random.Random(2).randbytes(2000),
        "nothing": b"",
        "cut": _deflate(good().body())[:-40],
        "half": _deflate(good().body()[: len(good().body()) // 2]),
        "bomb": _deflate(bytes(300 * 2**20)),
        "bomb-within-the-limit": _deflate(good().with_(pixels=None).body() + bytes(100 * 2**20)),
    }.items():
        yield Case(f"deflated-{name}", File(DEFLATED).encode() + body, REFUSED)
    yield Case("deflated-good", File(DEFLATED).encode() + _deflate(good().body()), READ)


def _deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()
