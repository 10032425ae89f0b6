"""Runs against a ledger without stages or engines: what a step gives is made up from its key.

As a program it is one process of a test: it prints a line before and after every commit, so that a test can kill it at
a known moment.

    python ledger_runs.py WORKSPACE NAMES SIZE [--wait]

With --wait it commits only when it gets a line.
"""

import hashlib
import json
import random
import sys
import time

from spicula.exams.ledger import Ledger, Result
from spicula.exams.steps import IMAGES, Step, key_of
from spicula.exams.types import ExamInput, ImageFile

VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")


def digest(*text) -> str:
    return hashlib.sha256(" ".join(map(str, text)).encode()).hexdigest()


def steps(patch="patch 1", image="image 1", **versions) -> list[Step]:
    """A configuration: models by name, and versions of stages (1 where not given)."""

    def step(name, inputs, models=(), model=None):
        stage = name.partition(":")[0]
        version = versions.get(stage, 1)
        models = {role: digest(one) for role, one in models}
        bundle = digest(patch, image) if model else None
        return Step(name, stage, version, "cpu", inputs, {"window": 3}, models, model, bundle)

    return [
        step("crop", (IMAGES,)),
        step("centers", ("crop",)),
        step("heatmaps", ("crop",), [("patch", patch)]),
        step("classify:image-only", ("crop", "centers"), [("classifier", image)], "image-only"),
        step("classify:both", ("crop", "centers", "heatmaps"), [("classifier", f"both {image}")], "both"),
    ]


def exam(name, pixels=0, folder="/exams", **fields) -> ExamInput:
    images = [ImageFile(view, view, f"{folder}/{view}.png", digest(name, pixels, view)) for view in VIEWS]
    return ExamInput(name, tuple(images), **fields)


def outputs_of(step, reads) -> str:
    """What a step makes: it depends on what it reads and on its models, and not on its version."""
    return digest(step.name, json.dumps(dict(step.models)), *reads)


def result(exam_id, step, reads, images, status="ok", *, error=None, attempts=1) -> Result:
    key = key_of(exam_id, step.code(), reads)
    scored = step.model is not None and status == "ok"
    scores = [
        {"side": side, "target": target, "score": int(digest(key, side, target)[:6], 16) / 16**6}
        for side in "LR"
        for target in ("benign", "malignant")
    ]
    record = {
        "exam": exam_id,
        "step": step.name,
        "key": key,
        "status": status,
        "outputs": outputs_of(step, reads) if status == "ok" else None,
        "error": error if status == "ok" or error else f"because {status}",
        "scores": scores if scored else [],
        "started": time.time(),
        "seconds": 0.25,
    }
    return Result(record, tuple(reads), images, attempts)


def all_ok(exam_id, step):
    return "ok"


def work(left, configuration, outcome=all_ok):
    """What a driver would do with the exams that are left: yield the results of the steps that it had to run."""
    for one in left:
        made = {IMAGES: one.digest}
        for step in configuration:
            if not all(name in made for name in step.inputs):
                continue
            reads = [made[name] for name in step.inputs]
            key = key_of(one.exam_id, step.code(), reads)
            status, outputs = one.known.get(key, (None, None))
            if status is None:
                new = result(one.exam_id, step, reads, one.digest, outcome(one.exam_id, step))
                status, outputs = new.record["status"], new.record["outputs"]
                yield new
            if status == "ok":
                made[step.name] = outputs


def run(ledger, configuration, exams=(), outcome=all_ok, **planning):
    """Do a whole run; return how many times each step was run."""
    by_name = {step.name: step for step in configuration}
    name = ledger.begin_run(configuration, "test")
    ledger.add_exams(exams, name)
    results = list(work(ledger.plan(configuration, **planning).left, configuration, outcome))
    ledger.commit(results, by_name, name, "test")
    ledger.end_run(name, {"results": len(results)})
    return {step: count for step in by_name if (count := sum(one.record["step"] == step for one in results))}


def as_rows(ledger) -> dict[str, list]:
    """What of the tables does not depend on times, runs and commits, in one order."""
    changing = {"commit", "time", "run", "started", "seconds", "engine", "attempts"}
    return {
        name: sorted(
            (
                {key: value for key, value in row.items() if key not in changing}
                for row in ledger.read(name).to_pylist()
            ),
            key=lambda row: json.dumps(row, sort_keys=True),
        )
        for name in ("exams", "steps", "predictions")
    }


def main(workspace, names, size, wait):
    """Commit the results of exams, `size` at a time, and say when."""
    configuration = steps()
    by_name = {step.name: step for step in configuration}
    ledger = Ledger.open(workspace, create=True)
    name = ledger.begin_run(configuration, "process")
    ledger.add_exams([exam(one) for one in names], name)
    results = list(work(ledger.plan(configuration, names).left, configuration))
    random.Random(size).shuffle(results)  # processes with the same to do begin at different ends
    print("planned", flush=True)
    if wait:
        sys.stdin.readline()
    for start in range(0, len(results), size):
        print(f"before {start}", flush=True)
        ledger.commit(results[start : start + size], by_name, name, "process")
        print(f"after {start}", flush=True)
    ledger.end_run(name, {})
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), "--wait" in sys.argv)
