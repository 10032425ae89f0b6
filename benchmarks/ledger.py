"""Seconds and peak memory of `exams status` and of planning a run with nothing to do, with many exams in the ledger.

The ledger is made here, rows only: exams of four images, the six steps of the four-view classifier and one of a model
trained by Spicula, all done, keys and digests as a run makes them, and the scores. Its last rows come in small commits,
as they do from runs. Each figure is that of a fresh process, start included; `nothing` is such a process that only
imports the ledger. `status` includes the list of what failed.

The result goes to stdout as JSON, a table for people to stderr.

    python benchmarks/ledger.py > result.json
"""

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula.exams.ledger import Ledger, tables, writing
from spicula.exams.ledger.storage import MOST_SMALL_FILES, Table
from spicula.exams.steps import IMAGES, Step, images_digest, key_of
from spicula.progress import progress, say

#: What is measured, and the rows that a commit of the making has.
WAYS = ("nothing", "status", "plan")
CHUNK = 10_000
SMALL = 50


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_one(arguments.one, arguments.folder)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="spicula-benchmark-"))
    try:
        began = time.perf_counter()
        make(folder / "workspace", arguments.exams)
        making = time.perf_counter() - began
        result = {"exams": arguments.exams, "seconds_of_making": round(making, 1), **measure(folder, arguments.times)}
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    for way in WAYS:
        say(f"{way:8} {result[way]['seconds']:6.2f} s {result[way]['peak_mb']:7.0f} MB")
    print(json.dumps(result, indent=2))


def measure(folder: Path, times: int) -> dict[str, Any]:
    """Return seconds and peak memory of each way: the median of processes that take turns."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in progress(range(times), "measuring", "rounds"):
        for way in WAYS:
            began = time.perf_counter()
            command = [sys.executable, __file__, "--one", way, "--folder", str(folder)]
            answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            found[way].append({"seconds": time.perf_counter() - began, **answer})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    middle = {
        way: {name: round(statistics.median(one[name] for one in ones), 3) for name in ("seconds", "peak_mb")}
        for way, ones in found.items()
    }
    return {"workspace_mb": round(size / 1e6, 1), "rows": found["status"][0]["rows"], **middle}


def _one(way: str, folder: Path) -> dict[str, Any]:
    rows = {}
    if way != "nothing":
        ledger = Ledger.open(folder / "workspace")
        if way == "status":
            status = ledger.status()
            assert ledger.problems() == []
            assert all(count["done"] == status["exams"] for count in status["steps"].values())
            rows = {"exams": status["exams"], "steps": sum(count["done"] for count in status["steps"].values())}
        else:
            plan = ledger.plan(steps())
            assert len(plan.left) == 0
            assert not any(count.left for count in plan.counts.values())
    return {"peak_mb": _peak_mb(), "rows": rows}


def _peak_mb() -> float:
    """Return the most memory that this process had, in millions of bytes (getrusage would count its parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def steps() -> list[Step]:
    """Return a configuration as a run with a four-view classifier and a model of one's own has it."""
    window = {"cc": [2677, 1942], "mlo": [2974, 1748]}
    patches, bundle = _digest("patch"), _digest("bundle")

    def classify(name: str, *inputs: str) -> Step:
        models = {"classifier": _digest(name)}
        parameters = {**window, "mode": "exam", "precision": "fp32", "shift": 100, "resize": 100, "windows": 10}
        return Step(f"classify:{name}", "classify", 1, "model", inputs, parameters, models, name, bundle)

    return [
        Step("crop", "crop", 1, "cpu", (IMAGES,), {"erosions": 100, "buffer": 50}),
        Step("centers", "centers", 1, "cpu", ("crop",), window),
        Step("heatmaps", "heatmaps", 1, "model", ("crop",), {"patch": 256, "stride": 70}, {"patch": patches}),
        Step("visualize", "visualize", 1, "cpu", ("crop", "heatmaps")),
        classify("image-only", "crop", "centers"),
        classify("image-and-heatmaps", "crop", "centers", "heatmaps"),
        classify("own", IMAGES),
    ]


def make(workspace: Path, count: int) -> None:
    """Write a ledger in which `count` exams are done."""
    ledger = Ledger.open(workspace, create=True)
    configuration = steps()
    run = ledger.begin_run(configuration, "local")
    written = {name: Table(f"{ledger.place}/{name}", schema, {}) for name, schema in tables.TABLES.items()}
    small = SMALL * (MOST_SMALL_FILES - 1)
    bounds = [*range(0, max(0, count - small), CHUNK), *range(max(0, count - small), count, SMALL), count]
    for start, stop in progress(list(pairwise(bounds)), "making", "commits"):
        for name, rows in _rows(range(start, stop), configuration, run):
            _append(written[name], rows)
            if stop - start == SMALL:
                written[name].tidy()
    ledger.end_run(run, {})


def _append(table: Table, rows: pa.Table) -> None:
    table.append(lambda: rows)


def _rows(numbers: range, configuration: Sequence[Step], run: str) -> Iterator[tuple[str, pa.Table]]:
    exams = [{"exam_id": f"exam-{number:06d}", "run": run, **_exam(number)} for number in numbers]
    yield "exams", writing.rows_of(exams, tables.EXAMS)
    outputs: dict[str, list[str]] = {IMAGES: [exam["digest"] for exam in exams]}
    for step in configuration:
        code = step.code()
        reads = list(zip(*(outputs[name] for name in step.inputs), strict=True))
        keys = [key_of(exam["exam_id"], code, read) for exam, read in zip(exams, reads, strict=True)]
        outputs[step.name] = [_digest(key) for key in keys]
        same = {
            "step": step.name,
            "stage": step.stage,
            "status": "ok",
            "code": code,
            "version": step.version,
            "parameters": tables.as_text(dict(step.parameters)),
            "models": tables.as_text(dict(step.models)),
            "attempts": 1,
            "started": datetime.now(UTC),
            "seconds": 1.5,
            "engine": "local",
            "run": run,
            "spicula": "0",
        }
        if step.model is not None:
            yield "predictions", writing.rows_of(_scores(exams, keys, step, run), tables.PREDICTIONS)
        each = zip(exams, keys, outputs[step.name], reads, strict=True)
        rows = [
            {**same, "exam_id": exam["exam_id"], "images": exam["digest"], "key": key, "outputs": made, "reads": read}
            for exam, key, made, read in each
        ]
        yield "steps", writing.rows_of(rows, tables.STEPS)


def _exam(number: int) -> dict[str, Any]:
    images = [
        {
            "name": view,
            "view": view,
            "path": f"/exams/{number:06d}/{view}.dcm",
            "sha256": _digest(f"{number} {view}"),
            "frame": 0,
            "mirrored": False,
        }
        for view in ("L-CC", "R-CC", "L-MLO", "R-MLO")
    ]
    return {"digest": images_digest(images), "state": _digest(f"state {number}"), "notes": [], "images": images}


def _scores(exams: Sequence[dict[str, Any]], keys: Sequence[str], step: Step, run: str) -> list[dict[str, Any]]:
    same = {"step": step.name, "model": step.model, "bundle": step.bundle, "run": run}
    return [
        {
            **same,
            "exam_id": exam["exam_id"],
            "key": key,
            "model_digest": step.models["classifier"],
            "images": exam["digest"],
            "side": side,
            "target": target,
            "score": int(key[:6], 16) / 16**6,
        }
        for exam, key in zip(exams, keys, strict=True)
        for side in "LR"
        for target in ("benign", "malignant")
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5, help="processes of each way; the median counts")
    parser.add_argument("--folder", type=Path, help="where to make the workspace; it is kept")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
