"""What a bundle's files are, and the checks that refuse a bundle in which one bit differs.

`bundle.json` lists every other file with its SHA-256, and carries a digest of itself: the SHA-256 of its content as
canonical JSON without that key. Because it must also be written exactly as `render` writes it, a changed space is
noticed as well. The digests guard against damage and mix-ups; they are no signature, and say nothing of who made it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from spicula import files
from spicula.errors import SpiculaError, UsageError

FORMAT: Final = 1
INFO = "bundle.json"
MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
CARD = "MODEL_CARD.md"
#: Every bundle has exactly these files.
NAMES = (INFO, MODEL, WEIGHTS, CARD)

_closed = with_config(ConfigDict(extra="forbid", strict=True))


@_closed
class Scope(TypedDict):
    """What the model may be asked about. An empty list, or null, means that the training data did not tell."""

    modalities: list[str]  # DICOM PS3.3 C.7.3.1.1.1, of the training images
    presentation_intents: list[str]  # DICOM PS3.3 C.8.11.7.1.1 (0008,0068), of the training images
    colour: bool | None  # the training images were colour (true) or grey (false)
    statement: str


@_closed
class Tensor(TypedDict):
    """A graph's input or output. The first dimension is the batch, of any length."""

    name: str
    dtype: Literal["float32"]
    shape: list[int | str]
    meaning: str


@_closed
class Preprocessing(TypedDict):
    """The `Preprocess` value, and its digest."""

    digest: str
    settings: dict[str, Any]


@_closed
class Features(TypedDict):
    """Of the linear line: which features, and which version of the code computes them."""

    version: int
    settings: dict[str, Any]


@_closed
class OperatingPoint(TypedDict):
    """A threshold on the score, chosen on validation images alone: the class is there when score >= threshold."""

    threshold: float
    chosen_on: Literal["val"]
    val: dict[str, float | None]  # sensitivity, specificity, ...: point values of this run
    test: dict[str, float | None]


@_closed
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


@_closed
class Data(TypedDict):
    """The dataset, and on what terms it may be used."""

    dataset: str
    synthetic: bool  # images that no camera took
    title: str
    source: str | None
    terms: str
    citation: str | None


@_closed
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


@_closed
class FileRecord(TypedDict):
    """One file of the bundle."""

    sha256: str
    bytes: int


@_closed
class Info(TypedDict):
    """The content of `bundle.json`."""

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
    preprocessing: Preprocessing
    features: Features | None  # of the linear line
    operating_points: dict[str, OperatingPoint]
    training: Training
    data: Data
    licence: str  # of the weights
    parity: Parity
    files: dict[str, FileRecord]
    digest: str


def seal(content: Mapping[str, Any]) -> str:
    """Return `bundle.json` as text: `content` with its digest added."""
    bare = {key: value for key, value in content.items() if key != "digest"}
    return render({**bare, "digest": files.sha256_json(bare)})


def render(content: Mapping[str, Any]) -> str:
    """Return the one form in which `bundle.json` is written."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read(folder: Path) -> tuple[Info, bytes]:
    """Verify a bundle and return its description and its model's bytes, which are those that were verified.

    Raises:
        UsageError: there is no bundle at `folder`.
        SpiculaError: a file is changed, missing or too many, or the model refers to files outside the bundle.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"no bundle at {folder}; make one with: spicula bundle RUN --to {folder}")
    if not (folder / INFO).is_file():
        raise SpiculaError(f"{folder} is not a bundle: it has no {INFO}")
    _check_names(folder)
    info = _read_info(folder / INFO)
    model = _read_bytes(folder / MODEL)
    for name, record in info["files"].items():
        digest = hashlib.sha256(model).hexdigest() if name == MODEL else _digest(folder / name)
        if digest != record["sha256"]:
            raise SpiculaError(f"bundle refused: {folder / name} is not the file that {INFO} lists; export it again")
    if refers_outside(model):
        raise SpiculaError(f"bundle refused: {folder / MODEL} refers to data outside the file; export it as one file")
    return info, model


def _check_names(folder: Path) -> None:
    found = {path.name for path in folder.iterdir()}
    for name in sorted(found - set(NAMES)):
        raise SpiculaError(f"bundle refused: {folder / name} does not belong to a bundle; remove it")
    for name in NAMES:
        path = folder / name
        if name not in found:
            raise SpiculaError(f"bundle refused: {path} is missing; export it again")
        if path.is_symlink() or not path.is_file():
            raise SpiculaError(f"bundle refused: {path} is not a plain file; copy the file itself")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpiculaError(f"cannot read {path}: {error.strerror}") from error


def _digest(path: Path) -> str:
    try:
        return files.sha256_file(path)
    except OSError as error:
        raise SpiculaError(f"cannot read {path}: {error.strerror}") from error


def _read_info(path: Path) -> Info:
    changed = SpiculaError(f"bundle refused: {path} does not match its own digest; export it again")
    data = _read_bytes(path)
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or seal(content).encode() != data:
            raise changed
    except (ValueError, RecursionError):  # not UTF-8, not JSON, NaN, nested without end
        raise changed from None
    if content.get("format") != FORMAT:
        raise SpiculaError(
            f"bundle refused: {path} has format {content.get('format')!r}, this version of spicula reads {FORMAT}"
        )
    try:
        info = TypeAdapter(Info).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SpiculaError(f"bundle refused: {path}: {where}: {first['msg']}") from None
    if set(info["files"]) != set(NAMES) - {INFO}:
        raise SpiculaError(f"bundle refused: {path} lists the files {', '.join(sorted(info['files']))}")
    return info


# The ways from a ModelProto to every TensorProto, as message -> field number -> message (onnx.proto). A walk over them
# finds external data without the onnx package, which the core install does not have.
ONNX_FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of TensorProto


def refers_outside(model: bytes) -> bool:
    """Tell whether any tensor of an ONNX model keeps its data in another file (or at a memory address).

    Raises:
        SpiculaError: the bytes are not an ONNX model.
    """
    stack = [("ModelProto", memoryview(model))]
    try:
        while stack:
            message, data = stack.pop()
            for number, value in _fields(data):
                if message == "TensorProto":
                    if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                        return True
                elif number in ONNX_FIELDS[message]:
                    if not isinstance(value, memoryview):
                        raise ValueError
                    stack.append((ONNX_FIELDS[message][number], value))
    except (ValueError, IndexError):
        raise SpiculaError(f"bundle refused: {MODEL} is not an ONNX model") from None
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield a protobuf message's field numbers and values: bytes of length-delimited fields, integers of varints."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        else:
            length = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                length, at = _varint(data, at)
            if length is None or at + length > len(data):
                raise ValueError
            yield number, data[at : at + length]
            at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError
