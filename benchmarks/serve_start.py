"""What a start of the service costs: seconds and memory of `spicula serve` with a ResNet-50, in fresh processes.

    python -m venv V && V/bin/pip install 'spicula[serve]'
    python benchmarks/serve_start.py --python V/bin/python > result.json

Each of some starts is measured from the command to the line that says that the service is ready, which is after its
self-test: seconds on the clock, and seconds of processors, of all its processes. Memory is what all its processes hold
then (the sum of their proportional set sizes, `Pss` of /proc/PID/smaps_rollup: Linux alone), once more after the
predictions, each with its heatmap, that four clients ask for, and the most that was seen while they did. The median of
all starts counts. Files were read once before, as on a machine that has started the service before.

Without `--bundle` the bundle of `serve.py` is made first, which needs the extra `train` here, not in V. The result goes
to stdout as JSON.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import serve_inputs

from spicula.progress import say

CLIENTS, PICTURES = 4, 8
_SECONDS = 120
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--python", default=sys.executable, help="of the environment that serves (default: this one)")
    options.add_argument("--bundle", type=Path, help="(default: a ResNet-50 with seeded weights, made first)")
    options.add_argument("--starts", type=int, default=5, help="the median counts")
    options.add_argument("--predictions", type=int, default=200, help="each with a heatmap")
    options.add_argument("serve", nargs="*", help="options of spicula serve, behind --")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures = serve_inputs.made_pictures(PICTURES, seed=0)
        if chosen.bundle is None:
            serve_inputs.make_bundle(Path(name), pictures, seed=0)
        bundle = chosen.bundle or Path(name) / "bundle"
        files = [serve_inputs.png(picture) for picture in pictures]
        command = [chosen.python, "-P", "-m", "spicula", "serve", str(bundle), "--port", "0", *chosen.serve]
        _start_and_stop(command, files[:0], 0)
        starts = [_start_and_stop(command, files, chosen.predictions) for _ in range(chosen.starts)]
    figures = {key: statistics.median(one[key] for one in starts) for key in starts[0]}
    result = {"python": chosen.python, "starts": len(starts), "predictions": chosen.predictions, **figures}
    result |= {"cores": len(os.sched_getaffinity(0)), "all starts": starts}
    print(json.dumps(result, indent=2))


def _start_and_stop(command: list[str], files: list[bytes], predictions: int) -> dict[str, float]:
    """Start the service, ask it, end it, and return what was measured."""
    begun = time.monotonic()
    with tempfile.NamedTemporaryFile("r") as log:
        with Path(log.name).open("w") as stderr:
            process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
        try:
            port = _ready(process, log)
            seconds = time.monotonic() - begun
            found: dict[str, float] = {
                "seconds until ready": round(seconds, 2),
                "CPU seconds until ready": round(_cpu_seconds(process.pid), 2),
                "MB when ready": _megabytes(process.pid),
                "processes": len(_tree(process.pid)),
            }
            if predictions:
                found |= _asked(process.pid, port, files, predictions)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(_SECONDS)
    if status:
        raise SystemExit(f"the service ended with status {status}")
    say(", ".join(f"{key} {value}" for key, value in found.items()))
    return found


def _ready(process: subprocess.Popen[bytes], log: Any) -> int:
    """Wait until the service says that it is ready, and return its port."""
    while True:
        log.seek(0)
        text = log.read()
        if "\nready" in text:
            port = re.search(r"serving on http://[^ ]*:(\d+) ", text)
            assert port
            return int(port[1])
        if process.poll() is not None:
            raise SystemExit(f"the service ended with status {process.returncode}: {text.strip()}")
        time.sleep(0.01)


def _asked(pid: int, port: int, files: list[bytes], predictions: int) -> dict[str, float]:
    """Ask for predictions with heatmaps, and return what they cost."""
    before, most, is_over = _cpu_seconds(pid), [0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.25):
            most.append(_megabytes(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda number: _ask(port, files[number % len(files)]), range(predictions)))
    finally:
        is_over.set()
        watcher.join()
    return {
        "MB after predictions": _megabytes(pid),
        "MB at most": max(most),
        "CPU seconds a prediction": round((_cpu_seconds(pid) - before) / predictions, 4),
    }


def _ask(port: int, file: bytes) -> None:
    mark = b"a-boundary-that-no-picture-has"
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n' % mark
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/predict?explain=gradcam",
        data=head + file + b"\r\n--%s--\r\n" % mark,
        headers={"Content-Type": f"multipart/form-data; boundary={mark.decode()}"},
    )
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        (image,) = json.load(answer)["images"]
    assert image["explanation"]["heatmap_png"], image


def _tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found, at = [pid], 0
    while at < len(found):
        for task in Path(f"/proc/{found[at]}/task").glob("*/children"):
            found += map(int, _text(task).split())
        at += 1
    return found


def _megabytes(pid: int) -> float:
    """Return the proportional set size of a process and its descendants."""
    rollups = (_text(Path(f"/proc/{one}/smaps_rollup")) for one in _tree(pid))
    sizes = [re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE) for text in rollups]
    return round(sum(int(size[1]) for size in sizes if size) / 1000, 1)


def _cpu_seconds(pid: int) -> float:
    """Return the time that a process, its descendants, and those of them that have ended took of processors."""
    total = 0
    for one in _tree(pid):
        # user, system, and the same of children that ended: proc_pid_stat(5), behind the name in brackets
        total += sum(map(int, _text(Path(f"/proc/{one}/stat")).rpartition(")")[2].split()[11:15]))
    return total / _TICKS


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""


if __name__ == "__main__":
    main()
