"""What the service does under load and hostile clients: nothing lost, nothing leaked, nobody else kept waiting.

    python benchmarks/serve_faults.py > result.json                                    # some 20 minutes
    python benchmarks/serve_faults.py --bundle OUT/bundle --seconds 10 --soak 30 --around 5 --parts capacity overload

`spicula serve` is started with a bundle (by default a ResNet-50 with seeded weights, made here) and a small four-view
classifier, on loopback, with a token, an audit log and a temporary folder of its own. Parts, in this order:

capacity    images a second that 16 clients get, each asking again when it has its answer
slow        500 connections that say nothing, half a header or half a body, or do not take their answer
malformed   some 260 broken, oversized and lying requests, spread over the time
overload    images at ten times the capacity; whether the service lives is asked beside it
soak        images at 80 % of the capacity
canaries    names, ids and dates planted in headers of DICOM, file names, addresses and headers of requests
end         SIGTERM while 32 clients ask; what the log of the service has, and no client got, is lost

Beside `slow` and `malformed` healthy clients ask at a fifth of the capacity; their times are set against those of the
same clients alone, just before. `faults` has every answer that should not be: 5xx but 503 with Retry-After, errors of
another form than problem+json, no answer. Clients share the cores with the service. The result goes to stdout as JSON.
"""

import argparse
import asyncio
import itertools
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import serve_faults_bodies as bodies
import serve_faults_canaries as canaries
import serve_faults_service as services
from serve_faults_clients import NO_ANSWER, Clients, Connection, Seen, Slow, beside, get, post, quantiles, send_hostile
from serve_inputs import made_pictures, make_bundle, png

from spicula.bundle.screening import ScreeningSettings
from spicula.progress import say

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "exams"))
from small_bundle import small_bundle  # type: ignore[import-not-found]

