"""The engine of a cluster: two pools of Ray actors, which grow with the backlog and shrink when idle.

An actor asks Ray for what the stages of its pool declare; where a cluster grows on demand, actors that wait for room
are the demand. What an actor does stands in `engines.ray_worker`. What dies beyond a worker process (an actor, a
machine) costs an attempt at the task that was under way there.
"""

import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from spicula import cluster, files
from spicula.errors import SpiculaError
from spicula.exams.engines import local, ray_actor, ray_worker, sizes
from spicula.exams.engines.pooled import PooledEngine
from spicula.exams.engines.pools import Pool
from spicula.exams.engines.types import POOLS, Done, time_limits
from spicula.exams.stages import STAGES
from spicula.exams.types import Task
from spicula.processes import cores
from spicula.progress import say

#: Fewest and most workers of a pool. Most None: one for each core that the cluster has at the start; on this machine as
#: many as without Ray.
Bounds = tuple[int, int | None]

#: A pool whose tasks wait so long without any worker is worth a word; a cluster may be growing meanwhile.
PATIENCE_SECONDS = 60.0

#: How often is looked, while a pool waits, whether Ray is still there.
LOOK_SECONDS = 5.0

#: What `ray.remote` takes by these names; any other name is a resource that the cluster's owner made up.
_NAMED = ("num_cpus", "num_gpus", "memory")


@dataclass(eq=False)
class _Worker:
    """An actor.

    Attributes:
        actor: Ray's handle of it.
        calls: that it has not answered, in the order in which it will.
        is_placed: whether Ray has found room for it.
        host: the machine.
    """

    actor: Any
    calls: deque[Any] = field(default_factory=deque)
    is_placed: bool = False
    host: str = ""


