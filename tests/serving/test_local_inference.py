"""One bounded line of images before a model: full, late, left, together."""

import asyncio
import threading
import time

import numpy as np
import pytest
from bundle_maker import make
from predict_app import colour_bundle

from spicula.errors import UsageError
from spicula.serving.inference.graphs import Answer, Manner, open_graph
from spicula.serving.inference.local import LocalInference
from spicula.serving.limits import Limits
from spicula.serving.problems import Problem
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings


class Slow:
    """A graph whose answer to a row is its first value, and which notes what it is asked."""

    def __init__(self, seconds=0.0, **manner):
        self.manner = Manner("slow", "fp32", **manner)
        self.seconds, self.batches, self.at_work, self.most = seconds, [], 0, 0
        self.lock = threading.Lock()

    def run(self, inputs, evidence, is_alone):
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            self.batches.append(len(inputs))
        time.sleep(self.seconds)
        with self.lock:
            self.at_work -= 1
        first = inputs[:, 0].astype(np.float64)
        return Answer(np.stack([1 - first, first], axis=1), first[:, None, None] if evidence else None)


def rows(*values):
    return np.array(values, np.float32)[:, None]


def run(graph, use, workers=2, limits=()):
    async def main():
        service = Service(ServeSettings((), limits=Limits(limits)))
        inference = LocalInference(graph, "slow", service, workers)
        try:
            return await use(inference)
        finally:
            await inference.close()

    return asyncio.run(main())


def test_rows_come_back_in_their_order_whoever_asks_beside():
    async def use(inference):
        return await asyncio.gather(*(inference.scores(rows(*range(at, at + 5))) for at in range(0, 50, 5)))

    graph = Slow(0.001)
    found = run(graph, use, limits=["queue=1000"])
    assert [part[:, 1].tolist() for part in found] == [list(range(at, at + 5)) for at in range(0, 50, 5)]
    assert graph.batches == [1] * 50
    assert graph.most == 2


def test_a_gpu_gets_the_images_of_several_requests_at_once():
    async def use(inference):
        plain = asyncio.gather(*(inference.scores(rows(value)) for value in range(40)))
        explained = asyncio.gather(*(inference.explained(rows(value)) for value in range(40, 44)))
        return await plain, await explained

    graph = Slow(0.01, batch=16, linger_seconds=0.05)
    plain, explained = run(graph, use)
    assert [part[0, 1] for part in plain] == list(range(40))
    assert [(part[0, 1], evidence[0, 0, 0]) for part, evidence in explained] == [(v, v) for v in range(40, 44)]
    assert graph.batches == [16, 16, 12]
    assert graph.most == 1


def test_a_full_line_refuses_at_once():
    async def use(inference):
        first = asyncio.create_task(inference.scores(rows(0)))
        await asyncio.sleep(0.1)  # it is in the model now
        asked = [asyncio.create_task(inference.scores(rows(value))) for value in range(1, 9)]
        done, _ = await asyncio.wait(asked, timeout=0.1)
        with pytest.raises(Problem):
            inference.refuse_if_full()
        found = await asyncio.gather(first, *asked, return_exceptions=True)
        inference.refuse_if_full()
        return len(done), found

    refused, found = run(Slow(0.5), use, workers=1, limits=["queue=3"])
    assert refused == 5
    assert [one[0, 1] for one in found if not isinstance(one, Exception)] == [0, 1, 2, 3]
    problems = [one for one in found if isinstance(one, Problem)]
    assert [(one.status, one.code, one.headers["Retry-After"]) for one in problems] == [(503, "queue", "1")] * 5


def test_a_request_of_more_images_than_may_wait_is_answered():
    async def use(inference):
        return await inference.scores(rows(*range(200)))

    assert run(Slow(), use, limits=["queue=2"])[:, 1].tolist() == list(range(200))


def test_an_answer_that_would_come_too_late_is_not_waited_for():
    async def use(inference):
        first = asyncio.create_task(inference.scores(rows(1)))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="within 1 s") as caught:
            await inference.scores(rows(2))
        waiting = inference.waiting
        with pytest.raises(Problem):
            await first
        return caught.value, waiting

    problem, waiting = run(Slow(1.5), use, workers=1, limits=["answer-seconds=1"])
    assert (problem.status, problem.code, problem.headers["Retry-After"]) == (503, "answer-seconds", "1")
    assert waiting == 0


