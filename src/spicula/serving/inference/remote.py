"""A model on another server that speaks KServe v2: Triton, MLServer, KServe, another spicula.

This process prepares images and answers clients; the tensors go to the other server. It is asked at start whether its
model is the bundle's: the same names, datatypes and shapes, and the same answer to the same images.
"""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spicula.bundle import BATCH
from spicula.errors import SpiculaError, UsageError
from spicula.serving import json_text
from spicula.serving.inference import remote_address, remote_model
from spicula.serving.inference.remote_address import TOKEN, Address
from spicula.serving.kserve import BINARY_EXTENSION, HEADER_LENGTH, bodies, messages
from spicula.serving.metrics import Metrics
from spicula.serving.problems import Problem, beyond

if TYPE_CHECKING:
    import httpx

    from spicula.bundle import Bundle
    from spicula.serving.service import Service

Floats = npt.NDArray[np.float32]

#: Connections to the other server. Each carries one request at a time; more wait here.
CONNECTIONS = 32
_CONNECT_SECONDS, _KEEP_SECONDS = 5.0, 30.0
#: Bytes of an answer about one image beyond its numbers, which have up to 32 each in JSON.
_ANSWER_BYTES = 2**16

_log = logging.getLogger("spicula.serving")


async def connect(service: "Service", bundle: "Bundle") -> "Remote":
    """Return the inference of a bundle's model by a server elsewhere, once it is ready and seems to be that model.

    Args:
        service: its settings have the address; its limit answer-seconds says how long the server is waited for.
        bundle: whose model the server has. Where it records no golden answers, its own graph is asked for them here;
            else whoever tests models compares them.

    Raises:
        UsageError: the address is none, or httpx is missing.
        SpiculaError: the server does not come, or its model is not the bundle's.
    """
    assert service.settings.backend is not None
    remote = Remote(remote_address.parse(service.settings.backend), bundle, service.limits, service.metrics)
    try:
        await remote.start(bundle)
    except BaseException:
        await remote.close()
        raise
    return remote


