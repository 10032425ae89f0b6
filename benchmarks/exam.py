"""Seconds and memory for one four-view exam, stage by stage: Spicula against the published procedure.

    python benchmarks/exam.py --exam DIR --weights DIR --precision fp32 bf16 > result.json

DIR holds the four images of one exam, named by their views (`0_L-CC.png`, ...). Weights are the published files, under
the names `patch.pt`, `image.pt`, `imageheatmaps.pt`; `--make-weights RECIPE` makes stand-ins with the recipe's
`seeded_tensor(name, shape, dtype)` where they are missing.

The published procedure is `published_exam.py`: eager PyTorch, batches of 100 patches, all patches in memory, every
stage a process of its own, files between (PNG, HDF5, JSON). Spicula runs twice: its stages, one after another in one
process (`stages`), and `spicula exams run` as users call it, with intake, workers, ledger and artefacts (`command`).
All times are on the wall and contain the start of processes and the loading of models. Making the bundle (`spicula
bundle import-exam`) is done once for all exams, and is shown by itself. Spicula also draws pictures, which has no
counterpart in the procedure and counts against us. Memory is the largest sum of resident memory of a process and all
of its children, seen every 50 ms.

    python benchmarks/exam.py --throughput 40 --workers 4 --device cuda --precision bf16 --exam DIR --weights DIR

gives exams per minute instead: so many copies of the exam, taken by workers that have loaded their models, first stage
to last. The result goes to stdout as JSON, lines for people to stderr.
"""
# ruff: noqa: PLC0415  each way imports what it needs in its own process

import argparse
import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from spicula.progress import say

HERE = Path(__file__).parent
VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")
PUBLISHED_STAGES = ("crop", "centers", "heatmaps", "image", "imageheatmaps")
#: Names of weight files, and of the published results; what Spicula calls the models.
MODELS = {"image": "image-only", "imageheatmaps": "image-and-heatmaps"}
OUTPUTS = ("left_benign", "right_benign", "left_malignant", "right_malignant")
SECONDS_BETWEEN_LOOKS = 0.25

Scores = dict[str, dict[str, float]]


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(stages(arguments.folder, arguments.one, arguments.device)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="spicula-exam-benchmark-"))
    try:
        prepare(arguments, folder)
        result = throughput(arguments, folder) if arguments.throughput else compare(arguments, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if arguments.to:
        from spicula import files

        files.write_json(arguments.to, result)


# what both sides work on


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """Put the exam, its list, and the bundle into `folder`."""
    exam = folder / "exam"
    shutil.rmtree(exam, ignore_errors=True)
    (exam / "images").mkdir(parents=True)
    for view in VIEWS:
        found = [path for path in arguments.exam.glob("*.png") if path.stem.replace("_", "-").endswith(view)]
        if len(found) != 1:
            raise SystemExit(f"{arguments.exam} has {len(found)} PNG images of {view}; one is needed")
        shutil.copy(found[0], exam / "images" / f"0_{view}.png")
    (exam / "exam.json").write_text(json.dumps({"horizontal_flip": arguments.horizontal_flip}))
    listed = {"horizontal_flip": arguments.horizontal_flip, **{view: [f"0_{view}"] for view in VIEWS}}
    (exam / "images" / "exam_list.json").write_text(json.dumps([listed]))
    if arguments.make_weights:
        make_weights(arguments.make_weights, arguments.weights)
    missing = [name for name in ("patch", *MODELS) if not (arguments.weights / f"{name}.pt").exists()]
    if missing:
        raise SystemExit(f"{arguments.weights} has no {missing[0]}.pt; --make-weights RECIPE makes stand-ins")


def make_weights(recipe: Path, to: Path) -> None:
    """Make weight files as the published ones are, with numbers from a recipe; those that are there are kept."""
    import torch

    from spicula.models.screening import patches
    from spicula.models.screening.view_wise import ViewWise

    spec = importlib.util.spec_from_file_location("recipe", recipe)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    to.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Callable[[], torch.nn.Module]] = {
        "patch": patches.build,
        "image": lambda: ViewWise(1),
        "imageheatmaps": lambda: ViewWise(3),
    }
    for name, build in networks.items():
        if (to / f"{name}.pt").exists():
            continue
        entries = build().state_dict()
        state = {key: module.seeded_tensor(key, tuple(one.shape), one.dtype) for key, one in entries.items()}
        torch.save(state if name == "patch" else {"model": state}, to / f"{name}.pt")


def make_bundle(weights: Path, to: Path) -> float | None:
    """Import the weight files, as users do; return how long that took, or None where the bundle was there already."""
    if to.exists():
        return None
    began = time.perf_counter()
    files = ["--patch", "patch.pt", "--image", "image.pt", "--image-heatmaps", "imageheatmaps.pt"]
    words = [word if word.startswith("--") else str(weights / word) for word in files]
    _spicula("bundle", "import-exam", *words, "--to", str(to))
    seconds = round(time.perf_counter() - began, 1)
    say(f"made the bundle in {seconds} s")
    return seconds


