"""One stage, with folders between, for those who run the stages by an orchestrator of their own.

    exams/7/*.dcm -> crop/7/crop.json, *.png -> heatmaps/7/heatmaps.json, *.npz -> ... -> classify/7/classify.json

Every folder named with `--from` or `--to` holds one folder an exam, with the same name everywhere. What a stage makes
of an exam is `<stage>.json` and files named by their SHA-256. Results and keys are those of `spicula exams run`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from spicula import RESEARCH_NOTICE, __version__, files
from spicula.bundle import sealed
from spicula.bundle.screening import ScreeningSettings
from spicula.errors import SpiculaError, UsageError
from spicula.exams import models as model_sets
from spicula.exams.stages import STAGES, Stage
from spicula.exams.steps import IMAGES, Step, images_digest, key_of
from spicula.exams.types import ExamInput, Precision, Task
from spicula.exams.workbench import Setting, Workbench
from spicula.progress import progress

#: How `<stage>.json` is told from other JSON files.
KIND = "spicula exam stage"


@dataclass
class StageOutcome:
    """What a stage did.

    Attributes:
        stage: its name.
        exams: how many it worked on.
        refused: folder of the exam and reason, for those that it, or a stage before it, refused.
    """

    stage: str
    exams: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)

    def as_text(self) -> str:
        """Return the outcome as one line."""
        return f"{self.stage}: {self.exams} exams, {len(self.refused)} refused"


@dataclass(frozen=True)
class StageOptions:
    """How a stage is run.

    Attributes:
        settings: JSON object with the settings (`ScreeningSettings`) that are not the published ones, for stages that
            are given no models; None: all are.
        precision: of the arithmetic.
        device: "cpu" or "cuda", of stages that run a network.
        streams: inputs that go through a network at a time; None: one a core.
        mode: "exam", or "single-image", which gives every image scores of its own.
    """

    settings: str | None = None
    precision: Precision = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    streams: int | None = None
    mode: model_sets.Mode = "exam"


def run_stage(
    name: str, inputs: Sequence[Path], to: Path, models: Path | None = None, options: StageOptions | None = None
) -> StageOutcome:
    """Run one stage on every exam that is there.

    Args:
        name: of the stage.
        inputs: of the first stage the folder of exams (DICOM files or exam folders below it, each exam in a folder of
            its own); of others the folders that the stages before it wrote.
        to: where results go.
        models: a four-view classifier's bundle, or a folder with one below it; the stages that run a network need it.
        options: see `StageOptions`; None: as published, on the CPU.

    Raises:
        UsageError: there is no such stage, or what it needs was not given.
        SpiculaError: an exam failed; what a stage before it wrote is missing, damaged, or made with other settings; the
            results cannot be written. Exams before that one have their results.
    """
    if name not in STAGES:
        raise UsageError(f"no stage is called {name!r}; there are {', '.join(STAGES)}")
    missing = [str(folder) for folder in inputs if not folder.is_dir()]
    if missing or not inputs:
        raise UsageError(f"there is no folder {missing[0]}" if missing else "name the folder to read from with --from")
    stage, options = STAGES[name], options or StageOptions()
    work = _Work(stage, models, options)
    exams = _exams_of_images(inputs[0], options) if IMAGES in stage.inputs else {}
    outcome = StageOutcome(name)
    names = sorted(exams) or sorted({one.name for folder in inputs for one in _folders(folder)})
    if not names:
        raise UsageError(f"{inputs[0]} holds no exam; every exam has a folder of its own below it")
    for exam in progress(names, name, unit="exams"):
        written = work.run(exam, exams.get(exam), inputs, to / exam)
        outcome.exams += 1
        if written["status"] == "refused":
            outcome.refused.append({"exam": exam, "reason": written["error"]})
    return outcome


class _Work:
    """A stage with its models, ready to run on one exam after the other."""

    def __init__(self, stage: Stage, models: Path | None, options: StageOptions) -> None:
        if stage.models and models is None:
            raise UsageError(f"the stage {stage.name} runs a network: name the folder of the bundle with --models")
        if models is not None and options.settings is not None:
            raise UsageError("--settings is for stages without --models: a bundle has its own settings")
        self._stage = stage
        self._store = _Folders()
        setting: Setting = {
            "artefacts": "",  # never opened: the store is this one
            "screening": None,
            "own": {},
            "precision": options.precision,
            "mode": options.mode,
            "device": options.device,
            "streams": options.streams,
        }
        if models is None:
            self.settings = _settings(options.settings)
            self._steps = [_plain_step(stage, self.settings)]
        else:
            loaded = model_sets.load(_bundle_in(models), precision=options.precision, mode=options.mode)
            assert loaded.screening is not None
            setting["screening"] = {"folder": str(loaded.screening.folder), "digest": loaded.screening.digest}
            self.settings = loaded.screening.settings
            self._steps = [step for step in model_sets.steps_of(loaded) if step.stage == stage.name]
            if not self._steps:
                raise UsageError(f"{models} has no network for the stage {stage.name}")
        self._bench = Workbench(setting, self._store, self.settings)

    def run(self, exam: str, found: ExamInput | None, inputs: Sequence[Path], to: Path) -> dict[str, Any]:
        """Run the stage on one exam, write its results, and return the content of `<stage>.json`."""
        needed = dict.fromkeys(one for step in self._steps for one in step.inputs if one != IMAGES)
        read = {one: self._read(exam, one, inputs) for one in needed}
        refusal = found.refusal if found else None
        exam_id = found.exam_id if found else next(iter(read.values()))["exam"]
        notes = list(found.notes) if found else []
        for before in read.values():
            refusal = refusal or before["error"]
        self._store.open(to, [folder / exam for folder in inputs], read)
        results = {} if refusal else {step.name: self._step(exam_id, step, found, read) for step in self._steps}
        refusal = refusal or next((one["error"] for one in results.values() if one["error"]), None)
        content = {
            "kind": KIND,
            "exam": exam_id,
            "stage": self._stage.name,
            "version": self._stage.version,
            "parameters": self._parameters(),
            "status": "refused" if refusal else "ok",
            "error": refusal,
            "notes": notes,
            "steps": results,
            "spicula": __version__,
            "notice": RESEARCH_NOTICE,
        }
        files.write_json(to / f"{self._stage.name}.json", content)  # last: whoever sees it sees all that it names
        return content

    def _step(
        self, exam_id: str, step: Step, found: ExamInput | None, read: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        images = [image.as_json() for image in found.images] if found else []
        before = {one: read[one]["steps"][one]["outputs"] for one in step.inputs if one != IMAGES}
        reads = [images_digest(images) if one == IMAGES else before[one] for one in step.inputs]
        key = key_of(exam_id, step.code(), reads)
        task: Task = {
            "id": 0, "exam": exam_id, "step": step.name, "key": key, "images": images, "inputs": before, "attempt": 1,
        }  # fmt: skip
        record = self._bench.execute(task)
        if record["status"] == "failed":
            raise SpiculaError(f"exam {exam_id}: the stage {step.name} failed: {record['error']}")
        outputs = record["outputs"]
        return {
            "key": key,
            "status": record["status"],
            "error": record["error"],
            "outputs": outputs,
            "model": step.model,
            "bundle": step.bundle,
            "models": dict(step.models),
            "manifest": None if outputs is None else self._store.get_json(outputs),
        }

    def _read(self, exam: str, stage: str, inputs: Sequence[Path]) -> dict[str, Any]:
        """Return `<stage>.json` of an exam, checked."""
        paths = [folder / exam / f"{stage}.json" for folder in inputs]
        path = next((one for one in paths if one.is_file()), None)
        if path is None:
            raise SpiculaError(f"exam {exam}: no {stage}.json in any folder given with --from; run that stage first")
        content = _content(path, stage)
        wanted = _parameters(STAGES[stage], self.settings)
        differ = [key for key, value in wanted.items() if content["parameters"].get(key) != value]
        if self._stage.models and differ:
            raise SpiculaError(
                f"{path} was made with {differ[0]} {content['parameters'].get(differ[0])}, and the bundle wants "
                f"{wanted[differ[0]]}; run the stage {stage} again with --models, or --settings"
            )
        return content

    def _parameters(self) -> dict[str, Any]:
        return _parameters(self._stage, self.settings)


def _content(path: Path, stage: str) -> dict[str, Any]:
    """Return what `<stage>.json` holds, when that stage wrote it and it is what it was."""
    try:
        content = json.loads(path.read_bytes())
        is_whole = (content["kind"], content["stage"]) == (KIND, stage) and isinstance(content["exam"], str)
        for step in content["steps"].values():
            is_whole &= step["manifest"] is None or files.sha256_json(step["manifest"]) == step["outputs"]
    except (ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise SpiculaError(f"{path} is damaged, or no stage wrote it; run the stage {stage} again")
    return dict(content)


class _Folders:
    """The store of a workbench in folders: files are named by content; manifests are kept for `<stage>.json`."""

    def __init__(self) -> None:
        self._to = Path()
        self._from: list[Path] = []
        self._manifests: dict[str, Any] = {}

    def open(self, to: Path, inputs: list[Path], read: Mapping[str, dict[str, Any]]) -> None:
        """Turn to another exam."""
        self._to, self._from = to, inputs
        self._manifests = {
            step["outputs"]: step["manifest"] for content in read.values() for step in content["steps"].values()
        }

    def put(self, data: bytes, suffix: str) -> str:
        """Write a file, and return its name."""
        name = hashlib.sha256(data).hexdigest() + suffix
        files.write_bytes(self._to / name, data)
        return name

    def get(self, name: str) -> bytes:
        """Return a file's content, verified."""
        path = next((folder / name for folder in self._from if (folder / name).is_file()), None)
        if path is None:
            raise SpiculaError(f"{self._from[0] / name} is missing; run the stage that makes it again")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != name.partition(".")[0]:
            raise SpiculaError(f"{path} is damaged; run the stage that makes it again")
        return data

    def put_json(self, value: Any) -> str:
        """Keep a manifest, and return its digest."""
        digest = files.sha256_json(value)
        self._manifests[digest] = value
        return digest

    def get_json(self, digest: str) -> Any:
        """Return a manifest."""
        return self._manifests[digest]


