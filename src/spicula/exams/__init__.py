"""Exams: the four-view screening classifier as a staged, incremental, versioned pipeline.

intake (what is there) -> plan (what is left, by the ledger) -> schedule -> engine -> workbench -> stages
                                                                                         |
                                         ledger (keys, digests, scores)  <-  artefacts <-+
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spicula import stores
from spicula.errors import UsageError
from spicula.exams.stages import STAGES, Stage

if TYPE_CHECKING:
    from spicula.exams.driver import Outcome
    from spicula.exams.engines.types import Engine
    from spicula.exams.models import Models
    from spicula.exams.watching.exams import Patience

__all__ = ["EngineOptions", "engine_of", "run", "setting_of", "watch"]


@dataclass(frozen=True)
class EngineOptions:
    """Where the work is done.

    Attributes:
        engine: "local": worker processes on this machine; "ray": a Ray cluster, or Ray on this machine.
        address: of a Ray cluster, as `ray.init` takes it; None: Ray is started on this machine.
        device: "cpu" or "cuda", of the stages that run a network.
        cpu_workers: worker processes of the other stages; None: by cores and memory.
        model_workers: worker processes that hold the models; None: by cores, memory and device.
        streams: inputs that go through a network at a time; None: one a core.
        model_resources: what a model worker asks of Ray, by the names of `ray.remote` or of the cluster's own
            resources ({"exam_gpu": 1}); None: a GPU or cores, by the device.
    """

    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    cpu_workers: int | None = None
    model_workers: int | None = None
    streams: int | None = None
    model_resources: Mapping[str, float] | None = None

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"{self.engine} {self.device}"


def run(
    source: Path | str,
    workspace: str | Path,
    models: "Models",
    engine: EngineOptions,
    *,
    retry_failed: bool = False,
    check_artefacts: bool = False,
    keep_timeline: bool = False,
    stages: Mapping[str, Stage] = STAGES,
) -> "Outcome":
    """Bring the exams of a source up to date: run what has no result yet, and nothing else.

    Args:
        source: an Index; or a folder, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX` of DICOM studies or exam folders.
        workspace: where results and ledger are: a folder, `s3://...` or `gs://...`. It is made when missing.
        models: see `models.load`.
        engine: where the work is done.
        retry_failed: run steps again that failed in an earlier run.
        check_artefacts: read all that earlier runs made for these exams, and make again what is missing or damaged.
        keep_timeline: keep what every worker did when.
        stages: another table than `STAGES` stands for another version of the code.

    Returns:
        What was done, and what failed or was refused, with the reasons.

    Raises:
        UsageError: there is nothing at the source, the workspace lies in it, or an extra is missing.
        SpiculaError: the workspace cannot be written, or workers cannot start.
    """
    from spicula.exams import intake
    from spicula.exams.driver import bring_up_to_date
    from spicula.exams.ledger import Ledger
    from spicula.exams.models import steps_of

    _check_apart(source, workspace)
    # before the workspace is made: a mistyped source leaves none behind
    known = intake.Known(intake.place(stores.place_of(workspace), source))
    found = intake.read(source, known=known, single_image=models.mode == "single-image")
    ledger = Ledger.open(workspace, create=True)
    outcome = bring_up_to_date(
        ledger,
        found.exams,
        steps_of(models, stages),
        lambda: engine_of(engine, setting_of(ledger.place, models, engine)),
        engine.name,
        retry_failed=retry_failed,
        check_artefacts=check_artefacts,
        keep_timeline=keep_timeline,
    )
    outcome.problems = list(found.problems)
    return outcome


def watch(
    source: Path | str,
    workspace: str | Path,
    load: "Callable[[list[Path]], Models]",
    engine: EngineOptions,
    *,
    models: Path | None = None,
    patience: "Patience | None" = None,
    every: float = 10.0,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run exams as they arrive in a folder or bucket, with models as they are put into a folder, until Ctrl-C.

    Args:
        source: where exams arrive: a folder, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
        workspace: see `run`.
        load: returns the models to be used, given the bundles in the folder of models.
        engine: where the work is done. It is started when something arrives, and stopped when that is done.
        models: where bundles are put, each in a folder of its own; None: `load` is given none.
        patience: how long exams are waited for.
        every: seconds from one look to the next.
        stop: whether to end; asked several times a second.

    Raises:
        UsageError: there is no such folder or bucket, the workspace lies in it, or an extra is missing.
    """
    from spicula.exams import intake
    from spicula.exams.driver import bring_up_to_date
    from spicula.exams.ledger import Ledger
    from spicula.exams.models import steps_of
    from spicula.exams.watching import Arrivals
    from spicula.exams.watching import watch as look
    from spicula.progress import say

    _check_apart(source, workspace)
    ledger = Ledger.open(workspace, create=True)

    def handle(arrived: Arrivals) -> None:
        if models is not None and not arrived.bundles:
            say(f"no model in {models} yet; {len(arrived.present)} exams wait for one")
            return
        used = load(arrived.bundles)
        exams = arrived.present if arrived.models else arrived.exams
        done = bring_up_to_date(
            ledger,
            exams,
            steps_of(used),
            lambda: engine_of(engine, setting_of(ledger.place, used, engine)),
            engine.name,
        )
        for one in done.failed:
            say(f"failed {one['exam']} at {one['step']}: {one['reason']}")
        say(done.as_text())

    known = intake.Known(intake.place(ledger.place, source))
    look(source, handle, models=models, patience=patience, every=every, known=known, stop=stop)


def setting_of(place: str, models: "Models", engine: EngineOptions) -> dict[str, Any]:
    """Return what all workers of a run are told, as JSON values; see `workbench.Setting`."""
    return {
        **models.as_setting(),
        "artefacts": f"{place}/artefacts",
        "mode": models.mode,
        "device": engine.device,
        "streams": engine.streams,
    }


def engine_of(options: EngineOptions, setting: dict[str, Any]) -> "Engine":
    """Return an engine that is not yet started, of the asked or the default size."""
    from spicula.exams.engines import sizes

    if options.engine == "ray":
        from spicula.exams.engines.ray import RayEngine

        return RayEngine(
            setting,
            options.address,
            cpu_workers=(1, options.cpu_workers),
            model_workers=(1, options.model_workers or 1),
            model_resources=options.model_resources,
        )
    from spicula.exams.engines.local import LocalEngine
    from spicula.processes import cores

    gpus = len(sizes.gpus()) if options.device == "cuda" else 0
    usual = sizes.sizes(cores(), sizes.memory_bytes(), gpus)
    return LocalEngine(
        {**setting, "streams": options.streams or usual.streams},
        options.cpu_workers or usual.cpu_workers,
        options.model_workers or usual.model_workers,
    )


def _check_apart(source: Path | str, workspace: str | Path) -> None:
    """Refuse a workspace among the exams: its crops and pictures would be read as images that came in.

    Raises:
        UsageError: it lies there, or one of the two is an address of another kind.
    """
    place = stores.place_of(workspace)
    if stores.is_remote(str(source)):
        lies_in = f"{place}/".startswith(f"{stores.place_of(source)}/")
    else:
        folder = Path(source)
        is_near = not stores.is_remote(place) and folder.is_dir()
        lies_in = is_near and Path(place).resolve().is_relative_to(folder.resolve())
    if lies_in:
        raise UsageError(f"the workspace {place} lies in {source}, where the exams are; put it beside them")
