"""The files of a screening bundle, and the content of its `bundle.json`. `bundle.sealed` has the checks."""

from collections.abc import Collection
from typing import Any, Final, Literal, NotRequired

from typing_extensions import TypedDict

from spicula.bundle.sealed import CARD, GRAPH, INFO, FileRecord, closed

FORMAT: Final = 2
#: The networks, by role. A bundle has at least one of the classifiers; one that reads heatmaps needs the patch network.
PATCH, IMAGE_ONLY, IMAGE_AND_HEATMAPS = "patch", "image-only", "image-and-heatmaps"
CLASSIFIERS = (IMAGE_ONLY, IMAGE_AND_HEATMAPS)
ROLES = (PATCH, *CLASSIFIERS)
#: A classifier has a graph for each of the two angles in which breasts are imaged.
ANGLES = ("cc", "mlo")

#: Channels of the images that a network sees.
CHANNELS = {PATCH: 1, IMAGE_ONLY: 1, IMAGE_AND_HEATMAPS: 3}
#: Columns of the patch network's output. What the last two mean does not matter to any stage.
PATCH_CLASSES = ("malignant", "benign", "other", "other")
#: Columns of a classifier's output.
EXAM_CLASSES = ("left_benign", "right_benign", "left_malignant", "right_malignant")

#: Names of the graphs' inputs and outputs.
PATCHES, LEFT, RIGHT, PROBABILITIES = "patches", "left", "right", "probabilities"

#: What computes a network: the two published architectures, or a graph of which nothing more is known.
Architecture = Literal["densenet121", "view-wise-resnet22", "graph"]


@closed
class Parity(TypedDict):
    """How closely a network's graphs repeat the published form, run by torch, on generated inputs."""

    inputs: int
    sizes: list[str]  # "graph: inputs x height x width", of every graph and size
    max_abs_difference: float  # of probabilities
    tolerance: float
    decisions_differ: int  # a bundle has 0
    reference: str  # what the published form ran on
    onnxruntime: str
    opset: int


@closed
class Network(TypedDict):
    """One network, and where it comes from."""

    architecture: Architecture
    source: FileRecord | None  # the published weight file
    parity: Parity | None  # null where there is no other form of the network to compare with


@closed
class Golden(TypedDict):
    """What the graphs answer to inputs that are made by a formula."""

    inputs: str  # which formula
    probabilities: dict[str, list[list[float]]]  # by graph: rows of its output
    tolerance: float  # largest difference of a probability, in float32


@closed
class Info(TypedDict):
    """The content of a screening bundle's `bundle.json`.

    What is not required came with a later version of spicula: older bundles go without.
    """

    format: Literal[2]
    kind: Literal["screening"]
    name: str
    version: str  # of the model, given by whoever made the bundle
    created: str  # UTC, ISO 8601
    spicula: str  # version of the package that made it
    notice: str
    settings: dict[str, Any]  # ScreeningSettings
    classes: dict[str, list[str]]  # "patch" and "exam": what the columns of the outputs mean
    heatmap_threshold: float | None  # where a heatmap is at least this, its segmentation says malignant or benign
    licence: str  # of the weights
    networks: dict[str, Network]  # by role
    golden: NotRequired[Golden]
    files: dict[str, FileRecord]
    digest: str


def graphs_of(role: str) -> tuple[str, ...]:
    """Return the names of a network's graphs: one for patches, one for each angle of a classifier."""
    return (PATCH,) if role == PATCH else tuple(f"{role}.{angle}" for angle in ANGLES)


def role_of(graph: str) -> str:
    """Return the role of the network that a graph belongs to."""
    return graph.partition(".")[0]


def files_of(role: str) -> tuple[str, ...]:
    """Return the names of a network's files: its graphs, and its weights."""
    return (*(f"{graph}{GRAPH}" for graph in graphs_of(role)), weights_of(role))


def weights_of(role: str) -> str:
    """Return the name of the file with a network's weights."""
    return f"{role}.safetensors"


def names_of(roles: Collection[str]) -> tuple[str, ...]:
    """Return the names of all files of a bundle that holds these networks."""
    return (INFO, *(name for role in ROLES if role in roles for name in files_of(role)), CARD)
