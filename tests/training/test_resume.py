import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from spicula import index, predictions

SCRIPT = """
import sys
from pathlib import Path
from spicula import index
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import build_store
from spicula.models.settings import NetworkSettings
from spicula.training.fit import fit

if __name__ == "__main__":
    table = index.read(Path(sys.argv[1]))
    store = build_store(table, Preprocess(size=(32, 32), channels=1), Path(sys.argv[2]), jobs=1)
    settings = NetworkSettings(
        line="cnn", epochs=14, batch=8, patience=14, plateau_patience=3, augment={}, imbalance="sampler"
    )
    fit(settings, table, store, Path(sys.argv[3]), seed=7, target_name="disc", classes=("none", "disc"), fold=None,
        device="cpu")
"""


@pytest.fixture
def command(study, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    index.write(tmp_path / "index.parquet", study.table)

    def to(run):
        return [
            sys.executable,
            str(tmp_path / "train.py"),
            *map(str, (tmp_path / "index.parquet", tmp_path / "s", run)),
        ]

    return to


def lines(run):
    path = run / "epochs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_within_epoch(command, run, epoch, delay):
    """Start training, and end it without warning some time after `epoch` epochs."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(lines(run)) < epoch:
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_as_one_that_was_not(command, tmp_path):
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    generator = np.random.default_rng()
    for epoch in (1, 4, 9):
        kill_within_epoch(command(killed), killed, epoch, generator.uniform(0, 0.05))
        assert json.loads((killed / "run.json").read_text())["status"] == "started"
        assert epoch <= len(lines(killed)) < 14
        assert not (killed / "predictions.parquet").exists()
    done = subprocess.run(command(killed), check=True, capture_output=True, text=True)
    assert "going on after epoch" in done.stderr
    first, second = (predictions.read(tmp_path / name / "predictions.parquet") for name in ("whole", "killed"))
    assert first["id"].to_pylist() == second["id"].to_pylist()
    assert second["score"].to_numpy() == pytest.approx(first["score"].to_numpy(), abs=1e-6)
    assert len(set(first["score"].to_pylist())) > 20
    timed = ("seconds", "images_per_second")
    whole, resumed = (
        [{name: value for name, value in line.items() if name not in timed} for line in lines(tmp_path / name)]
        for name in ("whole", "killed")
    )
    assert [line["epoch"] for line in resumed] == list(range(1, 15))
    for line, other in zip(whole, resumed, strict=True):
        assert line == pytest.approx(other, abs=1e-6)
    assert not (killed / "checkpoint").exists()
    assert not list(killed.glob("**/.part-*"))
    assert len(list((killed / "tensorboard").iterdir())) == 1