class Remote:
    """Asks another server for scores. It keeps no line of its own: it counts what is under way, and refuses more.

    Args:
        address: of the model.
        bundle: whose model it is.
        limits: those of the service.
        metrics: take the time of each batch.

    Attributes:
        waiting: images that the server was sent and has not answered.
        is_raw: tensors travel as raw bytes, since the server has the binary extension.
        batch: images in one request.
        unexplained: why the server's answers have no heatmaps; None where they have.
    """

    def __init__(self, address: Address, bundle: "Bundle", limits: Mapping[str, int], metrics: Metrics) -> None:
        self.waiting, self.is_raw, self.batch = 0, False, BATCH
        self.unexplained: str | None = "its bundle has no map of what spoke for a class"
        self._address, self._bundle, self._limits, self._metrics = address, replace(bundle, model=b""), limits, metrics
        self._outputs = remote_model.outputs_of(bundle.info)
        self._most = _ANSWER_BYTES + 32 * sum(math.prod(shape) for shape in self._outputs.values())
        self._client = _client(address, limits["answer-seconds"])

    async def start(self, bundle: "Bundle") -> None:
        """Wait for the server, and see that its model is the bundle's, which is given with its graph; see `connect`."""
        await self._wait()
        server = await self._get("/v2")
        extensions = server.get("extensions") if server else None
        self.is_raw = isinstance(extensions, list) and BINARY_EXTENSION in extensions
        told = await self._get(self._address.model)
        if told is None:
            raise SpiculaError(f"--backend {self._address.text}: the server says nothing of its model")
        most = remote_model.check(told, self._bundle, self._address.text)
        # Triton alone tells how many it takes at once
        config = await self._get(f"{self._address.model}/config") or {}
        self.batch = min(BATCH, most, remote_model.batch_of(config))
        if "golden" not in self._bundle.info:
            await remote_model.compare(self, bundle, self._address.text)
        if bundle.info.get("explanation"):
            self.unexplained = await remote_model.why_unexplained(told, self, bundle)

    def refuse_if_full(self) -> None:
        """Raise what `scores` would raise if an image came now; see `service.Inference`."""
        if self.waiting >= (most := self._limits["queue"]):
            raise beyond("queue", most, "{value} images wait already; try again shortly")

    async def scores(self, inputs: Floats) -> npt.NDArray[np.float64]:
        """Return what the remote model says; see `service.Inference`."""
        (probabilities,) = await self._ask_all(inputs, list(self._outputs)[:1])
        return np.clip(probabilities, 0.0, 1.0)

    async def explained(self, inputs: Floats) -> tuple[npt.NDArray[np.float64], Floats]:
        """Return probabilities and evidence; see `service.Explaining`. To be asked only where `unexplained` is None."""
        probabilities, evidence = await self._ask_all(inputs, list(self._outputs))
        return np.clip(probabilities, 0.0, 1.0), evidence.astype(np.float32)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask_all(self, inputs: Floats, names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
        """Return outputs of the model for any number of images, which are sent a batch at a time."""
        self.refuse_if_full()
        batches = [inputs[at : at + self.batch] for at in range(0, len(inputs), self.batch)]
        try:
            async with asyncio.timeout(self._limits["answer-seconds"]):
                parts = [await self._ask(batch, names) for batch in batches]
        except TimeoutError:
            seconds = self._limits["answer-seconds"]
            raise beyond("answer-seconds", seconds, "the model did not answer within {value} s") from None
        if not parts:
            return [np.empty((0, *self._outputs[name])) for name in names]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    async def _ask(self, inputs: Floats, names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
        """Return the answer to one batch."""
        begun = time.perf_counter()
        self.waiting += len(inputs)
        try:
            message = self._write(inputs, names) if self.is_raw else await asyncio.to_thread(self._write, inputs, names)
            found = self._read(*await self._again(message, len(inputs)), names, len(inputs))
        finally:
            self.waiting -= len(inputs)
        self._metrics.seconds("inference_seconds", time.perf_counter() - begun, model=self._bundle.name)
        return found

    def _write(self, inputs: Floats, names: Sequence[str]) -> messages.Message:
        try:
            return messages.write_request(
                {self._bundle.info["input"]["name"]: ("FP32", inputs)}, names, is_raw=self.is_raw
            )
        except ValueError:
            raise Problem(400, "value", "a value is not finite, which JSON cannot say") from None

    def _read(
        self, status: int, headers: Mapping[str, str], body: bytes, names: Sequence[str], count: int
    ) -> list[npt.NDArray[np.float64]]:
        if status in (429, 503):
            raise _busy(headers.get("Retry-After", ""))
        if status != 200:
            # it was sent tensors alone, so its words name no one
            _log.warning("the backend answered %d: %s", status, ascii(body[:300].decode(errors="replace")))
            raise _gone(f"the server that runs the model answered {status}")
        try:
            answer = messages.read_answer(body, bodies.length_of(headers.get(HEADER_LENGTH)), self._limits)
            return [remote_model.floats_of(answer, name, (count, *self._outputs[name])) for name in names]
        except Problem as problem:
            _log.warning("the backend's answer is not of KServe v2: %s", problem.detail)
            raise _gone("the answer of the server that runs the model cannot be read") from None

    async def _again(self, message: messages.Message, count: int) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; once more where the connection was lost, since a tensor may be asked about twice."""
        import httpx

        lost = (httpx.NetworkError, httpx.RemoteProtocolError)
        path, body = f"{self._address.model}/infer", message.body
        most = self._most * count  # some servers answer with all outputs, whichever were asked for
        try:
            try:
                return await self._send("POST", path, body, message.headers, most)
            except lost:
                return await self._send("POST", path, body, message.headers, most)
        except (*lost, httpx.ConnectTimeout):
            raise _gone("the server that runs the model cannot be reached") from None
        except httpx.TimeoutException:
            raise TimeoutError from None

    async def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], most: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        request = self._client.build_request(method, path, content=body, headers=dict(headers))
        response = await self._client.send(request, stream=True)
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise _gone("the server that runs the model compresses what nobody asked it to")
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > most:
                    raise _gone("the server that runs the model answers more than there is to say")
            return response.status_code, response.headers, bytes(answer)
        finally:
            await response.aclose()

    async def _get(self, path: str) -> dict[str, Any] | None:
        """Return what the server says of something; None where it says nothing."""
        import httpx

        try:
            status, _, answer = await self._send("GET", path, None, {}, 2**20)
            found = json_text.load(answer, self._limits, "json-bytes") if status == 200 else None
        except (httpx.HTTPError, Problem):
            return None
        return found if isinstance(found, dict) else None

    async def _wait(self) -> None:
        """Wait until the model is ready.

        Raises:
            SpiculaError: it is not within the limit answer-seconds, or a token is missing.
        """
        import httpx

        seconds = self._limits["answer-seconds"]
        end, said = time.monotonic() + seconds, ""
        while True:
            try:
                status, _, _ = await self._send("GET", f"{self._address.model}/ready", None, {}, 2**20)
                if status == 200:
                    return
                said = f"it answered {status}"
                if status in (401, 403):
                    raise SpiculaError(f"--backend {self._address.text}: {said}; set {TOKEN} to a token that it knows")
            except (httpx.HTTPError, Problem) as error:
                said = str(error) or type(error).__name__
            if time.monotonic() > end:
                raise SpiculaError(f"--backend {self._address.text}: no model is ready there after {seconds} s: {said}")
            await asyncio.sleep(0.25)


def _client(address: Address, seconds: float) -> "httpx.AsyncClient":
    try:
        import httpx
    except ImportError as error:
        raise UsageError("--backend needs httpx: pip install 'spicula[serve]'") from error
    return httpx.AsyncClient(
        base_url=address.server,
        headers=address.headers | {"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
        limits=httpx.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=_KEEP_SECONDS
        ),
        # of the system, or SSL_CERT_FILE; images go through no proxy that happens to be in the environment
        verify=ssl.create_default_context(),
        trust_env=False,
    )


def _busy(after: str) -> Problem:
    seconds = after if after.isascii() and after.isdigit() and len(after) <= 4 else "1"
    return Problem(
        503,
        "backend-busy",
        "the server that runs the model has too much to do; try again shortly",
        {"Retry-After": seconds},
    )


def _gone(what: str) -> Problem:
    return Problem(503, "backend", f"{what}; try again shortly", {"Retry-After": "5"})
