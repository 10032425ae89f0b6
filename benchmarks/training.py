"""Images per second and peak memory of Spicula's training loop, against the common practice, on images made here.

Common practice: torchvision's ImageFolder and a DataLoader with two workers, which decode and resize every image in
every epoch, and a loop in float32, as most published code has it. Same images, network (the line cnn), batch and
optimiser; each way runs in a process of its own. Two more ways show where the difference comes from: Spicula's loop in
float32, and the common loop with Spicula's arithmetic (channels last, bfloat16 where the processor has it).

The result goes to stdout as JSON, a table for people to stderr.

    python benchmarks/training.py > result.json
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
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spicula.progress import say

CLASSES = ("negative", "positive")
BATCH = 64
WORKERS = 2
SECONDS_BETWEEN_SAMPLES = 0.1
WAYS = {
    "common": "ImageFolder + DataLoader(num_workers=2), float32",
    "common-fast": "the same with channels last and Spicula's choice of precision",
    "spicula-float32": "Spicula in float32",
    "spicula": "Spicula",
}


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_one(arguments)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="spicula-benchmark-"))
    try:
        make_images(folder / "images", arguments.images, (arguments.height, arguments.width))
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
    """Write `count` PNG files for training and a quarter as many for validation, as ImageFolder wants them.

    They look like stained tissue: smooth structures in shades of pink and violet with grain, denser in one class. The
    grain matters: a smooth image would be decoded faster than a real one.
    """
    for split, images in (("train", count), ("val", count // 4)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda number, split=split: _make_image(folder / split, number, size), range(images)))


def _make_image(folder: Path, number: int, size: tuple[int, int]) -> None:
    path = folder / CLASSES[number % 2] / f"{folder.name}-{number:05d}.png"
    if path.exists():
        return
    generator = np.random.default_rng([number, len(folder.name)])
    coarse = generator.random((size[0] // 20, size[1] // 20), dtype=np.float32)
    nuclei = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) < (0.25 if number % 2 else 0.15)
    shade = np.where(nuclei[..., None], (110.0, 60.0, 130.0), (225.0, 175.0, 215.0))
    grain = generator.normal(0, 12, (*size, 1)) + generator.normal(0, 4, (*size, 3))
    cv2.imwrite(str(path), (cv2.GaussianBlur(shade, (0, 0), 1.5) + grain).clip(0, 255).astype(np.uint8))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run each way on its own and put the figures side by side."""
    ways = {way: _measure(way, arguments, folder) for way in WAYS}
    speed = {way: statistics.median(found["images_per_second"][1:]) for way, found in ways.items()}
    return {
        "images": arguments.images,
        "image_px": [arguments.height, arguments.width],
        "size_px": arguments.size,
        "batch": BATCH,
        "workers_of_common": WORKERS,
        "cores": os.cpu_count(),
        "ways": ways,
        "median_from_second_epoch": speed,
        "times_as_fast": speed["spicula"] / speed["common"],
        "of_which_without_bfloat16": speed["spicula-float32"] / speed["common"],
        "common_with_the_same_arithmetic": speed["common-fast"] / speed["common"],
    }


