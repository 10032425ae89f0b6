"""Whether a remote model is a bundle's: by what its server says of it, and by its answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spicula.bundle import BATCH, golden
from spicula.bundle.format import Explanation, Info, Tensor
from spicula.bundle.running import make_session, run_only
from spicula.errors import SpiculaError
from spicula.serving.kserve.messages import Answer
from spicula.serving.problems import Problem

if TYPE_CHECKING:
    from spicula.bundle import Bundle
    from spicula.serving.inference.remote import Remote
    from spicula.serving.service import Inference

#: Datatypes in which a server may give probabilities and maps.
_SCORES = ("FP32", "FP64")
#: Largest difference of a map from that of the bundle's own graph, as a share of its largest value.
EVIDENCE_TOLERANCE = 1e-2


def check(told: Mapping[str, Any], bundle: "Bundle", address: str) -> int:
    """See that a model's metadata is the bundle's.

    Args:
        told: what the server says of its model.
        bundle: whose model it is to be.
        address: for messages.

    Returns:
        Images that it takes at once, as far as its shape tells.

    Raises:
        SpiculaError: it takes or gives something else.
    """
    sizes: list[int] = []
    for kind, wanted, datatypes in (
        ("inputs", bundle.info["input"], ("FP32",)),
        ("outputs", bundle.info["output"], _SCORES),
    ):
        listed = told.get(kind)
        found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        fitting = [one for one in found if _fits(one, wanted, datatypes)]
        if not fitting or (kind == "inputs" and len(found) != 1):
            said = (
                "; ".join(f"{one.get('name')} {one.get('datatype')} {one.get('shape')}" for one in found) or "nothing"
            )
            rest = ", ".join(map(str, wanted["shape"][1:]))
            raise SpiculaError(
                f"--backend {address}: its model is not that of {bundle.name}: {kind} are {said}, "
                f"the bundle has {wanted['name']} FP32 [-1, {rest}]"
            )
        sizes.append(fitting[0]["shape"][0])
    return min(BATCH if one == -1 else one for one in sizes)


def _fits(told: Mapping[str, Any], wanted: Tensor | Explanation, datatypes: tuple[str, ...]) -> bool:
    shape = told.get("shape")
    if told.get("name") != wanted["name"] or told.get("datatype") not in datatypes or not isinstance(shape, list):
        return False
    if len(shape) != len(wanted["shape"]) or not all(type(one) is int for one in shape):
        return False
    # a model of one image alone is sent one at a time; one of exactly N takes nothing that clients send
    return shape[0] in (-1, 1) and all(a in (-1, b) for a, b in zip(shape[1:], wanted["shape"][1:], strict=True))


def batch_of(config: Mapping[str, Any]) -> int:
    """Return the most images that Triton's configuration of a model lets it take; `BATCH` where it does not tell."""
    most = config.get("max_batch_size")
    return most if type(most) is int and most > 0 else BATCH


async def compare(remote: "Inference", bundle: "Bundle", address: str) -> None:
    """See that a remote model says of the golden inputs what the bundle's own graph says of them here.

    Raises:
        SpiculaError: it says something else.
    """
    images = golden.images(bundle.preprocess)
    try:
        there = await remote.scores(await asyncio.to_thread(bundle.inputs, images))
    except Problem as problem:
        raise SpiculaError(f"--backend {address}: its self-test failed: {problem.detail}") from problem
    # the session of a copy is not kept: the other server runs the model
    here = await asyncio.to_thread(replace(bundle).probabilities, images)
    difference = float(np.abs(there - here).max())
    if not difference <= golden.TOLERANCE:
        raise SpiculaError(
            f"--backend {address}: its answers are not those of {bundle.name}: probabilities are {difference:.1e} "
            f"away ({golden.TOLERANCE:.0e} is allowed); it runs another model, or with less precision"
        )


def outputs_of(info: Info) -> dict[str, tuple[int, ...]]:
    """Return the outputs of a bundle's graph, the probabilities first: by name, of each the shape for one image."""
    explanation = info.get("explanation")
    outputs = [info["output"], *([explanation] if explanation else [])]
    return {one["name"]: tuple(int(size) for size in one["shape"][1:]) for one in outputs}


async def why_unexplained(told: Mapping[str, Any], remote: "Remote", bundle: "Bundle") -> str | None:
    """Return why a remote model's answers have no heatmaps; None where they have.

    Args:
        told: what the server says of its model.
        remote: asks it.
        bundle: with its graph, and with an explanation; the graph is asked here for the map of one golden input, which
            the server's map has to be like.
    """
    explanation = bundle.info.get("explanation")
    assert explanation
    name = explanation["name"]
    if not any(_fits(one, explanation, _SCORES) for one in told["outputs"] if isinstance(one, dict)):
        return f"the server that runs the model does not offer its output {name}"
    inputs = await asyncio.to_thread(bundle.inputs, golden.images(bundle.preprocess)[:1])
    try:
        _, there = await remote.explained(inputs)
    except Problem as problem:
        return f"the server that runs the model offers its output {name} and did not give it: {problem.detail}"
    session = await asyncio.to_thread(make_session, bundle.model, str(bundle.folder), 1)
    (here,) = await asyncio.to_thread(run_only, session, [name], {bundle.info["input"]["name"]: inputs})
    if not np.abs(there - here).max() <= EVIDENCE_TOLERANCE * np.abs(here).max():
        return f"what the server that runs the model gives as {name} is not what the bundle's graph gives"
    return None


def floats_of(answer: Answer, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return an output of an answer.

    Args:
        answer: of the remote model.
        name: of the output.
        shape: that it has to have.

    Raises:
        Problem: it is not there.
    """
    found = next((one for one in answer.outputs if one.name == name), None)
    if found is None or found.datatype not in _SCORES or found.shape != shape:
        raise Problem(400, "shape", f"outputs have no {name} of {list(shape)}")
    return found.array().astype(np.float64)
