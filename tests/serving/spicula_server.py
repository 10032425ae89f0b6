"""`spicula serve` as a process of its own, waited for until it is ready."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60


class Server:
    """A service that runs.

    Attributes:
        port: where it listens.
    """

    def __init__(self, *arguments, environment=None):
        # a file, not a pipe: nobody reads while the service writes
        self._log, name = tempfile.mkstemp()
        Path(name).unlink()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spicula", "serve", "--port", "0", *map(str, arguments)],
            stderr=self._log,
            env=os.environ | (environment or {}),
        )
        while self._process.poll() is None and not any(line.startswith("ready") for line in self.lines):
            time.sleep(0.05)
        ports = [re.match(r"serving on https?://[^ ]*:(\d+) ", line) for line in self.lines]
        self.port = next((int(found[1]) for found in ports if found), 0)

    @property
    def lines(self):
        """What it wrote to stderr so far."""
        return os.pread(self._log, 2**24, 0).decode().splitlines()

    @property
    def status(self):
        return self._process.poll()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def end(self):
        """Ask it to end, and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SECONDS)

    def kill(self):
        self._process.kill()
        self._process.wait(SECONDS)
        os.close(self._log)


@contextmanager
def serving(*arguments, environment=None):
    """Serve as long as the context lasts."""
    server = Server(*arguments, environment=environment)
    try:
        yield server
    finally:
        server.kill()
