"""Requests per second and their times: Spicula's service against the common practice, on one machine in one run.

    python benchmarks/serve.py > result.json
    python benchmarks/serve.py --images FOLDER --mlserver V/bin/python --triton T/bin/python > result.json

One ResNet-50 (224 x 224, two classes, seeded weights), the same weights on all sides. Pictures are uploaded as PNG by
1, 4, 16 and 64 clients, each of which sends its next picture when it has its answer:

- `flask`: Flask behind gunicorn with two synchronous workers, eager PyTorch, Pillow (`serve_flask.py`);
- `flask-1`: the same with one thread for each worker (OMP_NUM_THREADS=1): by default PyTorch takes all cores in every
  worker, and the workers wait for each other; few published services know, and this is the best that they could do;
- `fp32`: `spicula serve` as it is by default (ONNX Runtime);
- `openvino`: with `--provider openvino`; `bf16`: with `--precision bf16` besides.

All services run during the whole of the script, and rest while another one is asked; they take turns, and every round
starts with another one. A point is the median of its rounds. Beside requests per second and the times of answers (p50
and p99, over the answers of all rounds) there are seconds of processors per request, which a busy machine changes
little: of the service's first process, and of those that it has started. The clients share the cores with the services;
what they take is told as well (`clients_share`, of all cores). While the most clients ask Spicula, one more asks for
/healthz every 50 ms.

Then tensors (`/v2/models/resnet50/infer`): Spicula with raw bytes and with JSON, MLServer with JSON (it has no other),
and tritonserver with raw bytes; the last two where an environment that has them is named:

    python -m venv V && V/bin/pip install mlserver onnxruntime
    python -m venv T && T/bin/pip install nvidia-pytriton onnxruntime

Answers are compared: each picture is sent to each side once, before anything is measured. The result goes to stdout as
JSON, a table for people to stderr. Ctrl-C ends the services and tells what was measured by then.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import serve_inputs
import serve_load
import serve_sides
from serve_load import Load, Plan
from serve_sides import Side

from spicula.progress import say

OPTIONS = {
    "fp32": (),
    "openvino": ("--provider", "openvino"),
    "bf16": ("--provider", "openvino", "--precision", "bf16"),
}
#: What ours is compared with, and the environment that it gets.
FLASKS = {"flask": {}, "flask-1": {"OMP_NUM_THREADS": "1"}}
PICTURE_SIDES = (*FLASKS, *OPTIONS)
PROBE_SECONDS = 0.05
#: As the service has it by default it would count this machine's requests, and refuse some.
UNLIMITED = ("--limit", "requests-a-minute=1000000")


@dataclass
class Point:
    """What was measured of one side with so many clients: a load for each round, and what the service took."""

    loads: list[Load] = field(default_factory=list)
    main_seconds: float = 0.0
    other_seconds: float = 0.0
    bytes: int = 0


Points = dict[str, dict[int, Point]]


def main() -> None:
    arguments = _arguments()
    if arguments.make:
        pictures = serve_inputs.made_pictures(64, arguments.seed)
        serve_inputs.make_bundle(arguments.folder, pictures, arguments.seed)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that services end with this script
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="spicula-serve-benchmark-"))).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "bundle").exists():
            say("making the bundle")
            subprocess.run(
                [sys.executable, __file__, "--make", "--folder", str(folder), "--seed", str(arguments.seed)], check=True
            )
        result = compare(arguments, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if arguments.to:
        from spicula import files  # noqa: PLC0415

        files.write_json(arguments.to, result)


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure everything that was asked for."""
    found = serve_inputs.read_pictures(arguments.images, arguments.pictures) if arguments.images else None
    pictures = serve_inputs.made_pictures(arguments.pictures, arguments.seed) if found is None else found
    uploads = [serve_inputs.png(picture) for picture in pictures]
    result: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "seconds_a_point": arguments.seconds,
        "rounds": arguments.rounds,
        "pictures": {"count": len(uploads), "mean_bytes": round(statistics.mean(map(len, uploads)))},
    }
    for name, measure in (("uploads", _uploads), ("tensors", _tensors)):
        if name in arguments.what:
            result[name] = {}
            try:
                measure(arguments, folder, pictures, uploads, result[name])
            except KeyboardInterrupt:
                say("interrupted: what follows was measured by then")
                result["interrupted"] = True
                break
    return result


# pictures


