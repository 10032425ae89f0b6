"""Promises 1 to 4 and 20 on several hundred malformed files: a typed refusal or pixels, never a crash or a name."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import malformed
import numpy as np
import pytest

from spicula.errors import RejectedImageError
from spicula.files import sha256_file
from spicula.headers import read_header
from spicula.imaging.display import read_display
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.readers import read_pixels
from spicula.imaging.shards import Task, key_of, scan
from spicula.imaging.workers import prepare_all

#: How much memory the process that reads may take beyond what it starts with (promise 1).
HEADROOM_BYTES = 512 * 2**20
SETTINGS = Preprocess(size=(8, 8), channels=1)

READER = """
import json, os, resource, sys, time
from pathlib import Path
import cv2, imagecodecs, PIL.Image, pydicom.pixels  # what reading needs is there before memory is counted
from spicula.errors import RejectedImageError
from spicula.headers import read_dicom, read_header
from spicula.imaging import dicom, raster
from spicula.imaging.display import read_display
from spicula.imaging.readers import read_pixels

pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
if pages:
    limit = pages * resource.getpagesize() + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_header, read_dicom, read_pixels, read_display):
        began = time.perf_counter()
        print(json.dumps(["begin", path.name, read.__name__]), flush=True)
        try:
            read(path)
            reason = None
        except RejectedImageError as error:
            reason = str(error)
        print(json.dumps(["end", path.name, read.__name__, reason, time.perf_counter() - began]), flush=True)
