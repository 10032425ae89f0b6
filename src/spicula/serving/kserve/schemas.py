"""The protocol's JSON, for the OpenAPI document and for what the service says of itself and its models."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spicula.serving.kserve import HEADER_LENGTH
from spicula.serving.kserve.datatypes import DTYPES
from spicula.serving.kserve.tensors import MAX_NAME, MAX_RANK

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
assert set(Datatype.__args__) == set(DTYPES)  # type: ignore[attr-defined]

Parameters = dict[str, str | float | bool]


class Server(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The server lives."""

    live: bool


class Ready(BaseModel):
    """The server takes requests."""

    ready: bool


class ModelReady(BaseModel):
    """A model takes requests."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """An input or an output; a dimension of -1 has any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class Model(BaseModel):
    """What a model takes and gives. Its parameters: digest, notice, target, and classes in their order."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: Parameters


class TensorJson(BaseModel):
    """A tensor: its data as JSON, or parameters.binary_data_size bytes behind the JSON."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(max_length=MAX_NAME)
    datatype: Datatype
    shape: list[int] = Field(max_length=MAX_RANK)
    data: list[Any] | None = None
    parameters: Parameters | None = None


class OutputWanted(BaseModel):
    """An output that is asked for; parameters.binary_data: as raw bytes."""

    name: str = Field(max_length=MAX_NAME)
    parameters: Parameters | None = None


class InferenceRequest(BaseModel):
    """Tensors for a model."""

    id: str | None = Field(None, max_length=MAX_NAME)
    parameters: Parameters | None = None
    inputs: list[TensorJson] = Field(min_length=1)
    outputs: list[OutputWanted] | None = None


class InferenceAnswer(BaseModel):
    """What a model says. Its parameters are digest, notice and time."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters
    outputs: list[TensorJson]


def _whole(model: type[BaseModel]) -> Any:
    """Return a model's JSON schema with everything that it refers to in its place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix("#/$defs/")
            return put(parts[name]) if name else {key: put(one) for key, one in value.items()}
        return [put(one) for one in value] if isinstance(value, list) else value

    return put(schema)


#: The body of a request in the OpenAPI document: the route reads it itself.
REQUEST_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER_LENGTH,
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 0},
            "description": "bytes of JSON at the beginning of the body, before raw tensors",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _whole(InferenceRequest)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
ANSWER_BODY: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferenceAnswer,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