def _measure(way: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    print(f"{WAYS[way]} ...", file=sys.stderr, flush=True)
    options = ["--one", way, "--folder", str(folder), "--size", str(arguments.size), "--epochs", str(arguments.epochs)]
    with subprocess.Popen([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True) as process:
        peak = _Peak(process.pid)
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{way} failed with exit status {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {"what": WAYS[way], **found, "peak_memory_mib": peak.mebibytes()}


class _Peak:
    """The largest sum of memory that a process and its workers held, pages that they share counted once."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._kilobytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def mebibytes(self) -> float | None:
        """Return the peak, once the process has ended; None where the system does not tell."""
        self._thread.join()
        return round(self._kilobytes / 1024, 1) or None

    def _watch(self) -> None:
        while (now := sum(_proportional_kilobytes(process) for process in _tree(self._process))) or not self._kilobytes:
            self._kilobytes = max(self._kilobytes, now)
            if not Path(f"/proc/{self._process}").exists():
                return
            time.sleep(SECONDS_BETWEEN_SAMPLES)


def _tree(process: int) -> list[int]:
    try:
        lists = [task.read_text() for task in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(child) for text in lists for child in text.split()]
    return [process, *(one for child in children for one in _tree(child))]


def _proportional_kilobytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _one(arguments: argparse.Namespace) -> dict[str, Any]:
    run: dict[str, Callable[[], dict[str, Any]]] = {
        "common": lambda: common(arguments, fast=False),
        "common-fast": lambda: common(arguments, fast=True),
        "spicula-float32": lambda: spicula(arguments, "float32"),
        "spicula": lambda: spicula(arguments, "auto"),
    }
    found = run[arguments.one]()
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {**found, "max_rss_mib": {"main": round(usage[0] / 1024, 1), "largest_worker": round(usage[1] / 1024, 1)}}


def common(arguments: argparse.Namespace, fast: bool) -> dict[str, Any]:
    """The loop of a tutorial."""
    import torch
    from torch.utils.data import DataLoader

    from spicula.models import registry
    from spicula.models.settings import NetworkSettings
    from spicula.models.torchvision_guard import import_torchvision
    from spicula.training import device

    torchvision = import_torchvision()
    transforms = torchvision.transforms
    transform = transforms.Compose([transforms.Resize((arguments.size, arguments.size)), transforms.ToTensor()])
    images = torchvision.datasets.ImageFolder(str(arguments.folder / "images" / "train"), transform=transform)
    loader = DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=WORKERS)
    model = registry.create(NetworkSettings.model_validate({"line": "cnn"}), (arguments.size, arguments.size), 3, 2)
    setup = device.choose("cpu", "auto" if fast else "float32")
    layout = torch.channels_last if fast else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = torch.nn.CrossEntropyLoss()
    rates = []
    for _ in range(arguments.epochs):
        start = time.perf_counter()
        model.train()
        loss_sum = 0.0
        for batch, labels in loader:
            optimizer.zero_grad()
            with setup.autocast:
                logits = model(batch.contiguous(memory_format=layout))
            loss = criterion(logits.float(), labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
        rates.append(len(images) / (time.perf_counter() - start))
    return {"images_per_second": rates, "precision": setup.precision, "preparation_seconds": 0.0}


def spicula(arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    """The same training with Spicula: decode once into the Store, then train from it."""
    from spicula import index
    from spicula.imaging.preprocess import Preprocess
    from spicula.imaging.store import build_store
    from spicula.models.settings import NetworkSettings
    from spicula.training.fit import fit

    root = arguments.folder / "images"
    rows = [
        {
            "dataset": "benchmark",
            "image_id": path.stem,
            "path": path.relative_to(root).as_posix(),
            "target": CLASSES.index(path.parent.name),
            "split": path.parent.parent.name,
        }
        for path in sorted(root.glob("*/*/*.png"))
    ]
    table = index.from_rows(rows, root)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        start = time.perf_counter()
        preprocess = Preprocess.model_validate({"size": (arguments.size, arguments.size)})
        store = build_store(table, preprocess, Path(work) / "store")
        preparation = time.perf_counter() - start
        settings = NetworkSettings.model_validate({"line": "cnn", "epochs": arguments.epochs, "precision": precision})
        run = Path(work) / "run"
        fit(settings, table, store, run, seed=0, target_name="positive", classes=CLASSES, fold=None, device="cpu")
        epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
        card = json.loads((run / "run.json").read_text())
    return {
        "images_per_second": [epoch["images_per_second"] for epoch in epochs],
        "precision": card["precision"],
        "preparation_seconds": preparation,
    }


def _print(result: dict[str, Any]) -> None:
    height, width = result["image_px"]
    say(f"{result['images']} images of {height}x{width}, trained at {result['size_px']}, {result['cores']} cores")
    say(f"{'images a second, by epoch':<58}{'peak memory':>14}  prepared in")
    for way in result["ways"].values():
        rates = " ".join(f"{rate:7.1f}" for rate in way["images_per_second"])
        memory = f"{way['peak_memory_mib']:.0f} MiB" if way["peak_memory_mib"] else "not known"
        say(f"{way['what']}, {way['precision']}\n    {rates:<54}{memory:>14}  {way['preparation_seconds']:.1f} s")
    faster = result["times_as_fast"]
    say(f"Spicula trains {faster:.1f} times as fast as the common practice (median of the epochs after the first).")
    say(f"Without bfloat16 it is {result['of_which_without_bfloat16']:.1f} times as fast.")
    gain = result["common_with_the_same_arithmetic"]
    say(f"The common loop gains {gain:.1f} times by the same arithmetic; the rest is the decoding that it repeats.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="training images to make")
    parser.add_argument("--height", type=int, default=460, help="of the files, in pixels (460x700 is BreakHis)")
    parser.add_argument("--width", type=int, default=700)
    parser.add_argument("--size", type=int, default=128, help="side of what the network sees, in pixels")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="keep the images here; otherwise they are removed")
    parser.add_argument("--to", type=Path, help="write the result as JSON")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("the first epoch does not count: --epochs 2 at least")
    return arguments


if __name__ == "__main__":
    main()