def _spicula(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "spicula", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"spicula {' '.join(words[:2])} failed with exit status {done.returncode}")
    return done.stdout


# one exam, both ways


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run every way, and put the figures side by side."""
    golden = json.loads(arguments.golden.read_text()) if arguments.golden else None
    result: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "bundle_seconds": make_bundle(arguments.weights, folder / "bundle"),
    }
    if not arguments.skip_published:
        result["published"] = _told("published", published(folder, arguments.weights), golden)
    for precision in arguments.precision:
        for way, run in (("stages", by_stages), ("command", by_command)):
            if way not in arguments.ways:
                continue
            found = _told(f"{way} {precision}", run(folder, precision, arguments.device), golden)
            if "published" in result:
                found["times_as_fast"] = round(result["published"]["seconds"] / found["seconds"], 2)
                found["largest_difference_to_published"] = _difference(found, result["published"]["scores"])
                say(f"    {found['times_as_fast']} times as fast as the published procedure")
            result[f"{way} {precision}"] = found
    return result


def _told(way: str, found: dict[str, Any], golden: Scores | None) -> dict[str, Any]:
    """Tell a way's figures on stderr, and compare its scores with the golden ones."""
    say(f"{way}: {found['seconds']:.1f} s, {found['peak_memory_mib']} MiB at most")
    for stage, seconds in found["stage_seconds"].items():
        say(f"    {stage:<28}{seconds:8.2f} s")
    if golden is not None:
        found["largest_difference_to_golden"] = _difference(found, golden)
        say(f"    largest difference to the golden predictions {found['largest_difference_to_golden']:.1e}")
    return found


def _difference(found: dict[str, Any], expected: Scores) -> float:
    scores: Scores = found["scores"]
    return max(abs(scores[name][key] - expected[name][key]) for name in MODELS for key in OUTPUTS)


def published(folder: Path, weights: Path) -> dict[str, Any]:
    """The published procedure, a process a stage."""
    exam = folder / "published"
    shutil.rmtree(exam, ignore_errors=True)
    shutil.copytree(folder / "exam", exam)
    seconds, memory = {}, []
    for stage in PUBLISHED_STAGES:
        command = [sys.executable, str(HERE / "published_exam.py"), stage, str(exam), str(weights.absolute())]
        seconds[stage], peak, _ = _watched(command)
        memory.append(peak)
    scores: Scores = {}
    for name in MODELS:
        header, row = ((line.split(",")) for line in (exam / f"{name}.csv").read_text().split())
        scores[name] = dict(zip(header, map(float, row), strict=True))
    return _figures(sum(seconds.values()), seconds, max(memory), scores)


def by_stages(folder: Path, precision: str, device: str) -> dict[str, Any]:
    """Spicula's stages, one after another in one process."""
    command = [sys.executable, __file__, "--one", precision, "--device", device, "--folder", str(folder)]
    total, peak, output = _watched(command)
    found = json.loads(output.splitlines()[-1])
    named = sum(found["seconds"].values())
    return _figures(total, {"start": total - named, **found["seconds"]}, peak, found["scores"])


def by_command(folder: Path, precision: str, device: str) -> dict[str, Any]:
    """`spicula exams run`, with a workspace that is new."""
    workspace = folder / f"workspace-{precision}"
    shutil.rmtree(workspace, ignore_errors=True)
    where = ["--workspace", str(workspace)]
    run = ["exams", "run", str(folder / "exam" / "images"), *where, "--bundle", str(folder / "bundle")]
    options = ["--precision", precision, "--device", device, "--json"]
    total, peak, _ = _watched([sys.executable, "-m", "spicula", *run, *options])
    detail = json.loads(_spicula("exams", "show", "0", *where, "--json"))
    seconds = {step["step"]: step["seconds"] for step in detail["steps"]}
    scores: Scores = {
        name: {f"{one['side']}_{one['target']}": one["score"] for one in detail["predictions"] if one["model"] == model}
        for name, model in MODELS.items()
    }
    return _figures(total, seconds, peak, scores)


def _figures(seconds: float, stages: dict[str, float], peak: int, scores: Scores) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 2),
        "stage_seconds": {name: round(one, 2) for name, one in stages.items()},
        "peak_memory_mib": round(peak / 2**20),
        "scores": {name: {key: round(one, 7) for key, one in rows.items()} for name, rows in scores.items()},
    }


# measuring


def _watched(command: list[str]) -> tuple[float, int, str]:
    """Run a command; return its seconds, its largest memory in bytes with that of its children, and its output."""
    peak = 0
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def look() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)

    watcher = threading.Thread(target=look)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[1:4])} failed with exit status {process.returncode}")
    return seconds, peak, output


