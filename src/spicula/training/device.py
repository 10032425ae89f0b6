"""Where a network is computed, and with how many bits."""

import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from spicula.errors import UsageError

_CPUINFO = Path("/proc/cpuinfo")
#: What Linux calls the instructions of x86 processors that multiply matrices of bfloat16. Where they are, the line cnn
#: trains about twice as fast as in float32.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """How training computes. Weights and their updates are float32 in any case, and so is evaluation.

    Attributes:
        device: where.
        precision: float32, bfloat16 or float16: of convolutions and matrix products in training.
    """

    device: torch.device
    precision: str

    @property
    def autocast(self) -> torch.autocast:
        """A context in which the network computes with `precision`."""
        dtype = _DTYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given, for a clock to be right."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose(device: str, precision: str) -> Setup:
    """Choose device and precision.

    Args:
        device: `auto` (a CUDA device when there is one, else the processor), or a name torch knows: cpu, cuda, cuda:1.
        precision: `auto` (bfloat16 where the hardware multiplies it; on older CUDA devices float16; else float32), or
            one of float32, bfloat16, float16.

    Raises:
        UsageError: there is no such device, or it cannot train with that precision.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"no device {device!r} here ({reason}); use auto or cpu") from error
    if precision == "float16" and chosen.type == "cpu":
        raise UsageError("float16 needs a GPU; on the processor use auto, bfloat16 or float32")
    return Setup(chosen, _best_precision(chosen) if precision == "auto" else precision)


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        # in emulation, bfloat16 would be slower than float32
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu" and _cpu_multiplies_bf16():
        return "bfloat16"
    return "float32"


@lru_cache(maxsize=1)
def _cpu_multiplies_bf16() -> bool:
    """Whether it pays: elsewhere torch emulates bfloat16, several times slower than float32."""
    if platform.system() != "Linux":
        return False
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "")
    return bool(_BF16_FLAGS & set(flags.split()))