def _exams_of_images(source: Path, options: StageOptions) -> dict[str, ExamInput]:
    """Return the exam in every folder below `source`, by the folder's name; one without images is refused."""
    from spicula.exams import intake

    origin, single = intake.origin_of(source), options.mode == "single-image"
    found = intake.read_listing(origin, origin.listing(), intake.Known(), single_image=single)
    exams: dict[str, list[ExamInput]] = {}
    for exam in found.exams:
        for name in {Path(image.path).relative_to(source.absolute()).parts[0] for image in exam.images}:
            exams.setdefault(name, []).append(exam)
    result = {}
    for folder in _folders(source):
        here = exams.get(folder.name, [])
        if len({exam.exam_id for exam in here}) > 1:
            ids = ", ".join(sorted(exam.exam_id for exam in here))
            raise SpiculaError(f"{folder} holds several exams ({ids}); every exam needs a folder of its own")
        result[folder.name] = here[0] if here else _without_images(folder.name, found.problems)
    return result


def _without_images(name: str, problems: Sequence[Mapping[str, str]]) -> ExamInput:
    """Return a folder that holds no exam as one that is refused, so that the stages after this one hear of it."""
    reasons = [one["reason"] for one in problems if Path(one["path"]).parts[:1] == (name,)]
    said = f"; {len(reasons)} files cannot be used, the first: {reasons[0]}" if reasons else ""
    return ExamInput(name, (), f"no image of a four-view exam in its folder{said}")


