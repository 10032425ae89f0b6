"""Leaving out what a convolution network would compute many times over: the even ground around a breast.

A window of a whole breast is up to half background: rows and columns that are all alike. What a tower makes of them is
all alike too, but for a rim as wide as its receptive field. So a run of equal rows or columns is shortened to that rim
before the network, and one column of what comes out is repeated as often as columns were left out. This is done twice
in a tower, after its second and its fourth group of blocks, for the rim grows with depth: by then most of the work is
done, and what is repeated is small. Every answer is a sum of the same numbers as without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: The groups of a tower, counted from 1, after which columns are repeated. Of all choices these two were quickest.
GROUPS = (2, 4)

#: Kernel, stride and padding of a tower's layers that look at neighbours: the first convolution, the pool, and the two
#: convolutions of each of two blocks in five groups. See `models.screening.view_wise`.
TOWER = (
    *((7, 2, 0), (3, 2, 0)),
    *((3, 1, 1),) * 4,
    *((3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)) * 4,
)
_LAYERS_BEFORE, _LAYERS_A_GROUP, _BLOCKS_A_GROUP = 2, 4, 2

#: Columns that are compared at a time, from the border inwards.
_STRIP = 64


@dataclass(frozen=True)
class Boundary:
    """A place in a tower where columns are repeated, and what one of its columns depends on.

    Attributes:
        stride: inputs from one of its columns to the next.
        before: column j depends on inputs from stride * j - before ...
        after: ... to stride * j + after.
        layers: kernel, stride and padding of all layers up to there.
    """

    stride: int
    before: int
    after: int
    layers: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, layers: Sequence[tuple[int, int, int]]) -> "Boundary":
        """Return the boundary behind these layers."""
        stride, before, after = 1, 0, 0
        for kernel, step, padding in layers:
            before += padding * stride
            after += (kernel - 1 - padding) * stride
            stride *= step
        return cls(stride, before, after, tuple(layers))

    def length(self, inputs: int) -> int:
        """Return how many columns come out of so many inputs."""
        for kernel, step, padding in self.layers:
            inputs = (inputs + 2 * padding - kernel) // step + 1
        return inputs

    def removable(self, run: tuple[int, int]) -> tuple[int, int]:
        """Return which inputs of a run of equal ones can be left out: the first, and the first that stays again.

        What stays has at least one column to repeat, and every other column keeps all inputs that it depends on.
        """
        first = -(-(run[0] + self.before) // self.stride) * self.stride
        count = (run[1] - 1 - self.after - first) // self.stride * self.stride
        return first, first + max(0, count)


#: Where columns are repeated.
BOUNDARIES = tuple(Boundary.of(TOWER[: _LAYERS_BEFORE + _LAYERS_A_GROUP * group]) for group in GROUPS)


def runs(window: Floats, axis: int) -> list[tuple[int, int]]:
    """Return the runs of equal rows or columns at both borders of a window: first, and first behind it.

    Args:
        window: (C, H, W).
        axis: 1 for rows, 2 for columns.

    Returns:
        None, one or two; a single one over the whole axis where all are equal.
    """
    columns = np.moveaxis(window, axis, 0)
    front, back = _alike(columns), _alike(columns[::-1])
    if front == len(columns):
        return [(0, front)]
    return [run for run in ((0, front), (len(columns) - back, len(columns))) if run[1] - run[0] > 1]


def _alike(columns: Floats) -> int:
    """Return how many columns from the first on are equal to it."""
    for start in range(0, len(columns), _STRIP):
        differ = columns[start : start + _STRIP] != columns[0]
        if differ.any():  # quick as a whole, slow by columns
            return start + int(differ.any(axis=tuple(range(1, differ.ndim))).argmax())
    return len(columns)


@dataclass(frozen=True)
class Plan:
    """What is left out of one axis of a window, and how it comes back.

    Attributes:
        kept: slices of the axis that the network is given.
        indices: for every boundary, which of the columns that came there make up those that go on.
    """

    kept: tuple[slice, ...]
    indices: tuple[npt.NDArray[np.int32], ...]


def plan(equal: Sequence[tuple[int, int]], length: int, boundaries: Sequence[Boundary] = BOUNDARIES) -> Plan:
    """Return what is left out of an axis.

    Args:
        equal: runs of equal rows or columns, see `runs`.
        length: of the axis.
        boundaries: of the network, in order.
    """
    left_out = [[boundary.removable(run) for run in equal] for boundary in boundaries]
    ends = [0, *(end for first, last in left_out[0] if first < last for end in (first, last)), length]
    kept = tuple(slice(first, end) for first, end in zip(ends[::2], ends[1::2], strict=True))
    indices: list[npt.NDArray[np.int32]] = []
    for number, boundary in enumerate(boundaries):
        stays = _stays(left_out[number], boundary.length(length), boundary.stride)
        # a column that was left out is equal to the one which came after it
        came: npt.NDArray[np.int64] = np.cumsum(stays) - stays
        last = number + 1 == len(boundaries)
        goes_on = slice(None) if last else _stays(left_out[number + 1], len(stays), boundary.stride)
        indices.append(came[goes_on].astype(np.int32))
    return Plan(kept, tuple(indices))


def _stays(left_out: Sequence[tuple[int, int]], length: int, stride: int) -> npt.NDArray[np.bool_]:
    stays = np.ones(length, np.bool_)
    for first, end in left_out:
        stays[first // stride : end // stride] = False
    return stays


def shortened(window: Floats, rows: Plan, columns: Plan) -> Floats:
    """Return a window, (1, C, H, W), without what is left out."""
    size = [sum(kept.stop - kept.start for kept in axis.kept) for axis in (rows, columns)]
    found = np.empty((*window.shape[:2], *size), np.float32)
    row = 0
    for down in rows.kept:
        next_row, column = row + down.stop - down.start, 0
        for across in columns.kept:
            next_column = column + across.stop - across.start
            found[:, :, row:next_row, column:next_column] = window[:, :, down, across]
            column = next_column
        row = next_row
    return found


class NarrowTowers:
    """The inputs of a network whose towers repeat columns, one tower an input.

    Args:
        inputs: their names.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = tuple(inputs)

    def __call__(self, arrays: Sequence[Floats]) -> dict[str, Any]:
        """Return what the network is given for windows (1, C, H, W), by the names of its inputs."""
        given: dict[str, Any] = {}
        for name, window in zip(self._inputs, arrays, strict=True):
            rows, columns = (plan(runs(window[0], axis), window.shape[axis + 1]) for axis in (1, 2))
            given[name] = shortened(window, rows, columns)
            for place in range(len(BOUNDARIES)):
                given[_name(name, "rows", place)] = rows.indices[place]
                given[_name(name, "columns", place)] = columns.indices[place]
        return given


