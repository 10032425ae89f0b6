"""How many workers a machine gets by default."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from spicula.exams.stages import STAGES

#: What a worker holds before its first task, and the driver with its tables, in MB; stages declare what comes on top.
HELD_MB = {"cpu": 256, "model": 1024}
DRIVER_MB = 1024

#: What control groups say of the memory of a container, in versions 2 and 1 of their interface.
_CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_DEVICES = Path("/dev")


@dataclass(frozen=True)
class Sizes:
    """How many workers there are.

    Attributes:
        cpu_workers: for stages without a network.
        model_workers: for stages that run one.
        streams: inputs that are in the networks of a model worker at a time.
    """

    cpu_workers: int
    model_workers: int
    streams: int


def sizes(cores: int, memory_bytes: int, gpus: int = 0) -> Sizes:
    """Return how many workers a machine gets.

    Without a GPU there is one model worker, which keeps all cores busy with as many streams, and a CPU worker for each
    core but one: where CPU stages have nothing to do, no core is idle. With GPUs each has a model worker of its own and
    one core to feed it. There are fewer CPU workers where the memory that their stages declare is not there; at least
    one.

    Args:
        cores: 1 or more.
        memory_bytes: of the machine.
        gpus: 0 or more.
    """
    model_workers = gpus or 1
    memory_mb = memory_bytes // 2**20 - DRIVER_MB - model_workers * needed_mb("model")
    cpu_workers = min(cores - model_workers, memory_mb // needed_mb("cpu"))
    return Sizes(max(1, cpu_workers), model_workers, 1 if gpus else cores)


def needed_mb(pool: str) -> int:
    """Return what a worker of a pool takes at most, in MB: what it holds, and what its largest stage declares."""
    return HELD_MB[pool] + max(stage.resources.memory_mb for stage in STAGES.values() if stage.resources.pool == pool)


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process runs in."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CONTAINER:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        found += [int(text)] if text.isdecimal() else []
    return min(found)


def gpus() -> list[str]:
    """Return the names of the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in _DEVICES.glob("nvidia*"))
    return sorted((found[1] for found in numbers if found), key=int)