class RayEngine(PooledEngine[_Worker]):
    """Runs tasks on Ray; see `engines.types.Engine`.

    Args:
        setting: of the workbench, as JSON values. A path in it has to be the same on all machines.
        address: of a cluster, as `ray.init` takes it. None: Ray is started on this machine, and stopped at the end.
        cpu_workers: fewest and most workers for CPU stages.
        model_workers: fewest and most workers for stages with a network.
        model_resources: what a model worker asks of Ray, by the names of `ray.remote` ("num_gpus", "num_cpus",
            "memory" in bytes) or of the cluster's own resources ({"exam_gpu": 1}). None: a GPU when the setting's
            device is "cuda", else as many cores as it has streams.
        seconds: stage -> how long a run of it may take.
        command: starts a worker process; its first word is replaced by the Python that Ray runs in.
    """

    def __init__(
        self,
        setting: Mapping[str, Any],
        address: str | None = None,
        *,
        cpu_workers: Bounds = (1, None),
        model_workers: Bounds = (1, 1),
        model_resources: Mapping[str, float] | None = None,
        seconds: Mapping[str, float] | None = None,
        command: Sequence[str] = local.COMMAND,
    ) -> None:
        super().__init__()
        streams = setting.get("streams") or cores()
        self._setting = {**setting, "streams": streams}
        self._address = address
        self._bounds = {"cpu": cpu_workers, "model": model_workers}
        if address is None:
            usual = sizes.sizes(cores(), sizes.memory_bytes())
            self._bounds = {
                "cpu": (cpu_workers[0], cpu_workers[1] or usual.cpu_workers),
                "model": (model_workers[0], model_workers[1] or usual.model_workers),
            }
        if model_resources is not None:
            model_resources = {"num_gpus": 0, **model_resources}
        elif setting.get("device") != "cuda":
            model_resources = {"num_gpus": 0, "num_cpus": streams}
        self._asks = {"cpu": declared("cpu"), "model": {**declared("model"), **(model_resources or {})}}
        self._limits = dict(time_limits() if seconds is None else seconds)
        self._arguments = tuple(command[1:])
        self._ray: ModuleType
        self._actor = ray_actor.actor_class()
        self._workers: dict[_Worker, str] = {}
        self._ended: list[_Worker] = []
        self._token: Path | None = None
        self._stack = ExitStack()
        self._held_up = dict.fromkeys(POOLS, 0.0)

    def start(self) -> None:
        """Connect to the cluster, or start one here, and start the fewest workers.

        Raises:
            UsageError: Ray is not installed, or there is no cluster at the address.
            SpiculaError: Ray does not start.
        """
        self._ray = cluster.load_ray()
        self._stack.enter_context(cluster.connected(self._ray, self._address, self._here()))
        if self._address is None:
            for ask in self._asks.values():  # what a worker takes at most is for clusters, where many share a machine
                ask.pop("memory", None)
        else:
            self._token = self._leave_token()
        for name, (fewest, most) in self._bounds.items():
            self._pools[name] = Pool(
                name,
                fewest,
                max(fewest, 1, cluster.cores(self._ray) if most is None else most),
                {},  # each actor looks after its own process
                hire=partial(self._hire, name),
                give=self._give,
                end=self._end,
                is_placed=lambda worker: worker.is_placed,
            )
            self._pools[name].start()

    def stop(self) -> None:
        """End all workers, and leave or stop the cluster."""
        for worker in list(self._workers):
            self._kill(worker)
        if self._token is not None:
            self._token.unlink(missing_ok=True)
            self._token = None
        self._stack.close()

    def _here(self) -> dict[str, Any]:
        """Return what a Ray on this machine needs to have for the most workers; they share the real cores."""
        needed: dict[str, float] = {}
        for name, ask in self._asks.items():
            for resource, amount in ask.items():
                needed[resource] = needed.get(resource, 0.0) + (self._bounds[name][1] or 1) * amount
        own = {name: amount for name, amount in needed.items() if name not in _NAMED}
        return {"num_cpus": needed["num_cpus"], "resources": own}

    def _leave_token(self) -> Path | None:
        """Put a file into the workspace that other machines have to see."""
        if "://" in self._setting["artefacts"]:
            return None
        token = Path(self._setting["artefacts"]) / f"{files.TEMPORARY}ray-{secrets.token_hex(8)}"
        files.write_bytes(token, b"")
        return token

    # workers

    def _hire(self, pool: str, number: int) -> _Worker:
        del number
        ask = self._asks[pool]
        options = {name: ask[name] for name in _NAMED if name in ask}
        own = {name: amount for name, amount in ask.items() if name not in _NAMED}
        remote = self._ray.remote(**options, resources=own, max_restarts=0, max_task_retries=0)(self._actor)
        worker = _Worker(remote.remote(pool, self._setting, self._limits, self._arguments))
        worker.calls.append(worker.actor.arrive.remote())
        worker.calls.append(worker.actor.look.remote(None if self._token is None else str(self._token)))
        self._workers[worker] = pool
        return worker

    def _give(self, worker: _Worker, task: Task) -> None:
        seen = [] if self._address is None else [one["path"] for one in task["images"] if Path(one["path"]).exists()]
        worker.calls.append(worker.actor.execute.remote(task, seen))

    def _end(self, worker: _Worker) -> None:
        """End a worker for its pool, which is told at the next turn."""
        self._kill(worker)
        self._ended.append(worker)

    def _kill(self, worker: _Worker) -> None:
        self._workers.pop(worker, None)
        with suppress(Exception):  # it may be gone, and the cluster too
            self._ray.kill(worker.actor)

    # what they say

    def _heard(self, timeout: float) -> list[Done]:
        if self._ended:
            ended, self._ended = self._ended, []
            return [done for pool in self._pools.values() for worker in ended for done in pool.ended(worker, "ended")]
        calls = [call for worker in self._workers for call in worker.calls]
        if not calls:
            time.sleep(timeout)
            return []
        self._ray.wait(calls, num_returns=1, timeout=timeout, fetch_local=False)
        answered = set(self._ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)[0])
        done: list[Done] = []
        for worker, pool in list(self._workers.items()):
            while worker.calls and worker.calls[0] in answered:
                done += self._handle(self._pools[pool], worker, worker.calls.popleft())
        return done

    def _handle(self, pool: Pool[_Worker], worker: _Worker, call: Any) -> list[Done]:
        try:
            told = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            worker.calls.clear()
            self._kill(worker)
            return pool.ended(worker, f"its Ray worker died ({type(error).__name__})")
        if told is None:
            worker.is_placed = True
            return []
        if "host" in told:
            self._check(told)
            worker.host = told["host"]
            pool.ready(worker, worker.host)
            return []
        if told["failed"] is not None:
            raise SpiculaError(f"{told['failed']} (on the Ray machine {worker.host})")
        return [pool.done(worker, told["record"], told["lost"], (told["started"], told["seconds"]))]

    def _check(self, look: ray_worker.Look) -> None:
        if not look["sees_workspace"]:
            raise SpiculaError(
                f"the Ray machine {look['host']} does not see {self._setting['artefacts']}; put the workspace on "
                "storage that all machines share under one path, or into s3:// or gs://"
            )
        here = ray_worker.code()
        if look["code"] != here:
            raise SpiculaError(
                f"the Ray machine {look['host']} has Spicula {look['code']['spicula']} with other stages than this "
                f"one ({here['spicula']}); install the same version on all machines"
            )

    def _check_alive(self) -> None:
        """End where Ray of this machine has died: no other machine will come. A cluster may grow again."""
        if self._address is None and not any(node["Alive"] for node in self._ray.nodes()):
            raise SpiculaError("Ray's own processes on this machine died; the same command again goes on")

    def _look_round(self, seconds: float) -> None:
        for name, pool in self._pools.items():
            before = self._held_up[name]
            has_room = any(worker.is_placed for worker in pool.workers)
            self._held_up[name] = before + seconds if pool.is_held_up and not has_room else 0.0
            if int(before // LOOK_SECONDS) < int(self._held_up[name] // LOOK_SECONDS):
                self._check_alive()
            if before < PATIENCE_SECONDS <= self._held_up[name]:
                ask = ", ".join(f"{resource} {amount:g}" for resource, amount in self._asks[name].items())
                say(
                    f"Ray has had no room for a {name} worker for {PATIENCE_SECONDS:.0f} s (it asks for {ask}); waiting"
                )


def declared(pool: str) -> dict[str, float]:
    """Return what the stages of a pool declare, by the names of `ray.remote`; a worker asks for the most of each."""
    resources = [stage.resources for stage in STAGES.values() if stage.resources.pool == pool]
    return {
        "num_cpus": max(one.cpus for one in resources),
        "num_gpus": max(one.gpus for one in resources),
        "memory": float(max(one.memory_mb for one in resources) * 2**20),
    }