def _folders(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")]


def _bundle_in(folder: Path) -> Path:
    """Return the four-view classifier's bundle in a folder of models.

    Raises:
        UsageError: there is none, or several.
    """
    if (folder / sealed.INFO).is_file():
        return folder
    below = sorted(path.parent for path in folder.glob(f"*/{sealed.INFO}"))
    bundles = [path for path in below if sealed.kind_of(path) == sealed.SCREENING]
    if len(bundles) != 1:
        names = ", ".join(path.name for path in bundles) or "none"
        raise UsageError(f"{folder}: expected the bundle of one four-view classifier in it, found {names}")
    return bundles[0]


def _settings(text: str | None) -> ScreeningSettings:
    try:
        return ScreeningSettings.model_validate_json(text) if text is not None else ScreeningSettings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"--settings: {f'{where}: ' if where else ''}{first['msg']}") from None


def _plain_step(stage: Stage, settings: ScreeningSettings) -> Step:
    """Return the step of a stage without a network; its key is that which it has in a run."""
    parameters = _parameters(stage, settings)
    return Step(stage.name, stage.name, stage.version, stage.resources.pool, stage.inputs, parameters)


def _parameters(stage: Stage, settings: ScreeningSettings) -> dict[str, Any]:
    dumped = settings.model_dump(mode="json")
    return {name: dumped[name] for name in stage.parameters}
