"""Google Cloud Storage as far as Delta tables need it: the XML API, objects in memory. A process of its own.

It answers requests for single objects (GET with ranges, HEAD, PUT with `x-goog-if-generation-match: 0`, DELETE) and for
lists (https://cloud.google.com/storage/docs/xml-api/overview), in which the emulator that other tests use differs. It
prints its port.
"""

import hashlib
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

OBJECTS: dict[str, bytes] = {}
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # an answer leaves in one piece: two would wait for one another

    def do_GET(self):
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if not key:
            return self.answer(200, self.listed(bucket, parse_qs(parts.query)).encode())
        body = OBJECTS.get(f"{bucket}/{key}")
        if body is None:
            return self.answer(404)
        headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "Last-Modified": formatdate(usegmt=True)}
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.answer(200, body, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(body) - int(last))
        stop = min(int(last) + 1, len(body)) if first and last else len(body)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        return self.answer(206, body[start:stop], headers)

    do_HEAD = do_GET

    def do_PUT(self):
        name = unquote(urlsplit(self.path).path).lstrip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with LOCK:
            if self.headers.get("x-goog-if-generation-match") == "0" and name in OBJECTS:
                return self.answer(412)
            OBJECTS[name] = body
        return self.answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"', "x-goog-generation": "1"})

    def do_DELETE(self):
        self.answer(204 if OBJECTS.pop(unquote(urlsplit(self.path).path).lstrip("/"), None) is not None else 404)

    def listed(self, bucket, query):
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        start = query.get("start-after", query.get("start-offset", [""]))[0]
        names = sorted(name.removeprefix(f"{bucket}/") for name in list(OBJECTS) if name.startswith(f"{bucket}/"))
        entries, folders = [], set()
        for name in names:
            if not name.startswith(prefix) or name <= start:
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            body = OBJECTS[f"{bucket}/{name}"]
            entries.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified>"
                f'<ETag>"{hashlib.md5(body).hexdigest()}"</ETag><Size>{len(body)}</Size></Contents>'
            )
        prefixes = [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders)]
        return f"<ListBucketResult>{''.join(entries + prefixes)}</ListBucketResult>"

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
