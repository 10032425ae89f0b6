"""A server that speaks the interface of an NBIA service, on loopback, with generated DICOM and faults on demand.

Run as a program it serves until it is killed; `Server` starts it as one. Like the real service it makes a zip while it
sends it: chunked, members deflated with their sizes behind them, the MD5 list last, of another time at every request,
and without ranges. With `ranges` it sends the same bytes every time and takes ranges.
"""

import functools
import hashlib
import http.server
import io
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "reader", "correct-horse-canary"
TOKEN = "token-canary"
ROOT = "1.3.6.1.4.1.9590.100.1.2"
CHUNK = 4096


class Server:
    """A server process, as tests see it.

    Args:
        settings: as `Settings`.
    """

    def __init__(self, **settings: object) -> None:
        command = [sys.executable, __file__, json.dumps(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/nbia-api"

    def faults(self, *faults: dict[str, object]) -> None:
        """Set the faults: {"series": number, "kind": ..., "times": how often, "call": which}."""
        self._control("faults", json.dumps(faults).encode())

    def set(self, **settings: object) -> None:
        """Change settings."""
        self._control("settings", json.dumps(settings).encode())

    def counts(self) -> dict[str, dict[str, int]]:
        """Return requests and bytes by call."""
        return self._control("counts")

    def sent(self) -> int:
        """Return the bytes of images that were sent, packed or not."""
        counts = self.counts()["bytes"]
        return sum(counts.get(call, 0) for call in ("getImageWithMD5Hash", "getSingleImage"))

    def requests(self, call: str) -> int:
        """Return how often a call was made."""
        return self.counts()["requests"].get(call, 0)

    def pause(self) -> None:
        """Stop the process: connections stay, nothing moves."""
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _control(self, name: str, data: bytes | None = None) -> dict:
        with urllib.request.urlopen(f"{self.origin}/control/{name}", data, timeout=30) as answer:
            return json.load(answer)


class Settings:
    """What a server has and how it behaves."""

    def __init__(self, **values: object) -> None:
        self.collection = "GENERATED"
        self.series = 4
        self.images = 3  # in every series
        self.side = 32  # of an image, in pixels; 2 bytes each
        self.blank = False  # images of zeros: deflate packs them up to a thousand times
        self.rate = 0  # bytes a second and connection; 0: as fast as it goes
        self.ranges = False
        self.sizes = True  # whether the listing has them
        self.single_images = True
        self.restricted = False
        self.token_life = 3600.0
        self.listing = True  # whether getSeries knows the collection
        self.update(values)

    def update(self, values: dict[str, object]) -> None:
        for name, value in values.items():
            assert hasattr(self, name), name
            setattr(self, name, value)


def series_uid(number: int) -> str:
    return f"{ROOT}.1.{number + 1}"


def study_uid(number: int) -> str:
    return f"{ROOT}.2.{number // 2 + 1}"


def sop_uid(number: int, image: int) -> str:
    # in another order than the images' numbers
    return f"{ROOT}.3.{number + 1}.{900 - image}"


def patient_id(number: int) -> str:
    return f"GEN/{number // 2 + 1:04d}"


@functools.cache
def image_bytes(number: int, image: int, side: int, blank: bool) -> bytes:
    """Return one DICOM file: noise, always the same."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid(number, image)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series_uid(number), study_uid(number)
    dataset.PatientID, dataset.PatientName = patient_id(number), "CANARY^NAME"
    dataset.Modality, dataset.InstanceNumber = "MG", image + 1
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    noise = random.Random(f"{number}/{image}").randbytes(2 * side * side)
    dataset.PixelData = bytes(2 * side * side) if blank else noise
    output = io.BytesIO()
    dataset.save_as(output, enforce_file_format=True)
    return output.getvalue()


class _Sink(io.RawIOBase):
    """Where zipfile cannot seek, it writes as it would into a connection."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def make_zip(images: dict[str, bytes], listed: dict[str, str] | None, when: float) -> bytes:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as output:
        members = dict(images)
        if listed is not None:
            lines = ["Filename,MD5Hash", *(f"{name},{md5}" for name, md5 in listed.items())]
            members["md5hashes.csv"] = "".join(f"{line}\n" for line in lines).encode()
        for name, content in members.items():
            info = zipfile.ZipInfo(name, time.localtime(when)[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            output.writestr(info, content)
    return bytes(sink.data)


class State:
    """What all connections share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.Lock()
        self.counts: dict[str, dict[str, int]] = {"requests": {}, "bytes": {}}
        self.faults: list[dict] = []
        self.tokens: dict[str, float] = {}

    def count(self, what: str, call: str, number: int = 1) -> None:
        with self.lock:
            self.counts[what][call] = self.counts[what].get(call, 0) + number

    def fault(self, call: str, number: int | None) -> dict:
        """Return the fault that is due for a request, and use it up."""
        with self.lock:
            for fault in self.faults:
                due = fault.get("times", 1) > 0 and fault.get("call", "getImageWithMD5Hash") == call
                if due and fault.get("series", number) == number:
                    fault["times"] = fault.get("times", 1) - 1
                    return fault
        return {"kind": ""}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: State

    def setup(self) -> None:
        super().setup()
        # so that what counts as sent is what the other side has, but for a little
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        steps = parts.path.strip("/").split("/")
        if steps == ["control", "counts"]:
            self._send(json.dumps(self.state.counts).encode())
        elif steps[:2] == ["nbia-api", "services"] and len(steps) == 4:
            self._call(steps[2], steps[3])
        else:
            self._send(b"<html>not here</html>", status=404)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if path == "/control/faults":
            self.state.faults = json.loads(data)
            self._send(b"{}")
        elif path == "/control/settings":
            self.state.settings.update(json.loads(data))
            self._send(b"{}")
        elif path == "/nbia-api/oauth/token":
            self._log_in({name: values[0] for name, values in parse_qs(data.decode()).items()})
        else:
            self._send(b"{}", status=404)

    def _log_in(self, form: dict[str, str]) -> None:
        self.state.count("requests", "token")
        if (form.get("username"), form.get("password"), form.get("grant_type")) != (USER, PASSWORD, "password"):
            self._send(b'{"error":"invalid_grant"}', status=401)
            return
        token = f"{TOKEN}-{len(self.state.tokens)}"
        self.state.tokens[token] = time.monotonic() + self.state.settings.token_life
        self._send(json.dumps({"access_token": token, "expires_in": int(self.state.settings.token_life)}).encode())

    def _call(self, version: str, call: str) -> None:
        self.state.count("requests", call)
        settings = self.state.settings
        if version == "v2" and self.state.tokens.get(self.headers.get("Authorization", "")[7:], 0) < time.monotonic():
            self._send(b'{"error":"invalid_token"}', status=401)
            return
        shown = version == "v2" or not settings.restricted
        fault = self.state.fault(call, self._number())
        if fault["kind"] == "busy":
            self._send(b"", status=503, headers={"Retry-After": fault["after"]} if "after" in fault else {})
        elif fault["kind"] == "html":
            self._send(b"<html><body>We are down for maintenance</body></html>", kind="text/html")
        elif fault["kind"] == "redirect":
            self._send(b"", status=302, headers={"Location": fault["to"]})
        elif call in ("getImageWithMD5Hash", "getSingleImage") and not shown:
            self._send(b'"Image with given SeriesInstanceUID is not in public domain."', status=400)
        elif (answer := getattr(self, f"_{call}", None)) is None or (
            not settings.single_images and call in ("getSOPInstanceUIDs", "getSingleImage", "getM5HashForImage")
        ):
            self._send(b"<html>no such call</html>", status=404)
        elif call in ("getImageWithMD5Hash", "getSingleImage"):
            answer(fault)
        else:
            rows = answer() if shown else []
            body = rows.encode() if isinstance(rows, str) else json.dumps(rows).encode() if rows else b""
            self._send(body)

    def _number(self) -> int | None:
        uid = self.query.get("SeriesInstanceUID", "")
        number = int(uid.rpartition(".")[2]) - 1 if uid.startswith(f"{ROOT}.1.") else -1
        return number if 0 <= number < self.state.settings.series else None

    def _image(self, number: int, image: int) -> bytes:
        return image_bytes(number, image, self.state.settings.side, self.state.settings.blank)

    def _getSeries(self) -> list[dict]:
        settings = self.state.settings
        if self.query.get("Collection") != settings.collection or not settings.listing:
            return []
        rows = []
        for number in range(settings.series):
            row: dict[str, object] = {
                "SeriesInstanceUID": series_uid(number),
                "StudyInstanceUID": study_uid(number),
                "Modality": "MG" if number % 4 != 3 else "SEG",
                "SeriesDate": "2017-08-29 00:00:00.0",
                "SeriesDescription": "full mammogram images" if number % 2 == 0 else "../../ROI \x00mask:images",
                "SeriesNumber": 1 + number % 2,
                "Collection": settings.collection,
                "PatientID": patient_id(number),
                "ImageCount": settings.images,
                "LicenseName": "Creative Commons Attribution 3.0 Unported License",
                "LicenseURI": "http://creativecommons.org/licenses/by/3.0/",
                "CollectionURI": "https://doi.org/10.1/GENERATED",
            }
            if settings.sizes:
                row["FileSize"] = sum(len(self._image(number, image)) for image in range(settings.images))
            rows.append(row)
        return rows

    def _getPatientStudy(self) -> list[dict]:
        settings = self.state.settings
        if self.query.get("Collection") not in (None, settings.collection):
            return []
        uids = sorted({study_uid(number) for number in range(settings.series)})
        wanted = self.query.get("StudyInstanceUID")
        return [
            {"StudyInstanceUID": uid, "StudyDate": "2017-08-29 00:00:00.0", "StudyID": "DDSM"}
            for uid in uids
            if wanted in (None, uid)
        ]

    def _getSeriesMetaData(self) -> list[dict]:
        number = self._number()
        if number is None:
            return []
        return [
            {
                "Series UID": series_uid(number),
                "Collection": self.state.settings.collection,
                "3rd Party Analysis": "NO",
                "Subject ID": patient_id(number),
                "Study UID": study_uid(number),
                "Study Date": "08-29-2017",
                "Series Description": "full mammogram images" if number % 2 == 0 else "../../ROI \x00mask:images",
                "Modality": "MG" if number % 4 != 3 else "SEG",
                "SOP Class UID": "1.2.840.10008.5.1.4.1.1.1.2",
                "Number of Images": str(self.state.settings.images),
                "File Size": str(sum(len(self._image(number, image)) for image in range(self.state.settings.images))),
                "Series Number": f"{1 + number % 2}.000000",
            }
        ]

    def _getSOPInstanceUIDs(self) -> list[dict]:
        number = self._number()
        images = range(self.state.settings.images)
        return [] if number is None else [{"SOPInstanceUID": sop_uid(number, image)} for image in images]

    def _getM5HashForImage(self) -> str:
        series, _, image = self.query["SOPInstanceUid"].removeprefix(f"{ROOT}.3.").partition(".")
        return hashlib.md5(self._image(int(series) - 1, 900 - int(image))).hexdigest()

    def _getSingleImage(self, fault: dict) -> None:
        image = 900 - int(self.query["SOPInstanceUID"].rpartition(".")[2])
        data = self._image(self._number(), image)
        if fault["kind"] == "wrong":
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(data, call="getSingleImage", kind="application/dicom")

    def _getImageWithMD5Hash(self, fault: dict) -> None:
        number, settings = self._number(), self.state.settings
        images = {f"{image + 1:08d}.dcm": self._image(number, image) for image in range(settings.images)}
        listed = {name: hashlib.md5(content).hexdigest() for name, content in images.items()}
        kind, last = fault["kind"], f"{settings.images:08d}.dcm"
        if kind == "wrong":
            images[last] = images[last][:-1] + bytes([images[last][-1] ^ 1])
        elif kind == "missing":
            del images[last]
        elif kind == "extra":
            images["00000099.dcm"] = images[last]
        elif kind == "no-list":
            listed = None
        elif kind == "evil":
            images["../evil.dcm"] = b"x"
        data = make_zip(images, listed, 1e9 if settings.ranges else time.time())
        if settings.ranges:
            self._send_ranges(data, fault)
        else:
            self._stream(data, fault)

    def _send_ranges(self, data: bytes, fault: dict) -> None:
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if asked and self.headers.get("If-Range") == etag:
            self.state.count("requests", "range")
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            said = start + 1 if fault["kind"] == "other-range" else start
            headers["Content-Range"] = f"bytes {said}-{len(data) - 1}/{len(data)}"
            self._send(data[start:], 206, headers=headers, call="getImageWithMD5Hash", fault=fault)
        else:
            self._send(data, headers=headers, call="getImageWithMD5Hash", fault=fault)

    def _stream(self, data: bytes, fault: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in self._chunks(data, fault):
            self._write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n", "getImageWithMD5Hash", len(chunk))
        if not self.close_connection:
            self.wfile.write(b"0\r\n\r\n")

    def _send(
        self,
        data: bytes,
        status: int = 200,
        *,
        headers: dict[str, str] | None = None,
        kind: str = "application/json",
        call: str = "other",
        fault: dict | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in self._chunks(data, fault or {"kind": ""}):
            self._write(chunk, call, len(chunk))

    def _chunks(self, data: bytes, fault: dict):
        """Yield the data piece by piece, as quickly as it should be, up to where the connection is to break."""
        until = len(data)
        if fault["kind"] in ("cut", "stall"):
            until = int(len(data) * fault.get("at", 0.5))
        for start in range(0, until, CHUNK):
            chunk = data[start : min(start + CHUNK, until)]
            yield chunk
            if self.state.settings.rate:
                time.sleep(len(chunk) / self.state.settings.rate)
        if fault["kind"] == "stall":
            time.sleep(3600)
        if fault["kind"] == "cut":
            self.close_connection = True

    def _write(self, data: bytes, call: str, count: int) -> None:
        self.wfile.write(data)
        self.state.count("bytes", call, count)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the other side was killed
            self.close_connection = True


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def main() -> None:
    state = State(Settings(**json.loads(sys.argv[1])))
    image_bytes(0, 0, 4, False)  # loads what it needs, before anybody waits for an answer
    server = _Http(("127.0.0.1", 0), type("Connection", (Handler,), {"state": state}))
    print(server.server_address[1], flush=True)
    server.serve_forever()


def whole(settings: Settings) -> dict[str, bytes]:
    """Return every image of a server by its SOP instance UID."""
    return {
        sop_uid(number, image): image_bytes(number, image, settings.side, settings.blank)
        for number in range(settings.series)
        for image in range(settings.images)
    }


if __name__ == "__main__":
    main()
