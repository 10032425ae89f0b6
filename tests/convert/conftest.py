"""Small archives of real files, and workers that misbehave."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_archive import grey, save_png

from spicula import files, index


@pytest.fixture
def indexed(tmp_path: Path) -> Callable[..., Path]:
    """Writes the Index of rows below a folder, with digests, to `tmp_path/index.parquet`, and returns its path."""

    def write(root: Path, rows: list[dict[str, Any]], name: str = "index.parquet") -> Path:
        full = [
            {"dataset": "test", "image_id": row["path"] + f"#{row.get('frame', 0)}", "sha256": digest(root, row)} | row
            for row in rows
        ]
        index.write(tmp_path / name, index.from_rows(full, root))
        return tmp_path / name

    def digest(root: Path, row: dict[str, Any]) -> str | None:
        path = root / row["path"]
        return files.sha256_file(path) if path.is_file() else None

    return write


@pytest.fixture
def twenty(tmp_path: Path, indexed: Callable[..., Path]) -> Path:
    """The Index of twenty grey images of 12 bits, in two folders below `tmp_path/images`."""
    root = tmp_path / "images"
    for number in range(20):
        save_png(root / f"{'ab'[number % 2]}/i{number:02}.png", grey(seed=number))
    return indexed(root, [{"path": path.relative_to(root).as_posix()} for path in sorted(root.rglob("*.png"))])


WORKER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from spicula.convert import image, records, tree, worker

real = image.read_pixels

def read_pixels(path, frame=0):
    {misdeed}
    return real(path, frame)

image.read_pixels = read_pixels
{more}
worker.main()
"""


@pytest.fixture
def worker_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the workers of a conversion do something before they read a file."""
    from spicula.convert import engine

    def make(misdeed: str, more: str = "") -> Path:
        script = tmp_path / "worker.py"
        script.write_text(WORKER.format(misdeed=misdeed, more=more))
        monkeypatch.setattr(engine, "COMMAND", (sys.executable, str(script)))
        return script

    return make
