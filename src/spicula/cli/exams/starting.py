"""What a command that is run again and again does so that it starts quickly."""

import sys
from collections.abc import Sequence
from types import ModuleType


class _NoPandas:
    """A finder of modules (`sys.meta_path`) that says of pandas that it is not installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def leave_out_pandas() -> None:
    """Keep pyarrow from importing pandas, where that is installed, with the first array it makes.

    It looks for pandas once, to know its objects when it is given any, and nothing here gives it one; the import takes
    longer than all else that a run with nothing to do imports. Whoever asks pyarrow for pandas later gets it as ever.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)
