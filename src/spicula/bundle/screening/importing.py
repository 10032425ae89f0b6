"""Make a screening bundle of published weight files: read, convert, compare, write. Needs the `train` extra."""

from pathlib import Path

from safetensors.torch import save

from spicula.bundle.screening import ScreeningBundle, graphs, parity, writing
from spicula.bundle.screening import format as layout
from spicula.bundle.screening.format import Architecture, Network
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.bundle.writing import record
from spicula.errors import UsageError
from spicula.models.screening import published
from spicula.progress import say

#: What the model is called where nobody says otherwise.
NAME = "screening"

_ARCHITECTURES: dict[str, Architecture] = {
    layout.PATCH: "densenet121",
    layout.IMAGE_ONLY: "view-wise-resnet22",
    layout.IMAGE_AND_HEATMAPS: "view-wise-resnet22",
}


def import_exam(
    patch: Path | None,
    image: Path | None,
    image_heatmaps: Path | None,
    to: Path,
    *,
    name: str = NAME,
    version: str = "1",
    licence: str | None = None,
    heatmap_threshold: float | None = None,
    settings: ScreeningSettings | None = None,
) -> ScreeningBundle:
    """Import the published four-view classifier, and return its bundle, loaded and verified.

    Args:
        patch: weight file of the patch classifier; None: no heatmaps.
        image: of the view-wise classifier of images alone, or None.
        image_heatmaps: of the view-wise classifier of images and heatmaps, or None; it needs `patch`.
        to: the bundle's folder. One that holds a screening bundle is replaced; anything else is left alone.
        name: of the model.
        version: of the model, as whoever imports it counts.
        licence: of the weights, as whoever published them says it.
        heatmap_threshold: probability from which a heatmap's segmentation counts a pixel; None: no segmentations.
        settings: the numbers of the stages; None: the published ones.

    Raises:
        UsageError: a file is missing or of another role, no classifier is given, or `to` holds something else.
        SpiculaError: a file does not fit, or a graph does not repeat its probabilities to within `parity.TOLERANCE`.
    """
    settings = settings or ScreeningSettings()
    given: dict[published.Role, Path | None] = {
        "patch": patch,
        "image-only": image,
        "image-and-heatmaps": image_heatmaps,
    }
    paths = {role: Path(path) for role, path in given.items() if path is not None}
    _check_given(set(paths))
    writing.check_threshold(heatmap_threshold)
    writing.check_free(Path(to))
    networks = {role: published.read(path, role) for role, path in paths.items()}
    made: dict[str, bytes] = {}
    weights: dict[str, bytes] = {}
    described: dict[str, Network] = {}
    for role, network in networks.items():
        say(f"{role}: converting {paths[role].name}")
        converted = graphs.convert(role, network, settings)
        measured = parity.measure(role, graphs.published_of(role, network), converted, settings)
        say(parity.sentence(role, measured))
        made |= converted
        state = network.state_dict()
        weights[role] = save({key: state[key].contiguous() for key in state if not key.endswith(published.COUNTER)})
        described[role] = {"architecture": _ARCHITECTURES[role], "source": record(paths[role]), "parity": measured}
    return writing.write(
        Path(to),
        name=name,
        settings=settings,
        graphs=made,
        weights=weights,
        networks=described,
        licence=licence,
        version=version,
        heatmap_threshold=heatmap_threshold,
    )


def _check_given(roles: set[published.Role]) -> None:
    if not roles & set(layout.CLASSIFIERS):
        raise UsageError("no classifier to import: give --image FILE, --image-heatmaps FILE, or both")
    if layout.IMAGE_AND_HEATMAPS in roles and layout.PATCH not in roles:
        raise UsageError("--image-heatmaps needs heatmaps: give --patch FILE as well")
