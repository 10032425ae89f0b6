"""Images per second and peak memory of `spicula convert`, against the common practice, on mammograms made here.

The images are phantoms, rendered at 3328 x 2560 with 12 bits and stored as lossless JPEG (DICOM transfer syntax
1.2.840.10008.1.2.4.70), as archives have them. Common practice: pydicom's `pixel_array` with the decoder that it picks
by itself (that of pylibjpeg), MONOCHROME1 inverted, minimum to maximum stretched over 16 bits, and OpenCV or Pillow to
write the PNG at its default compression; a pool of processes where all cores are used, each with one thread. Each way
runs in a process of its own, several times in turn, and the median counts.

What differs, against us: Spicula checks the SHA-256 of every source, keeps digests and records, and syncs every file to
the disk; its time includes starting the worker processes and writing the new Index, while the others' clock starts when
all is imported and their processes are there. So there is a second figure, once running: a quarter of the images is
converted as well, and what the other three quarters took is what counts. What differs, for us: `raw` keeps the values
as they are, so there is nothing to stretch.

The result goes to stdout as JSON, a table for people to stderr.

    python benchmarks/convert.py > result.json
"""
# ruff: noqa: PLC0415  each way imports what it needs in its own process, so that its peak memory is its own

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from spicula.progress import say

