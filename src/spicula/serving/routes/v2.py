"""The Open Inference Protocol (KServe v2): what models there are, and their answers to tensors.

A tensor is what a bundle's graph takes: the prepared image, so a client prepares it as `spicula.imaging` does. Images
as they come from a camera or an archive belong to /v1/predict.
"""

import asyncio
import hashlib
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from spicula import RESEARCH_NOTICE, __version__
from spicula.bundle.explanation import EVIDENCE
from spicula.bundle.format import Explanation, Tensor
from spicula.serving.kserve import BINARY_EXTENSION, HEADER_LENGTH, bodies, messages, schemas
from spicula.serving.problems import Problem
from spicula.serving.service import Explaining, Served, Service

#: The bundle holds an ONNX graph, whatever runs it (the protocol's list of platforms calls it so).
PLATFORM = "onnx_onnxv1"
#: Bytes of JSON that are read within the event loop: at most a few ms.
_AT_ONCE = 2**16


def router(service: Service) -> APIRouter:
    """Return the routes of the protocol."""
    routes = APIRouter(prefix="/v2", tags=["kserve v2"])

    @routes.get("")
    async def server() -> schemas.Server:
        """What this server is, and the extensions that it has."""
        return schemas.Server(name="spicula", version=__version__, extensions=[BINARY_EXTENSION])

    @routes.get("/health/live")
    async def live() -> schemas.Live:
        """Whether the process lives."""
        return schemas.Live(live=True)

    @routes.get("/health/ready")
    async def ready() -> schemas.Ready:
        """Whether every model has passed its self-test, and the server is not being shut down."""
        _check_ready(service)
        return schemas.Ready(ready=True)

    @routes.get("/models/{model}")
    async def model(model: str) -> schemas.Model:
        """What a model takes and gives."""
        return _metadata(_served(service, model))

    @routes.get("/models/{model}/versions/{version}")
    async def model_version(model: str, version: str) -> schemas.Model:
        """What a version of a model takes and gives."""
        return _metadata(_served(service, model, version))

    @routes.get("/models/{model}/ready")
    async def model_ready(model: str) -> schemas.ModelReady:
        """Whether a model takes requests."""
        return schemas.ModelReady(name=_ready_name(service, model), ready=True)

    @routes.get("/models/{model}/versions/{version}/ready")
    async def model_version_ready(model: str, version: str) -> schemas.ModelReady:
        """Whether a version of a model takes requests."""
        return schemas.ModelReady(name=_ready_name(service, model, version), ready=True)

    @routes.post("/models/{model}/infer", responses=schemas.ANSWER_BODY, openapi_extra=schemas.REQUEST_BODY)
    async def infer(request: Request, model: str) -> Response:
        """What a model says of tensors."""
        return await _infer(service, request, _served(service, model))

    @routes.post(
        "/models/{model}/versions/{version}/infer", responses=schemas.ANSWER_BODY, openapi_extra=schemas.REQUEST_BODY
    )
    async def infer_version(request: Request, model: str, version: str) -> Response:
        """What a version of a model says of tensors."""
        return await _infer(service, request, _served(service, model, version))

    return routes


async def _infer(service: Service, request: Request, served: Served) -> Response:
    served.inference.refuse_if_full()  # nobody waits until an image is here that is refused then
    length = bodies.length_of(request.headers.get(HEADER_LENGTH))
    body = await bodies.read(request.stream(), length, service.limits)
    if (len(body) if length is None else length) <= _AT_ONCE:
        asked, inputs = _read(served, body, length, service)
    else:
        asked, inputs = await asyncio.to_thread(_read, served, body, length, service)
    scores, evidence = await _ask(served, asked, inputs)
    answer = _answer(served, asked, scores, evidence)
    if service.settings.audit is not None:
        digest = await asyncio.to_thread(lambda: hashlib.sha256(inputs.data).hexdigest())
        told = {"inputs": [digest], "model": served.about(), "answer": {"scores": scores.tolist()}}
        service.audit.write(request, "infer", **told)
    service.metrics.count("images", len(inputs), model=served.bundle.name, outcome="answered")
    return Response(answer.body, headers=answer.headers)


async def _ask(
    served: Served, asked: messages.Request, inputs: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32] | None]:
    """Return the probabilities, and the map of what spoke for the target where it is asked for, or no output is."""
    if served.unexplained is None and (not asked.outputs or any(one.name == EVIDENCE for one in asked.outputs)):
        assert isinstance(served.inference, Explaining)
        return await served.inference.explained(inputs)
    return await served.inference.scores(inputs), None