def test_whoever_leaves_leaves_the_line():
    async def use(inference):
        asked = [asyncio.create_task(inference.scores(rows(value))) for value in range(5)]
        await asyncio.sleep(0.1)
        for task in asked[1:4]:
            task.cancel()
        await asyncio.gather(*asked[1:4], return_exceptions=True)
        assert inference.waiting == 1
        return await asked[0], await asked[4]

    graph = Slow(0.3)
    first, last = run(graph, use, workers=1)
    assert (first[0, 1], last[0, 1]) == (0, 4)
    assert graph.batches == [1, 1]


def test_an_error_goes_to_whoever_asked_and_the_next_is_answered():
    class Failing(Slow):
        def run(self, inputs, evidence, is_alone):
            if inputs[0, 0] == 1:
                raise RuntimeError("odd")
            return super().run(inputs, evidence, is_alone)

    async def use(inference):
        with pytest.raises(RuntimeError, match="odd"):
            await inference.scores(rows(1))
        return await inference.scores(rows(2))

    assert run(Failing(), use, workers=1)[0, 1] == 2


@pytest.mark.parametrize(("provider", "tolerance"), [("onnxruntime", 1e-6), ("openvino", 1e-5)])
def test_graphs_answer_as_the_bundle_does(tmp_path, provider, tolerance):
    if provider == "openvino":
        pytest.importorskip("openvino", reason="another provider: pip install 'spicula[exams]'")
    model = colour_bundle(tmp_path / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 12, 3), dtype=np.uint8)
    graph = open_graph(model, provider, "fp32", 2)
    assert (graph.manner.provider, graph.manner.batch) == (provider, 1)

    async def use(inference):
        return await asyncio.gather(*(inference.scores(model.inputs(one[None])) for one in images))

    found = np.concatenate(run(graph, use))
    np.testing.assert_allclose(found, model.probabilities(images), atol=tolerance)


def test_an_image_alone_may_use_all_cores_and_images_together_one_each():
    told = []

    class Telling(Slow):
        def run(self, inputs, evidence, is_alone):
            told.append(is_alone)
            return super().run(inputs, evidence, is_alone)

    async def use(inference):
        await inference.scores(rows(1))
        await asyncio.gather(*(inference.scores(rows(value)) for value in range(6)))
        await inference.scores(rows(1))

    run(Telling(0.05), use)
    first, *together, last = told
    assert (first, last) == (True, True)
    assert not any(together[:-1])


def test_an_image_gets_the_same_answer_alone_and_beside_others(tmp_path):
    model = colour_bundle(tmp_path / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 12, 3), dtype=np.uint8)
    for workers in (1, 2, 3):
        graph = open_graph(model, "onnxruntime", "fp32", workers)
        for one in images:
            beside, alone = (graph.run(model.inputs(one[None]), False, how) for how in (False, True))
            np.testing.assert_array_equal(beside.probabilities, alone.probabilities)


def test_bf16_answers_nearly_the_same(tmp_path):
    pytest.importorskip("openvino", reason="another provider: pip install 'spicula[exams]'")
    model = colour_bundle(tmp_path / "bundle")
    try:
        graph = open_graph(model, "openvino", "bf16", 1)
    except UsageError:
        pytest.skip("this CPU has no bf16 arithmetic")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 12, 3), dtype=np.uint8)
    found = graph.run(model.inputs(images), False, False).probabilities
    np.testing.assert_allclose(found, model.probabilities(images), atol=0.02)
    assert graph.manner.precision == "bf16"


def test_what_is_not_there_is_said(tmp_path):
    model = make(tmp_path / "bundle")
    with pytest.raises(UsageError, match="no bf16 arithmetic"):
        open_graph(model, "onnxruntime", "bf16", 1)
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UsageError, match="onnxruntime-gpu"):
            open_graph(model, "cuda", "fp32", 1)
