"""Writing a screening bundle: its networks as graphs and weights, its numbers, and its card."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from spicula import RESEARCH_NOTICE, __version__, files
from spicula.bundle.screening import ScreeningBundle, golden, load, model_card
from spicula.bundle.screening import format as layout
from spicula.bundle.screening.format import Info, Network
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.bundle.sealed import CARD, GRAPH, INFO, SCREENING, seal
from spicula.bundle.writing import check_target, record, write_folder
from spicula.errors import UsageError

#: All names that a file of a screening bundle can have.
NAMES = layout.names_of(layout.ROLES)


def write(
    to: Path,
    *,
    name: str,
    settings: ScreeningSettings,
    graphs: Mapping[str, bytes],
    weights: Mapping[str, bytes],
    networks: Mapping[str, Network] | None = None,
    licence: str | None = None,
    version: str = "1",
    heatmap_threshold: float | None = None,
) -> ScreeningBundle:
    """Write a screening bundle, verify it as `load` does, and only then put it in place.

    Args:
        to: the bundle's folder. One that holds a screening bundle is replaced; anything else is left alone.
        name: of the model.
        settings: the numbers that the stages are told.
        graphs: ONNX files by name; `ScreeningBundle.graphs` says what each takes and returns.
        weights: safetensors files by role.
        networks: by role, where each network comes from; None: nothing more is known of the graphs.
        licence: of the weights, as whoever publishes them says it.
        version: of the model, as whoever publishes it counts.
        heatmap_threshold: see `check_threshold`.

    Raises:
        UsageError: `to` holds something else, or the threshold is no probability.
        SpiculaError: the files cannot be written, or are no valid bundle.
    """
    check_threshold(heatmap_threshold)
    known = networks or {role: Network(architecture="graph", source=None, parity=None) for role in weights}
    content: dict[str, Any] = {
        "format": layout.FORMAT,
        "kind": SCREENING,
        "name": name,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "spicula": __version__,
        "notice": RESEARCH_NOTICE,
        "settings": settings.model_dump(mode="json"),
        "classes": {"patch": list(layout.PATCH_CLASSES), "exam": list(layout.EXAM_CLASSES)},
        "heatmap_threshold": heatmap_threshold,
        "licence": licence or "not stated",
        "networks": {role: known[role] for role in layout.ROLES if role in known},
    }

    def fill(folder: Path) -> None:
        for graph, data in graphs.items():
            files.write_bytes(folder / f"{graph}{GRAPH}", data)
        for role, data in weights.items():
            files.write_bytes(folder / layout.weights_of(role), data)
        listed = {path.name: record(path) for path in sorted(folder.iterdir())}
        files.write_text(folder / CARD, model_card.render(cast("Info", {**content, "files": listed})))
        listed[CARD] = record(folder / CARD)
        files.write_text(folder / INFO, seal({**content, "files": listed}))
        verified = load(folder).graphs  # nothing of a graph is run before
        recorded = golden.record(verified, settings)
        files.write_text(folder / INFO, seal({**content, "golden": recorded, "files": listed}))
        load(folder)

    return load(write_folder(to, NAMES, fill))


def check_free(to: Path) -> None:
    """Check that a screening bundle may be put at `to`, before long work is done for it.

    Raises:
        UsageError: there is something that is no screening bundle.
    """
    check_target(to, NAMES)


def check_threshold(value: float | None) -> None:
    """Check the probability from which a heatmap's segmentation counts a pixel.

    Raises:
        UsageError: it is not above 0 and at most 1.
    """
    if value is not None and not 0 < value <= 1:
        raise UsageError(f"the heatmap threshold {value:g} is no probability; give one above 0 and at most 1")
