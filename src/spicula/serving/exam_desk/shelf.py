"""The folder of one exam: what it is, what came out, and what was made of that."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shelf:
    """The folder of an exam, which may be missing.

    Attributes:
        folder: with exam.json, progress.json, result.json and made/, see `incoming`.
    """

    folder: Path

    def description(self) -> dict[str, Any]:
        """Return what came: "time", "digest", "files", "notes"; {} when there is no such exam."""
        return self._read("exam.json")

    def progress(self) -> dict[str, Any]:
        """Return how far the exam is; {} when it is not being run."""
        return self._read("progress.json")

    def result(self) -> dict[str, Any]:
        """Return what came out of it; {} when nothing has yet."""
        return self._read("result.json")

    def stamp(self) -> int:
        """Return what changes when the result does; 0 where there is none."""
        try:
            return (self.folder / "result.json").stat().st_mtime_ns
        except OSError:
            return 0

    @property
    def made(self) -> Path:
        """The folder of what is made of its results on demand."""
        return self.folder / "made"

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return {}
        return found
