"""`kill -9` of the driver and of workers, again and again: the same command ends with the same scores.

Promises 10 and 14.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_tree import below
from small_bundle import small_bundle
from small_exams import small_exams

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")

EXAMS, KILLS = 200, 20
#: Artefacts of an exam: crops, heatmaps and pictures of four images, and a manifest for each of six steps.
ARTEFACTS = 4 + 4 + 4 + 6


def start(source: Path, workspace: Path, bundle: Path, engine: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "spicula", "exams", "run", str(source), "--workspace", str(workspace)]
    command += ["--bundle", str(bundle), "--engine", engine, "--cpu-workers", "1", "--model-workers", "1"]
    with workspace.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)


def workers(process: int, engine: str) -> list[int]:
    """The processes that do steps, and of Ray also its actors."""
    actors = [child for child, line in below(process) if engine == "ray" and line.startswith("ray::")]
    return actors + [child for child, line in below(process) if "spicula.exams.engines.worker" in line]


def made(workspace: Path) -> int:
    folder = workspace / "artefacts"
    return sum(len(names) for _, _, names in os.walk(folder))


def tables(workspace: Path) -> tuple[dict, list[dict]]:
    from deltalake import DeltaTable

    scores: dict = {}
    for row in DeltaTable(str(workspace / "predictions")).to_pyarrow_table().to_pylist():
        key = (row["exam_id"], row["step"], row["side"], row["target"])
        assert key not in scores, f"two result sets of {key}"
        scores[key] = row["score"]
    return scores, DeltaTable(str(workspace / "steps")).to_pyarrow_table().to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="this engine needs the extra ray")
    source, bundle = small_exams(tmp_path / "in", range(EXAMS)), small_bundle(tmp_path / "bundle")
    quiet, noisy = tmp_path / "quiet", tmp_path / "noisy"
    assert start(source, quiet, bundle, "local").wait(600) == 0
    undisturbed, _ = tables(quiet)
    assert len(undisturbed) == EXAMS * 8

    chance = random.Random(7)
    marks = sorted(chance.sample(range(1, EXAMS * ARTEFACTS * 9 // 10), KILLS))
    process = start(source, noisy, bundle, engine)
    killed = {"driver": 0, "worker": 0}
    for number, mark in enumerate(marks):
        while made(noisy) < mark:
            if process.poll() is not None:
                process = start(source, noisy, bundle, engine)
            time.sleep(0.02)
        # after another run of the driver some of its work is on disk already: wait for workers to be there
        while not (victims := workers(process.pid, engine)) and process.poll() is None:
            time.sleep(0.02)
        # every other time, so that kills of starting workers in a row never are reason for a driver to give up
        if number % 2 or not victims:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = start(source, noisy, bundle, engine)
            killed["driver"] += 1
        else:
            os.kill(chance.choice(victims), signal.SIGKILL)
            killed["worker"] += 1
    if process.wait(900):
        process = start(source, noisy, bundle, engine)
        process.wait(900)
    assert process.returncode == 0, noisy.with_suffix(".log").read_text()[-2000:]
    scores, steps = tables(noisy)
    assert scores == undisturbed
    kept = [row["key"] for row in steps if row["status"] != "failed"]
    assert len(kept) == len(set(kept)) == EXAMS * 6
    assert min(killed.values()) >= 1


@pytest.mark.slow
def test_a_run_whose_ray_dies_says_so_and_the_next_one_goes_on(tmp_path):
    pytest.importorskip("ray", reason="this engine needs the extra ray")
    source, bundle = small_exams(tmp_path / "in", range(40)), small_bundle(tmp_path / "bundle")
    process = start(source, tmp_path / "ws", bundle, "ray")
    while made(tmp_path / "ws") < 40:
        assert process.poll() is None
        time.sleep(0.02)
    (raylet,) = [child for child, line in below(process.pid) if line.split(" ")[0].endswith("/raylet")]
    for victim in (raylet, *workers(process.pid, "ray")):
        os.kill(victim, signal.SIGKILL)
    assert process.wait(300) == 1
    assert "the same command again goes on" in (tmp_path / "ws.log").read_text()
    assert start(source, tmp_path / "ws", bundle, "local").wait(300) == 0
    scores, _ = tables(tmp_path / "ws")
    assert len(scores) == 40 * 8
