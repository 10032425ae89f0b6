"""Buckets for tests, of S3 (moto) and Google Cloud Storage (an emulator): processes on loopback, spoken to directly."""

import json
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest


class ObjectStore:
    """A bucket of a name that no other test has. Addresses are those that Spicula takes."""

    def __init__(self, scheme: str, request: pytest.FixtureRequest) -> None:
        self.scheme, self.name = scheme, f"exams-{uuid.uuid4().hex}"
        if scheme == "s3":
            pytest.importorskip("s3fs", reason="buckets of S3: pip install 'spicula[archives]'")
            bucket = request.getfixturevalue("bucket")
            self._service, self._url = bucket.service, request.getfixturevalue("s3_url")
            bucket(self.name)
        else:
            self._service = request.getfixturevalue("gs_file_system")
            self._service.mkdir(self.name)

    @property
    def address(self) -> str:
        """Of the bucket."""
        return f"{self.scheme}://{self.name}"

    def put(self, key: str, body: bytes) -> None:
        """Put an object in, or another in its place."""
        if self.scheme == "s3":
            self._service.put_object(Bucket=self.name, Key=key, Body=body)
        else:
            self._service.pipe_file(f"{self.name}/{key}", body)

    def remove(self, key: str) -> None:
        """Remove an object."""
        if self.scheme == "s3":
            self._service.delete_object(Bucket=self.name, Key=key)
        else:
            self._service.rm_file(f"{self.name}/{key}")

    def upload(self, folder: Path, prefix: str) -> str:
        """Put all files of a folder in, and return the address of the prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.address}/{prefix}"

    def keys(self) -> set[str]:
        """What is in the bucket."""
        if self.scheme == "s3":
            pages = self._service.get_paginator("list_objects_v2").paginate(Bucket=self.name)
            return {one["Key"] for page in pages for one in page.get("Contents", ())}
        return {name.partition("/")[2] for name in self._service.find(self.name)}

    def record(self) -> None:
        """Have the service write down requests from now on, and forget those before (S3 alone)."""
        for what in ("reset", "start"):
            self._recorder(f"{what}-recording", b"{}")

    def fetched(self) -> list[str]:
        """Return the keys of this bucket that were asked for since `record`, by the service's own log."""
        lines = self._recorder("download-recording").decode().splitlines()
        asked = [(one["method"], one["url"]) for one in map(json.loads, lines)]
        here = f"{self._url}/{self.name}/"
        return [url.removeprefix(here) for method, url in asked if method == "GET" and url.startswith(here)]

    def _recorder(self, what: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"{self._url}/moto-api/recorder/{what}", data=body) as answer:
            return answer.read()
