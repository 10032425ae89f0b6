"""Keeping libraries quiet while they read files, in several threads at once."""

import logging
import threading
import warnings

#: Loggers of the libraries that read files, whose messages quote values of the file. The codecs log nothing.
_LOGGERS = ("pydicom", "PIL")
_OFF = logging.CRITICAL + 1


class _Silence:
    """No warnings and no log lines while any thread reads a header or decodes: those of libraries quote the file.

    The filters of `warnings` and the levels of loggers belong to the whole process: the first thread sets them, the
    last restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filters = warnings.catch_warnings()
        self._levels: dict[str, int] = {}

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._depth += 1
            for name in _LOGGERS:  # at every depth: a library that another thread imports meanwhile sets its level
                logger = logging.getLogger(name)
                if logger.level != _OFF:
                    self._levels[name] = logger.level
                    logger.setLevel(_OFF)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._filters.__exit__(None, None, None)
                for name, level in self._levels.items():
                    logging.getLogger(name).setLevel(level)
                self._levels.clear()


#: The one way in which reading keeps libraries quiet.
silence = _Silence()