LOSSLESS = "1.2.840.10008.1.2.4.70"  # PS3.5 A.4.2: lossless JPEG, first-order prediction
WAYS = {
    "opencv": "pydicom's default decoder, min-max, OpenCV",
    "pillow": "pydicom's default decoder, min-max, Pillow",
    "spicula": "spicula convert",
    "spicula-ray": "spicula convert --engine ray",
}
# A core each, for all ways: the processes share the cores out.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Clock:
    """Time from its making to its stop: on the wall, and of processors, children that have ended included."""

    def __init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), sum(os.times()[:4])
        self.seconds = self.cpu_seconds = 0.0
        self.start_seconds = 0.0  # of the seconds, before images go through

    def stop(self) -> "Clock":
        """Read the clock, again if it was read before."""
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = sum(os.times()[:4]) - self._cpu_start
        return self


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_one(arguments)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="spicula-benchmark-"))
    try:
        make_images(folder, arguments.images, (arguments.height, arguments.width))
        result = compare(arguments, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    _print(result)
    print(json.dumps(result, indent=2))
    if arguments.to:
        from spicula import files

        files.write_json(arguments.to, result)


def make_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Make the mammograms, `count` of them, in `folder/images`, and their Index."""
    from spicula import files, index
    from spicula.phantoms import make_exams

    make_exams(folder / "phantoms", -(-count // 4), size=size)
    sources = sorted((folder / "phantoms").rglob("*.dcm"))[:count]
    targets = [folder / "images" / f"{path.parent.name}-{path.name}" for path in sources]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_compress, sources, targets))
    rows = [
        {
            "dataset": "benchmark",
            "image_id": path.stem,
            "path": path.name,
            "bits": 12,
            "sha256": files.sha256_file(path),
        }
        for path in targets
    ]
    index.write(folder / "index.parquet", index.from_rows(rows, folder / "images"))


def _compress(source: Path, target: Path) -> None:
    import imagecodecs
    import pydicom
    from pydicom.encaps import encapsulate

    if target.exists():
        return
    image = pydicom.dcmread(source)
    frame = imagecodecs.jpeg8_encode(image.pixel_array, lossless=True, predictor=1, bitspersample=image.BitsStored)
    image.PixelData = encapsulate([bytes(frame)])
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = LOSSLESS
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(target, enforce_file_format=True)


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run each way on one core and on all, and put the figures side by side."""
    cores = len(os.sched_getaffinity(0))
    runs = [(way, jobs) for way in WAYS if way != "spicula-ray" for jobs in dict.fromkeys((1, cores))]
    if find_spec("ray") is not None:
        runs.append(("spicula-ray", 2))
    found: dict[tuple[str, int], list[dict[str, Any]]] = {run: [] for run in runs}
    for turn in range(arguments.repeat):
        for way, jobs in runs:
            say(f"{turn + 1} of {arguments.repeat}: {WAYS[way]}, {jobs} process{'es' if jobs > 1 else ''} ...")
            found[way, jobs].append(_measure(way, jobs, folder))
    ways = [{"way": way, "jobs": jobs, **_median(some)} for (way, jobs), some in found.items()]
    speed = {(one["way"], one["jobs"]): one["images_per_second"] for one in ways}
    running = {(one["way"], one["jobs"]): one["images_per_second_once_running"] for one in ways}
    cpu = {(one["way"], one["jobs"]): one["cpu_seconds_per_image"] for one in ways}
    return {
        "images": arguments.images,
        "image_px": [arguments.height, arguments.width],
        "cores": cores,
        "decoder_of_common": _decoder_of_common(),
        "ways": ways,
        "times_as_fast": _ratios(speed, cores),
        "times_as_fast_once_running": _ratios(running, cores),
        "times_less_processor_time": {way: round(cpu[way, 1] / cpu["spicula", 1], 2) for way in ("opencv", "pillow")},
        "raw_pixels_identical": _check(folder),
    }


def _ratios(speed: dict[tuple[str, int], float], cores: int) -> dict[str, float]:
    return {
        f"{way}, {jobs} process{'es' if jobs > 1 else ''}": round(speed["spicula", jobs] / speed[way, jobs], 2)
        for jobs in dict.fromkeys((1, cores))
        for way in ("opencv", "pillow")
    }


def _measure(way: str, jobs: int, folder: Path) -> dict[str, Any]:
    options = ["--one", way, "--jobs", str(jobs), "--folder", str(folder)]
    done = subprocess.run(
        [sys.executable, __file__, *options],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{way} failed with exit status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    rate = runs[0]["images"] / statistics.median(seconds)
    running = runs[0]["images"] / statistics.median(run["seconds"] - run["start_seconds"] for run in runs)
    return {
        "images_per_second": round(rate, 3),
        "images_per_second_once_running": round(running, 3),
        "images_per_second_and_core": round(rate / runs[0]["jobs"], 3),
        "seconds": [round(one, 2) for one in seconds],
        "cpu_seconds_per_image": _cpu_per_image(runs),
        "bytes_written": runs[0]["bytes_written"],
        "peak_memory_of_a_worker_mib": max(run["peak_memory_of_a_worker_mib"] or 0 for run in runs) or None,
    }


def _cpu_per_image(runs: list[dict[str, Any]]) -> float | None:
    spent = [run["cpu_seconds"] / run["images"] for run in runs if run["cpu_seconds"] is not None]
    return round(statistics.median(spent), 4) if spent else None


def _one(arguments: argparse.Namespace) -> dict[str, Any]:
    run: dict[str, Callable[[Path, Path, int], Clock]] = {
        "opencv": partial(common, "opencv"),
        "pillow": partial(common, "pillow"),
        "spicula": partial(spicula, "local"),
        "spicula-ray": partial(spicula, "ray"),
    }
    to = arguments.folder / f"{arguments.one}-{arguments.jobs}"
    shutil.rmtree(to, ignore_errors=True)
    clock = run[arguments.one](arguments.folder, to, arguments.jobs)
    written = [path.stat().st_size for path in to.rglob("*.png")]
    # Of Ray, the workers are no children of ours.
    peak = None if arguments.one == "spicula-ray" else _peak_kilobytes(arguments.one, arguments.jobs) / 1024
    return {
        "seconds": clock.seconds,
        "start_seconds": clock.start_seconds,
        "cpu_seconds": None if arguments.one == "spicula-ray" else clock.cpu_seconds,
        "jobs": arguments.jobs,
        "images": len(written),
        "bytes_written": sum(written),
        "peak_memory_of_a_worker_mib": round(peak) if peak else None,
    }


def _peak_kilobytes(way: str, jobs: int) -> int:
    in_process = way in ("opencv", "pillow") and jobs == 1
    return resource.getrusage(resource.RUSAGE_SELF if in_process else resource.RUSAGE_CHILDREN).ru_maxrss


def common(writer: str, folder: Path, to: Path, jobs: int) -> Clock:
    """The loop of a tutorial, in a pool where there are several processes."""
    to.mkdir()
    paths = sorted((folder / "images").glob("*.dcm"))
    convert_one = partial(_common_one, writer, to)
    _import_common()
    if jobs == 1:
        clock = Clock()
        for path in paths:
            convert_one(path)
        return clock.stop()
    with ProcessPoolExecutor(jobs, initializer=_import_common) as pool:
        list(pool.map(time.sleep, [0.5] * jobs))  # every process is there before the clock starts
        clock = Clock()
        list(pool.map(convert_one, paths))
        seconds = clock.stop().seconds
    clock.stop().seconds = seconds  # the processes' own time is known once they have ended
    return clock


def _import_common() -> None:
    import cv2
    import libjpeg  # noqa: F401  the decoder of pylibjpeg
    import PIL.Image  # noqa: F401
    import pydicom.pixels  # noqa: F401

    cv2.setNumThreads(1)


def _common_one(writer: str, to: Path, path: Path) -> None:
    import cv2
    import pydicom
    from PIL import Image

    image = pydicom.dcmread(path)
    pixels = image.pixel_array
    if image.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    low, high = pixels.min(), pixels.max()
    stretched = ((pixels.astype(np.float32) - low) * (65535 / (high - low))).astype(np.uint16)
    target = str(to / f"{path.stem}.png")
    if writer == "opencv":
        cv2.imwrite(target, stretched)
    else:
        Image.fromarray(stretched).save(target)


def spicula(engine: str, folder: Path, to: Path, jobs: int) -> Clock:
    """The same with Spicula, `raw`, with the start of its workers and all of its tables."""
    from spicula import index

    clock = _convert(engine, folder / "index.parquet", to, jobs)
    table = index.read(folder / "index.parquet")
    index.write(folder / "quarter.parquet", table.slice(0, len(table) // 4))
    part = to.with_name(f"{to.name}-quarter")
    shutil.rmtree(part, ignore_errors=True)
    quarter = _convert(engine, folder / "quarter.parquet", part, jobs).seconds
    # If every image takes as long as another, n of them take start + n * t.
    clock.start_seconds = max(0.0, (4 * quarter - clock.seconds) / 3)
    return clock


def _convert(engine: str, table: Path, to: Path, jobs: int) -> Clock:
    from spicula import convert

    settings = convert.Settings.of(format="png16", preset="raw")
    clock = Clock()
    outcome = convert.convert(table, to, settings, engine="ray" if engine == "ray" else "local", jobs=jobs)
    clock.stop()
    if len(outcome.rejected):
        raise SystemExit(f"rejected: {outcome.rejected.to_pylist()[:3]}")
    return clock


def _decoder_of_common() -> str:
    import pydicom
    from pydicom.pixels import get_decoder

    return f"{get_decoder(LOSSLESS).available_plugins[0]} (pydicom {pydicom.__version__})"


def _check(folder: Path) -> bool:
    """Whether every PNG of `raw` holds the very values that pydicom decodes with another decoder."""
    import cv2
    import pydicom

    same = []
    for path in sorted((folder / "images").glob("*.dcm")):
        image = pydicom.dcmread(path)
        expected: np.ndarray = image.pixel_array
        if image.PhotometricInterpretation == "MONOCHROME1":
            expected = 2**image.BitsStored - 1 - expected
        written: Any = cv2.imread(str(folder / "spicula-1" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        same.append(np.array_equal(written, expected))
    return bool(same) and all(same)


def _print(result: dict[str, Any]) -> None:
    height, width = result["image_px"]
    say(f"{result['images']} mammograms of {height}x{width}, 12 bits, lossless JPEG; {result['cores']} cores")
    say(f"{'':<58}images/s  running  CPU s/image    MB  MiB a worker")
    for way in result["ways"]:
        name = f"{WAYS[way['way']]}, {way['jobs']} process{'es' if way['jobs'] > 1 else ''}"
        memory = way["peak_memory_of_a_worker_mib"] or "-"
        rate, running = way["images_per_second"], way["images_per_second_once_running"]
        cpu = way["cpu_seconds_per_image"] or "-"
        say(f"{name:<58}{rate:8.2f}{running:9.2f}{cpu:>13}{way['bytes_written'] / 1e6:6.0f}{memory:>14}")
    for what, ratio in result["times_as_fast"].items():
        running = result["times_as_fast_once_running"][what]
        say(f"Spicula is {ratio:.1f} times as fast as {what}; once running, {running:.1f} times.")
    say(
        f"The pixels of raw are {'' if result['raw_pixels_identical'] else 'NOT '}those that"
        f" {result['decoder_of_common']} decodes."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=128, help="mammograms to make")
    parser.add_argument("--height", type=int, default=3328)
    parser.add_argument("--width", type=int, default=2560)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each way; the median counts")
    parser.add_argument("--folder", type=Path, help="keep the images here; otherwise they are removed")
    parser.add_argument("--to", type=Path, help="write the result as JSON")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
