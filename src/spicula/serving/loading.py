"""Loading what is served: studies' bundles are verified, opened and tested before the service is ready.

A part of the service: see `service.Part`. A classifier of exams, which may be among the bundles, is loaded by whoever
runs exams.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spicula import bundle as bundles
from spicula.bundle import golden, sealed
from spicula.errors import SpiculaError, UsageError
from spicula.processes import cores, trim_memory
from spicula.serving.decoding import Decoders
from spicula.serving.inference.graphs import open_graph
from spicula.serving.inference.local import LocalInference
from spicula.serving.problems import Problem
from spicula.serving.service import Inference, Served, Service, Tested

if TYPE_CHECKING:
    from spicula.bundle import Bundle

#: Largest difference of a probability from the golden one where a bundle names none, and in bf16, whose numbers have 8
#: significant bits: that is what a probability near 0.5 can be off where a logit of 10 is (10 / 2**8 / 4, and some).
TOLERANCE, BF16_TOLERANCE = golden.TOLERANCE, 0.05


async def start(service: Service) -> None:
    """Load what is to be served; see `open_models`."""
    await open_models(service)


async def open_models(service: Service) -> None:
    """Load and verify the studies' bundles of a service, start its decoders, and test every model.

    Raises:
        UsageError: a folder is no bundle, two models have one name, or the provider is missing here.
        SpiculaError: a bundle is damaged, or does not answer its golden inputs as it should.
    """
    loaded = await asyncio.to_thread(_load, service.settings.bundles)
    service.metrics.know("model", *(bundle.name for bundle, _ in loaded))
    if not loaded:
        return
    service.decoders = Decoders([bundle for bundle, _ in loaded], service.limits["queue"])
    service.metrics.watch("queue", lambda: _waiting(service))
    starting = asyncio.create_task(service.decoders.start())
    try:
        while loaded:
            bundle, card = loaded.pop(0)
            service.models[bundle.name] = await _open(service, bundle, card)
            del bundle  # with the bytes of its graph, which are as large as the model itself
            trim_memory()
    finally:
        # to its end, also where a model has failed: a process that is only half started cannot be ended
        outcome = await asyncio.gather(starting, return_exceptions=True)
    for error in outcome:
        if isinstance(error, BaseException):
            raise error


async def close(service: Service) -> None:
    """End what `start` has started."""
    for served in service.models.values():
        await served.inference.close()
    if hasattr(service, "decoders"):
        await service.decoders.close()


def _load(folders: Sequence[Path]) -> list[tuple["Bundle", str]]:
    """Verify bundles of studies and return them, each with its card."""
    found: dict[str, tuple[Bundle, str]] = {}
    for folder in folders:
        if sealed.kind_of(folder) != sealed.STUDY:
            continue
        bundle = bundles.load(folder, threads=1)
        if bundle.name in found:
            raise UsageError(
                f"{found[bundle.name][0].folder} and {folder} both hold a model called {bundle.name}; serve one of "
                "them, or train one under another name"
            )
        card = sealed.read_verified(folder, sealed.CARD, bundle.info["files"]).decode(errors="replace")
        found[bundle.name] = bundle, card
    return list(found.values())


async def _open(service: Service, bundle: "Bundle", card: str) -> Served:
    settings = service.settings
    inference: Inference
    unexplained = _unexplained(bundle)
    if settings.backend is None:
        workers = settings.workers or cores()
        graph = await asyncio.to_thread(open_graph, bundle, settings.provider, settings.precision, workers)
        inference = LocalInference(graph, bundle.name, service, workers)
        provider, precision = graph.manner.provider, graph.manner.precision
    else:
        from spicula.serving.inference import remote

        inference = found = await remote.connect(service, bundle)
        provider, precision = "remote", None
        unexplained = unexplained or found.unexplained
    tolerance = BF16_TOLERANCE if precision == "bf16" else _tolerance(bundle)
    try:
        difference = await _test(bundle, inference, tolerance)
    except BaseException:
        await inference.close()
        raise
    tested = Tested(provider, precision, difference, tolerance)
    return Served(replace(bundle, model=b""), inference, tested, card, unexplained)


def _unexplained(bundle: "Bundle") -> str | None:
    """Return why a bundle has no heatmaps; None where it has."""
    if bundle.info["features"]:
        return "features of the whole image, of which its scores come, have no places"
    if "explanation" not in bundle.info:
        return "its bundle was made by a version that wrote none; export it again"
    if bundle.info["explanation"] is None:
        return "its architecture has no map of features, or no gradients that a graph can hold"
    return None


def _tolerance(bundle: "Bundle") -> float:
    recorded = bundle.info.get("golden")
    return recorded["tolerance"] if recorded else TOLERANCE


async def _test(bundle: "Bundle", inference: Inference, tolerance: float) -> float | None:
    """Ask a model for its golden inputs, and return how far its answers are from those that the bundle records."""
    inputs = await asyncio.to_thread(lambda: bundle.inputs(golden.images(bundle.preprocess)))
    try:
        found = np.concatenate([await inference.scores(one[np.newaxis]) for one in inputs])
    except Problem as problem:
        raise SpiculaError(f"{bundle.folder}: the self-test of {bundle.name} failed: {problem.detail}") from problem
    if not np.isfinite(found).all() or np.abs(found.sum(axis=1) - 1).max() > tolerance:
        raise SpiculaError(f"{bundle.folder}: the self-test of {bundle.name} failed: it answers with no probabilities")
    difference = golden.difference(bundle, found)
    if difference is not None and not difference <= tolerance:
        raise SpiculaError(
            f"{bundle.folder}: the self-test of {bundle.name} failed: its probabilities are up to {difference:.1e} "
            f"away from those that the bundle records ({tolerance:.0e} is allowed); it does not run here as it did "
            "where it was made"
        )
    return difference


def _waiting(service: Service) -> int:
    return sum(served.inference.waiting for served in service.models.values()) + service.decoders.waiting
