"""How a client wants to see an image: the parameters of rendered pictures and thumbnails (PS3.18 section 8.3.5)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spicula.imaging.luts import FUNCTIONS
from spicula.serving.problems import Problem

JPEG, PNG = "image/jpeg", "image/png"
#: What pictures come as; the first where a client takes anything.
KINDS = (JPEG, PNG)
#: Width and height in which a thumbnail fits where none are asked for, in pixels.
THUMBNAIL = (256, 256)
#: Largest width and height of a picture that can be asked for, in pixels.
MOST_SIDE = 8192
_QUALITY = 90
_MOST_TEXT = 200  # characters of a value


@dataclass(frozen=True)
class Viewing:
    """What is to be made of an image.

    Attributes:
        viewport: width and height in which the picture fits, in pixels; None: as large as the image.
        region: left, top, width and height of what is shown, in pixels of the image; a width below 0 turns it over
            left to right, a height below 0 upside down. None: of that number, the image's own.
        window: centre, width and function (one of `luts.FUNCTIONS`); None: as the file says.
        quality: of JPEG, 1 to 100.
    """

    viewport: tuple[int, int] | None = None
    region: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    window: tuple[float, float, str] | None = None
    quality: int = _QUALITY

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def parse(parameters: Iterable[tuple[str, str]], *, is_thumbnail: bool) -> tuple[Viewing, list[str]]:
    """Return what a query asks, and which of the standard's parameters it names that are not supported.

    Args:
        parameters: names and values, decoded.
        is_thumbnail: only the viewport's size can be asked for.

    Raises:
        Problem: 400, a value is odd.
    """
    viewing: dict[str, Any] = {"viewport": THUMBNAIL} if is_thumbnail else {}
    passed_over = []
    for name, value in parameters:
        if len(value) > _MOST_TEXT:
            raise _odd(name, f"it has more than {_MOST_TEXT} characters")
        if name == "viewport":
            viewing |= _viewport(value, is_thumbnail)
        elif name == "window" and not is_thumbnail:
            viewing["window"] = _window(value)
        elif name == "quality":
            viewing["quality"] = _quality(value)
        elif name != "accept":
            passed_over.append(name)
    return Viewing(**viewing), sorted({name for name in passed_over if name in ("annotation", "iccprofile", "window")})


def _viewport(value: str, is_thumbnail: bool) -> dict[str, Any]:
    words = value.split(",")
    if len(words) not in ((2,) if is_thumbnail else (2, 6)):
        raise _odd("viewport", "give WIDTH,HEIGHT" + ("" if is_thumbnail else " or WIDTH,HEIGHT,LEFT,TOP,WIDTH,HEIGHT"))
    sides = words[:2]
    if not all(one.isascii() and one.isdigit() and len(one) < 6 and 1 <= int(one) <= MOST_SIDE for one in sides):
        raise _odd("viewport", f"its width and height are whole numbers from 1 to {MOST_SIDE}")
    numbers = [_number("viewport", one) if one else None for one in words[2:]] or [None] * 4
    if any(one is not None and one < 0 for one in numbers[:2]) or 0 in numbers[2:]:
        raise _odd("viewport", "left and top are 0 or more, and no side is 0")
    return {"viewport": (int(sides[0]), int(sides[1])), "region": tuple(numbers)}


def _window(value: str) -> tuple[float, float, str]:
    words = value.split(",")
    function = words[-1].strip().upper().replace("-", "_")
    if len(words) != 3 or function not in FUNCTIONS:
        names = ", ".join(one.lower().replace("_", "-") for one in FUNCTIONS)
        raise _odd("window", f"give CENTER,WIDTH,FUNCTION; the functions are {names}")
    center, width = (_number("window", one) for one in words[:2])
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise _odd("window", "a width is above 0, and with linear at least 1")
    return center, width, function


def _quality(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 3 or not 1 <= int(value) <= 100:
        raise _odd("quality", "it is a whole number from 1 to 100")
    return int(value)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) < 1e9:
        raise _odd(name, "these are numbers")
    return number


def _odd(name: str, why: str) -> Problem:
    return Problem(400, "query", f"the parameter {name} cannot be understood: {why}")


def warning_of(passed_over: Sequence[str], frames: int) -> dict[str, str]:
    """Return the header that says what was not heeded; {} where all was.

    Args:
        passed_over: parameters that are not supported.
        frames: that the image has, where it was asked for without the number of one; else 1.
    """
    said = [f"{', '.join(passed_over)}: not supported"] if passed_over else []
    said += [f"the first of {frames} frames; name others with /frames/N/rendered"] if frames > 1 else []
    return {"Warning": f'299 spicula "{"; ".join(said)}"'} if said else {}
