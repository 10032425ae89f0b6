"""The form of a network's inputs, and putting rows of inputs together into batches of one size."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: One array for each input of a network.
Inputs = tuple[Floats, ...]


@dataclass(frozen=True)
class Shape:
    """What a network takes and gives.

    Attributes:
        inputs: names, in the order in which arrays are given.
        row: (C, H, W) of one row of every input.
        columns: of the output.
    """

    inputs: tuple[str, ...]
    row: tuple[int, int, int]
    columns: int

    def check(self, arrays: Inputs) -> int:
        """Return how many rows there are.

        Raises:
            ValueError: the arrays are of another number, type or shape.
        """
        rows = len(arrays[0]) if len(arrays) == len(self.inputs) else 0
        for array in arrays:
            if array.dtype != np.float32 or array.shape != (rows, *self.row) or rows == 0:
                given = ", ".join(f"{one.dtype} {one.shape}" for one in arrays)
                raise ValueError(f"the network takes {', '.join(self.inputs)} as float32 (N, {self.row}), not {given}")
        return rows


def in_batches(
    inputs: Iterable[Inputs], shape: Shape, size: int, run: Callable[[Iterator[Inputs]], Iterator[Floats]]
) -> Iterator[Floats]:
    """Run inputs of any numbers of rows in batches of one size, and give each input's rows back together.

    Args:
        inputs: arrays (N, C, H, W), any N from 1; taken as `run` takes batches.
        shape: of the network.
        size: rows of a batch; the last one is filled up with rows that are there already, whose answers are dropped.
        run: maps batches to outputs (size, columns), in order, taking them as it goes.

    Yields:
        (N, columns) for each input, in order.
    """
    waiting: deque[int] = deque()  # how many rows each input had that is not answered yet

    def batches() -> Iterator[Inputs]:
        held: list[Inputs] = []
        for arrays in inputs:
            rows = shape.check(arrays)
            waiting.append(rows)
            for row in range(rows):
                held.append(tuple(array[row : row + 1] for array in arrays))
                if len(held) == size:
                    yield _joined(held)
                    held = []
        if held:
            yield _joined(held + [held[-1]] * (size - len(held)))

    answered: list[Floats] = []
    for output in run(batches()):
        answered.extend(output)
        while waiting and len(answered) >= waiting[0]:
            rows = waiting.popleft()
            yield np.stack(answered[:rows])
            del answered[:rows]


def _joined(rows: list[Inputs]) -> Inputs:
    if len(rows) == 1:
        return rows[0]
    return tuple(np.concatenate(arrays) for arrays in zip(*rows, strict=True))
