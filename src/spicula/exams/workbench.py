"""What a worker holds, and how it does one step: load what the stage reads, call it, keep what it makes.

It stands between the stages, which know nothing of files, and the engines, which know nothing of exams.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypedDict

from spicula import bundle as study_bundle
from spicula.bundle import Bundle, screening
from spicula.bundle.screening import ScreeningBundle, ScreeningSettings, golden
from spicula.convert import png
from spicula.errors import RejectedImageError, SpiculaError
from spicula.exams import manifests, reading
from spicula.exams.artefacts import Artefacts, LostArtefactError
from spicula.exams.own_model import classify_own
from spicula.exams.stages import classify as classifying
from spicula.exams.stages import heatmaps as heating
from spicula.exams.stages.centers import centers
from spicula.exams.stages.crop import crop
from spicula.exams.stages.visualize import visualize
from spicula.exams.types import Cropped, ImageFile, PatchScores, Record, RefusedExamError, Runner, Task

#: Exams whose crops a worker keeps decoded: stages of one exam follow one another.
CACHED_EXAMS = 2

ANGLES = ("cc", "mlo")


class Place(TypedDict):
    """Where a bundle lies, and which one it has to be."""

    folder: str
    digest: str


class Setting(TypedDict):
    """What all workers of a run are told, as JSON values."""

    artefacts: str  # folder or address of the artefact store
    screening: Place | None
    own: dict[str, Place]
    precision: str
    mode: str
    device: str  # "cpu" or "cuda"
    streams: int | None  # inputs that go through a network at a time; None: one a core


class Store(Protocol):
    """Where a workbench keeps what the stages make, and finds it again: `Artefacts`, or folders (`stage_files`)."""

    def put(self, data: bytes, suffix: str) -> str: ...  # noqa: D102
    def get(self, name: str) -> bytes: ...  # noqa: D102
    def put_json(self, value: Any) -> str: ...  # noqa: D102
    def get_json(self, digest: str) -> Any: ...  # noqa: D102


class Workbench:
    """Does steps of exams. Models are loaded when they are first needed, and kept.

    Args:
        setting: of the run.
        store: of artefacts; None: the one that the setting names.
        settings: of the four-view classifier, for stages that need no network; None: those of its bundle.
    """

    def __init__(self, setting: Setting, store: Store | None = None, settings: ScreeningSettings | None = None) -> None:
        self._setting = setting
        self._store = store or Artefacts(setting["artefacts"])
        self._own_settings = settings
        self._runners: dict[str, Runner] = {}
        self._own: dict[str, Bundle] = {}
        self._crops: OrderedDict[str, list[Cropped]] = OrderedDict()

    def execute(self, task: Task) -> Record:
        """Do one step of one exam.

        A stage that refuses the exam gives a record with the status "refused", one that fails "failed", with the
        reason. Only what is nobody's fault here is raised.

        Raises:
            SpiculaError: a model cannot be loaded, or the store of artefacts cannot be read or written.
        """
        started = time.time()
        status, outputs, error, scores, lost = "ok", None, None, list[dict[str, Any]](), None
        try:
            manifest = self._do(task)
            outputs = self._to(task).put_json(manifest)
            scores = manifest.get("scores", [])
        except (RefusedExamError, RejectedImageError) as reason:
            status, error = "refused", str(reason)
        except _LostInputError as reason:
            status, error, lost = "failed", str(reason), reason.step
        except reading.StaleImageError as reason:
            status, error = "failed", str(reason)
        except SpiculaError:
            raise
        except MemoryError:
            status, error = "failed", f"{task['step']} takes more memory than there is"
        except Exception as reason:  # an odd exam must not take the worker with it; the driver counts attempts
            status, error = "failed", _one_line(reason)
        record: Record = {
            "exam": task["exam"],
            "step": task["step"],
            "key": task["key"],
            "status": status,  # type: ignore[typeddict-item]
            "outputs": outputs,
            "error": error,
            "scores": scores,
            "started": started,
            "seconds": time.time() - started,
        }
        return record if lost is None else {**record, "lost": lost}

    def load_models(self) -> None:
        """Load all models of the run now, instead of when they are first needed.

        Raises:
            SpiculaError: a model cannot be loaded, or does not answer its golden inputs as it should.
        """
        if self._setting["screening"] is not None:
            for graph in self._screening.graphs:
                golden.check(self._screening, graph, self._runner(graph), self._setting["precision"])
        for name in self._setting["own"]:
            self._own_bundle(name).session  # noqa: B018 - it is made when it is first looked at

    def _do(self, task: Task) -> dict[str, Any]:
        stage, _, model = task["step"].partition(":")
        if model in self._setting["own"]:
            found = classify_own([ImageFile(**image) for image in task["images"]], self._own_bundle(model))
            return {"scores": [vars(score) for score in found]}
        doing: Mapping[str, Callable[[Task], dict[str, Any]]] = {
            "crop": self._crop,
            "centers": self._centers,
            "heatmaps": self._heatmaps,
            "visualize": self._visualize,
            "classify": lambda task: self._classify(task, model),
        }
        return doing[stage](task)

    # the five stages

    def _crop(self, task: Task) -> dict[str, Any]:
        images = [reading.read_image(ImageFile(**image)) for image in task["images"]]
        crops = crop(images, self._settings)
        files = [self._to(task).put(reading.encode_crop(one.pixels), ".png") for one in crops]
        return {"images": [manifests.described(one, file) for one, file in zip(crops, files, strict=True)]}

    def _centers(self, task: Task) -> dict[str, Any]:
        crops = self._load_crops(task)
        found = centers(crops, self._settings)
        return manifests.per_image(crops, [{"best_center": list(center)} for center in found])

    def _heatmaps(self, task: Task) -> dict[str, Any]:
        crops = self._load_crops(task)
        found = heating.heatmaps(crops, self._runner("patch"), self._settings)
        return manifests.per_image(crops, [{"file": self._to(task).put(heating.encode(one), ".npz")} for one in found])

    def _visualize(self, task: Task) -> dict[str, Any]:
        crops = self._load_crops(task)
        pictures = visualize(crops, self._load_scores(task))
        return manifests.per_image(crops, [{"file": self._to(task).put(png.encode(one), ".png")} for one in pictures])

    def _classify(self, task: Task, model: str) -> dict[str, Any]:
        crops = self._load_crops(task)
        with _read_from("centers"):
            points = [
                tuple(image["best_center"]) for image in self._store.get_json(task["inputs"]["centers"])["images"]
            ]
        heat = self._load_scores(task) if "heatmaps" in task["inputs"] else None
        networks = {angle: self._runner(f"{model}.{angle}") for angle in ANGLES}
        single = self._setting["mode"] == "single-image"
        classify = classifying.classify_single if single else classifying.classify
        found = classify(crops, points, heat, networks, self._settings)
        return {"scores": [vars(score) for score in found]}

    # what they read, and where they write

    def _load_crops(self, task: Task) -> list[Cropped]:
        digest = task["inputs"]["crop"]
        if digest not in self._crops:
            with _read_from("crop"):
                images = self._store.get_json(digest)["images"]
                self._crops[digest] = [manifests.cropped(image, self._store.get(image["file"])) for image in images]
            while len(self._crops) > CACHED_EXAMS:
                self._crops.popitem(last=False)
        self._crops.move_to_end(digest)
        return self._crops[digest]

    def _load_scores(self, task: Task) -> list[PatchScores]:
        with _read_from("heatmaps"):
            images = self._store.get_json(task["inputs"]["heatmaps"])["images"]
            return [heating.decode(self._store.get(image["file"])) for image in images]

    def _to(self, task: Task) -> Store:
        return self._anew if task.get("anew") else self._store

    @cached_property
    def _anew(self) -> Store:
        return Artefacts(self._setting["artefacts"], anew=True)

    # models

    @cached_property
    def _screening(self) -> ScreeningBundle:
        place = self._setting["screening"]
        assert place is not None, "a step of the four-view classifier, in a run without one"
        loaded = screening.load(Path(place["folder"]))
        _check_same(loaded.digest, place)
        return loaded

    @property
    def _settings(self) -> ScreeningSettings:
        return self._own_settings or self._screening.settings

    def _runner(self, graph: str) -> Runner:
        from spicula.exams.networks import runner_of

        if graph not in self._runners:
            setting = self._setting
            self._runners[graph] = runner_of(
                self._screening,
                graph,
                precision=setting["precision"],  # type: ignore[arg-type]
                streams=setting["streams"],
                device=setting["device"],
            )
        return self._runners[graph]

    def _own_bundle(self, name: str) -> Bundle:
        if name not in self._own:
            place = self._setting["own"][name]
            self._own[name] = study_bundle.load(Path(place["folder"]), threads=1)
            _check_same(self._own[name].digest, place)
        return self._own[name]


class _LostInputError(Exception):
    """What a step reads of another step is missing or damaged."""

    def __init__(self, step: str, what: str) -> None:
        super().__init__(what)
        self.step = step


@contextmanager
def _read_from(step: str) -> Iterator[None]:
    """Say whose output it is that cannot be read."""
    try:
        yield
    except LostArtefactError as error:
        raise _LostInputError(step, error.what) from None


def _check_same(digest: str, place: Place) -> None:
    if digest != place["digest"]:
        raise SpiculaError(f"{place['folder']} was replaced while the run was going on; start it again")


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
