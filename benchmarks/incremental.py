"""What a second run costs: `spicula exams run` on 1,000 small exams, again without any change, with one new exam.

Exams and the four-view classifier are small ones made here (those of the tests), so that the first run is short: with
real exams and the published networks a second run is a far smaller share of the first. Each run is a process of its
own, its start included. The result goes to stdout as JSON.

    python benchmarks/incremental.py > result.json
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from spicula.progress import say

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "exams"))
from small_bundle import small_bundle  # type: ignore[import-not-found]
from small_exams import small_exam, small_exams  # type: ignore[import-not-found]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--exams", type=int, default=1000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = small_exams(folder / "in", range(chosen.exams))
        bundle = small_bundle(folder / "bundle")
        runs: dict[str, dict[str, Any]] = {}
        runs["first"] = timed(source, folder / "ws", bundle)
        runs["second"] = timed(source, folder / "ws", bundle)
        small_exam(source / "new", seed=10**6)
        runs["one new exam"] = timed(source, folder / "ws", bundle)
    ratio = runs["second"]["seconds"] / runs["first"]["seconds"]
    say(f"the second run took {ratio:.2%} of the first")
    print(json.dumps({"exams": chosen.exams, "runs": runs, "second / first": round(ratio, 5)}, indent=2))


def timed(source: Path, workspace: Path, bundle: Path) -> dict[str, Any]:
    """Run the command, and return its seconds and what it ran."""
    command = [sys.executable, "-m", "spicula", "exams", "run", str(source), "--workspace", str(workspace)]
    began = time.monotonic()
    done = subprocess.run([*command, "--bundle", str(bundle), "--json"], check=True, stdout=subprocess.PIPE)
    seconds = time.monotonic() - began
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    executed = json.loads(done.stdout)["executed"]
    say(f"{seconds:.2f} s, {sum(executed.values())} steps")
    return {"seconds": round(seconds, 3), "executed": executed, "largest process so far, MB": peak_mb}


if __name__ == "__main__":
    main()
