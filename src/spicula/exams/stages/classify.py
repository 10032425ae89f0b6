"""The four-view classifier: the mean over random windows of what its networks say of both breasts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spicula.bundle.screening.settings import ScreeningSettings
from spicula.exams.stages import windows
from spicula.exams.stages.heatmaps import oriented_maps
from spicula.exams.stages.orientation import oriented
from spicula.exams.stages.windows import Draw
from spicula.exams.types import VIEWS, Cropped, PatchScores, RefusedExamError, Runner, Score

#: What the networks give, in the order of their outputs; the published column order as well.
OUTPUTS = (("L", "benign"), ("R", "benign"), ("L", "malignant"), ("R", "malignant"))

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class _Shown:
    """An image as the classifier sees it, with what windows of it need."""

    cropped: Cropped
    center: tuple[int, int]
    scores: PatchScores | None
    settings: ScreeningSettings

    @cached_property
    def _channels(self) -> list[np.ndarray]:
        """(H, W) each: the image, and with heatmaps the benign and the malignant one."""
        image = oriented(self.cropped.pixels, self.cropped.view, self.cropped.mirrored)
        if self.scores is None:
            return [image]
        malignant, benign = oriented_maps(self.scores)
        return [image, benign, malignant]

    def window(self, noise: Draw) -> npt.NDArray[np.float32]:
        """Return a random window, (1, C, H, W); the image in it is standardised, heatmaps are not."""
        view, settings = self.cropped.view, self.settings
        place = windows.place(self.cropped.pixels.shape, self.center, view, settings, noise)
        found = np.empty((1, len(self._channels), *settings.size(view)), np.float32)
        for to, channel in zip(found[0], self._channels, strict=True):
            windows.cut(channel, place, to)
        windows.standardise(found[0, 0])
        return found


def classify(
    crops: Sequence[Cropped],
    centers: Sequence[tuple[int, int]],
    scores: Sequence[PatchScores] | None,
    networks: Mapping[str, Runner],
    settings: ScreeningSettings,
) -> list[Score]:
    """Classify an exam: each score is the mean over both angles and over all random windows.

    A view with several images shows one of them in each window, drawn at random.

    Args:
        crops: of the exam, at least one of each view.
        centers: y, x for each crop, see the stage `centers`.
        scores: of patches for each crop, for networks that read heatmaps; else None.
        networks: "cc" and "mlo", each (left, right) -> probabilities (1, 4) in the order of OUTPUTS. An input is
            (1, C, H, W): the image, and with `scores` the benign and the malignant heatmap.
        settings: of the classifier.

    Returns:
        Benign and malignant of both sides, in the order of OUTPUTS.

    Raises:
        RefusedExamError: a view is missing.
    """
    views = _by_view(crops, centers, scores, settings)
    missing = [view for view in VIEWS if view not in views]
    if missing:
        raise RefusedExamError(
            f"no image of {' and '.join(missing)}: the four-view classifier needs all views; single-image mode scores"
            " the images that are there"
        )
    noise = windows.draw([len(views[view]) for view in VIEWS], settings.windows)

    def pairs(left: int, right: int) -> Iterator[Pair]:
        for one in noise:
            yield _window(views[VIEWS[left]], one[left]), _window(views[VIEWS[right]], one[right])

    found = (_mean(networks["cc"], pairs(0, 1)) + _mean(networks["mlo"], pairs(2, 3))) / 2
    return [Score(side, target, float(one)) for (side, target), one in zip(OUTPUTS, found, strict=True)]


def classify_single(
    crops: Sequence[Cropped],
    centers: Sequence[tuple[int, int]],
    scores: Sequence[PatchScores] | None,
    networks: Mapping[str, Runner],
    settings: ScreeningSettings,
) -> list[Score]:
    """Classify each view of an exam by itself, whatever views there are.

    The network of the view's angle gets the same window for both sides, and its own side's outputs count. Every view
    starts the random windows anew, so that its scores do not depend on what other views there are.

    Args:
        crops: see `classify`; of any views.
        centers: see `classify`.
        scores: see `classify`.
        networks: see `classify`.
        settings: of the classifier.

    Returns:
        Benign and malignant of every view that has images, in the order of VIEWS; `Score.side` is the view.
    """
    views = _by_view(crops, centers, scores, settings)
    found = []
    for view in (view for view in VIEWS if view in views):
        noise = windows.draw([len(views[view])], settings.windows)
        shown = (_window(views[view], one) for (one,) in noise)
        means = _mean(networks[view[2:].lower()], ((window, window) for window in shown))
        found += [
            Score(view, target, float(one))
            for (side, target), one in zip(OUTPUTS, means, strict=True)
            if side == view[0]
        ]
    return found


def _by_view(
    crops: Sequence[Cropped],
    centers: Sequence[tuple[int, int]],
    scores: Sequence[PatchScores] | None,
    settings: ScreeningSettings,
) -> dict[str, list[_Shown]]:
    views: dict[str, list[_Shown]] = {}
    all_scores: Sequence[PatchScores | None] = [None] * len(crops) if scores is None else scores
    for cropped, center, heat in zip(crops, centers, all_scores, strict=True):
        views.setdefault(cropped.view, []).append(_Shown(cropped, center, heat, settings))
    return views


def _window(images: Sequence[_Shown], noise: Draw) -> npt.NDArray[np.float32]:
    return images[noise.image].window(noise)


def _mean(network: Runner, pairs: Iterator[Pair]) -> npt.NDArray[np.float64]:
    """Return the mean of a network's outputs, (4,)."""
    mean: npt.NDArray[np.float64] = np.concatenate(list(network(pairs))).mean(axis=0, dtype=np.float64)
    return mean
