"""A workspace after a run: three exams that are done, one refused at intake, one refused by the stage `crop`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from small_bundle import small_bundle
from small_exams import HEIGHT, NAMES, WIDTH, small_exam, small_exams

from spicula import exams
from spicula.convert import png
from spicula.exams import models
from spicula.exams.artefacts import Artefacts
from spicula.exams.ledger import Ledger

ONE_WORKER = exams.EngineOptions(cpu_workers=1, model_workers=1, streams=1)
DONE = ("exam-0000", "exam-0001", "exam-0002")
INCOMPLETE, BLACK = "exam-incomplete", "exam-black"


class Finished(NamedTuple):
    source: Path
    bundle: Path
    workspace: Path
    ledger: Ledger
    artefacts: Artefacts


def finished_workspace(folder: Path) -> Finished:
    source = small_exams(folder / "exams", range(len(DONE)))
    small_exam(source / INCOMPLETE, seed=7, names=NAMES[:3])
    small_exam(source / BLACK, seed=8)
    (source / BLACK / "R_CC.png").write_bytes(png.encode(np.zeros((HEIGHT, WIDTH), np.uint16)))
    bundle = small_bundle(folder / "models" / "small")
    workspace = folder / "ws"
    exams.run(source, workspace, models.load(bundle), ONE_WORKER)
    return Finished(source, bundle, workspace, Ledger.open(workspace), Artefacts(workspace / "artefacts"))
