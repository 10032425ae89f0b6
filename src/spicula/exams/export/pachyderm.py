"""Pipeline specifications for Pachyderm: one pipeline a stage, one datum an exam.

Each runs `spicula exams stage`, with the folders that Pachyderm mounts. The form is that of Pachyderm's
`CreatePipelineRequest` (pipeline specification, version 2).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from spicula import files
from spicula.bundle.screening import ScreeningSettings
from spicula.errors import UsageError
from spicula.exams.stages import STAGES, Stage
from spicula.exams.steps import IMAGES

#: The repositories that are not the output of a stage: of exams, a folder each, and of models, one bundle.
EXAMS, MODELS = "exams", "models"
#: Where Pachyderm mounts what a datum consists of, and takes the output from.
PREFIX = "/pfs"
#: Workers at most: pictures are many and quick, and nobody waits in line for a GPU.
WORKERS = {"visualize": 4}
#: What the stages that run a network ask for, of memory in bytes and of cores, as in the published deployment.
NETWORK_MEMORY, NETWORK_CPUS = "4G", 1.0
#: An exam is tried so often. Then this is run; as it succeeds, the exam is listed as recovered, and holds up nobody.
TRIES, GO_ON = 3, ("true",)


def specifications(
    image: str,
    *,
    settings: ScreeningSettings | None = None,
    device: Literal["cpu", "cuda"] = "cuda",
    prefix: str = PREFIX,
) -> dict[str, dict[str, Any]]:
    """Return the specifications of the five pipelines.

    Exams are mounted one at a time (glob `/*`); stages that read several stages before them join these by the exam's
    folder; those that run a network are crossed with all of the repository of models (glob `/`), so that a new model
    runs them again, and no other.

    Args:
        image: name of a container image in which `spicula` is installed.
        settings: of the bundle in the repository of models; None: as published.
        device: of the stages that run a network; with "cuda" each of them gets one GPU.
        prefix: where inputs are mounted.

    Returns:
        Pipeline name -> specification, JSON values, each pipeline after those that it reads from.

    Raises:
        UsageError: the name of the image is empty or has spaces.
    """
    if not image or any(one.isspace() or not one.isprintable() for one in image):
        raise UsageError(f"--image {image!r}: expected the name of a container image, such as example.org/spicula:1")
    options = _settings_options(settings or ScreeningSettings())
    return {stage.name: _pipeline(stage, image, options, device, prefix) for stage in STAGES.values()}


def write(to: Path, specs: dict[str, dict[str, Any]]) -> list[Path]:
    """Write each specification as a file, for `pachctl create pipeline -f`.

    Args:
        to: the folder.
        specs: as `specifications` returns them.

    Returns:
        The files, in the order in which the pipelines have to be made.

    Raises:
        SpiculaError: the folder cannot be written.
    """
    paths = [to / f"{number}-{name}.json" for number, name in enumerate(specs, start=1)]
    for path, spec in zip(paths, specs.values(), strict=True):
        files.write_json(path, spec)
    return paths


def _pipeline(
    stage: Stage, image: str, settings: Sequence[str], device: Literal["cpu", "cuda"], prefix: str
) -> dict[str, Any]:
    resources = stage.resources
    has_network = bool(stage.models)
    repositories = [EXAMS if one == IMAGES else one for one in stage.inputs]
    command = ["spicula", "exams", "stage", stage.name]
    for repository in repositories:
        command += ["--from", f"{prefix}/{repository}"]
    command += ["--models", f"{prefix}/{MODELS}", "--device", device] if has_network else settings
    spec: dict[str, Any] = {
        "pipeline": {"name": stage.name},
        "description": f"Spicula, stage {stage.name}, version {stage.version}: {stage.outputs}.",
        "transform": {"image": image, "cmd": [*command, "--to", f"{prefix}/out"], "err_cmd": list(GO_ON)},
        "input": _input(repositories, has_network),
        "parallelism_spec": {"constant": WORKERS.get(stage.name, 1)},
        "resource_requests": {
            "memory": NETWORK_MEMORY if has_network else f"{resources.memory_mb}M",
            "cpu": float(NETWORK_CPUS if has_network else resources.cpus),
        },
        "datum_timeout": f"{resources.seconds:.0f}s",
        "datum_tries": TRIES,
        "autoscaling": True,
    }
    if resources.gpus and device == "cuda":
        spec["resource_limits"] = {"gpu": {"type": "nvidia.com/gpu", "number": 1}}
    return spec


def _input(repositories: Sequence[str], has_network: bool) -> dict[str, Any]:
    """Return what a datum consists of: one exam, as all the stages before left it, and the models where needed."""
    exam: dict[str, Any]
    if len(repositories) == 1:
        exam = {"pfs": {"repo": repositories[0], "glob": "/*"}}
    else:
        exam = {"join": [{"pfs": {"repo": name, "glob": "/(*)", "join_on": "$1"}} for name in repositories]}
    return {"cross": [exam, {"pfs": {"repo": MODELS, "glob": "/"}}]} if has_network else exam


def _settings_options(settings: ScreeningSettings) -> list[str]:
    published = ScreeningSettings().model_dump(mode="json")
    own = {key: value for key, value in settings.model_dump(mode="json").items() if value != published[key]}
    return ["--settings", json.dumps(own, separators=(",", ":"))] if own else []
