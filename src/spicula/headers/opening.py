"""Opening and parsing files that anybody may have made."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from spicula.errors import RejectedImageError
from spicula.silence import silence

T = TypeVar("T")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        RejectedImageError: it cannot be opened, or, within the block, read.
    """
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise RejectedImageError("not a regular file")
        stream = Path(path).open("rb")  # noqa: SIM115 - closed below; errors of opening and of reading differ
    except OSError as error:
        raise RejectedImageError(f"cannot be opened: {error.strerror}") from error
    with stream:
        try:
            yield stream
        except OSError as error:
            raise RejectedImageError(f"cannot be read: {error.strerror or 'broken file'}") from error


def parsed(kind: str, parse: Callable[[], T], stream: BinaryIO | None) -> T:
    """Call `parse` in silence; whatever it raises becomes a refusal.

    Parsers of hostile bytes raise nearly anything, and their messages and warnings can quote patient data.
    """
    if stream is not None:
        stream.seek(0)
    try:
        with silence:
            return parse()
    except RejectedImageError:
        raise
    except Exception as error:
        raise RejectedImageError(f"{kind} header is cut short or malformed ({type(error).__name__})") from error
