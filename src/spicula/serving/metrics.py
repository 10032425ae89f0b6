"""What the service counts, for Prometheus. Names and labels stand in one table; no label comes from a request."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

#: Seconds that a model on a CPU, a queue and an exam take, from the quickest answer to a whole exam.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metric(NamedTuple):
    """One metric: its name behind `spicula_`, its kind, its labels, and what it is.

    A label's values are those of a tuple, or None: words of ours that are known at start (route templates, names of
    models, codes of problems), made known by `Metrics.know`.
    """

    name: str
    kind: Literal["counter", "seconds", "gauge"]
    labels: Mapping[str, tuple[str, ...] | None]
    help: str


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
METRICS = (
    Metric("requests", "counter", {"route": None, "method": _METHODS, "status": None}, "requests answered"),
    Metric("request_seconds", "seconds", {"route": None}, "from a request's headers to the end of its answer"),
    Metric("requests_under_way", "gauge", {}, "requests that are being answered"),
    Metric("connections", "gauge", {}, "open connections"),
    Metric("problems", "counter", {"code": None}, "requests refused, by the code of the problem"),
    Metric("images", "counter", {"model": None, "outcome": ("answered", "refused")}, "images that were sent"),
    Metric("inference_seconds", "seconds", {"model": None}, "a batch's time in a model"),
    Metric("wait_seconds", "seconds", {"model": None}, "an image's time in the queue"),
    Metric("queue", "gauge", {}, "images that wait for a model"),
    Metric("exams", "counter", {"outcome": ("accepted", "done", "refused", "failed")}, "exams that were sent"),
    Metric("exam_seconds", "seconds", {}, "an exam's time in the pipeline"),
    Metric("exams_waiting", "gauge", {}, "exams that wait for the pipeline"),
    Metric("instances", "counter", {"way": ("stow", "c-store"), "outcome": ("stored", "refused")}, "DICOM received"),
    Metric("audit_errors", "counter", {}, "lines that could not be written to the audit log"),
    Metric("log_lines_lost", "counter", {}, "lines of the log that nobody took"),
)


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._table = {one.name: one for one in METRICS}
        self._known: dict[str, set[str]] = {}
        self._all: dict[str, Any] = {}
        self._children: dict[tuple[Any, ...], Any] = {}  # of words that are known alone, so that they stay few
        for one in METRICS:
            names = (f"spicula_{one.name}", one.help, list(one.labels))
            if one.kind == "counter":
                self._all[one.name] = Counter(*names, registry=self._registry)
            elif one.kind == "seconds":
                self._all[one.name] = Histogram(*names, registry=self._registry, buckets=_BUCKETS)
            else:
                self._all[one.name] = Gauge(*names, registry=self._registry)

    def know(self, label: str, *values: str) -> None:
        """Make values of a label known: words of ours, never of a request."""
        self._known.setdefault(label, set()).update(values)

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter. A value of a label that nobody made known counts as "other"."""
        self._labelled(name, labels).inc(value)

    def seconds(self, name: str, value: float, **labels: str) -> None:
        """Add a time, in seconds, to a histogram."""
        self._labelled(name, labels).observe(value)

    def watch(self, name: str, function: Callable[[], float]) -> None:
        """Let a function say what a gauge shows, whenever it is asked for."""
        self._all[name].set_function(function)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _labelled(self, name: str, labels: Mapping[str, str]) -> Any:
        if not labels:
            return self._all[name]
        key = (name, *labels.items())
        found = self._children.get(key)
        if found is None:
            allowed = self._table[name].labels
            told = {
                label: value if value in (allowed[label] or ()) or value in self._known.get(label, ()) else "other"
                for label, value in labels.items()
            }
            found = self._all[name].labels(**told)
            if told == labels:
                self._children[key] = found
        return found