PARTS = ("capacity", "slow", "malformed", "overload", "soak", "canaries", "end")
CLIENTS, SLOW = 16, 500
#: Of the capacity: what healthy clients ask beside hostile ones, and all clients in a soak.
HEALTHY_SHARE, SOAK_SHARE, OVERLOAD = 0.2, 0.8, 10.0
_LIMITS = ("requests-a-minute=1000000000",)  # one address asks all of it


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        bundle = options.bundle or _make_bundle(folder)
        result = measure(folder, bundle, options)
    print(json.dumps(result, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", type=Path, help="of a study; by default one is made")
    parser.add_argument("--images", type=Path, nargs="*", help="PNG or JPEG files to send; by default they are made")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--seconds", type=float, default=120, help="of overload (default 120)")
    parser.add_argument("--soak", type=float, default=600, help="seconds of it (default 600)")
    parser.add_argument("--around", type=float, default=30, help="seconds of every other part (default 30)")
    parser.add_argument("--folder", type=Path, help="an empty one to work in, which is kept; by default it is not")
    parser.add_argument("--rate", type=float, help="images a second taken for the capacity, in place of measuring it")
    return parser.parse_args()


def measure(folder: Path, bundle: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start the service, run the parts, end it, and return what was seen."""
    screening = small_bundle(folder / "screening", settings=_phantom_settings())
    token = secrets.token_hex(16)
    images = [path.read_bytes() for path in options.images] if options.images else _make_images()
    views = canaries.make_exam(folder / "phantom")
    service = services.Running(folder, [bundle, screening], _LIMITS, token)
    try:
        trial = Trial(service, token, images, views, options)
        return asyncio.run(trial.run())
    finally:
        service.kill()


class Trial:
    """All parts, one after another, on one service."""

    def __init__(
        self,
        service: services.Running,
        token: str,
        images: Sequence[bytes],
        views: list[bytes],
        options: argparse.Namespace,
    ) -> None:
        self._service, self._options, self._views, self._images = service, options, views, images
        self._token, self._headers = token, {"Authorization": f"Bearer {token}"}
        form = {**self._headers, "Content-Type": f"multipart/form-data; boundary={bodies.BOUNDARY}"}
        self._requests = [post("/v1/predict", service.port, bodies.file_form(one), form) for one in images]
        self._errors: set[bytes] = set()
        self._capacity = float(options.rate or 0)
        self._model = ""

    async def run(self) -> dict[str, Any]:
        """Run the parts that are asked for."""
        await self._warm()
        self._model = await self._find_model()
        result: dict[str, Any] = {}
        for part in [part for part in PARTS if part in self._options.parts]:
            say(f"{part} ...")
            first = len(self._service.looks)
            result[part] = await self._part(part)()
            if looks := self._service.looks[first:]:
                result[part]["memory"] = services.memory(looks)
                result[part]["MiB of each process at its end"] = self._service.processes()
            if part != "end":
                result[part]["uploads left"] = await self._left()
            say(json.dumps(result[part]))
        return result

    def _part(self, name: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        parts = {
            "capacity": self._measure_capacity,
            "slow": self._slow,
            "malformed": self._malformed,
            "overload": self._overload,
            "soak": self._soak,
            "canaries": self._canaries,
            "end": self._end,
        }
        return parts[name]

    async def _left(self) -> list[str]:
        """Return what of the uploads lies about when nobody asks any more."""
        for _ in range(20):
            if not (left := self._service.spooled()):
                break
            await asyncio.sleep(0.5)
        return left

    async def _find_model(self) -> str:
        clients = Clients(self._service.port, [])
        _, _, body = await clients._on_any(get("/v1/models", self._service.port, self._headers))
        clients.close()
        return str(json.loads(body)["models"][0]["name"])

    async def _warm(self) -> None:
        clients = self._clients()
        await clients.as_quickly(CLIENTS, min(5.0, self._options.around))
        self._taken(clients)

    def _clients(self) -> Clients:
        return Clients(self._service.port, self._requests)

    def _taken(self, clients: Clients) -> dict[str, Any]:
        clients.close()
        self._errors |= clients.seen.errors
        return clients.seen.summary()

    # the parts

    async def _measure_capacity(self) -> dict[str, Any]:
        clients = self._clients()
        rate = await clients.as_quickly(CLIENTS, self._options.around)
        self._capacity = self._capacity or rate
        return {"images a second": round(rate, 1), **self._taken(clients)}

    async def _slow(self) -> dict[str, Any]:
        request = self._requests[0]
        large = get("/openapi.json", self._service.port, self._headers)
        slow = Slow(self._service.port, request, large)
        found = await self._healthy(lambda: slow.hold(SLOW))
        return {"connections opened": slow.opened, "ended by the service": slow.ended, **found}

    async def _malformed(self) -> dict[str, Any]:
        seen = Seen()
        requests = bodies.requests(self._service.port, self._model, self._images[0], self._headers)

        pause = self._options.around / len(requests)

        async def send() -> None:
            tasks = []
            for name, request in requests:
                tasks.append(asyncio.create_task(send_hostile(self._service.port, name, request, seen)))
                await asyncio.sleep(pause)
            await asyncio.gather(*tasks)

        sending: list[asyncio.Task[None]] = []

        async def begin() -> None:
            sending.append(asyncio.create_task(send()))

        found = await self._healthy(begin)
        await asyncio.gather(*sending)
        self._errors |= seen.errors
        summary = seen.summary()
        slowest = {
            name: round(seen.slowest[name], 2)
            for name in sorted(seen.slowest, key=lambda name: seen.slowest[name])[-10:]
        }
        return {
            "requests": len(requests),
            "statuses": summary["statuses"],
            "faults": summary["faults"],
            "no answer": seen.silent,
            "slowest answers, s": slowest,
            **found,
        }

    async def _healthy(self, *hostile: Callable[[], Awaitable[object]]) -> dict[str, Any]:
        """Let healthy clients ask, alone and then beside hostile ones."""
        rate, times = HEALTHY_SHARE * await self._known_capacity(), {}
        for name, works in (("alone", ()), ("beside", hostile)):
            clients = self._clients()
            async with beside(*works):
                if works:
                    await asyncio.sleep(2)  # until all of them are there
                await clients.at_rate(rate, self._options.around)
            times[name] = self._taken(clients)
            await asyncio.sleep(1)
        alone, other = (times[name]["answered p50, p95 s"] for name in ("alone", "beside"))
        ratio = round(other[1] / alone[1], 2) if alone and other else None
        return {"healthy clients": times, "p95 beside / alone": ratio}

    async def _overload(self) -> dict[str, Any]:
        rate = OVERLOAD * await self._known_capacity()
        clients, probe = self._clients(), Clients(self._service.port, [get("/healthz", self._service.port, {})])

        async def ask_whether_it_lives() -> None:
            while True:
                await probe.ask()
                await asyncio.sleep(0.2)

        async with beside(ask_whether_it_lives):
            left_out = await clients.at_rate(rate, self._options.seconds)
        probe.close()
        return {
            "images a second asked": round(rate, 1),
            "not sent, since 900 were under way": left_out,
            **self._taken(clients),
            "healthz p50, p95 s": quantiles(probe.seen.seconds),
            "healthz faults": dict(probe.seen.faults),
        }

    async def _soak(self) -> dict[str, Any]:
        rate = SOAK_SHARE * await self._known_capacity()
        clients = self._clients()
        left_out = await clients.at_rate(rate, self._options.soak)
        return {"images a second asked": round(rate, 1), "not sent": left_out, **self._taken(clients)}

    async def _canaries(self) -> dict[str, Any]:
        planting = canaries.Planting(self._service.port, self._token, self._model, self._views)
        await planting.run()
        texts = {**services.written(self._service), **planting.answers, "errors": b"\n".join(self._errors)}
        found = services.leaks([*canaries.CANARIES, self._token], texts)
        return {"canaries": len(canaries.CANARIES) + 1, "places searched": len(texts), "found": found}

    async def _end(self) -> dict[str, Any]:
        before = self._told()
        asking = Seen()
        clients = [asyncio.create_task(self._ask_until_it_ends(asking)) for _ in range(2 * CLIENTS)]
        await asyncio.sleep(min(3.0, self._options.around))
        begun = time.perf_counter()
        status = await asyncio.to_thread(self._service.end)
        seconds = time.perf_counter() - begun
        await asyncio.gather(*clients)
        answers = sum(count for status, count in asking.statuses.items() if status != NO_ANSWER)
        return {
            "exit status": status,
            "seconds to the end": round(seconds, 2),
            "accepted requests without an answer": self._told() - before - answers,
            "connections that were not taken any more": asking.statuses[NO_ANSWER],
            "statuses": asking.summary()["statuses"],
            "faults": dict(asking.faults),
            "files left": self._service.spooled(),
            "errors in the log": sum(" ERROR " in line for line in self._service.log.read_text().splitlines()),
        }

    def _told(self) -> int:
        """Return how many requests the log of the service has: all that it accepted."""
        return sum(" POST " in line for line in self._service.log.read_text().splitlines())

    async def _ask_until_it_ends(self, seen: Seen) -> None:
        """Ask on one connection after another until the service does not listen any more."""
        requests = itertools.cycle(self._requests)
        while True:
            try:
                connection = await Connection.open(self._service.port)
            except OSError:
                return
            try:
                while not connection.is_over:
                    begun = time.perf_counter()
                    answer = await connection.ask(next(requests))
                    seen.take("at the end", *answer, time.perf_counter() - begun)
                    if answer[0] == 503:
                        await asyncio.sleep(0.1)
            except (OSError, EOFError):
                seen.statuses[NO_ANSWER] += 1
            finally:
                connection.close()

    async def _known_capacity(self) -> float:
        if not self._capacity:
            await self._measure_capacity()
        return self._capacity


def _phantom_settings() -> ScreeningSettings:
    return ScreeningSettings(
        cc=(220, 160), mlo=(240, 150), erosions=6, buffer=6, patch=64, stride=60, shift=8, resize=8, windows=2
    )


def _make_images() -> list[bytes]:
    return [png(one) for one in made_pictures(16, seed=1)]


def _make_bundle(folder: Path) -> Path:
    make_bundle(folder, made_pictures(16, seed=2), seed=0)
    return folder / "bundle"


if __name__ == "__main__":
    main()
