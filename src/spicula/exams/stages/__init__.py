"""The five stages of an exam, each a plain function, and what each declares of itself.

A stage knows nothing of files, of engines, or of other stages' code. Its `version` counts changes of what it computes:
whoever changes that raises it, and every exam's results of the stage are computed again.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Resources:
    """What one run of a stage asks for.

    Attributes:
        pool: "cpu", or "model" for stages that run a network; the two kinds of workers are scaled apart.
        cpus: cores.
        gpus: share of a GPU, where there is one.
        memory_mb: at most so much beyond what the worker holds anyway.
        batch: inputs that go through the network at once on a GPU; 1 elsewhere, which is quickest on a CPU.
        seconds: a run that takes longer is stuck.
    """

    pool: Literal["cpu", "model"]
    cpus: float = 1
    gpus: float = 0
    memory_mb: int = 1024
    batch: int = 1
    seconds: float = 600


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as commands and the ledger call it.
        version: of what it computes.
        inputs: what it reads: "images", or names of stages before it.
        outputs: what it makes, in words.
        models: roles of the networks that it uses: "patch", "classifier".
        parameters: names of the settings (`ScreeningSettings`) that change what it computes.
        resources: see `Resources`.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: str
    models: tuple[str, ...]
    parameters: tuple[str, ...]
    resources: Resources


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "crop",
            1,
            ("images",),
            "the breast of every image, where it was cut out, and what was found odd",
            (),
            ("erosions", "buffer"),
            Resources("cpu", memory_mb=2048, seconds=120),
        ),
        Stage(
            "centers",
            1,
            ("crop",),
            "the best centre of a window, (y, x) for every image",
            (),
            ("cc", "mlo"),
            Resources("cpu", memory_mb=512, seconds=120),
        ),
        Stage(
            "heatmaps",
            1,
            ("crop",),
            "scores of patches for every image",
            ("patch",),
            ("patch", "stride"),
            Resources("model", gpus=1, memory_mb=3072, batch=128, seconds=3600),
        ),
        Stage(
            "visualize",
            1,
            ("crop", "heatmaps"),
            "a picture for every image",
            (),
            (),
            Resources("cpu", memory_mb=1024, seconds=120),
        ),
        Stage(
            "classify",
            1,
            ("crop", "centers", "heatmaps"),
            "long predictions",
            ("classifier",),
            ("cc", "mlo", "shift", "resize", "windows"),
            Resources("model", gpus=1, memory_mb=3072, batch=4, seconds=3600),
        ),
    )
}
