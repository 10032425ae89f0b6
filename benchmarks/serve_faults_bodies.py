"""Requests that no client of good will sends: broken, oversized, lying, and bombs. Each is bytes, ready to be sent.

Everything is made here, in some seconds and some megabytes: what is large is large when it is unpacked, or declares it.
"""

import gzip
import io
import json
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from serve_faults_clients import post

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "imaging"))
import malformed  # type: ignore[import-not-found]

Named = tuple[str, bytes]
BOUNDARY = "hostile"
_FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
_RELATED = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
_JSON = {"Content-Type": "application/json"}


def requests(port: int, model: str, png: bytes, headers: dict[str, str]) -> list[Named]:
    """Return names and bytes of at least 200 requests.

    Args:
        port: where they go.
        model: name of one that is served.
        png: a good picture.
        headers: of every request that has any.
    """
    found = list(_HTTP.items())
    for name, path, given, body in [*_forms(png), *_pictures(png), *_dicom(), *_archives(), *_tensors(model)]:
        found.append((name, post(path, port, body, {**headers, **given})))
    found += _lengths(port, png, headers)
    return found


def file_form(data: bytes, filename: str = "a.png") -> bytes:
    """Return the body of a form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def related(*parts: bytes) -> bytes:
    """Return the body of a multipart/related."""
    heads = b"".join(b"--hostile\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in parts)
    return heads + b"--hostile--\r\n"


_POST = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
#: What is no HTTP, or wants too much of it.
_HTTP: dict[str, bytes] = {
    "http-garbage": random.Random(1).randbytes(4000),
    "http-tls-hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-0.9": b"GET /\r\n\r\n",
    "http-no-host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "http-two-hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: b\r\n\r\n",
    "http-other-host": b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "http-two-lengths": _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "http-length-and-chunks": _POST + b"Content-Length: 3\r\n" + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "http-negative-length": _POST + b"Content-Length: -1\r\n\r\n",
    "http-huge-length": _POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "http-bad-chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "http-huge-chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n",
    "http-long-header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 10_000_000 + b"\r\n\r\n",
    "http-many-headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
    "http-long-url": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "http-odd-url": b"GET /v1/exams/%00%ff%2e%2e%2f%2e%2e HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "http-climbing-url": b"GET /page/../../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "http-odd-method": b"BREW / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "http-upgrade": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "http-nul-header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
    "http-header-without-end": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a",
}

_Body = tuple[str, str, dict[str, str], bytes]


def _forms(png: bytes) -> Iterator[_Body]:
    whole, part = file_form(png), b'--hostile\r\nContent-Disposition: form-data; name="'
    field = part + b'a"\r\n\r\n'
    for path in ("/v1/predict", "/predict", "/v1/exams"):
        where = path.strip("/").replace("/", "-")
        for name, body in {
            "empty": b"",
            "no-end": whole[:-20],
            "no-boundary-inside": png,
            "only-end": b"--hostile--\r\n",
            "no-name": b"--hostile\r\nContent-Type: image/png\r\n\r\n" + png + b"\r\n--hostile--\r\n",
            "long-part-header": b"--hostile\r\nX: " + b"a" * 100_000 + b"\r\n\r\n--hostile--\r\n",
            "many-part-headers": b"--hostile\r\n" + b"X: a\r\n" * 1000 + b"\r\n\r\n--hostile--\r\n",
            "many-parts": (field + b"b\r\n") * 5000 + b"--hostile--\r\n",
            "many-files": (part + b'file"; filename="a"\r\n\r\nb\r\n') * 300 + b"--hostile--\r\n",
            "long-field": field + b"b" * 1_000_000 + b"\r\n--hostile--\r\n",
            "no-file": field + b"b\r\n--hostile--\r\n",
            "other-boundary": whole.replace(b"hostile", b"another"),
            "noise": random.Random(2).randbytes(300_000),
        }.items():
            yield f"form-{name}-{where}", path, _FORM, body
        yield f"form-no-boundary-{where}", path, {"Content-Type": "multipart/form-data"}, whole
        yield f"form-odd-boundary-{where}", path, {"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"}, whole
        yield f"form-as-json-{where}", path, _JSON, whole
        yield f"form-as-text-{where}", path, {"Content-Type": "text/plain; charset=nothing"}, whole
        bomb = gzip.compress(bytes(300_000_000), 1)
        yield f"form-gzip-bomb-{where}", path, {**_FORM, "Content-Encoding": "gzip"}, bomb
        yield f"form-no-gzip-{where}", path, {**_FORM, "Content-Encoding": "gzip"}, whole
        yield f"form-two-encodings-{where}", path, {**_FORM, "Content-Encoding": "gzip, gzip"}, whole


def _pictures(png: bytes) -> Iterator[_Body]:
    for name, data in _bad_pictures(png):
        yield f"picture-{name}", "/v1/predict", _FORM, file_form(data)
    yield "picture-refused-predict", "/predict", _FORM, file_form(png[:5000])


def _bad_pictures(png: bytes) -> Iterator[tuple[str, bytes]]:
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.999):
        yield f"png-cut-{share}", png[: int(len(png) * share)]
    for seed in range(10):
        spoilt, numbers = bytearray(png), random.Random(seed)
        for _ in range(20):
            spoilt[numbers.randrange(8, len(spoilt))] = numbers.randrange(256)
        yield f"png-spoilt-{seed}", bytes(spoilt)
    for width, height in ((65_535, 65_535), (2**31 - 1, 1), (0, 0), (16_384, 16_384), (100_000, 20)):
        yield f"png-{width}-{height}", _png(width, height, bytes(1000))
    yield "png-bomb", _png(10_000, 10_000, bytes(300_000_000))
    yield "png-endless-text", png[:33] + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)) + png[33:]
    yield "jpeg-65535", bytes.fromhex("ffd8ffc0001108ffffffff03012200021101031101ffd9")
    yield "jpeg-cut", bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb")
    yield "tiff-loop", b"II*\0" + struct.pack("<IHI", 8, 0, 8)
    yield "tiff-huge", b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHII", 256, 4, 1, 2**31) * 2 + bytes(4)
    yield "pgm-huge", b"P5 99999999 99999999 255\n" + bytes(100)
    yield "pgm-cut", b"P5 1000 1000 255\n" + bytes(100)
    yield "text", b"patient: nobody\n" * 10
    yield "nothing", b""
    yield "executable", b"\x7fELF" + bytes(1000)
    yield "gif", b"GIF89a" + bytes(100)
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + data + _chunk(b"IEND", b"")


def _dicom() -> Iterator[_Body]:
    cases = malformed.cases()
    for case in cases[:: len(cases) // 40]:
        yield f"dicom-{case.name}", "/v1/predict", _FORM, file_form(case.data, "a.dcm")
    for case in cases[7 :: len(cases) // 20]:
        yield f"stow-{case.name}", "/dicomweb/studies", _RELATED, related(case.data)
    good = malformed.good().encode()
    for name, given, body in (
        ("no-type", {"Content-Type": f"multipart/related; boundary={BOUNDARY}"}, related(good)),
        ("other-type", {"Content-Type": f'multipart/related; type="text/html"; boundary={BOUNDARY}'}, related(good)),
        ("no-boundary", {"Content-Type": 'multipart/related; type="application/dicom"'}, related(good)),
        ("nothing", _RELATED, b""),
        ("no-parts", _RELATED, b"--hostile--\r\n"),
        ("noise", _RELATED, random.Random(3).randbytes(100_000)),
        ("noise-parts", _RELATED, related(*(random.Random(n).randbytes(1000) for n in range(50)))),
        ("many-parts", _RELATED, related(*[b"a"] * 1000)),
        ("cut", _RELATED, related(good)[:-30]),
    ):
        yield f"stow-{name}", "/dicomweb/studies", given, body
    yield "stow-odd-study", "/dicomweb/studies/..%2f..%2fetc", _RELATED, related(good)


def _archives() -> Iterator[_Body]:
    for name, data in (
        ("bomb", _zip({"a.dcm": bytes(500_000_000)})),
        ("many", _zip({f"{n}.txt": b"a" for n in range(5000)})),
        ("climbing", _zip({"../../../tmp/spicula-was-here.png": b"a"})),
        ("absolute", _zip({"/tmp/spicula-was-here.png": b"a"})),
        ("nested", _zip({"a.zip": _zip({"b.zip": _zip({"c.png": bytes(50_000_000)})})})),
        ("empty", _zip({})),
        ("cut", _zip({"L_CC.png": random.Random(4).randbytes(50_000)})[:30_000]),
        ("lying", _zip({"L_CC.png": bytes(1000)}).replace(struct.pack("<I", 1000), struct.pack("<I", 2**32 - 2))),
        ("long-name", _zip({"a" * 60_000: b"a"})),
        ("twice", _zip({"L_CC.png": b"a"}) * 2),
        ("encrypted", _flagged(_zip({"L_CC.png": b"a" * 100}))),
        ("gzip-bomb", gzip.compress(bytes(300_000_000), 1)),
        ("text", b"no exam"),
        ("dicom-text", malformed.good().encode()),
    ):
        yield f"exam-{name}", "/v1/exams", _FORM, file_form(data, "exam.zip")


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _flagged(data: bytes) -> bytes:
    """Return an archive that says its members are encrypted."""
    local, central = data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8
    spoilt = bytearray(data)
    spoilt[local] |= 1
    spoilt[central] |= 1
    return bytes(spoilt)


def _tensors(model: str) -> Iterator[_Body]:
    path = f"/v2/models/{model}/infer"
    good = {"name": "image", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [0.0] * 12}
    for name, value in {
        "nothing": {},
        "a-list": [1],
        "no-inputs": {"inputs": []},
        "wrong-shape": {"inputs": [good]},
        "negative-shape": {"inputs": [good | {"shape": [-1, 3, 2, 2]}]},
        "huge-shape": {"inputs": [good | {"shape": [2**62, 2**62, 2**62, 2**62]}]},
        "zero-shape": {"inputs": [good | {"shape": [0, 3, 2, 2], "data": []}]},
        "words": {"inputs": [good | {"data": ["a"] * 12}]},
        "huge-numbers": {"inputs": [good | {"data": [1e308] * 12}]},
        "odd-type": {"inputs": [good | {"datatype": "FP7"}]},
        "bytes": {"inputs": [good | {"datatype": "BYTES"}]},
        "many-inputs": {"inputs": [good] * 2000},
        "ragged": {"inputs": [good | {"data": [[0.0], [[0.0]]]}]},
        "numbers-for-names": {"inputs": [good | {"name": 7}]},
        "long-id": {"id": "a" * 500_000, "inputs": [good]},
    }.items():
        yield f"json-{name}", path, _JSON, json.dumps(value).encode()
    for name, body in {
        "no-json": b"{",
        "nan": b'{"inputs": [NaN]}',
        "overflow": b'{"inputs": [1e999]}',
        "digits": b'{"inputs": ' + b"9" * 500_000 + b"}",
        "deep": b"[" * 500_000 + b"]" * 500_000,
        "deep-objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "huge": b'{"inputs": [' + b"0," * 40_000_000 + b"0]}",
        "huge-text": b'{"a": "' + b"b" * 5_000_000 + b'"}',
        "many-keys": ("{" + ",".join(f'"{n}":1' for n in range(60_000)) + "}").encode(),
        "utf-16": '{"inputs": []}'.encode("utf-16"),
        "latin-1": '{"é": 1}'.encode("latin-1"),
        "surrogate": b'{"inputs": [{"name": "\\ud800"}]}',
        "nul": b'{"inputs": "\\u0000"}\0',
    }.items():
        yield f"json-{name}", path, _JSON, body
    head = json.dumps({"inputs": [{**good, "parameters": {"binary_data_size": 48}}]}).replace('"data"', '"x"').encode()
    for name, length, body in (
        ("exact", len(head), head + bytes(48)),
        ("short", len(head), head + bytes(10)),
        ("long", len(head), head + bytes(1000)),
        ("none", len(head), head),
        ("length-0", 0, head + bytes(48)),
        ("length-1", 1, head + bytes(48)),
        ("length-beyond", 10**9, head + bytes(48)),
        ("length-huge", 10**30, head + bytes(48)),
        ("length-negative", -5, head + bytes(48)),
        ("length-word", "many", head + bytes(48)),
    ):
        given = {"Inference-Header-Content-Length": str(length), "Content-Type": "application/octet-stream"}
        yield f"binary-{name}", path, given, body
    for size in (-1, 0, 47, 2**63, 10**30, "48", None, 1.5):
        odd = json.dumps({"inputs": [{**good, "parameters": {"binary_data_size": size}}]}).encode()
        given = {"Inference-Header-Content-Length": str(len(odd))}
        yield f"binary-size-{size}", path, given, odd + bytes(48)


def _lengths(port: int, png: bytes, headers: dict[str, str]) -> Iterator[Named]:
    """Bodies that are longer or shorter than they say."""
    whole = file_form(png)
    for path in ("/v1/predict", "/v1/exams", "/dicomweb/studies"):
        given = {**headers, **(_RELATED if "dicomweb" in path else _FORM)}
        request = post(path, port, whole, given)
        length = f"Content-Length: {len(whole)}".encode()
        name = path.strip("/").replace("/", "-")
        yield f"length-too-small-{name}", request.replace(length, f"Content-Length: {len(whole) // 2}".encode())
        yield f"length-too-large-{name}", request.replace(length, f"Content-Length: {len(whole) + 1000}".encode())
        yield f"length-beyond-{name}", request.replace(length, b"Content-Length: 300000000")
        yield f"body-cut-{name}", request[: len(request) // 2]
