"""Downloads that are killed: the same command again ends as if nothing had happened, and fetches next to nothing twice.

The moments are random and seeded; the seed and the moments are in the failure's text.
"""

import random
import subprocess
import sys
import time

import pytest
from nbia_server import Server, Settings, whole

from spicula.headers import read_dicom

KILLS = 5
MOST_FETCHED_TWICE = 0.05
#: 25.7 MB in 200 series of 5 images each.
COLLECTION = {"series": 200, "images": 5, "side": 112}


def command(server: Server, to) -> list[str]:
    return [sys.executable, "-m", "spicula", "download", "tcia:GENERATED", "--to", str(to), "--server", server.url]


def kill_at(server: Server, to, sent: float) -> int:
    """Start the command, kill it when the server has sent so many bytes of images, and return how many it was."""
    with subprocess.Popen(command(server, to), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while server.sent() < sent:
            assert process.poll() is None, "the download ended before it was to be killed"
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    return server.sent()


def tree(to) -> dict[str, bytes]:
    return {
        path.relative_to(to).as_posix(): path.read_bytes() for path in (to / "GENERATED").rglob("*") if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranges", "seed"), [(False, 1), (True, 2)], ids=["a service that streams, as the real one", "with ranges"]
)
def test_200_series_killed_five_times_are_whole_and_at_most_5_percent_came_twice(nbia, tmp_path, ranges, seed):
    server = nbia(**COLLECTION, ranges=ranges, rate=400_000)
    expected = whole(Settings(**COLLECTION))
    size = sum(map(len, expected.values()))
    choose = random.Random(seed)
    moments = sorted(choose.uniform(0.02, 0.98) for _ in range(KILLS))
    killed = [kill_at(server, tmp_path / "to", moment * size) for moment in moments]
    said = f"seed {seed}, killed at {[f'{bytes / size:.3f}' for bytes in killed]}"
    assert killed[-1] < size, said

    done = subprocess.run(command(server, tmp_path / "to"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{said}: {done.stdout}{done.stderr}"
    sent = server.sent()
    print(f"{said}; sent {sent} of {size} bytes, {sent / size - 1:.2%} more than once")
    found = {str(read_dicom(path).SOPInstanceUID): path.read_bytes() for path in (tmp_path / "to").rglob("*.dcm")}
    assert found == expected, said
    assert sent / size - 1 <= MOST_FETCHED_TWICE, said

    server.set(rate=0)
    subprocess.run(command(server, tmp_path / "undisturbed"), capture_output=True, check=True)
    assert tree(tmp_path / "to") == tree(tmp_path / "undisturbed"), said
    assert list((tmp_path / "to" / ".spicula" / "partial").iterdir()) == []


@pytest.mark.slow
def test_kills_and_faults_together(nbia, tmp_path):
    """Everything at once: kills at random moments, while the service cuts, errs and is busy."""
    collection = {"series": 40, "images": 3, "side": 96}
    server = nbia(**collection, rate=150_000)
    choose = random.Random(7)
    kinds = ("cut", "wrong", "missing", "no-list", "busy", "html")
    server.faults(
        *({"series": number, "kind": choose.choice(kinds), "at": choose.random(), "times": 1} for number in range(40)),
        *({"series": number, "kind": "busy", "call": "getSingleImage", "times": 1} for number in range(0, 40, 3)),
    )
    expected = whole(Settings(**collection))
    size = sum(map(len, expected.values()))
    for moment in sorted(choose.uniform(0.05, 0.8) for _ in range(4)):
        kill_at(server, tmp_path, moment * size)
    subprocess.run(command(server, tmp_path), capture_output=True, check=True)
    found = {str(read_dicom(path).SOPInstanceUID): path.read_bytes() for path in tmp_path.rglob("*.dcm")}
    assert found == expected


def test_a_kill_in_the_middle_costs_no_series_that_was_whole(nbia, tmp_path):
    collection = {"series": 8, "images": 2, "side": 64}
    server = nbia(**collection, rate=30_000)
    expected = whole(Settings(**collection))
    size = sum(map(len, expected.values()))
    kill_at(server, tmp_path, size / 2)
    server.set(rate=0)
    subprocess.run(command(server, tmp_path), capture_output=True, check=True)
    found = {str(read_dicom(path).SOPInstanceUID): path.read_bytes() for path in tmp_path.rglob("*.dcm")}
    assert found == expected
