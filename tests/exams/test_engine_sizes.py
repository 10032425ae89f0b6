import os

import pytest

from spicula.exams.engines import sizes as sizing
from spicula.exams.engines.sizes import Sizes, needed_mb, sizes

GB = 2**30


@pytest.mark.parametrize(
    ("cores", "memory_gb", "gpus", "expected"),
    [
        (2, 16, 0, Sizes(1, 1, 2)),
        (1, 4, 0, Sizes(1, 1, 1)),  # too little is no reason to do nothing
        (8, 64, 0, Sizes(7, 1, 8)),
        (16, 16, 0, Sizes(4, 1, 16)),  # the memory is what there are too few of
        (16, 128, 1, Sizes(15, 1, 1)),
        (32, 256, 4, Sizes(28, 4, 1)),
        (2, 64, 4, Sizes(1, 4, 1)),
    ],
)
def test_a_machine_is_sized_by_its_cores_and_its_memory(cores, memory_gb, gpus, expected):
    assert sizes(cores, memory_gb * GB, gpus) == expected


@pytest.mark.parametrize("cores", [2, 5, 16, 64])
@pytest.mark.parametrize("memory_gb", [10, 30, 100])
def test_what_the_workers_declare_fits_into_the_memory(cores, memory_gb):
    found = sizes(cores, memory_gb * GB)
    declared = found.cpu_workers * needed_mb("cpu") + found.model_workers * needed_mb("model") + sizing.DRIVER_MB
    assert declared <= memory_gb * 1024


@pytest.mark.parametrize(("text", "expected"), [("4294967296\n", 4 * GB), ("max\n", None), ("x", None)])
def test_a_container_has_the_memory_that_it_is_given(tmp_path, monkeypatch, text, expected):
    (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(sizing, "_CONTAINER", (tmp_path / "missing", tmp_path / "memory.max"))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert sizing.memory_bytes() == min(machine, expected or machine)


def test_gpus_are_those_that_may_be_used(tmp_path, monkeypatch):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sizing, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sizing.gpus() == ["0", "1", "10"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8a0e")
    assert sizing.gpus() == ["3", "GPU-8a0e"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sizing.gpus() == []
