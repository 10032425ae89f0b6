"""Every limit of the service, in one table: its name, what it is by default, and what happens beyond it.

The page docs/limits.md is checked against this table, and every limit has a test that passes it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from spicula.errors import UsageError

MIB = 2**20


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: as `--limit NAME=VALUE` takes it.
        default: its value.
        unit: of the value.
        status: of the answer beyond it; 0 where the connection is closed without one.
        help: what is counted, in a sentence.
    """

    name: str
    default: int
    unit: str
    status: int
    help: str


LIMITS = (
    Limit("header-bytes", 32 * 1024, "bytes", 431, "request line and headers of a request"),
    Limit("header-seconds", 10, "s", 0, "from a request's first byte to the end of its headers"),
    Limit("idle-seconds", 60, "s", 0, "an open connection on which no request has begun"),
    Limit("body-bytes", 256 * MIB, "bytes", 413, "body of a request, as it is sent and as it is decompressed"),
    Limit("body-seconds", 120, "s", 408, "from the headers to the end of the body"),
    Limit("held-bytes", 256 * MIB, "bytes", 503, "bodies in memory, of all requests that are under way"),
    Limit("spooled-bytes", 4096 * MIB, "bytes", 503, "bodies on the disk, of all requests that are under way"),
    Limit("send-seconds", 60, "s", 0, "a client that takes nothing of its answer"),
    Limit("json-bytes", 64 * MIB, "bytes", 413, "JSON of a KServe request, with its numbers"),
    Limit("json-depth", 32, "levels", 400, "nesting of JSON"),
    Limit("parts", 256, "parts", 413, "files and fields of a form, or parts of a multipart/related body"),
    Limit("field-bytes", 64 * 1024, "bytes", 413, "one field of a form that is no file"),
    Limit("image-bytes", 128 * MIB, "bytes", 413, "one uploaded image"),
    Limit("connections", 1024, "connections", 503, "open connections; the one that waits the longest gives way"),
    Limit("queue", 64, "images", 503, "images that wait for a model"),
    Limit("answer-seconds", 60, "s", 503, "an image's time in the queue and in the model"),
    Limit("exam-queue", 1000, "exams", 503, "exams that wait for the pipeline"),
    Limit("unpacked-bytes", 1024 * MIB, "bytes", 413, "what an archive of an exam unpacks to"),
    Limit("making-queue", 64, "files", 503, "pictures and documents of exams that wait to be made"),
    Limit(
        "requests-a-minute", 12_000, "requests", 429, "requests by one token, or by one address where there are none"
    ),
    Limit("tensor-bytes", 64 * MIB, "bytes", 413, "all tensors of a KServe request, decompressed"),
    Limit(
        "json-text-bytes",
        MIB,
        "bytes",
        413,
        "JSON of any other request, and of a KServe request without its long lists of numbers",
    ),
    Limit("drain-seconds", 30, "s", 503, "what is under way after SIGTERM"),
)


class Limits(Mapping[str, int]):
    """The limits of a service, by name.

    Args:
        changed: NAME=VALUE of those that are not as by default.

    Raises:
        UsageError: there is no such limit, or the value is no whole number of at least 1.
    """

    def __init__(self, changed: Iterable[str] = ()) -> None:
        self._values = {limit.name: limit.default for limit in LIMITS}
        for word in changed:
            name, _, text = word.partition("=")
            if name not in self._values:
                raise UsageError(f"--limit {word}: no limit {name!r}; there are {', '.join(self._values)}")
            if not text.isascii() or not text.isdigit() or int(text) < 1:
                raise UsageError(f"--limit {word}: {text!r} is not a whole number of at least 1")
            self._values[name] = int(text)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
