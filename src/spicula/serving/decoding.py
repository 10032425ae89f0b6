"""Sandboxed decoding, for an event loop: processes that read one image after another, and are replaced when they die.

A decoder that crashes, hangs or wants too much memory costs the image that it was at. Images of many pixels, which take
seconds, wait in a line of their own, so that nobody else waits for them. What a process does, and what it says, stands
in `serving.decode_worker`.
"""

import asyncio
import json
import math
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from spicula.errors import RejectedImageError, SpiculaError
from spicula.imaging.geometry import Geometry
from spicula.processes import cause, command_of, cores, environment_with
from spicula.serving.decode_worker import setting_of
from spicula.serving.line import Asked, Line
from spicula.serving.problems import Problem

if TYPE_CHECKING:
    from spicula.bundle import Bundle

#: How a worker is started.
COMMAND = command_of("spicula.serving.decode_worker")
#: A worker that says nothing for so long is stuck in one image. The largest images take some 10 s.
LIMIT_SECONDS = 30.0
#: Images of more pixels are read one at a time, by a process of their own that gives way to the others and gives its
#: memory back at once. The largest mammograms have some 14 million.
LARGE_PIXELS = 25_000_000
#: How much it gives way (nice(2)), and how much longer it may therefore take.
_GIVES_WAY, _PATIENCE = 5, 4
#: More workers than this are no use: an image takes a model longer than its decoder.
MOST_WORKERS = 8
#: What is read of a worker before it has to wait: a small image, whole.
_BUFFER_BYTES = 2**20
#: A process that has closed its output is gone within so long, or is killed.
_DYING_SECONDS = 5.0
#: Inputs of no more pixels are made in the event loop: that takes less time than to change threads.
_SMALL_PIXELS = 512 * 512


class _Question(NamedTuple):
    path: str
    digest: str


@dataclass(frozen=True)
class Prepared:
    """One image, ready for a model.

    Attributes:
        array: (H, W, C), uint8 or uint16, as the bundle's `inputs` takes it.
        geometry: where its pixels come from.
        side: L or R where its header says so.
        kind: of file: "dicom", "png", "jpeg", "pgm" or "tiff".
        features: (1, F) of the linear line, else None.
    """

    array: npt.NDArray[Any]
    geometry: Geometry
    side: str | None
    kind: str
    features: npt.NDArray[np.float32] | None = None

    async def inputs(self, bundle: "Bundle") -> npt.NDArray[np.float32]:
        """Return what the bundle's graph takes: (1, C, H, W), or (1, F)."""
        if self.features is not None:
            return self.features
        if self.array.shape[0] * self.array.shape[1] <= _SMALL_PIXELS:
            return bundle.inputs(self.array[np.newaxis])
        return await asyncio.to_thread(bundle.inputs, self.array[np.newaxis])


class Decoders:
    """The decoding processes of a service.

    Args:
        bundles: the models for which images are read.
        queue: images that may wait at a time.
        count: processes; None: one a core, `MOST_WORKERS` at most.
    """

    def __init__(self, bundles: Iterable["Bundle"], queue: int, count: int | None = None) -> None:
        self._setting = json.dumps(setting_of(bundle.info for bundle in bundles)).encode() + b"\n"
        self._line: Line[_Question, Prepared] = Line(queue)
        self._large: Line[_Question, Prepared] = Line(queue)
        self._count = count or min(cores(), MOST_WORKERS)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the processes.

        Raises:
            SpiculaError: they cannot be started.
        """
        starting = [asyncio.create_task(_Worker.start(self._setting)) for _ in range(self._count)]
        try:
            workers = await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            for worker in await asyncio.gather(*starting, return_exceptions=True):
                if isinstance(worker, _Worker):
                    await worker.end()
            raise
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in workers]
        self._tasks.append(asyncio.create_task(self._serve_large()))

    async def close(self) -> None:
        """End the processes, and whatever they are at."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def waiting(self) -> int:
        """How many images wait for a process."""
        return len(self._line) + len(self._large)

    def refuse_if_full(self) -> None:
        """Raise what `prepare` would raise if an image came now.

        Raises:
            Problem: 503, too many images wait.
        """
        self._line.refuse_if_full()

    async def prepare(self, path: Path, bundle: "Bundle") -> Prepared:
        """Examine, decode and prepare one file, exactly as `spicula predict` does.

        Args:
            path: the file.
            bundle: one of those that the processes were started for.

        Raises:
            RejectedImageError: it gets no score, and why.
            Problem: 503, too many images wait, or no process can be started.
        """
        return await self._line.ask(_Question(str(path), bundle.digest))

    async def _serve(self, worker: "_Worker") -> None:
        """Give a worker one image after another; where it dies, start the next one."""
        try:
            while True:
                (asked,) = await self._line.take()
                async with _told(asked):
                    if worker.is_dead:
                        worker = await _Worker.start(self._setting)
                    found = await worker.ask(asked.question, LARGE_PIXELS)
                    if found is None:
                        self._large.put(asked)
                    else:
                        asked.give(found)
        finally:
            await worker.end()

    async def _serve_large(self) -> None:
        """Have each large image read by a process of its own."""
        while True:
            (asked,) = await self._large.take()
            if asked.answer.done():  # whoever asked has left
                continue
            async with _told(asked):
                worker = await _Worker.start(self._setting)
                try:
                    worker.give_way()
                    found = await worker.ask(asked.question)
                    assert found is not None
                    asked.give(found)
                finally:
                    await worker.end()