def _check_ready(service: Service) -> None:
    if service.is_draining:
        raise Problem(503, "draining", "the service is being shut down", {"Retry-After": "5"})
    _check_started(service)


def _check_started(service: Service) -> None:
    if not service.is_ready and not service.is_draining:
        raise Problem(503, "starting", "models are loading; try again shortly", {"Retry-After": "1"})


def _ready_name(service: Service, model: str, version: str | None = None) -> str:
    _check_ready(service)
    return _served(service, model, version).bundle.name


def _served(service: Service, model: str, version: str | None = None) -> Served:
    """Return a model by what the address says, also while the service answers the last requests before its end."""
    _check_started(service)
    found = service.models.get(model)
    if found is None:
        there = f"there are {', '.join(service.models)}" if service.models else "there is none"
        raise Problem(404, "model", f"no model of this name takes tensors; {there}")
    if version is not None and version != found.bundle.info["version"]:
        raise Problem(404, "version", f"{found.bundle.name} is here in version {found.bundle.info['version']} alone")
    return found


def _metadata(served: Served) -> schemas.Model:
    info = served.bundle.info

    def tensor(name: str, shape: list[int | str]) -> schemas.TensorMetadata:
        sizes = [one if isinstance(one, int) else -1 for one in shape]
        return schemas.TensorMetadata(name=name, datatype="FP32", shape=sizes)

    return schemas.Model(
        name=info["name"],
        versions=[info["version"]],
        platform=PLATFORM,
        inputs=[tensor(info["input"]["name"], info["input"]["shape"])],
        outputs=[tensor(one["name"], one["shape"]) for one in _outputs(served)],
        parameters={
            "digest": served.bundle.digest,
            "notice": RESEARCH_NOTICE,
            "target": info["target"],
            "classes": ",".join(info["classes"]),
        },
    )


def _outputs(served: Served) -> list[Tensor | Explanation]:
    """Return the outputs of a model, the probabilities first."""
    info = served.bundle.info
    explanation = info.get("explanation") if served.unexplained is None else None
    return [info["output"], *([explanation] if explanation else [])]


def _read(
    served: Served, body: memoryview, length: int | None, service: Service
) -> tuple[messages.Request, npt.NDArray[np.float32]]:
    """Return a request, and its tensor: one that the model takes."""
    asked = messages.read_request(body, length, service.limits)
    wanted, outputs = served.bundle.info["input"], [one["name"] for one in _outputs(served)]
    if len(asked.inputs) != 1 or asked.inputs[0].name != wanted["name"]:
        raise Problem(400, "tensor", f"inputs is the one tensor that the model takes: {wanted['name']}")
    if any(one.name not in outputs for one in asked.outputs):
        raise Problem(400, "tensor", f"outputs names one that the model does not have; it has {', '.join(outputs)}")
    (tensor,) = asked.inputs
    sizes = tuple(wanted["shape"][1:])
    if tensor.datatype != "FP32" or tensor.shape[1:] != sizes or not tensor.shape or tensor.shape[0] < 1:
        takes = f"FP32 of [-1, {', '.join(map(str, sizes))}], of at least one"
        raise Problem(400, "shape", f"inputs[0] is not what the model takes: {takes}")
    if tensor.shape[0] > (most := service.limits["queue"]):
        raise Problem(413, "queue", f"inputs[0] has more than {most} images, as many as may wait; send fewer at a time")
    array: npt.NDArray[np.float32] = np.require(tensor.array(), np.float32, ["C", "A"])
    if not np.isfinite(array).all():
        raise Problem(400, "value", "inputs[0] has a value that is not finite")
    return asked, array


def _answer(
    served: Served,
    asked: messages.Request,
    scores: npt.NDArray[np.float64],
    evidence: npt.NDArray[np.float32] | None,
) -> messages.Message:
    found = {served.bundle.info["output"]["name"]: scores.astype(np.float32)}
    if evidence is not None:
        found[EVIDENCE] = evidence
    if not all(np.isfinite(array).all() for array in found.values()):
        raise Problem(422, "value", "the model has no finite answer to these values; it takes images from 0 to 1")
    wanted = [one.name for one in asked.outputs] or list(found)
    return messages.write_answer(
        served.bundle.name,
        served.bundle.info["version"],
        {name: ("FP32", found[name], asked.wants_raw(name)) for name in wanted},
        id=asked.id,
        parameters={
            "digest": served.bundle.digest,
            "notice": RESEARCH_NOTICE,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        },
    )
