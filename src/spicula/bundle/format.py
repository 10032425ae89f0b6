"""The files of a study's bundle, and the content of its `bundle.json`. `bundle.sealed` has the checks."""

from pathlib import Path
from typing import Any, Final, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from spicula.bundle import sealed
from spicula.bundle.sealed import CARD, INFO, FileRecord, closed

FORMAT: Final = 1
MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
#: A study's bundle has exactly these files.
NAMES = (INFO, MODEL, WEIGHTS, CARD)


@closed
class Scope(TypedDict):
    """What the model may be asked about. An empty list, or null, means that the training data did not tell."""

    modalities: list[str]  # DICOM PS3.3 C.7.3.1.1.1, of the training images
    presentation_intents: list[str]  # DICOM PS3.3 C.8.11.7.1.1 (0008,0068), of the training images
    colour: bool | None  # the training images were colour (true) or grey (false)
    statement: str


@closed
class Tensor(TypedDict):
    """A graph's input or output. The first dimension is the batch, of any length."""

    name: str
    dtype: Literal["float32"]
    shape: list[int | str]
    meaning: str


@closed
class Preprocessing(TypedDict):
    """The `Preprocess` value, and its digest."""

    digest: str
    settings: dict[str, Any]


@closed
class Features(TypedDict):
    """Of the linear line: which features, and which version of the code computes them."""

    version: int
    settings: dict[str, Any]


@closed
class OperatingPoint(TypedDict):
    """A threshold on the score, chosen on validation images alone: the class is there when score >= threshold."""

    threshold: float
    chosen_on: Literal["val"]
    val: dict[str, float | None]  # sensitivity, specificity, ...: point values of this run
    test: dict[str, float | None]


@closed
class Training(TypedDict):
    """Where the weights come from."""

    run_key: str
    weights_digest: str  # SHA-256 that the run's own predictions carry
    index_digest: str
    split_digest: str
    seed: int
    fold: int | None
    settings: dict[str, Any]
    counts: dict[str, dict[str, int]]  # train, val, test -> images, patients, positive
    versions: dict[str, str]


@closed
class Data(TypedDict):
    """The dataset, and on what terms it may be used."""

    dataset: str
    synthetic: bool  # images that no camera took
    title: str
    source: str | None
    terms: str
    citation: str | None


@closed
class Parity(TypedDict):
    """How closely the graph repeats the trained model on real images."""

    images: int
    splits: dict[str, int]  # how many of them come from test (first), val and train
    max_abs_difference: float  # of probabilities, graph against the trained model
    max_abs_difference_to_run: float | None  # graph against the predictions that the run stored
    tolerance: float
    decisions_differ: int  # images that an operating point decides otherwise; a bundle has 0
    reference: str  # what the trained model ran on
    onnxruntime: str
    opset: int


@closed
class Golden(TypedDict):
    """What the graph answers to inputs that are made by a formula."""

    images: str  # which formula
    probabilities: list[list[float]]  # for each image, in the order of the classes
    tolerance: float  # largest difference of a probability, in float32


@closed
class Explanation(TypedDict):
    """The graph's second output: `bundle.explanation` turns it into Grad-CAM's heatmap."""

    name: str
    dtype: Literal["float32"]
    shape: list[int | str]
    meaning: str
    images: int  # real ones, on which the heatmaps were compared with torch's
    max_abs_difference: float  # of a heatmap's value, which are 0 to 1


@closed
class Info(TypedDict):
    """The content of a study's `bundle.json`.

    What is not required came with a later version of spicula: older bundles go without.
    """

    format: Literal[1]
    name: str
    version: str  # of the model, given by whoever made the bundle
    line: str
    created: str  # UTC, ISO 8601
    spicula: str  # version of the package that made it
    notice: str
    classes: list[str]
    target: str  # the class that scores are probabilities of
    scope: Scope
    input: Tensor
    output: Tensor
    explanation: NotRequired[Explanation | None]  # null: the network has no map of features
    preprocessing: Preprocessing
    features: Features | None  # of the linear line
    operating_points: dict[str, OperatingPoint]
    training: Training
    data: Data
    licence: str  # of the weights
    parity: Parity
    golden: NotRequired[Golden]
    files: dict[str, FileRecord]
    digest: str


def read(folder: Path) -> tuple[Info, bytes]:
    """Verify a study's bundle and return its description and its model's bytes, which are those that were verified.

    Raises:
        UsageError: there is no bundle at `folder`, or one of another kind.
        SpiculaError: a file is changed, missing or too many, or the model refers to files outside the bundle.
    """
    folder = Path(folder)
    content = sealed.read_content(folder, sealed.STUDY)
    sealed.check_names(folder, NAMES)
    info = sealed.described(folder, content, TypeAdapter(Info), FORMAT, NAMES)
    return info, sealed.read_graphs(folder, info["files"])[MODEL]
