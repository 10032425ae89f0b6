"""Which models a workspace is run with, and the steps that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spicula import bundle as study_bundle
from spicula.bundle import Bundle, screening, sealed
from spicula.bundle.screening import ScreeningBundle
from spicula.errors import UsageError
from spicula.exams.stages import STAGES, Stage
from spicula.exams.steps import IMAGES, Step
from spicula.exams.types import Precision

Mode = Literal["exam", "single-image"]

#: What is read by the stages besides weights is written into keys as plain JSON values.
CLASSIFY = "classify"


@dataclass(frozen=True)
class Models:
    """The verified models of a run.

    Attributes:
        screening: the four-view classifier, or None.
        own: bundles that Spicula trained, by name.
        precision: of the four-view classifier's arithmetic.
        mode: "exam" takes whole exams; "single-image" gives every image scores of its own, whatever views there are.
    """

    screening: ScreeningBundle | None
    own: dict[str, Bundle]
    precision: Precision = "fp32"
    mode: Mode = "exam"

    def as_setting(self) -> dict[str, Any]:
        """Return what a worker needs to load the same models, as JSON values."""
        one = self.screening
        return {
            "screening": None if one is None else {"folder": str(one.folder.absolute()), "digest": one.digest},
            "own": {
                name: {"folder": str(own.folder.absolute()), "digest": own.digest} for name, own in self.own.items()
            },
            "precision": self.precision,
        }


def load(
    bundle: Path | None, own: Sequence[Path] = (), *, precision: Precision = "fp32", mode: Mode = "exam"
) -> Models:
    """Read and verify the models of a run.

    Args:
        bundle: of a four-view classifier (`spicula bundle import-exam`), or None.
        own: bundles that Spicula trained.
        precision: of the four-view classifier's arithmetic.
        mode: see `Models`.

    Raises:
        UsageError: there is none at all, or two have one name.
        SpiculaError: a bundle is damaged.
    """
    if bundle is None and not own:
        raise UsageError("no model: name a four-view classifier with --bundle, or bundles of your own with --model")
    loaded: dict[str, Bundle] = {}
    four_view = None if bundle is None else screening.load(bundle)
    taken = {} if four_view is None else dict.fromkeys(four_view.classifiers(), str(bundle))
    for folder in own:
        one = study_bundle.load(folder, threads=1)
        if one.name in taken:
            raise UsageError(f"{folder} and {taken[one.name]} both hold a model called {one.name}; leave one out")
        taken[one.name], loaded[one.name] = str(folder), one
    return Models(four_view, loaded, precision, mode)


def load_put(bundles: Sequence[Path], *, precision: Precision = "fp32", mode: Mode = "exam") -> Models:
    """Read and verify the bundles that were put into a folder of models.

    Of four-view classifiers the one that was made last is used, for an exam has one set of heatmaps. Of the bundles
    that Spicula trained all are, but of several with one name the one that was made last.

    Args:
        bundles: their folders, at least one.
        precision: see `load`.
        mode: see `Models`.

    Raises:
        UsageError: one has the name of a classifier of the four-view bundle.
        SpiculaError: a bundle is damaged.
    """
    four_view = [folder for folder in bundles if sealed.kind_of(folder) == sealed.SCREENING]
    made = {folder: (screening.load(folder).info["created"], folder.name) for folder in four_view}
    own: dict[str, tuple[str, str, Path]] = {}
    for folder in bundles:
        if folder not in four_view:
            info = study_bundle.load(folder, threads=1).info
            one = (info["created"], folder.name, folder)
            own[info["name"]] = max(one, own.get(info["name"], one))
    newest = max(four_view, key=made.__getitem__, default=None)
    return load(newest, [folder for _, _, folder in own.values()], precision=precision, mode=mode)


def steps_of(models: Models, stages: Mapping[str, Stage] = STAGES) -> list[Step]:
    """Return the steps that every exam goes through, each after those that it reads from.

    Args:
        models: of the run.
        stages: as `STAGES`; another table stands for another version of the code.
    """
    steps = [] if models.screening is None else _of_screening(models, models.screening, stages)
    return steps + [_of_own(name, own, stages[CLASSIFY]) for name, own in models.own.items()]


def _of_screening(models: Models, bundle: ScreeningBundle, stages: Mapping[str, Stage]) -> list[Step]:
    settings = bundle.settings.model_dump(mode="json")
    has_patches = "patch" in bundle.graphs

    about = {
        "name": bundle.name,
        "version": bundle.info["version"],
        "heatmap_threshold": bundle.heatmap_threshold,
    }

    def step(name: str, model: str | None = None) -> Step:
        stage = stages[name]
        reads_heatmaps = model is None or bundle.reads_heatmaps(model)
        parameters = {key: settings[key] for key in stage.parameters}
        if stage.models:
            parameters["precision"] = models.precision
        if model is not None:
            parameters["mode"] = models.mode
        return Step(
            name=f"{name}:{model}" if model else name,
            stage=name,
            version=stage.version,
            pool=stage.resources.pool,
            inputs=tuple(one for one in stage.inputs if reads_heatmaps or one != "heatmaps"),
            parameters=parameters,
            models={role: bundle.digest_of(model or role) for role in stage.models},
            model=model,
            bundle=bundle.digest if model else None,
            about=about if stage.models else {},
        )

    plain = ["crop", "centers", *(["heatmaps", "visualize"] if has_patches else [])]
    return [*(step(name) for name in plain), *(step(CLASSIFY, model) for model in bundle.classifiers())]


def _of_own(name: str, bundle: Bundle, stage: Stage) -> Step:
    points = {rule: point["threshold"] for rule, point in bundle.info["operating_points"].items()}
    return Step(
        name=f"{CLASSIFY}:{name}",
        stage=CLASSIFY,
        version=stage.version,
        pool=stage.resources.pool,
        inputs=(IMAGES,),
        models={"classifier": bundle.digest},
        model=name,
        bundle=bundle.digest,
        about={"name": name, "version": bundle.info["version"], "operating_points": {bundle.target: points}},
    )
