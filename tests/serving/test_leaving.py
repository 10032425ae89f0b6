"""Real connections: a client that leaves while its images wait costs nothing; a full service says so at once."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import numpy as np
import pytest
import uvicorn
from bundle_maker import grey, make
from predict_app import uploads

from spicula.serving.app import build
from spicula.serving.inference.graphs import Answer, Manner
from spicula.serving.inference.local import LocalInference
from spicula.serving.limits import Limits
from spicula.serving.service import Service
from spicula.serving.settings import ServeSettings


class Held:
    """A graph that answers when it is let go, and counts what it answers."""

    manner = Manner("held", "fp32")

    def __init__(self):
        self.let_go, self.answered = threading.Event(), 0

    def run(self, inputs, evidence, is_alone):
        self.let_go.wait(60)
        self.answered += 1
        return Answer(np.tile([[0.25, 0.75]], (len(inputs), 1)), None)


@asynccontextmanager
async def listening(model, graph, limits=()):
    """Serve at a port, with a graph of the test's; yield the address and what asks the graph, one row at a time."""
    service = Service(ServeSettings((model.folder,), limits=Limits(limits)))
    server = uvicorn.Server(uvicorn.Config(build(service), port=0, log_config=None, http="httptools", ws="none"))
    task = asyncio.create_task(server.serve())
    try:
        while not service.is_ready or not server.started:
            if service.failure is not None:
                raise service.failure
            await asyncio.sleep(0.02)
        (served,) = service.models.values()
        await served.inference.close()
        inference = LocalInference(graph, served.bundle.name, service, workers=1)
        service.models[served.bundle.name] = replace(served, inference=inference)
        yield server.servers[0].sockets[0].getsockname()[1], inference
    finally:
        graph.let_go.set()
        server.should_exit = True
        await task


async def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def raw_request(path):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + path.read_bytes()
        + b"\r\n--x--\r\n"
    )
    head = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_client_that_leaves_takes_its_images_out_of_the_line(tmp_path):
    model, path, graph = make(tmp_path / "bundle"), grey(tmp_path / "a.png", 51), Held()

    async def main():
        async with listening(model, graph) as (port, inference):
            stay = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            leave = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            for _, writer in stay + leave:
                writer.write(raw_request(path))
            await until(lambda: inference.waiting == 6)  # one of the 7 is in the model
            for _, writer in leave:
                writer.close()
            await until(lambda: inference.waiting <= 2)
            graph.let_go.set()
            answers = await asyncio.gather(*(reader.readuntil(b"}]") for reader, _ in stay))
            await until(lambda: inference.waiting == 0)
            for _, writer in stay:
                writer.close()
            return answers

    assert all(b"200 OK" in answer for answer in asyncio.run(main()))
    assert graph.answered in (2, 3)  # one of those who left may have been in the model


def test_a_full_service_says_so_at_once_and_answers_what_it_has_taken(tmp_path):
    model, path, graph = make(tmp_path / "bundle"), grey(tmp_path / "a.png", 51), Held()

    async def main():
        async with (
            listening(model, graph, limits=["queue=4"]) as (port, inference),
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            taken = []
            for number in range(5):  # one in the model, four that wait
                taken.append(asyncio.create_task(client.post("/v1/predict", files=uploads(path))))
                await until(lambda number=number: inference.waiting == number)
            refused = await asyncio.gather(*(client.post("/v1/predict", files=uploads(path)) for _ in range(20)))
            assert not any(task.done() for task in taken)
            health = await client.get("/healthz")
            graph.let_go.set()
            return refused, health, await asyncio.gather(*taken)

    refused, health, taken = asyncio.run(main())
    assert [(one.status_code, one.json()["code"], one.headers["Retry-After"]) for one in refused] == [
        (503, "queue", "1")
    ] * 20
    assert health.status_code == 200
    assert [one.status_code for one in taken] == [200] * 5
    assert all(one.json()["images"][0]["score"] == pytest.approx(0.75) for one in taken)
    assert graph.answered == 5
