"""The services that `serve.py` compares, each a process of its own, and what their processes cost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 180
_TICKS = os.sysconf("SC_CLK_TCK")


class Side:
    """A service that runs.

    Args:
        command: starts it; "PORT" in its words is replaced by a free port.
        ready: what it answers once it is ready.
        log: a file for what it says.
        variables: of its environment, besides those here.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    def __init__(
        self, command: Sequence[str], ready: str, log: Path, variables: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        self.port = port or free_ports(1)[0]
        words = [word.replace("PORT", str(self.port)) for word in command]
        with log.open("w") as lines:
            self._process = subprocess.Popen(
                words,
                stdout=lines,
                stderr=lines,
                env={**os.environ, **(variables or {})},
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C is for this script, which ends its services
            )
        until = time.monotonic() + SECONDS
        while not self._is_ready(ready):
            if self._process.poll() is not None or time.monotonic() > until:
                self.end()
                last = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise SystemExit("\n".join([f"{Path(words[0]).name} does not start:", *last]))
            time.sleep(0.2)

    def _is_ready(self, path: str) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def usage(self) -> "Usage":
        """Return what its processes have taken so far."""
        return usage_of(self._process.pid)

    def end(self) -> None:
        """End it, and whatever it has started."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass(frozen=True)
class Usage:
    """What processes have taken.

    Attributes:
        main_seconds: of processors, by the first process.
        other_seconds: by those that it has started.
        bytes: of resident memory, of all; pages that are shared count in each.
    """

    main_seconds: float
    other_seconds: float
    bytes: int


def usage_of(root: int) -> Usage:
    """Return what a process and its children have taken, those that have ended included."""
    children: dict[int, list[int]] = {}
    found: dict[int, tuple[float, float, int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.name))
        own, ended = (sum(map(int, fields[at : at + 2])) / _TICKS for at in (11, 13))
        found[int(path.name)] = own, ended, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    own, other, resident = found.get(root, (0.0, 0.0, 0))
    todo = list(children.get(root, []))
    other_seconds = other
    while todo:
        one = todo.pop()
        own_seconds, ended, size = found.get(one, (0.0, 0.0, 0))
        other_seconds += own_seconds + ended
        resident += size
        todo += children.get(one, [])
    return Usage(own, other_seconds, resident)


def free_ports(count: int) -> list[int]:
    """Return ports at which nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def spicula(folder: Path, name: str, *options: str) -> Side:
    """Return `spicula serve` with the bundle of a folder."""
    command = [sys.executable, "-m", "spicula", "serve", str(folder / "bundle"), "--port", "PORT", *options]
    return Side(command, "/readyz", folder / f"{name}.log")


def flask(folder: Path, name: str, weights: Path, workers: int, variables: Mapping[str, str]) -> Side:
    """Return the common practice: gunicorn with synchronous workers, as it is by default."""
    command = [sys.executable, "-m", "gunicorn", "--workers", str(workers), "--bind", "127.0.0.1:PORT"]
    command += ["--chdir", str(HERE), "--timeout", "120", "serve_flask:app"]
    return Side(command, "/healthz", folder / f"{name}.log", {"SERVE_WEIGHTS": str(weights), **variables})


def mlserver(folder: Path, python: Path) -> Side:
    """Return MLServer with the bundle's graph; `python` has mlserver and onnxruntime."""
    models = folder / "sides" / "mlserver"  # gunicorn imports from the folder itself
    shutil.rmtree(models, ignore_errors=True)
    (models / "resnet50").mkdir(parents=True)
    port, *others = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": others[0], "metrics_port": others[1]}
    (models / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0, "debug": False}))
    told = {
        "name": "resnet50",
        "implementation": "serve_mlserver.OnnxModel",
        "parameters": {"uri": str(folder / "bundle" / "model.onnx"), "version": "1"},
    }
    (models / "resnet50" / "model-settings.json").write_text(json.dumps(told))
    command = [str(python.parent / "mlserver"), "start", str(models)]
    return Side(command, "/v2/models/resnet50/ready", folder / "mlserver.log", {"PYTHONPATH": str(HERE)}, port)


_CONFIG = """
name: "resnet50"
backend: "python"
max_batch_size: 16
input [ { name: "image" data_type: TYPE_FP32 dims: [3, 224, 224] } ]
output [ { name: "probabilities" data_type: TYPE_FP32 dims: [2] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


def triton(folder: Path, python: Path) -> Side:
    """Return tritonserver with the bundle's graph in its Python backend; `python` has nvidia-pytriton, onnxruntime."""
    packages = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    server = packages / "pytriton" / "tritonserver"
    there = folder / "sides" / "triton"
    shutil.rmtree(there, ignore_errors=True)
    shutil.copytree(server / "backends" / "python", there / "backends" / "python")
    version = packages.parent.name.removeprefix("python")
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", there / "backends" / "python")
    model = there / "repository" / "resnet50"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.onnx").symlink_to((folder / "bundle" / "model.onnx").absolute())
    shutil.copy(HERE / "serve_triton.py", model / "1" / "model.py")
    (model / "config.pbtxt").write_text(_CONFIG)
    port, metrics = free_ports(2)
    options = {
        "model-repository": there / "repository", "backend-directory": there / "backends",
        "http-address": "127.0.0.1", "http-port": port, "allow-grpc": "false",
        "metrics-address": "127.0.0.1", "metrics-port": metrics, "exit-timeout-secs": 3,
    }  # fmt: skip
    libraries = [str(packages / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    variables = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    variables["PATH"] = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    command = [str(server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]
    return Side(command, "/v2/models/resnet50/ready", folder / "triton.log", variables, port)
