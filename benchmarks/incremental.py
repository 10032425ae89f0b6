"""What a second run costs: `spicula exams run` on 1,000 small exams, again without any change, with one new exam.

Exams, of two sizes, and four-view classifiers are small ones made here (those of the tests), so that the first run is
short: with real exams and the published networks a second run is a far smaller share of the first. The smaller exams
have windows and patches of a few pixels; those of 320 x 256 pixels have lengths a tenth of the published ones, as a
mammogram of 3,200 x 2,560 pixels at a tenth of its resolution. Each run is a process of its own, its start included; of
the second runs the median counts. CPU seconds are those of all processes of a run, user and system.

The result goes to stdout as JSON.

    python benchmarks/incremental.py > result.json
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from spicula.bundle.screening import ScreeningSettings
from spicula.progress import progress, say

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "exams"))
from small_bundle import SMALL, small_bundle  # type: ignore[import-not-found]
from small_exams import small_exam  # type: ignore[import-not-found]

#: Height and width of a view -> the numbers of the classifier; the second ones are a tenth of the published ones, but
#: for patches, which have at least 32 pixels.
SIZES = {
    (96, 64): SMALL,
    (320, 256): ScreeningSettings(
        cc=(268, 194), mlo=(297, 175), erosions=10, buffer=5, patch=32, stride=7, shift=10, resize=10, windows=10
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--exams", type=int, default=1000)
    options.add_argument("--times", type=int, default=5, help="second runs; the median counts")
    options.add_argument("--height", type=int, choices=[height for height, _ in SIZES], help="one size alone")
    chosen = options.parse_args()
    sizes = [size for size in SIZES if chosen.height in (None, size[0])]
    print(json.dumps([of_size(size, chosen.exams, chosen.times) for size in sizes], indent=2))


def of_size(size: tuple[int, int], exams: int, times: int) -> dict[str, Any]:
    """Measure exams of one size, and return what was measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, bundle = folder / "in", small_bundle(folder / "bundle", settings=SIZES[size])
        for number in progress(range(exams), "making exams", "exams"):
            small_exam(source / f"exam-{number:04d}", seed=number, size=size)
        runs = {"first": timed(source, folder / "ws", bundle)}
        again = [timed(source, folder / "ws", bundle) for _ in range(times)]
        runs["second"] = {**again[0], **{what: statistics.median(run[what] for run in again) for what in SECONDS}}
        small_exam(source / "new", seed=10**6, size=size)
        runs["one new exam"] = timed(source, folder / "ws", bundle)
    ratios = {what: round(runs["second"][what] / runs["first"][what], 5) for what in SECONDS}
    views = f"{size[0]} x {size[1]} pixels ({size[0] * size[1]:,}) a view"
    say(f"{exams} exams of {views}: the second run took {ratios['seconds']:.2%} of the first's time")
    return {"exams": exams, "height": size[0], "width": size[1], "runs": runs, "second / first": ratios}


#: What is compared: time on the clock, and CPU time of all processes.
SECONDS = ("seconds", "CPU seconds")


def timed(source: Path, workspace: Path, bundle: Path) -> dict[str, Any]:
    """Run the command, and return its seconds and what it ran."""
    command = [sys.executable, "-m", "spicula", "exams", "run", str(source), "--workspace", str(workspace)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*command, "--bundle", str(bundle), "--json"], check=True, stdout=subprocess.PIPE)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    executed = json.loads(done.stdout)["executed"]
    say(f"{seconds:.2f} s, {cpu:.2f} CPU s, {sum(executed.values())} steps")
    return {
        "seconds": round(seconds, 3),
        "CPU seconds": round(cpu, 3),
        "executed": executed,
        "largest process so far, MB": after.ru_maxrss // 1024,
    }


if __name__ == "__main__":
    main()
