"""Batches of images on the device, in the order that is asked for, as fast as the network takes them.

The images of a side lie on the device, or in memory, when they fit; otherwise a thread reads ahead from the Store's
memory maps. Either way a batch is gathered with one call and converted on the device: no worker processes, nothing
decoded twice. The Store holds (N, H, W, C), which is torch's channels-last layout: turning the axes copies nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from spicula.imaging.store import Store
from spicula.training.memory import free_bytes

#: Part of the memory that is free, on the device or the machine, that one side of a split may take.
MEMORY_SHARE = 0.25
#: Batches that are read ahead of the network when streaming.
READ_AHEAD = 2
#: Images read from the Store at a time when a side is loaded whole.
_LOAD_BATCH = 256

Positions = npt.NDArray[np.int64]


class Feed:
    """One side's images.

    Attributes:
        place: where they are: on the `device`, in `memory`, or a `stream` from the Store.
    """

    place: Literal["device", "memory", "stream"]

    def __init__(self, store: Store, rows: Positions, device: torch.device, memory_share: float = MEMORY_SHARE) -> None:
        """Load the images when they fit.

        Args:
            store: holds them.
            rows: (N,) their rows there.
            device: where batches are to arrive.
            memory_share: of the free memory that they may take.
        """
        self._store = store
        self._rows = rows
        self._device = device
        self._top = float(np.iinfo(store.dtype).max)
        self._data: torch.Tensor | None = None
        height, width, channels = store.shape
        needed = len(rows) * height * width * channels * np.dtype(store.dtype).itemsize
        if device.type != "cpu" and needed <= memory_share * free_bytes(device):
            self.place, where = "device", device
        elif needed <= memory_share * free_bytes(torch.device("cpu")):
            self.place, where = "memory", torch.device("cpu")
        else:
            self.place = "stream"
            return
        self._data = torch.empty((len(rows), height, width, channels), dtype=_holder(store.dtype), device=where)
        for at in range(0, len(rows), _LOAD_BATCH):
            self._data[at : at + _LOAD_BATCH] = self._read(rows[at : at + _LOAD_BATCH])

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, order: Iterable[Positions]) -> Iterator[torch.Tensor]:
        """Yield one batch for each array of positions.

        Args:
            order: (B,) positions among this side's images, each array a batch.

        Yields:
            float32 (B, C, H, W) in 0 to 1, channels last in memory, on the device.
        """
        raw = self._streamed(order) if self._data is None else self._gathered(self._data, order)
        for batch in raw:
            yield self._to_unit(batch.to(self._device, non_blocking=True))

    def _gathered(self, data: torch.Tensor, order: Iterable[Positions]) -> Iterator[torch.Tensor]:
        for positions in order:
            yield data.index_select(0, torch.from_numpy(positions).to(data.device))

    def _streamed(self, order: Iterable[Positions]) -> Iterator[torch.Tensor]:
        waiting: deque[Future[torch.Tensor]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            for positions in order:
                waiting.append(reader.submit(self._read, self._rows[positions]))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, rows: Positions) -> torch.Tensor:
        # torch computes little with 16 bits without sign: the same bits travel as a signed number
        return torch.from_numpy(self._store.read(rows).view(_numpy_holder(self._store.dtype)))

    def _to_unit(self, batch: torch.Tensor) -> torch.Tensor:
        if batch.dtype == torch.int16:
            batch = batch.to(torch.int32) & 0xFFFF
        return batch.permute(0, 3, 1, 2).to(torch.float32).div_(self._top)


def _holder(dtype: npt.DTypeLike) -> torch.dtype:
    return torch.uint8 if np.dtype(dtype) == np.uint8 else torch.int16


def _numpy_holder(dtype: npt.DTypeLike) -> type[np.uint8 | np.int16]:
    return np.uint8 if np.dtype(dtype) == np.uint8 else np.int16
