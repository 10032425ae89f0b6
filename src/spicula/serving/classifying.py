"""From an uploaded file to what a model says of it: the way of every route that takes images."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spicula.errors import RejectedImageError
from spicula.processes import cores
from spicula.serving import explanations
from spicula.serving.decoding import Prepared
from spicula.serving.problems import beyond
from spicula.serving.service import Explaining, Served, Service
from spicula.serving.together import together

if TYPE_CHECKING:
    from spicula.serving.forms import Upload

#: Images of one request that are under way at a time, at least; twice as many as there are cores where that is more.
_AT_A_TIME = 8


@dataclass(frozen=True)
class Explanation:
    """What spoke for a class, as PNG in base64; see `serving.explanations`."""

    of: str
    image: str
    heatmap: str


@dataclass(frozen=True)
class Classified:
    """What came of one file.

    Attributes:
        sha256: of the file.
        kind: of file; None where it was refused.
        side: L or R where its header says so.
        probabilities: (classes,); None where it was refused.
        explanation: None where it was not asked for, or refused.
        reason: why it was refused; None where it was not.
    """

    sha256: str
    kind: str | None = None
    side: str | None = None
    probabilities: npt.NDArray[np.float64] | None = None
    explanation: Explanation | None = None
    reason: str | None = None


def refuse_if_full(service: Service, served: Served) -> None:
    """Check, before a body is read and again when it is there, that an image could be taken now.

    Raises:
        Problem: 503, too many images wait.
    """
    service.decoders.refuse_if_full()
    served.inference.refuse_if_full()
    if service.decoders.waiting + served.inference.waiting >= (most := service.limits["queue"]):
        raise beyond("queue", most, "{value} images wait already; try again shortly")


async def classify(
    service: Service, served: Served, uploads: Sequence["Upload"], explained: str | None = None
) -> list[Classified]:
    """Classify files, a few at a time, and return what came of each, in their order.

    Args:
        service: has the decoders.
        served: the model.
        uploads: the files.
        explained: the class that is to be explained; None: none is.

    Raises:
        Problem: 503, too many images wait, or an answer came too late.
    """

    async def one(upload: "Upload") -> Classified:
        try:
            prepared = await service.decoders.prepare(upload.path, served.bundle)
        except RejectedImageError as error:
            return Classified(upload.sha256, reason=str(error))
        inputs = await prepared.inputs(served.bundle)
        if explained is None:
            probabilities, explanation = await served.inference.scores(inputs), None
        else:
            assert isinstance(served.inference, Explaining)
            probabilities, evidence = await served.inference.explained(inputs)
            signed = evidence[0] if explained == served.bundle.target else -evidence[0]
            explanation = await asyncio.to_thread(_explanation, explained, prepared, signed)
        return Classified(upload.sha256, prepared.kind, prepared.side, probabilities[0], explanation)

    refuse_if_full(service, served)  # many may have come while this body did
    at_a_time = min(max(_AT_A_TIME, 2 * cores()), service.limits["queue"])
    found = await together(one, uploads, at_a_time)
    refused = sum(item.reason is not None for item in found)
    for outcome, count in (("refused", refused), ("answered", len(found) - refused)):
        if count:
            service.metrics.count("images", count, model=served.bundle.name, outcome=outcome)
    return found


def _explanation(of: str, prepared: Prepared, evidence: npt.NDArray[np.float32]) -> Explanation:
    size = (prepared.array.shape[0], prepared.array.shape[1])
    return Explanation(of, explanations.image_png(prepared.array), explanations.heatmap_png(evidence, size))
