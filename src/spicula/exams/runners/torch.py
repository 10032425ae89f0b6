"""Running a network on a GPU through torch: large batches, channels last, the next inputs made ready meanwhile."""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from spicula.bundle.screening import ScreeningBundle, graphs
from spicula.bundle.screening import format as layout
from spicula.errors import SpiculaError, UsageError
from spicula.exams.runners.shapes import Floats, Inputs, Shape, in_batches
from spicula.exams.types import Precision
from spicula.models.screening import published

#: Batches that are ready before the device wants them, and batches that the device has been given at a time.
_READY, _FLYING = 2, 2


class TorchRunner:
    """A network on a device of torch; see `exams.types.Runner`.

    A thread takes the inputs and puts them into batches while the device computes, so inputs must be an iterable that
    may be walked by another thread.

    Args:
        module: takes float32 (N, C, H, W) for each input, returns probabilities.
        shape: of its inputs.
        device: as torch names it; "cuda" or "cuda:N". Tests use "cpu".
        precision: "fp32", without the shortened float32 of tensor cores (TF32), or "bf16".
        batch: rows of a batch; the last one is filled up, so that all have one shape.

    Raises:
        UsageError: there is no such device, or it has no bf16 arithmetic.
    """

    def __init__(
        self, module: nn.Module, shape: Shape, *, device: str, precision: Precision = "fp32", batch: int = 1
    ) -> None:
        self._device = device_of(device, precision)
        self._module = module.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._shape, self._batch, self._precision = shape, batch, precision

    def __call__(self, inputs: Iterable[Inputs]) -> Iterator[Floats]:
        """Run the network on every input; `exams.types.Runner` says how."""
        return in_batches(inputs, self._shape, self._batch, self._run)

    def _run(self, batches: Iterator[Inputs]) -> Iterator[Floats]:
        flying: deque[torch.Tensor] = deque()  # answers that the device may still be computing
        for arrays in _ahead(batches, pinned=self._device.type == "cuda"):
            flying.append(self._answer(arrays))
            if len(flying) == _FLYING:
                yield flying.popleft().cpu().numpy()
        while flying:
            yield flying.popleft().cpu().numpy()

    def _answer(self, arrays: tuple[torch.Tensor, ...]) -> torch.Tensor:
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact, self._arithmetic():
            moved = (array.to(self._device, non_blocking=True) for array in arrays)
            answer: torch.Tensor = self._module(*(one.contiguous(memory_format=torch.channels_last) for one in moved))
            return answer.float()

    def _arithmetic(self) -> AbstractContextManager[object]:
        """Return bf16 convolutions and products, sums in float32 (torch's autocast), or plain float32."""
        return torch.autocast(self._device.type, torch.bfloat16) if self._precision == "bf16" else nullcontext()


def module_of(bundle: ScreeningBundle, graph: str) -> nn.Module:
    """Return the module that computes one of a bundle's graphs, with the bundle's weights.

    Raises:
        SpiculaError: the bundle holds the graph alone, or the weights are not those of the published architecture.
    """
    from safetensors.torch import load

    role = layout.role_of(graph)
    if bundle.info["networks"][role]["architecture"] == "graph":
        raise SpiculaError(f"{bundle.folder}: {role} is a graph alone, which only --device cpu can run")
    network = published.fill(role, load(bundle.weights(role)), str(bundle.folder / layout.weights_of(role)))  # type: ignore[arg-type]
    return graphs.modules_of(role, network)[graph]


def device_of(name: str, precision: Precision) -> torch.device:
    """Return a device that can be used.

    Raises:
        UsageError: it is not there, or it has no bf16 arithmetic.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"no device {name}; there are cpu, cuda and cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"no device {name}: torch finds no CUDA device here; use --device cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"no device {name}: torch finds {torch.cuda.device_count()} CUDA devices here")
        if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UsageError(f"{name} has no bf16 arithmetic; use --precision fp32")
    return device


def _ahead(batches: Iterator[Inputs], *, pinned: bool) -> Iterator[tuple[torch.Tensor, ...]]:
    """Walk an iterator in a thread, `_READY` steps ahead, and yield its arrays as tensors.

    Args:
        batches: what is walked.
        pinned: in memory that a GPU reads by itself, while this process goes on.
    """
    ready: queue.Queue[tuple[torch.Tensor, ...] | BaseException | None] = queue.Queue(_READY)
    stopped = threading.Event()

    def put(item: tuple[torch.Tensor, ...] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def walk() -> None:
        try:
            for arrays in batches:
                tensors = tuple(torch.from_numpy(array) for array in arrays)
                put(tuple(tensor.pin_memory() for tensor in tensors) if pinned else tensors)
                if stopped.is_set():
                    return
        except BaseException as error:  # it belongs to whoever reads the answers
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=walk, name="inputs", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
