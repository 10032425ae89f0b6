"""How many cores a container has: as many as its quota of processor time fills."""

import os

import pytest

from spicula import processes

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("150000 100000\n", min(2, ALL)),
        (f"{1000 * ALL}00000 100000\n", ALL),
        ("max 100000\n", ALL),
        (None, ALL),
        ("", ALL),
    ],
)
def test_a_quota_counts(monkeypatch, tmp_path, quota, cores):
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    monkeypatch.setattr(processes, "_QUOTA", file)
    assert processes.cores() == cores
