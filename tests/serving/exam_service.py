"""A service with a small four-view classifier, as a process of its own: sent exams, watched, killed."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

EXAMS_TESTS = Path(__file__).parent.parent / "exams"
sys.path.insert(0, str(EXAMS_TESTS))

from process_tree import below  # noqa: E402
from small_bundle import small_bundle  # noqa: E402
from small_exams import NAMES, breast, small_exam, small_exams  # noqa: E402

from spicula.bundle.screening import ScreeningSettings  # noqa: E402
from spicula.convert import png  # noqa: E402

__all__ = ["NAMES", "breast", "png", "small_bundle", "small_exam", "small_exams"]

SECONDS = 600  # the machine may be busy; a real exam alone takes half a minute
#: Of the phantoms that tests make, 320 x 260 pixels.
PHANTOM_SETTINGS = ScreeningSettings(
    cc=(220, 160), mlo=(240, 150), erosions=6, buffer=6, patch=64, stride=60, shift=8, resize=8, windows=2
)
FINISHED = ("done", "refused", "failed")


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


def scores(predictions):
    return {(one["model"], one["side"], one["target"]): one["score"] for one in predictions}


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
