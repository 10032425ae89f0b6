"""A service with a small four-view classifier, as a process of its own: sent exams, watched, killed."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pydicom

EXAMS_TESTS = Path(__file__).parent.parent / "exams"
sys.path.insert(0, str(EXAMS_TESTS))

from process_tree import below  # noqa: E402
from small_bundle import small_bundle  # noqa: E402
from small_exams import NAMES, breast, small_exam, small_exams  # noqa: E402

from spicula.bundle.screening import ScreeningSettings  # noqa: E402
from spicula.convert import png  # noqa: E402
from spicula.phantoms import make_exams  # noqa: E402

__all__ = ["NAMES", "breast", "png", "small_bundle", "small_exam", "small_exams"]

SECONDS = 600  # the machine may be busy; a real exam alone takes half a minute
#: Of the phantoms that tests make, 320 x 260 pixels.
PHANTOM_SETTINGS = ScreeningSettings(
    cc=(220, 160), mlo=(240, 150), erosions=6, buffer=6, patch=64, stride=60, shift=8, resize=8, windows=2
)
FINISHED = ("done", "refused", "failed")
#: Of a phantom study: its images, and what is made of them (a report, and of each image a capture and a segmentation).
IMAGES, RESULTS = 4, 9


class Running:
    """A service that runs; it is ready when this has been made."""

    def __init__(self, workspace, bundle, *arguments):
        self.workspace = Path(workspace)
        self.log = self.workspace.with_suffix(".log")
        command = [sys.executable, "-m", "spicula", "serve", str(bundle), "--port", "0", "--workspace", str(workspace)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--audit", str(workspace) + ".audit", *map(str, arguments)], stderr=log
            )
        begun = len(self.text())
        self.wait(lambda: "\nready" in self.text()[max(0, begun - 1) :] or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()
        self.port = int(re.findall(r"serving on http://127.0.0.1:(\d+) ", self.text())[-1])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=SECONDS)

    def text(self):
        return self.log.read_text()

    @staticmethod
    def wait(condition):
        until = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.02)

    def send(self, *files):
        """Send files, each a path or a pair of name and content; return the answer."""
        pairs = [(one.name, one.read_bytes()) if isinstance(one, Path) else one for one in files]
        return self.client.post("/v1/exams", files=[("file", pair) for pair in pairs])

    def send_folder(self, folder):
        answer = self.send(*sorted(path for path in Path(folder).iterdir() if path.suffix != ".json"))
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def show(self, exam):
        answer = self.client.get(f"/v1/exams/{exam}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, exam):
        """Wait until an exam is finished, and return it."""
        self.wait(lambda: self.show(exam)["status"] in FINISHED)
        return self.show(exam)

    def get(self, exam, path, **options):
        return self.client.get(f"/v1/exams/{exam}/{path}", **options)

    def below(self, module):
        """The processes below the service that run a module."""
        return [pid for pid, line in below(self.process.pid) if f"spicula.{module}" in line]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.close()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.client.close()
        return self.process.wait(SECONDS)


@contextmanager
def running(*arguments):
    service = Running(*arguments)
    try:
        yield service
    finally:
        service.kill()


def phantom_studies(folder, count, seed):
    """Return folders of phantom exams as DICOM."""
    made = make_exams(folder, count, seed=seed, size=(320, 260), jobs=1, prevalence=1.0)
    return sorted(made.glob("phantom-*"))


def phantom_bundle(folder, **options):
    """Return a bundle for phantoms, which states a threshold of heatmaps."""
    return small_bundle(folder, **{"settings": PHANTOM_SETTINGS, "heatmap_threshold": 0.3, **options})


@contextmanager
def running_for_phantoms(folder, *options):
    """Run a service for phantoms in an empty folder."""
    with running(folder / "ws", phantom_bundle(folder / "bundle"), *options) as service:
        yield service


def files_of(study):
    return sorted(study.glob("*.dcm"))


def uid_of(study):
    return str(pydicom.dcmread(files_of(study)[0]).StudyInstanceUID)


def as_bytes(dataset):
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=False)
    return stream.getvalue()


def found_in(service, study):
    """What a search finds in the study of a folder."""
    return service.client.get(f"/dicomweb/studies/{uid_of(study)}/instances").json()


def wait_for_results(service, study, count=IMAGES + RESULTS):
    """Wait until a study has its images and the results of its exam, and return what a search finds."""
    service.wait(lambda: len(found_in(service, study)) >= count)
    return found_in(service, study)


def body_of(*parts, boundary="B", head="Content-Type: application/dicom"):
    sections = [f"--{boundary}\r\n{head}\r\n\r\n".encode() + part + b"\r\n" for part in parts]
    return b"".join(sections) + f"--{boundary}--\r\n".encode()


def push(service, body, path="/dicomweb/studies", kind='multipart/related; type="application/dicom"; boundary=B'):
    return service.client.post(path, content=body, headers={"Content-Type": kind})


def push_study(service, study):
    """Push the study of a folder, and return its UID."""
    answer = push(service, body_of(*(path.read_bytes() for path in files_of(study))))
    assert answer.status_code == 200, answer.text
    return uid_of(study)


def scores(predictions):
    return {(one["model"], one["side"], one["target"]): one["score"] for one in predictions}


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
