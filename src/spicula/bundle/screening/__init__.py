"""The bundle of a four-view screening classifier: its networks, its numbers, and where they come from.

A sibling of a study's bundle (`spicula.bundle`): a folder whose every byte is verified when it is loaded. It holds a
patch classifier, which makes heatmaps, and one or two view-wise classifiers, which score the breasts of an exam.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from spicula import files
from spicula.bundle import sealed
from spicula.bundle.screening import format as layout
from spicula.bundle.screening.format import Info
from spicula.bundle.screening.settings import ScreeningSettings
from spicula.errors import SpiculaError

__all__ = ["ScreeningBundle", "ScreeningSettings", "load"]


@dataclass(frozen=True)
class ScreeningBundle:
    """A verified four-view classifier.

    Attributes:
        folder: where it was read.
        info: the content of `bundle.json`.
        settings: the numbers that the stages are told.
        graphs: the bytes of the ONNX files that were verified, by name: "patch" maps float32 `patches` (N, 1, P, P) to
            `probabilities` (N, 4), a softmax over malignant, benign and two further classes. "image-only.cc",
            "image-only.mlo", "image-and-heatmaps.cc" and "image-and-heatmaps.mlo" map `left` and `right`, both
            (N, C, H, W), to `probabilities` (N, 4) of left_benign, right_benign, left_malignant, right_malignant,
            each in [0, 1]; C is 1, or 3 for image, benign and malignant heatmap.
    """

    folder: Path
    info: Info
    settings: ScreeningSettings
    graphs: dict[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """The model's name, as whoever made the bundle called it."""
        return self.info["name"]

    @property
    def digest(self) -> str:
        """What identifies the bundle: SHA-256 over `bundle.json`, which lists the digest of every other file."""
        return self.info["digest"]

    @property
    def heatmap_threshold(self) -> float | None:
        """Probability from which a heatmap's segmentation counts a pixel, or None."""
        return self.info["heatmap_threshold"]

    def roles(self) -> tuple[str, ...]:
        """Return the networks that are there: "patch", "image-only", "image-and-heatmaps"."""
        return tuple(role for role in layout.ROLES if role in self.info["networks"])

    def classifiers(self) -> tuple[str, ...]:
        """Return the classifiers that are there: "image-only", "image-and-heatmaps"."""
        return tuple(role for role in self.roles() if role in layout.CLASSIFIERS)

    def reads_heatmaps(self, classifier: str) -> bool:
        """Tell whether a classifier reads heatmaps besides the images."""
        return classifier == layout.IMAGE_AND_HEATMAPS

    def digest_of(self, role: str) -> str:
        """Return the SHA-256 of all that determines a network's answers: its graphs, its weights, its input sizes.

        It does not hang on when, from which file or under which name the network was put into a bundle, nor on the
        other networks there.

        Args:
            role: "patch", "image-only" or "image-and-heatmaps".
        """
        sizes = {"patch": self.settings.patch} if role == layout.PATCH else {a: self.size_of(a) for a in layout.ANGLES}
        listed = {name: self.info["files"][name]["sha256"] for name in layout.files_of(role)}
        return files.sha256_json({"role": role, "sizes": sizes, "files": listed})

    def size_of(self, graph: str) -> tuple[int, int]:
        """Return height and width in pixels of what a graph sees; of a classifier its angle alone will do ("cc")."""
        if graph == layout.PATCH:
            return self.settings.patch, self.settings.patch
        return self.settings.cc if graph.endswith("cc") else self.settings.mlo

    def weights(self, role: str) -> bytes:
        """Return the bytes of a network's safetensors file, verified again.

        Raises:
            SpiculaError: the file cannot be read, or is another than when the bundle was loaded.
        """
        return sealed.read_verified(self.folder, layout.weights_of(role), self.info["files"])


def load(folder: Path) -> ScreeningBundle:
    """Read a screening bundle and verify all of it.

    Raises:
        UsageError: there is no bundle at `folder`, or it is a study's.
        SpiculaError: a file is changed, missing or too many, or a graph refers to files outside the bundle.
    """
    folder = Path(folder)
    content = sealed.read_content(folder, sealed.SCREENING)
    networks = content.get("networks")
    names = layout.names_of(networks if isinstance(networks, dict) else ())
    sealed.check_names(folder, names)
    info = sealed.described(folder, content, TypeAdapter(Info), layout.FORMAT, names)
    try:
        settings = ScreeningSettings.model_validate(info["settings"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SpiculaError(f"bundle refused: {folder / sealed.INFO}: settings.{where}: {first['msg']}") from None
    _check_roles(folder, set(info["networks"]))
    _check_golden(folder, info)
    files_ = sealed.read_graphs(folder, info["files"])
    return ScreeningBundle(folder, info, settings, {name.removesuffix(sealed.GRAPH): files_[name] for name in files_})


def _check_golden(folder: Path, info: Info) -> None:
    graphs = {graph for role in info["networks"] for graph in layout.graphs_of(role)}
    if "golden" in info and set(info["golden"]["probabilities"]) != graphs:
        raise SpiculaError(f"bundle refused: {folder / sealed.INFO} has golden answers of other graphs than its own")


def _check_roles(folder: Path, roles: set[str]) -> None:
    unknown = sorted(roles - set(layout.ROLES))
    if unknown:
        raise SpiculaError(f"bundle refused: {folder / sealed.INFO} lists the network {unknown[0]!r}, which is unknown")
    if not roles & set(layout.CLASSIFIERS):
        raise SpiculaError(f"bundle refused: {folder / sealed.INFO} lists no classifier")
    if layout.IMAGE_AND_HEATMAPS in roles and layout.PATCH not in roles:
        raise SpiculaError(f"bundle refused: {folder / sealed.INFO} lists no patch network to make heatmaps with")
