"""nginx with the configuration of deploy/compose in front of a service, on loopback and without rights."""

import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[2] / "deploy/compose/nginx.conf"
SECONDS = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def changed(text, changes):
    """Replace each text by another; each has to be there."""
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


class Proxy:
    """nginx that runs.

    Args:
        service_port: of the service behind it.
        changes: of its configuration, such as {"rate=50r/s": "rate=1r/m"}.

    Attributes:
        port: where it speaks TLS.
        folder: of its own; what it wrote is in it.
    """

    def __init__(self, service_port, changes):
        nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
        if nginx is None or shutil.which("openssl") is None:
            pytest.skip("needs nginx and openssl: apt-get install nginx-light openssl")
        self.folder = Path(tempfile.mkdtemp(prefix="proxied-"))
        self.port, self.health_port = free_port(), free_port()
        self._certificate, self._key = self.folder / "certificate", self.folder / "key"
        self.make_certificate()
        here = {
            "/tmp/": f"{self.folder}/",
            "/dev/stdout": f"{self.folder}/access",
            "/run/secrets/tls_certificate": str(self._certificate),
            "/run/secrets/tls_key": str(self._key),
            "listen 8443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "listen 127.0.0.1:8080": f"listen 127.0.0.1:{self.health_port}",
            "172.30.77.3:8000": f"127.0.0.1:{service_port}",
            "worker_processes auto": "worker_processes 1",
        }
        configuration = self.folder / "nginx.conf"
        configuration.write_text(changed(CONFIGURATION.read_text(), here | changes))
        command = [nginx, "-p", self.folder, "-e", "stderr", "-c", configuration]
        if os.geteuid() == 0:  # as in the container: a user without rights
            nobody = pwd.getpwnam("nobody")
            for path in (self.folder, configuration):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            self.folder.chmod(0o755)
            ids = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"]
            command = ["setpriv", *ids, "--clear-groups", "--no-new-privs", *command]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        with (self.folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=stderr)
        until = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < until, self.written()
                time.sleep(0.05)

    def make_certificate(self):
        """Make a certificate, which alone is trusted from now on."""
        ask = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-out", self._certificate, "-keyout", self._key]
        subprocess.run([*ask, *names, *files], check=True, capture_output=True)
        self._key.chmod(0o644)  # whoever runs nginx reads it
        self.tls = ssl.create_default_context(cafile=self._certificate)

    def close(self):
        """End it as Docker does (SIGQUIT: what is under way is answered), and remove its folder."""
        self.process.send_signal(signal.SIGQUIT)
        try:
            assert self.process.wait(SECONDS) == 0
        finally:
            self.process.kill()
            shutil.rmtree(self.folder)

    def written(self):
        """Return all that it wrote: logs, and files of bodies and answers, if any."""
        return b"\n".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file()).decode(
            errors="replace"
        )

    def statuses(self):
        """Return the statuses in the access log."""
        lines = (self.folder / "access").read_text().splitlines()
        return [re.fullmatch(r"\S+ \w+ (\d{3}) \d+ \d+ [\d.]+ .*", line)[1] for line in lines]

    def connect(self, source="127.0.0.1", plain=False):
        stream = socket.create_connection(("127.0.0.1", self.port), SECONDS, (source, 0))
        return stream if plain else self.tls.wrap_socket(stream, server_hostname="localhost")

    def ask(self, method, path, body=None, headers=None, source="127.0.0.1"):
        """Ask on a connection of its own; return status, headers, and the body, parsed where it is JSON."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=SECONDS, context=self.tls, source_address=(source, 0)
        )
        try:
            connection.request(method, path, body, headers or {})
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def say(self, *data, plain=False):
        """Send bytes, and return the answer as `ask` does; None where the connection was closed without one."""
        with self.connect(plain=plain) as stream:
            for piece in data:
                stream.sendall(piece)
            return read_answer(stream)


def answer_of(response):
    body = response.read()
    return (
        response.status,
        response.headers,
        json.loads(body) if "json" in response.headers.get_content_type() else body,
    )


def read_answer(stream):
    response = http.client.HTTPResponse(stream)
    try:
        response.begin()
    except (http.client.BadStatusLine, ConnectionError):
        return None
    return answer_of(response)


@contextmanager
def proxied(service_port, changes=None):
    proxy = Proxy(service_port, changes or {})
    try:
        yield proxy
    finally:
        proxy.close()
