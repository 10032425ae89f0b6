"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# These tests ask what comes out, never how long it took: machines are busy at times.
settings.register_profile("spicula", deadline=None)
settings.load_profile("spicula")

# Commands that run in the background of a shell have Ctrl-C switched off, and so would those that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images, for tests that need them; elsewhere those tests skip and say so."""
    folder = os.environ.get("SPICULA_TEST_DATA")
    if not folder:
        pytest.skip("needs real images: set SPICULA_TEST_DATA to their folder")
    return Path(folder)
