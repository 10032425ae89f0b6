"""How much memory is free: of the machine, of the container it runs in, and of the device."""

from pathlib import Path

import torch

#: Assumed where the system does not say.
UNKNOWN_BYTES = 2 * 2**30

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free for new data on a device; for the processor, in memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_machine(), _container())


def _machine() -> int:
    """Linux: what can be had without swapping, which counts the cache of files as free."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return UNKNOWN_BYTES
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else UNKNOWN_BYTES


def _container() -> int:
    """What the control group leaves (version 2 of the interface); a huge number where it sets no limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        return 2**62 if limit == "max" else max(0, int(limit) - used)
    except (OSError, ValueError):
        return 2**62