def _uploads(
    arguments: argparse.Namespace,
    folder: Path,
    pictures: Sequence[serve_inputs.Picture],
    uploads: list[bytes],
    result: dict[str, Any],
) -> None:
    weights = folder / serve_inputs.WEIGHTS
    starts: dict[str, Callable[[], Side]] = {
        name: partial(serve_sides.flask, folder, name, weights, arguments.flask_workers, variables)
        for name, variables in FLASKS.items()
    }
    for name, options in OPTIONS.items():
        starts[name] = partial(serve_sides.spicula, folder, name, *options, *UNLIMITED, *arguments.options)
    sides: dict[str, Side] = {}
    points: Points = {}
    try:
        for name in arguments.sides:
            say(f"starting {name}")
            sides[name] = starts[name]()
        result["answers"] = _compared({name: _scores(name, side, uploads) for name, side in sides.items()})
        requests = {}
        for name, side in sides.items():
            path = "/predict" if name in FLASKS else "/v1/predict"
            requests[name] = [serve_load.post(path, side.port, *serve_load.picture_form(png)) for png in uploads]
        _measure(arguments, arguments.clients, sides, requests, points)
    finally:
        for side in sides.values():
            side.end()
        result["points"] = _told(points, *FLASKS)


def _scores(name: str, side: Side, uploads: list[bytes]) -> list[float]:
    """Return the probability of class 1 for each picture."""
    path = "/predict"  # the small answer, which both sides have
    scores = []
    for png in uploads:
        body, headers = serve_load.picture_form(png)
        answer = _asked(side.port, path, body, headers)
        if "raw_prediction" not in answer:
            raise SystemExit(f"{name} does not answer a picture: {answer}")
        scores.append(float(answer["raw_prediction"][1]))
    return scores