def prepare(model: Any, inputs: Sequence[str]) -> NarrowTowers | None:
    """Let a network's towers repeat columns, if it has one tower for every input and they are the published ones.

    Args:
        model: of openvino; it is changed, and its inputs get any height and width.
        inputs: names of its inputs.

    Returns:
        What makes its inputs; None where the model is another, which is then unchanged.
    """
    towers = _towers(model, inputs)
    if towers is None:
        return None
    from openvino import PartialShape, opset13

    shapes = {}
    parameters = []
    for name, sums in towers.items():
        for place, group in enumerate(GROUPS):
            node = sums[_BLOCKS_A_GROUP * group - 1]
            readers = list(node.output(0).get_target_inputs())
            found = node
            for axis, what in ((2, "rows"), (3, "columns")):
                indices = opset13.parameter([-1], np.int32)
                indices.output(0).get_tensor().set_names({_name(name, what, place)})
                parameters.append(indices)
                found = opset13.gather(found, indices, opset13.constant(np.int64(axis)))
            for reader in readers:
                reader.replace_source_output(found.output(0))
        channels = model.input(name).get_partial_shape()[1].get_length()
        shapes[name] = PartialShape([1, channels, -1, -1])
    model.add_parameters(parameters)
    model.validate_nodes_and_infer_types()
    model.reshape(shapes)
    return NarrowTowers(inputs)


def _name(name: str, what: str, place: int) -> str:
    return f"{name}.{what}.{place}"


def _towers(model: Any, inputs: Sequence[str]) -> Mapping[str, list[Any]] | None:
    """Return for every input the sums that end the blocks of its tower; None where there are other layers."""
    layers: dict[str, list[tuple[int, int, int] | None]] = {name: [] for name in inputs}
    sums: dict[str, list[Any]] = {name: [] for name in inputs}
    reads: dict[str, set[str]] = {}  # node -> the inputs that it depends on
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Parameter":
            reads[node.get_friendly_name()] = set(node.output(0).get_names()) & set(inputs)
            continue
        before = (reads.get(value.get_node().get_friendly_name(), set()) for value in node.input_values())
        mine = reads[node.get_friendly_name()] = set().union(*before)
        if len(mine) != 1 or node.get_output_size() == 0 or node.get_output_partial_shape(0).rank.get_length() != 4:
            continue
        (name,) = mine
        if kind in ("Convolution", "MaxPool"):
            layer = _layer(node)
            if layer is None or layer[0] > 1 or layer[2] > 0:  # others see one row and column each
                layers[name].append(layer)
        elif kind == "Add" and all(reads.get(one.get_node().get_friendly_name()) for one in node.input_values()):
            sums[name].append(node)
    blocks = (len(TOWER) - _LAYERS_BEFORE) // _LAYERS_A_GROUP * _BLOCKS_A_GROUP
    fits = all(tuple(layers[name]) == TOWER and len(sums[name]) == blocks for name in inputs)
    return sums if fits else None


def _layer(node: Any) -> tuple[int, int, int] | None:
    """Return kernel, stride and padding of a layer; None where rows and columns differ, or it has holes."""
    convolves = node.get_type_name() == "Convolution"
    attributes = node.get_attributes()
    kernel = list(node.input_value(1).get_partial_shape().to_shape())[2:] if convolves else attributes["kernel"]
    numbers = {
        (int(size), int(step), int(begin), int(end), int(hole))
        for size, step, begin, end, hole in zip(
            kernel,
            attributes["strides"],
            attributes["pads_begin"],
            attributes["pads_end"],
            attributes["dilations"],
            strict=True,
        )
    }
    if len(numbers) != 1:
        return None
    size, step, begin, end, hole = numbers.pop()
    return (size, step, begin) if begin == end and hole == 1 else None
