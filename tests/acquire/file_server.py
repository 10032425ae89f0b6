"""A web server of files, run as a process of its own, that has the faults of real ones.

    python file_server.py FOLDER LOG FAULTS

FOLDER is served. Every request becomes a line of JSON in LOG. FAULTS is a JSON file, read anew for every request:

    auth            [user, password]: nobody else gets in
    forbidden       true: 403 for everybody
    redirect        an address that every file is redirected to
    ignore_range    true: the whole file whatever is asked for
    no_validator    true: neither ETag nor Last-Modified
    cut             {path: [bytes, ...]}: the connection is cut after so many bytes of the body, once for each
    flip            {path: times}: the last byte is wrong so many times
    status          {path: [status, ...]}: answered so, once for each
    delay           seconds to wait before every answer
    pace            bytes of a body that are sent in a second, about

It prints its port.
"""

import base64
import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOCK = threading.Lock()
SEEN: dict[tuple[str, str], int] = {}


def nth(fault: str, path: str) -> int:
    """How often a fault was asked for on a path before."""
    with LOCK:
        count = SEEN.get((fault, path), 0)
        SEEN[fault, path] = count + 1
        return count


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    log_file: Path
    faults_file: Path

    def do_GET(self) -> None:
        self.faults = json.loads(self.faults_file.read_text())
        self.name = unquote(urlsplit(self.path).path).lstrip("/")
        time.sleep(self.faults.get("delay", 0))
        self.answer()

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Note the request, before the other side can know its answer, and send the head."""
        entry = {
            "path": self.name,
            "status": status,
            "range": self.headers.get("Range"),
            "login": "Authorization" in self.headers,
            "agent": self.headers.get("User-Agent", ""),
        }
        with LOCK, self.log_file.open("a") as log:
            log.write(json.dumps(entry) + "\n")
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def answer(self) -> None:
        planned = self.faults.get("status", {}).get(self.name, [])
        count = nth("status", self.name)
        path = self.folder / self.name
        if count < len(planned):
            self.short(planned[count])
        elif self.faults.get("forbidden"):
            self.short(403)
        elif "auth" in self.faults and not self.is_let_in():
            self.short(401)
        elif "redirect" in self.faults:
            self.short(302, {"Location": self.faults["redirect"] + self.name})
        elif not path.is_file():
            self.short(404)
        else:
            self.file(path.read_bytes())

    def is_let_in(self) -> bool:
        expected = base64.b64encode(":".join(self.faults["auth"]).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def short(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.begin(status, {"Content-Length": "0"} | (headers or {}))

    def file(self, body: bytes) -> None:
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        start, wanted = 0, self.headers.get("Range")
        takes_ranges = not self.faults.get("ignore_range")
        if wanted and takes_ranges and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(body):
                self.short(416, {"Content-Range": f"bytes */{len(body)}"})
                return
        if nth("flip", self.name) < self.faults.get("flip", {}).get(self.name, 0):
            body = body[:-1] + bytes([body[-1] ^ 1])
        headers = {"Content-Length": str(len(body) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if takes_ranges:
            headers["Accept-Ranges"] = "bytes"
        if not self.faults.get("no_validator"):
            headers["ETag"] = etag
        self.begin(206 if start else 200, headers)
        body = body[start:]
        cuts = self.faults.get("cut", {}).get(self.name, [])
        count = nth("cut", self.name)
        if count < len(cuts):
            self.send(body[: cuts[count]])
            self.close_connection = True
            self.connection.close()
        else:
            self.send(body)

    def send(self, body: bytes) -> None:
        pace = self.faults.get("pace")
        step = pace // 20 if pace else len(body) or 1
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
                self.wfile.flush()
                time.sleep(0.05 if pace else 0)
        except OSError:  # the other side is gone
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    Handler.folder, Handler.log_file, Handler.faults_file = map(Path, sys.argv[1:])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
