"""Several processes at one ledger, and processes that are killed. Real ones, on a real folder."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from ledger_runs import as_rows, exam, run, steps

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")

from spicula.exams.ledger import Ledger

PROGRAM = Path(__file__).with_name("ledger_runs.py")


def start(workspace, names, size, *more):
    command = [sys.executable, str(PROGRAM), str(workspace), json.dumps(names), str(size), *more]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **pipes)


def finish_together(processes):
    """Let processes go when all have planned, so that they have the same to do; return what they wrote."""
    for process in processes:
        assert process.stdout.readline() == "planned\n", process.communicate()[1]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, error = process.communicate()
        assert process.returncode == 0, error
        assert out.endswith("ended\n")


def undisturbed(folder, names):
    ledger = Ledger.open(folder / "undisturbed", create=True)
    run(ledger, steps(), [exam(name) for name in names])
    return as_rows(ledger)


def assert_each_once(ledger):
    keys = Counter(row["key"] for row in ledger.read("steps").to_pylist())
    assert set(keys.values()) == {1}
    each = Counter((row["key"], row["side"], row["target"]) for row in ledger.read("predictions").to_pylist())
    assert set(each.values()) == {1}
    for name in ("exams", "steps", "predictions"):
        commits = ledger.read(name)["commit"].to_pylist()
        assert sorted(set(commits)) == list(range(1, max(commits) + 1)), "two commits with one number"


@pytest.mark.parametrize("exams", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_processes_with_the_same_work_double_nothing_and_lose_nothing(tmp_path, exams):
    """They make the workspace at the same time, too."""
    names = [f"exam {number}" for number in range(exams)]
    finish_together([start(tmp_path / "ws", names, size, "--wait") for size in (1, 2, 3)])
    ledger = Ledger.open(tmp_path / "ws")
    assert_each_once(ledger)
    assert as_rows(ledger) == undisturbed(tmp_path, names)
    workers = Counter(row["run"] for row in ledger.read("steps").to_pylist())
    assert len(workers) > 1, "one process did it all: nothing was shown"
    assert len(ledger.read("runs")) == 6


def test_processes_with_work_of_their_own_all_get_it_in(tmp_path):
    parts = [[f"{part} {number}" for number in range(8)] for part in "ab"]
    finish_together([start(tmp_path / "ws", names, 1, "--wait") for names in parts])
    ledger = Ledger.open(tmp_path / "ws")
    assert_each_once(ledger)
    assert as_rows(ledger) == undisturbed(tmp_path, [*parts[0], *parts[1]])


@pytest.mark.parametrize(("kills", "seed"), [(6, 1), pytest.param(40, 2, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_leaves_a_ledger_that_the_next_one_completes(tmp_path, kills, seed):
    """Killed a moment after one of its lines: on the way into a commit, in it, and after it."""
    names = [f"exam {number}" for number in range(kills + 4)]
    choose = random.Random(seed)
    moments = []
    for _ in range(kills):
        lines, seconds = choose.randint(0, 6), choose.uniform(0, 0.04)
        with start(tmp_path / "ws", names, 2) as process:
            seen = [line for _, line in zip(range(lines), process.stdout, strict=False)]
            time.sleep(seconds)
            assert "ended\n" not in seen, f"seed {seed}: the work was done before kill {len(moments) + 1}"
            process.kill()
        moments.append((seen[-1].strip() if seen else "start", round(seconds, 3)))
        assert process.returncode == -9, moments
    _, error = (last := start(tmp_path / "ws", names, 2)).communicate()
    assert last.returncode == 0, f"{moments}: {error}"
    ledger = Ledger.open(tmp_path / "ws")
    assert_each_once(ledger)
    assert as_rows(ledger) == undisturbed(tmp_path, names), moments
    assert len(ledger.plan(steps()).left) == 0


@pytest.mark.slow
def test_putting_files_together_while_others_commit(tmp_path):
    """One process does nothing but put files together; the others commit as ever, and a reader sees all at any time."""
    names = [f"exam {number}" for number in range(30)]
    Ledger.open(tmp_path / "ws", create=True)
    code = (
        "import sys; from spicula.exams.ledger import storage, Ledger; storage.MOST_SMALL_FILES = 3\n"
        "while True: Ledger.open(sys.argv[1]).begin_run([], 'tidy')"
    )
    tidy = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "ws")], stderr=subprocess.PIPE, text=True)
    processes = [start(tmp_path / "ws", names, size) for size in (1, 2)]
    counts, reader = [], Ledger.open(tmp_path / "ws")
    while any(process.poll() is None for process in processes):
        counts.append(reader.read("steps").num_rows)
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0, error
    assert tidy.poll() is None, tidy.communicate()[1]
    tidy.kill()
    tidy.communicate()
    assert counts == sorted(counts)
    ledger = Ledger.open(tmp_path / "ws")
    assert_each_once(ledger)
    assert as_rows(ledger) == undisturbed(tmp_path, names)
