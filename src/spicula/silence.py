"""Keeping libraries quiet while they read files, in several threads at once."""

import threading
import warnings


class _Silence:
    """No warnings while any thread reads a header or decodes: those of the libraries quote values of the file.

    The filters of `warnings` belong to the whole process: the first thread sets them, the last restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._filters.__exit__(None, None, None)


#: The one way in which reading keeps libraries quiet.
silence = _Silence()
