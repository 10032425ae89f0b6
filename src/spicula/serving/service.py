"""What all routes of a service share: its settings, its models, whether it is ready."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from spicula.serving.audit import Audit
from spicula.serving.metrics import Metrics
from spicula.serving.settings import ServeSettings
from spicula.serving.spool import Spool
from spicula.serving.tokens import Tokens

if TYPE_CHECKING:
    from spicula.bundle import Bundle
    from spicula.serving.decoding import Decoders


class Inference(Protocol):
    """Runs one model for all requests at once: images wait in one bounded queue."""

    @property
    def waiting(self) -> int:
        """How many images wait."""
        ...

    async def scores(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return what the model says of inputs.

        Args:
            inputs: (N, C, H, W), or (N, F) for features, as `Bundle.inputs` gives them.

        Returns:
            (N, classes), probabilities.

        Raises:
            Problem: 503 where the queue is full, the answer would come too late, or the remote server is not there.
        """
        ...

    def refuse_if_full(self) -> None:
        """Raise what `scores` would raise if an image came now: asked before a body is read.

        Raises:
            Problem: 503, the queue is full.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """An Inference that can also say what in an image spoke for the target."""

    async def explained(
        self, inputs: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Return probabilities, and the evidence (N, h, w) of `bundle.explanation`.

        To be asked only of a model whose bundle has an explanation.
        """
        ...


class Part(Protocol):
    """A module of the service that is started before the first request and closed after the last."""

    async def start(self, service: "Service") -> None:
        """Get ready; an error ends the service."""
        ...

    async def close(self, service: "Service") -> None:
        """Let go of everything; called also where `start` has failed or was cancelled."""
        ...


@dataclass(frozen=True)
class Tested:
    """What runs a model, and what came of its self-test.

    Attributes:
        provider: "onnxruntime", "openvino", "cuda", or "remote".
        precision: of the arithmetic: "fp32" or "bf16"; None: the remote server's.
        max_abs_difference: of its probabilities from those that the bundle records for its golden inputs; None where
            an older bundle records none: then they were finite and added up to 1.
        tolerance: what would have been too much.
    """

    provider: str
    precision: str | None
    max_abs_difference: float | None
    tolerance: float


@dataclass(frozen=True)
class Served:
    """A study's bundle, and what runs it.

    Attributes:
        bundle: without the bytes of its graph, which `inference` has.
        inference: what runs it.
        tested: how it is run, and how its self-test went.
        card: its MODEL_CARD.md.
        unexplained: why its answers have no heatmaps; None where they have.
    """

    bundle: "Bundle"
    inference: Inference
    tested: Tested | None = None
    card: str = ""
    unexplained: str | None = None

    def about(self) -> dict[str, str]:
        """Return what every answer says of the model: name, version, digest."""
        return {
            "name": self.bundle.name,
            "version": self.bundle.info["version"],
            "digest": self.bundle.digest,
        }


@dataclass
class Service:
    """The state of a running service.

    Attributes:
        settings: see there.
        models: studies' bundles by name, in the order in which they were given.
        parts: what else routes share, each under the name of its module: "exams", "dicomweb", ...
        is_ready: every model has passed its self-test, and nothing is being shut down.
        is_draining: it answers what is under way, and takes nothing new.
        under_way: requests that were accepted and not yet answered.
        failure: why it could not start: the process ends with it.
        tokens: who may ask.
        audit: the audit log.
        metrics: what is counted.
        spool: where uploads lie while their request lasts.
        decoders: read images for models; there once models are loaded.
    """

    settings: ServeSettings
    models: dict[str, Served] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    is_ready: bool = False
    is_draining: bool = False
    under_way: int = 0
    failure: BaseException | None = None
    metrics: Metrics = field(default_factory=Metrics)
    spool: Spool = field(default_factory=Spool)
    decoders: "Decoders" = field(init=False)
    tokens: Tokens = field(init=False)
    audit: Audit = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = Tokens(self.settings.tokens)
        self.audit = Audit(self.settings.audit, self.metrics)

    @property
    def limits(self) -> Mapping[str, int]:
        """Values by name, see `limits.LIMITS`."""
        return self.settings.limits