"""


@pytest.fixture(scope="module")
def cases():
    return {case.name: case for case in malformed.cases()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cases):
    folder = tmp_path_factory.mktemp("malformed")
    for name, case in cases.items():
        (folder / name.replace("/", "-")).write_bytes(case.data)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder):
    """What each reader made of each file, in one process without any guard: reader -> file -> reason or None."""
    ran = subprocess.run(
        [sys.executable, "-c", READER, str(folder), str(HEADROOM_BYTES)], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, f"{lines[-1] if lines else 'no start'}: {ran.stderr[-2000:]}"
    assert ran.stderr == ""
    ended = [line for line in lines if line[0] == "end"]
    slowest = sorted(ended, key=lambda line: -line[4])[:5]
    print("slowest:", [(name, reader, round(seconds, 3)) for _, name, reader, _, seconds in slowest])
    found = {}
    for _, name, reader, reason, _ in ended:
        found.setdefault(reader, {})[name] = reason
    return found


def names(cases, *fates):
    return {name.replace("/", "-") for name, case in cases.items() if case.fate in fates}


def test_there_are_at_least_300_of_them(cases):
    fates = Counter(case.fate for case in cases.values())
    print(sum(fates.values()), dict(fates))
    assert sum(fates.values()) - fates[malformed.READ] >= 300
    assert fates[malformed.REFUSED] >= 300


def test_the_files_are_good_before_they_are_spoilt(tmp_path):
    for name, (_, _, bits) in malformed.CODECS.items():
        (tmp_path / name).write_bytes(malformed.compressed(name).encode())
        pixels = read_pixels(tmp_path / name)
        expected = malformed.IMAGE >> 4 if bits == 8 else malformed.IMAGE
        assert np.abs(pixels.array.astype(int) - expected).max() <= (0 if "jpeg" not in name else 400)
    for syntax in (malformed.IMPLICIT, malformed.EXPLICIT, malformed.BIG):
        order = ">" if syntax == malformed.BIG else "<"
        (tmp_path / "native").write_bytes(malformed.good(syntax, order=order).encode())
        np.testing.assert_array_equal(read_pixels(tmp_path / "native").array, malformed.IMAGE)


def test_every_file_has_one_outcome_for_every_reader(cases, outcomes):
    everything = names(cases, malformed.REFUSED, malformed.RAW, malformed.EITHER, malformed.READ)
    assert set(outcomes) == {"read_header", "read_dicom", "read_pixels", "read_display"}
    for found in outcomes.values():
        assert found.keys() == everything


def test_what_must_be_refused_is_refused(cases, outcomes):
    refused = names(cases, malformed.REFUSED)
    for reader in ("read_pixels", "read_display"):
        assert {name for name in refused if outcomes[reader][name] is None} == set()
    shown = names(cases, malformed.RAW)
    assert {name for name in shown if outcomes["read_display"][name] is None} == set()


def test_what_is_well_defined_is_read(cases, outcomes):
    read = names(cases, malformed.READ)
    assert {name: outcomes["read_display"][name] for name in read if outcomes["read_display"][name]} == {}
    raw = names(cases, malformed.READ, malformed.RAW)
    assert {name: outcomes["read_pixels"][name] for name in raw if outcomes["read_pixels"][name]} == {}


def test_reasons_are_one_line_without_patient_data_and_memory_sufficed(outcomes):
    for reader, found in outcomes.items():
        for name, reason in found.items():
            if reason is not None:
                assert reason.strip(), (reader, name)
                assert "\n" not in reason
                assert not any(word in reason for word in ("CANARY", "19010203")), (reader, name, reason)
                assert "more memory than there is" not in reason, (reader, name)


def test_a_batch_of_them_in_workers_has_every_file_exactly_once(tmp_path, cases, folder):
    tasks = []
    for path in sorted(folder.iterdir()):
        digest = sha256_file(path)
        tasks.append(Task(key_of(digest, 0, None, SETTINGS), str(path), digest, 0, None))
    told = list(prepare_all(tasks, SETTINGS, tmp_path, jobs=2))
    assert sorted(task.path for task, _ in told) == sorted(task.path for task in tasks)
    reasons = {Path(task.path).name: reason for task, reason in told}
    assert {name for name in names(cases, malformed.REFUSED) if reasons[name] is None} == set()
    assert {name: reasons[name] for name in names(cases, malformed.READ, malformed.RAW) if reasons[name]} == {}
    assert not any("decoder" in (reason or "") and "died" in (reason or "") for reason in reasons.values())
    places, _ = scan(tmp_path, SETTINGS)
    assert places.keys() == {task.key for task, reason in told if reason is None}


@pytest.mark.parametrize("name", ["native", *malformed.CODECS])
def test_a_kilobyte_that_declares_65535_squared_is_refused_without_allocating(tmp_path, name):
    file = malformed.good() if name == "native" else malformed.compressed(name)
    huge = {"rows": malformed.short(0x00280010, 65_535), "columns": malformed.short(0x00280011, 65_535)}
    data = file.with_(**huge).encode()
    (tmp_path / "a").write_bytes(data[:1024] if name == "native" else data)
    for read in (read_header, read_pixels, read_display):
        with pytest.raises(RejectedImageError):  # libraries are imported
            read(tmp_path / "a")
        tracemalloc.start()
        try:
            with pytest.raises(RejectedImageError, match="both sides must be within 1 to 16384"):
                read(tmp_path / "a")
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", ["jpeg", "lossless", "jpegls", "jpeg2k", "htj2k"])
def test_a_codestream_larger_than_its_header_is_refused_without_allocating(tmp_path, name):
    frame = malformed.CODECS[name][1]
    size = struct.pack(">HH", malformed.ROWS, malformed.COLUMNS)
    if name in ("jpeg2k", "htj2k"):
        frame = frame[:8] + struct.pack(">II", 16_000, 7_000) + frame[16:]
    else:
        frame = frame.replace(size, struct.pack(">HH", 16_000, 7_000), 1)
    (tmp_path / "a").write_bytes(malformed.compressed(name, frame).encode())
    tracemalloc.start()
    try:
        with pytest.raises(RejectedImageError, match=r"its header says|tiles; at most"):
            read_pixels(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_sources_are_opened_for_reading_only(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(malformed.good().encode())
    before = path.stat()
    opened = []
    sys.addaudithook(
        lambda event, args: opened.append(args) if event == "open" and args[0] in (path, str(path)) else None
    )
    read_header(path), read_pixels(path), read_display(path)
    assert opened
    assert all(not flags & (os.O_WRONLY | os.O_RDWR) for _, _, flags in opened)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
