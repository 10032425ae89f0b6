"""Names, ids and dates of a patient who does not exist, planted wherever a client can put them."""

import asyncio
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pydicom
from serve_faults_bodies import BOUNDARY, file_form, related
from serve_faults_clients import Connection, get, post

#: Elements of a DICOM header, each with what is planted there.
HEADER = {
    "PatientName": "QUILLAMORE^ZENOBIA",
    "PatientID": "PID-7741936205",
    "PatientBirthDate": "19370911",
    "AccessionNumber": "ACC-58820417",
    "StudyID": "SID-99120374",
    "OtherPatientIDs": "OPI-31170926",
    "IssuerOfPatientID": "ISSUER-HOLMGARD",
    "PatientBirthName": "TREVANION^ZENOBIA",
    "PatientMotherBirthName": "OSTERBERG^UNA",
    "PatientAddress": "14 WITHYCOMBE LANE",
    "PatientTelephoneNumbers": "0555-2718281",
    "PatientComments": "widow of BRAMBLEHURST",
    "ReferringPhysicianName": "PENHALIGON^ORSON",
    "OperatorsName": "VANTERPOOL^IDA",
    "PerformingPhysicianName": "GREENGRASS^ELI",
    "InstitutionName": "ST WALBURGA HOSPITAL",
    "InstitutionAddress": "2 CAUSEWAY OF DUNMORE",
    "StationName": "STN-ORRERY-4",
    "StudyDescription": "recall KESTREL-61",
    "SeriesDescription": "series MERIDIAN-72",
    "ImageComments": "seen by LORIMER-83",
    "AdmissionID": "ADM-66410283",
    "RequestedProcedureID": "RPI-20481632",
}
FILE, MEMBER, QUERY, PATH = "MARCHBANKS_zenobia", "HOLLOWAY_zenobia", "THISTLETON-1", "WESTERGAARD-2"
FIELD, ID, GUESS, COOKIE, AGENT, REQUEST_ID, REFERER, METHOD = (
    *("FIELD-IVERSON-3", "ID-JELLICOE-4", "guessed-token-ABERNATHY-5", "session-CALLOWAY-6", "agent-DRUMMOND-7"),
    *("request-EASTLAKE-8", "referer-FARTHINGALE-9", "GAINSBOROUGH"),
)
CANARIES = (*HEADER.values(), FILE, MEMBER, QUERY, PATH, FIELD, ID, GUESS, COOKIE, AGENT, REQUEST_ID, REFERER, METHOD)
_HEADERS = {"Cookie": COOKIE, "User-Agent": AGENT, "X-Request-ID": REQUEST_ID, "Referer": f"http://a/{REFERER}"}
_EXAM_SECONDS = 300


