"""What is whole of a zip that was cut: every member that arrived, and never one that did not."""

import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbia_server import make_zip

from spicula.acquire import salvage

CONTENT = {
    "00000001.dcm": random.Random(1).randbytes(3000),
    "00000002.dcm": bytes(400_000),
    "../evil": b"",
    "00000004.dcm": random.Random(4).randbytes(1000),
}
STREAMED = make_zip(CONTENT, {}, 1e9)
NAMES = [*CONTENT, "md5hashes.csv"]


def salvaged(path: Path, most_bytes: int = 2**30) -> dict[str, bytes]:
    to = path.with_name("member")
    found = {name: member.read_bytes() for name, member in salvage.whole_members(path, to, most_bytes)}
    assert not to.exists()
    return found


def ends(path: Path) -> list[int]:
    """Return where each member ends, behind its data descriptor."""
    with zipfile.ZipFile(path) as opened:
        starts = [info.header_offset for info in opened.infolist()]
        return [*starts[1:], opened.start_dir]


def test_every_member_that_arrived_is_there_and_no_other(tmp_path):
    path = tmp_path / "cut.zip"
    path.write_bytes(STREAMED)
    borders = ends(path)
    for cut in sorted({0, 5, len(STREAMED), *(b + d for b in borders for d in (-17, -1, 0, 1, 40))}):
        path.write_bytes(STREAMED[:cut])
        # a descriptor is whole without what comes after it
        assert list(salvaged(path)) == NAMES[: sum(border <= cut for border in borders)], cut
    path.write_bytes(STREAMED)
    found = salvaged(path)
    assert {name: found[name] for name in CONTENT} == CONTENT


def test_members_whose_sizes_come_first_are_taken_too(tmp_path):
    path = tmp_path / "seekable.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as output:
        for name, content in CONTENT.items():
            output.writestr(name, content)
    assert salvaged(path) == CONTENT


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(STREAMED) - 1), flip=st.integers(1, 255))
def test_a_member_with_a_wrong_byte_is_not_taken(tmp_path, position, flip):
    data = bytearray(STREAMED)
    data[position] ^= flip
    path = tmp_path / "flipped.zip"
    path.write_bytes(data)
    for name, content in salvaged(path).items():
        assert name not in CONTENT or content == CONTENT[name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_nothing_comes_of_anything_else(tmp_path, data):
    path = tmp_path / "any"
    path.write_bytes(data)
    assert salvaged(path) == {}
    path.write_bytes(STREAMED[:30] + data)
    assert salvaged(path) == {}


def test_no_more_is_unpacked_than_allowed(tmp_path):
    path = tmp_path / "bomb.zip"
    path.write_bytes(STREAMED)
    assert list(salvaged(path, 3000)) == ["00000001.dcm"]
    assert list(salvaged(path, 2999)) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_other_methods_are_left_alone(tmp_path, method):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", method) as output:
        output.writestr("a", b"content")
    assert salvaged(path) == {}
