"""Ray, on this machine or at an address: how it is imported, started, found and left."""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import Any

from spicula.errors import SpiculaError, UsageError

#: For Ray's shared memory on this machine, in bytes; the smallest that it takes is 75 MiB. Only paths, rows and reasons
#: go through it.
STORE_BYTES = 128 * 2**20

#: A cluster that takes no connection for so long is not there.
KNOCK_SECONDS = 10.0

#: Ray reads these when it is imported or started: it tells nobody that it was used, and leaves GPUs alone.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def load_ray() -> ModuleType:
    """Return Ray.

    Raises:
        UsageError: it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return import_module("ray")
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'spicula[ray]'") from error


@contextmanager
def connected(ray: ModuleType, address: str | None, here: Mapping[str, Any]) -> Iterator[None]:
    """Connect to a cluster, or start one here; leave or stop it at the end.

    Meanwhile standard output goes to standard error: Ray tells of dead processes there.

    Args:
        ray: see `load_ray`.
        address: of a cluster, as `ray.init` takes it. None: Ray is started on this machine.
        here: arguments of `ray.init` for a Ray on this machine: `num_cpus`, `resources`.

    Raises:
        SpiculaError: Ray does not start.
        UsageError: there is no cluster at the address.
    """
    with redirect_stdout(sys.stderr):
        if ray.is_initialized():
            yield
            return
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                ray.init("local", object_store_memory=STORE_BYTES, include_dashboard=False, **here, **quiet)
            else:
                _knock(address)
                ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:  # Ray's own are among them
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if address is None:
                raise SpiculaError(f"Ray does not start on this machine ({reason})") from error
            raise UsageError(f"Ray does not answer at {address}; check --address ({reason})") from error
        try:
            yield
        finally:
            ray.shutdown()


def cores(ray: ModuleType) -> int:
    """Return how many cores Ray has now; a cluster can grow and shrink."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _knock(address: str) -> None:
    """Try a HOST:PORT at once; Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
