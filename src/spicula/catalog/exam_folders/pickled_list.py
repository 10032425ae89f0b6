"""Python data out of a pickle, without executing anything: containers, text, numbers and numpy scalars.

A pickle is a program for a small stack machine. Python's own machine calls whatever the program names, and can be made
to hang or to fill the memory. This one knows the instructions that build plain data and refuses all others; what a
pickle names ("os.system") is only ever compared with the few names that numpy scalars need.
"""

import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from spicula.errors import SpiculaError

Converted = TypeVar("Converted", str, bytes)

#: Largest file that is read, in bytes: about half a million exams.
MAX_BYTES = 2**26
#: Most instructions that are followed: about 40 an exam.
MAX_INSTRUCTIONS = 20_000_000

_MARK = object()
_IGNORED = frozenset(("PROTO", "FRAME"))
# instructions whose argument is the value
_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
# what a pickle may name: what numpy scalars and, in older protocols, bytes are made with
_DTYPE, _SCALAR, _ENCODE = "numpy.dtype", "numpy scalar", "_codecs.encode"
_NAMES: Mapping[str, str] = {
    "numpy dtype": _DTYPE,
    "numpy.core.multiarray scalar": _SCALAR,
    "numpy._core.multiarray scalar": _SCALAR,
    "_codecs encode": _ENCODE,
}
# numpy's kinds and sizes -> format of the module struct
_FORMATS: Mapping[str, str] = {
    "b1": "?",
    **{"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
    **{"f2": "e", "f4": "f", "f8": "d"},
}
_TEXT = re.compile(r"U\d{1,4}", re.ASCII)  # numpy's text, in UTF-32
_KEYS = (str, int, float, bool, type(None))
#: Longest text or bytes that are converted, for a pickle can have the same one converted again and again.
MAX_CONVERTED = 4096


@dataclass(frozen=True)
class _Name:
    """A name that the pickle mentions, and that means something here."""

    meaning: str


@dataclass
class _Type:
    """The type of a numpy scalar: a format of the module struct or U for text, and the order of its bytes."""

    code: str
    order: str = "<"


def read(path: Path) -> Any:
    """Return what a pickle holds: lists, tuples, dictionaries, text, bytes, numbers, booleans, None.

    Numpy scalars come out as Python numbers. Keys of dictionaries are text or numbers.

    Raises:
        SpiculaError: it is no pickle, is cut short or too large, or holds anything else; the message is the reason
            alone, in one line, and names what was refused.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SpiculaError(f"is a pickle of {size} bytes; at most {MAX_BYTES} are read")
    return loads(path.read_bytes())


def loads(data: bytes) -> Any:
    """Return what the bytes of a pickle hold; see `read`."""
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number >= MAX_INSTRUCTIONS:
                raise SpiculaError(f"is a pickle of more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return machine.result()
            machine.step(opcode.name, argument)
    except SpiculaError:
        raise
    except Exception as error:  # of hostile bytes, the decoder of instructions raises nearly anything
        raise SpiculaError(f"is no pickle, or is damaged ({type(error).__name__})") from error
    raise SpiculaError("is a pickle that is cut short")


class _Machine:
    """The stack and the memory of a pickle that is being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction, or refuse it."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _STEPS:
            _STEPS[name](self)
        elif name in _PUTS:
            self.memory[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memory[argument])
        elif name == "GLOBAL":
            self.stack.append(_known(argument))
        elif name not in _IGNORED:
            raise SpiculaError(f"holds something else than plain data (the pickle instruction {name}): refused")

    def result(self) -> Any:
        """Return what is left at the end."""
        (value,) = self.stack
        if value is _MARK or isinstance(value, _Name | _Type):
            raise SpiculaError("is a pickle of something else than plain data")
        return value

    def take(self, count: int) -> list[Any]:
        """Return the topmost so many values, removed."""
        values = self.stack[-count:]
        if len(values) < count or _MARK in values:
            raise ValueError("stack")
        del self.stack[-count:]
        return values

    def to_mark(self) -> list[Any]:
        """Return all values above the topmost mark, removed with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:  # runs out of the stack where there is no mark
            at -= 1
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values


def _extend(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise ValueError("not a list")
    target.extend(values)


def _set(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict):
        raise ValueError("not a dictionary")
    target.update(_pairs(values))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    if not all(isinstance(key, _KEYS) for key in keys):  # hashing others, nested, can take for ever
        raise SpiculaError("has a dictionary whose keys are neither text nor numbers: refused")
    return dict(zip(keys, values[1::2], strict=True))


def _known(name: str) -> _Name:
    meaning = _NAMES.get(name)
    if meaning is None:
        shown = ascii(name.replace(" ", ".", 1))[1:-1][:80]
        raise SpiculaError(f"names {shown}, which is not plain data: refused")
    return _Name(meaning)


def _reduce(machine: _Machine) -> None:
    """Make what a known name makes of its arguments."""
    name, arguments = machine.take(2)
    meaning = name.meaning if isinstance(name, _Name) else None
    if meaning == _DTYPE:
        made: Any = _Type(_format(arguments[0]))
    elif meaning == _SCALAR:
        made = _scalar(*arguments)
    elif meaning == _ENCODE:
        made = _encoded(*arguments)
    else:
        raise SpiculaError("calls something that is no numpy scalar: refused")
    machine.stack.append(made)


def _format(code: Any) -> str:
    if code in _FORMATS:
        return _FORMATS[code]
    if isinstance(code, str) and _TEXT.fullmatch(code):
        return "U"
    raise SpiculaError(f"has a numpy value of the type {ascii(code)[:20]}, which is neither number nor text: refused")


def _scalar(of: _Type, raw: bytes | str) -> Any:
    data = _short(raw).encode("latin-1") if isinstance(raw, str) else _short(raw)  # Python 2 has no bytes
    if of.code == "U":
        return data.decode("utf-32-be" if of.order == ">" else "utf-32-le").rstrip("\0")
    return struct.unpack(of.order + of.code, data)[0]


def _encoded(text: str, encoding: str) -> bytes:
    return _short(text).encode({"latin1": "latin-1", "latin-1": "latin-1"}[encoding])


def _short(value: Converted) -> Converted:
    if len(value) > MAX_CONVERTED:
        raise SpiculaError(f"converts a text longer than {MAX_CONVERTED} characters: refused")
    return value


def _build(machine: _Machine) -> None:
    """Set the byte order of a numpy type (the second part of its state)."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if not isinstance(target, _Type):
        raise SpiculaError("sets the state of an object: refused")
    target.order = {"<": "<", ">": ">", "|": "<", "=": "="}[state[1]]


_STEPS: Mapping[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "POP": lambda machine: machine.stack.__delitem__(-1),
    "POP_MARK": lambda machine: machine.to_mark().clear(),
    "DUP": lambda machine: machine.stack.append(machine.stack[-1]),
    "MEMOIZE": lambda machine: machine.memory.__setitem__(len(machine.memory), machine.stack[-1]),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine: machine.stack.append(()),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "LIST": lambda machine: machine.stack.append(machine.to_mark()),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.to_mark())),
    "TUPLE1": lambda machine: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine: machine.stack.append(tuple(machine.take(3))),
    "DICT": lambda machine: machine.stack.append(_pairs(machine.to_mark())),
    "APPEND": lambda machine: _extend(machine, machine.take(1)),
    "APPENDS": lambda machine: _extend(machine, machine.to_mark()),
    "SETITEM": lambda machine: _set(machine, machine.take(2)),
    "SETITEMS": lambda machine: _set(machine, machine.to_mark()),
    "STACK_GLOBAL": lambda machine: machine.stack.append(_known(" ".join(machine.take(2)))),
    "REDUCE": _reduce,
    "BUILD": _build,
}