def _memory(root: int) -> int:
    """Return the resident bytes of a process and of all that it started; shared pages count in each."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.name))
        resident[int(path.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    total, todo = 0, [root]
    while todo:
        one = todo.pop()
        total += resident.get(one, 0)
        todo += children.get(one, [])
    return total


# Spicula's stages


def stages(folder: Path, precision: str, device: str) -> dict[str, Any]:
    """Run the stages once; return the seconds of each, and the scores."""
    seconds: dict[str, float] = {}
    exam = Exam(folder, precision, device, seconds)
    return {"seconds": seconds, "scores": exam.run()}


class Exam:
    """The exam and the loaded models; the seconds of each stage are added up in `seconds`."""

    def __init__(self, folder: Path, precision: Any, device: str, seconds: dict[str, float]) -> None:
        from spicula.bundle import screening
        from spicula.exams.networks import runner_of

        self._folder, self._seconds = folder, seconds
        began = time.perf_counter()
        bundle = screening.load(folder / "bundle")
        self._settings = bundle.settings
        self._networks = {
            graph: runner_of(bundle, graph, precision=precision, device=device) for graph in bundle.graphs
        }
        seconds["load models"] = time.perf_counter() - began

    def run(self) -> Scores:
        """Take the exam through all stages."""
        from spicula.convert import png
        from spicula.exams.stages.centers import centers
        from spicula.exams.stages.classify import classify
        from spicula.exams.stages.crop import crop
        from spicula.exams.stages.heatmaps import heatmaps
        from spicula.exams.stages.visualize import visualize

        settings, networks = self._settings, self._networks
        images = self._timed("read", self._read)
        crops = self._timed("crop", lambda: crop(images, settings))
        points = self._timed("centers", lambda: centers(crops, settings))
        heat = self._timed("heatmaps", lambda: heatmaps(crops, networks["patch"], settings))
        self._timed("visualize", lambda: [png.encode(picture) for picture in visualize(crops, heat)])
        scores: Scores = {}
        for name, model in MODELS.items():
            angles = {angle: networks[f"{model}.{angle}"] for angle in ("cc", "mlo")}
            given = heat if name == "imageheatmaps" else None
            found = self._timed(f"classify:{model}", partial(classify, crops, points, given, angles, settings))
            sides = {"L": "left", "R": "right"}
            scores[name] = {f"{sides[one.side]}_{one.target}": one.score for one in found}
        return scores

    def _read(self) -> list[Any]:
        from spicula.exams.types import Image
        from spicula.imaging.readers import read_pixels

        mirrored = json.loads((self._folder / "exam" / "exam.json").read_text())["horizontal_flip"] == "YES"
        paths = {view: self._folder / "exam" / "images" / f"0_{view}.png" for view in VIEWS}
        return [Image(f"0_{view}", view, read_pixels(path).array, mirrored) for view, path in paths.items()]

    def _timed(self, name: str, do: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = do()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began
        return found


# exams per minute


def throughput(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return exams per minute, of workers that have loaded their models and done one exam each."""
    make_bundle(arguments.weights, folder / "bundle")
    result: dict[str, Any] = {
        "device": arguments.device,
        "cores": len(os.sched_getaffinity(0)),
        "workers": arguments.workers,
        "exams": arguments.throughput,
    }
    context = multiprocessing.get_context("spawn")
    for precision in arguments.precision:
        left = context.Value("i", arguments.throughput)
        ready = context.Barrier(arguments.workers + 1)
        rest = (folder, precision, arguments.device, left, ready)
        workers = [context.Process(target=_work, args=rest) for _ in range(arguments.workers)]
        for worker in workers:
            worker.start()
        ready.wait()
        began = time.perf_counter()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
        if any(worker.exitcode for worker in workers):
            raise SystemExit("a worker failed")
        result[precision] = {
            "seconds": round(seconds, 2),
            "exams_per_minute": round(60 * arguments.throughput / seconds, 2),
        }
        say(f"{precision}: {result[precision]['exams_per_minute']} exams a minute")
    return result


def _work(folder: Path, precision: str, device: str, left: Any, ready: Any) -> None:
    try:
        exam = Exam(folder, precision, device, {})
        exam.run()
    except BaseException:
        ready.abort()
        raise
    ready.wait()
    while True:
        with left.get_lock():
            if left.value == 0:
                return
            left.value -= 1
        exam.run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--exam", type=Path, help="folder with the four images of one exam, as PNG")
    parser.add_argument("--horizontal-flip", choices=["NO", "YES"], default="NO", help="as the exam's list says")
    parser.add_argument("--weights", type=Path, help="folder of the weight files")
    parser.add_argument("--make-weights", metavar="RECIPE", type=Path, help="Python file that gives stand-in weights")
    parser.add_argument("--golden", type=Path, help="JSON with the predictions to compare with")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--ways", nargs="+", choices=["stages", "command"], default=["stages", "command"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--skip-published", action="store_true", help="measure Spicula alone")
    parser.add_argument("--throughput", metavar="N", type=int, help="exams per minute, of N copies of the exam")
    parser.add_argument("--workers", type=int, default=1, help="processes, with --throughput")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep all files here, and use a bundle that is here already; otherwise they are removed",
    )
    parser.add_argument("--to", type=Path, help="write the result as JSON")
    parser.add_argument("--one", choices=["fp32", "bf16"], help=argparse.SUPPRESS)
    found = parser.parse_args()
    if not found.one and not (found.exam and found.weights):
        parser.error("--exam and --weights are needed")
    return found


if __name__ == "__main__":
    main()