def _asked(port: int, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.loads(response.read())
    return answer


def _compared(scores: dict[str, list[float]]) -> dict[str, Any]:
    """Compare the answers of all sides with those of the first."""
    first, *others = scores
    expected = np.array(scores[first])
    told: dict[str, Any] = {
        "compared_with": first,
        "scores": [round(float(value), 4) for value in np.quantile(expected, (0, 0.25, 0.5, 0.75, 1))],
    }
    for name in others:
        found = np.array(scores[name])
        same = int(((found >= 0.5) == (expected >= 0.5)).sum())
        difference = float(np.abs(found - expected).max())
        told[name] = {"same_class": same, "of": len(found), "largest_difference": float(f"{difference:.2g}")}
        say(f"{name}: {same} of {len(found)} classes as {first}, scores differ by {difference:.1e} at most")
    return told


# tensors


def _tensors(
    arguments: argparse.Namespace,
    folder: Path,
    pictures: Sequence[serve_inputs.Picture],
    uploads: list[bytes],
    result: dict[str, Any],
) -> None:
    images = [np.ascontiguousarray(one.transpose(2, 0, 1)[np.newaxis], np.float32) / 255 for one in pictures[:16]]
    sides: dict[str, Side] = {}
    points: Points = {}
    try:
        ours = serve_sides.spicula(folder, "tensors", *UNLIMITED, *arguments.options)
        sides["spicula raw"] = sides["spicula json"] = ours
        if arguments.mlserver:
            sides["mlserver json"] = serve_sides.mlserver(folder, arguments.mlserver)
        if arguments.triton:
            sides["triton raw"] = serve_sides.triton(folder, arguments.triton)
        requests = {}
        scores = {}
        for name, side in sides.items():
            bodies = [_raw(one) if name.endswith("raw") else _json(one) for one in images]
            path = "/v2/models/resnet50/infer"
            scores[name] = [_score(_asked(side.port, path, *body)) for body in bodies]
            requests[name] = [serve_load.post(path, side.port, *body) for body in bodies]
        result["answers"] = _compared(scores)
        _measure(arguments, arguments.tensor_clients, sides, requests, points)
    finally:
        for side in set(sides.values()):
            side.end()
        result["points"] = _told(points, "mlserver json")


def _raw(image: Any) -> tuple[bytes, dict[str, str]]:
    """A request with raw bytes; the answer is asked for as JSON, which is small."""
    told: dict[str, Any] = {"name": "image", "shape": list(image.shape), "datatype": "FP32"}
    told["parameters"] = {"binary_data_size": image.nbytes}
    wanted = {"name": "probabilities", "parameters": {"binary_data": False}}
    head = json.dumps({"inputs": [told], "outputs": [wanted]}).encode()
    return head + image.tobytes(), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def _json(image: Any) -> tuple[bytes, dict[str, str]]:
    told = {"name": "image", "shape": list(image.shape), "datatype": "FP32", "data": image.ravel().tolist()}
    return json.dumps({"inputs": [told]}).encode(), {"Content-Type": "application/json"}


def _score(answer: dict[str, Any]) -> float:
    return float(answer["outputs"][0]["data"][1])


# measuring


def _measure(
    arguments: argparse.Namespace,
    clients: Sequence[int],
    sides: dict[str, Side],
    requests: dict[str, list[bytes]],
    points: Points,
) -> None:
    names = list(sides)
    for turn in range(arguments.rounds):
        for count in clients:
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                side, point = sides[name], points.setdefault(name, {}).setdefault(count, Point())
                is_probed = count == max(clients) and name in OPTIONS
                probe = serve_load.get("/healthz", side.port) if is_probed else None
                plan = Plan(count, arguments.seconds, arguments.warm_seconds, probe, PROBE_SECONDS)
                before = side.usage()
                load = serve_load.run(side.port, requests[name], plan)
                after = side.usage()
                point.loads.append(load)
                point.main_seconds += after.main_seconds - before.main_seconds
                point.other_seconds += after.other_seconds - before.other_seconds
                point.bytes = max(point.bytes, after.bytes)
                rate = len(load.latencies) / load.seconds
                say(f"round {turn + 1}, {count:2} clients, {name}: {rate:.1f} requests a second")


def _told(points: Points, *bases: str) -> dict[str, Any]:
    """Return the figures of all points, those of Spicula beside those of the bases; and print them as a table."""
    heads = ("clients", "req/s", "p50 ms", "p99 ms", "CPU ms", "others", *(f"x {base}" for base in bases))
    say(f"{'':<16}" + "".join(f"{head:>16}" if head.startswith("x ") else f"{head:>9}" for head in heads))
    told: dict[str, Any] = {}
    for name, counts in points.items():
        for count, point in counts.items():
            figures = _figures(point)
            if name not in bases:
                figures["beside"] = {base: _beside(figures, points.get(base, {}).get(count)) for base in bases}
            told.setdefault(name, {})[str(count)] = figures
            keys = ("requests_a_second", "p50_ms", "p99_ms", "cpu_ms_first_process", "cpu_ms_other_processes")
            times = [figures.get("beside", {}).get(base, {}).get("times_the_throughput") for base in bases]
            widths = [9] * len(keys) + [16] * len(times)
            cells = zip([figures[key] for key in keys] + times, widths, strict=True)
            say(
                f"{name:<16}{count:>9}"
                + "".join(f"{'-':>{w}}" if one is None else f"{one:>{w}.2f}" for one, w in cells)
            )
    return told


def _beside(figures: dict[str, Any], other: Point | None) -> dict[str, Any]:
    """Return how figures stand to those of another side."""
    if other is None:
        return {}
    than = _figures(other)
    return {
        "times_the_throughput": _ratio(figures["requests_a_second"], than["requests_a_second"]),
        "share_of_p99": _ratio(figures["p99_ms"], than["p99_ms"]),
    }


def _figures(point: Point) -> dict[str, Any]:
    times = np.array([latency for load in point.loads for latency in load.latencies]) * 1000
    probes = np.array([seconds for load in point.loads for seconds in load.probes]) * 1000
    seconds = sum(load.seconds for load in point.loads)
    answered = sum(load.answered for load in point.loads)
    failures: dict[str, int] = {}
    for load in point.loads:
        for status, count in load.failures.items():
            failures[str(status)] = failures.get(str(status), 0) + count
    figures: dict[str, Any] = {
        "requests_a_second": round(statistics.median(len(one.latencies) / one.seconds for one in point.loads), 2),
        "p50_ms": _quantile(times, 0.5),
        "p99_ms": _quantile(times, 0.99),
        "requests": len(times),
        "failures": failures,
        "cpu_ms_first_process": round(1000 * point.main_seconds / max(answered, 1), 2),
        "cpu_ms_other_processes": round(1000 * point.other_seconds / max(answered, 1), 2),
        "resident_mib": round(point.bytes / 2**20),
        "clients_share": round(
            sum(load.cpu_seconds for load in point.loads) / seconds / len(os.sched_getaffinity(0)), 4
        ),
    }
    if len(probes):
        figures |= {"health_p50_ms": _quantile(probes, 0.5), "health_p99_ms": _quantile(probes, 0.99)}
    return figures


def _quantile(times: Any, share: float) -> float | None:
    return round(float(np.quantile(times, share)), 2) if len(times) else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return round(one / other, 3) if one is not None and other else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of real pictures, instead of those made here")
    parser.add_argument("--pictures", type=int, default=64, help="how many; clients take them in turn")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured for each point, in each round")
    parser.add_argument("--warm-seconds", type=float, default=1.0, help="before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tensor-clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sides", nargs="+", choices=PICTURE_SIDES, default=list(PICTURE_SIDES))
    parser.add_argument("--what", nargs="+", choices=["uploads", "tensors"], default=["uploads", "tensors"])
    parser.add_argument("--flask-workers", type=int, default=2)
    parser.add_argument("--mlserver", metavar="PYTHON", type=Path, help="of an environment with mlserver, onnxruntime")
    parser.add_argument("--triton", metavar="PYTHON", type=Path, help="of one with nvidia-pytriton, onnxruntime")
    parser.add_argument("--options", nargs="+", default=[], help="of spicula serve, besides: --options=--workers=2")
    parser.add_argument("--seed", type=int, default=7, help="of weights and pictures")
    parser.add_argument("--folder", type=Path, help="keep all files here, and use a bundle that is here already")
    parser.add_argument("--to", type=Path, help="write the result as JSON")
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
