"""A few small exams that several test files look at."""

from pathlib import Path

import pytest

from spicula.phantoms import make_exams

SIZE = (320, 260)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six exams of seed 3, half of the women with a malignant lesion, on all three systems. Do not write here."""
    return make_exams(tmp_path_factory.mktemp("phantoms"), 6, seed=3, size=SIZE, jobs=1)