def make_exam(folder: Path) -> list[bytes]:
    """Return the four views of a phantom, with the canaries in their headers."""
    command = [sys.executable, "-m", "spicula", "phantom", "--exams", "1", "--size", "320", "260", "--jobs", "1"]
    subprocess.run([*command, "--to", str(folder)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    views = []
    for path in sorted(folder.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        for keyword, value in HEADER.items():
            setattr(dataset, keyword, value)
        stream = io.BytesIO()
        dataset.save_as(stream)
        views.append(stream.getvalue())
    return views


class Planting:
    """Plants canaries in a service, and keeps what it answers.

    Args:
        port: of the service.
        token: that it knows.
        model: name of one that it serves.
        views: DICOM files of an exam, see `make_exam`.

    Attributes:
        answers: bodies of answers by what was asked; those that hold a patient's data by their nature are left out.
    """

    def __init__(self, port: int, token: str, model: str, views: list[bytes]) -> None:
        self._port, self._model, self._views = port, model, views
        self._headers = {**_HEADERS, "Authorization": f"Bearer {token}"}
        self.answers: dict[str, bytes] = {}

    async def run(self) -> None:
        """Plant all of them."""
        view, form = self._views[0], {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        named = file_form(view, f"{FILE}.dcm")
        exams = [
            await self._exam(
                form, b"".join(file_form(one, f"{FILE}.dcm")[:-13] for one in self._views) + b"--hostile--\r\n"
            ),
            await self._exam(form, file_form(_zip(self._views[:3]), f"{FILE}.zip")),
            await self._exam(form, file_form(view[:-1000], f"{FILE}.dcm")),
        ]
        for path in ("/v1/predict", "/predict", f"/v1/predict?model={QUERY}&of={QUERY}", f"/predict?model={QUERY}"):
            await self._post(path, form, named)
            await self._post(path, form, file_form(view[: len(view) // 2], f"{FILE}.dcm"))
            await self._post(path, form, named.replace(b'name="file"', f'name="{FIELD}"'.encode()))
        stow = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
        await self._post("/dicomweb/studies", stow, related(*self._views), is_kept=False)
        await self._post("/dicomweb/studies", stow, related(view[:-1000]))
        await self._post(f"/dicomweb/studies/{PATH}", stow, related(view), is_kept=False)
        tensors = {"id": ID, "inputs": [{"name": ID, "shape": [1], "datatype": "FP32", "data": [0]}]}
        await self._post(
            f"/v2/models/{self._model}/infer", {"Content-Type": "application/json"}, json.dumps(tensors).encode()
        )
        for path in (
            *(f"/{PATH}", f"/v1/exams/{PATH}", f"/v1/models/{PATH}", f"/v2/models/{PATH}", f"/page/{PATH}"),
            *(f"/v1/exams/{PATH}/report.html", f"/v1/exams/{PATH}/views/{PATH}/image", f"/v1/exams?q={QUERY}"),
            *(f"/v1/exams?sort={QUERY}", f"/v1/exams?{QUERY}=1", f"/dicomweb/studies?{QUERY}=1", f"/v1/models?{QUERY}"),
            *(
                f"/dicomweb/studies?StudyDate={QUERY}",
                f"/dicomweb/studies?PatientID={HEADER['PatientID']}&limit={QUERY}",
            ),
            *(f"/dicomweb/studies/{PATH}", f"/dicomweb/studies/{PATH}/metadata", f"/v2/models/{PATH}/infer"),
            *(path for exam in exams for path in (f"/v1/exams/{exam}", f"/v1/exams/{exam}/report.html")),
            *("/v1/exams", "/v1/models", "/metrics", "/openapi.json"),
        ):
            await self._ask(f"GET {path}", get(path, self._port, self._headers))
        guess = {**self._headers, "Authorization": f"Bearer {GUESS}"}
        await self._ask("a guess", get("/v1/models", self._port, guess))
        await self._ask("an odd method", f"{METHOD} /{PATH} HTTP/1.1\r\nHost: {PATH}\r\n\r\n".encode())
        await self._ask("no HTTP", f"{PATH}\r\n\r\n".encode())
        await self._ask("an odd host", f"GET /?{QUERY} HTTP/1.1\r\nHost: {PATH}\r\nHost: b\r\n\r\n".encode())

    async def _exam(self, headers: dict[str, str], body: bytes) -> str:
        """Send an exam, wait until it has been run, and return its id; "" where it was not taken."""
        answer = json.loads(await self._post("/v1/exams", headers, body))
        exam = str(answer.get("id", ""))
        for _ in range(_EXAM_SECONDS if exam else 0):
            found = json.loads(await self._ask("an exam", get(f"/v1/exams/{exam}", self._port, self._headers)))
            if found["finished"]:
                break
            await asyncio.sleep(1)
        return exam

    async def _post(self, path: str, headers: dict[str, str], body: bytes, *, is_kept: bool = True) -> bytes:
        request = post(path, self._port, body, {**self._headers, **headers})
        return await self._ask(f"POST {path}", request, is_kept=is_kept)

    async def _ask(self, name: str, request: bytes, *, is_kept: bool = True) -> bytes:
        connection = await Connection.open(self._port)
        try:
            async with asyncio.timeout(_EXAM_SECONDS):
                _, head, body = await connection.ask(request)
        except (EOFError, OSError):
            return b"{}"
        finally:
            connection.close()
        if is_kept:
            self.answers[f"answer {len(self.answers)}, to {name}"] = head + body
        return body


def _zip(views: list[bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, view in enumerate(views):
            archive.writestr(f"{MEMBER}/{number}.dcm", view)
    return stream.getvalue()