@asynccontextmanager
async def _told(asked: Asked[_Question, Prepared]) -> AsyncIterator[None]:
    """Tell whoever asked why there is no answer."""
    try:
        yield
    except (RejectedImageError, Problem) as error:
        asked.give(error)
    except SpiculaError:  # no memory, or no more processes: that may pass
        asked.give(Problem(503, "decoding", "images cannot be read at present", {"Retry-After": "5"}))
        await asyncio.sleep(1)


class _Worker:
    """One process. After `ask` has blamed an image for its death, it is to be replaced."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self.is_dead = False
        self._seconds = LIMIT_SECONDS

    @classmethod
    async def start(cls, setting: bytes) -> "_Worker":
        errors: BinaryIO
        with tempfile.TemporaryFile() as errors:
            try:
                process = await asyncio.create_subprocess_exec(
                    *COMMAND,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    env=environment_with(),
                    limit=_BUFFER_BYTES,
                    start_new_session=True,  # Ctrl-C is for the service, which ends its workers when it has drained
                )
            except OSError as error:
                raise SpiculaError(f"decoding processes cannot start ({error.strerror})") from error
            worker = cls(process)
            try:
                if not await worker._greet(setting):
                    status = await worker.end()
                    errors.seek(0)
                    lines = errors.read().decode(errors="replace").strip().splitlines()
                    why = lines[-1] if lines else cause(status, "the process")
                    raise SpiculaError(f"decoding processes cannot start ({why})")
            except BaseException:
                await worker.end()  # to its end, also where the first time was cancelled
                raise
        return worker

    async def _greet(self, setting: bytes) -> bool:
        """Tell the process what it is for, and return whether it is ready."""
        try:
            self._in.write(setting)
            async with asyncio.timeout(LIMIT_SECONDS):
                return await self._out.readline() == b'["ready"]\n'
        except (OSError, TimeoutError):
            return False

    def give_way(self) -> None:
        """Leave the cores to others where they have something to do, and take longer."""
        self._seconds *= _PATIENCE
        with suppress(AttributeError, OSError):  # not on every system
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _GIVES_WAY)

    async def ask(self, question: _Question, most_pixels: int | None = None) -> Prepared | None:
        """Return the image; None where it has more pixels than the most.

        Raises:
            RejectedImageError: it gets no score, and why.
        """
        try:
            async with asyncio.timeout(self._seconds):
                self._in.write(json.dumps([*question, most_pixels]).encode() + b"\n")
                message = json.loads(await self._out.readline())
                if message[0] == "done":
                    return await self._take(*message[1:])
        except TimeoutError:
            await self.end()
            raise RejectedImageError(f"decoding it took more than {self._seconds:.0f} s") from None
        except (OSError, ValueError, asyncio.IncompleteReadError):  # its output ended, perhaps in the middle of a line
            raise RejectedImageError(cause(await self.end(kill=False), "its decoder")) from None
        if message[0] == "large":
            return None
        raise RejectedImageError(message[1])

    async def _take(self, kind: str, side: str | None, geometry: dict[str, Any], *shapes: Any) -> Prepared:
        arrays = []
        for dtype, shape in shapes:
            count = math.prod(shape) * np.dtype(dtype).itemsize
            arrays.append(np.frombuffer(await self._out.readexactly(count), dtype).reshape(shape))
        features = arrays[1] if len(arrays) > 1 else None
        return Prepared(arrays[0], Geometry.from_row(geometry), side, kind, features)

    async def end(self, kill: bool = True) -> int:
        """End the process, or wait for the end that it is coming to; return its exit status as `subprocess` counts."""
        self.is_dead = True
        self._in.close()
        if not kill:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _DYING_SECONDS)
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        status = await self._process.wait()
        with suppress(OSError):  # its pipes are closed when they are read to their ends
            await self._in.wait_closed()
        with suppress(OSError):
            await self._out.read()
        return status
