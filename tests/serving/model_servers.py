"""Model servers of others: installed into an environment of their own, and run as processes with one ONNX model."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 120


def environment(folder, *packages):
    """Make an environment with packages, and return its folder; skip where they cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{packages[0]} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(command, port, model, log, variables):
    """Run a server until the context ends; it is there when its model is ready."""
    with log.open("w") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, env=os.environ | variables, cwd=log.parent)
    try:
        until = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{model}/ready", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def mlserver(folder, installed, name, onnx):
    """MLServer with a model; JSON alone."""
    port, *others = free_ports(3)
    model = folder / "models" / name
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(onnx)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": others[0], "metrics_port": others[1]}
    settings |= {"parallel_workers": 0, "debug": False}
    (folder / "models" / "settings.json").write_text(json.dumps(settings))
    told = {"name": name, "implementation": "mlserver_onnx.OnnxModel"}
    told["parameters"] = {"uri": str(model / "model.onnx"), "version": "1"}
    (model / "model-settings.json").write_text(json.dumps(told))
    command = [installed / "bin" / "mlserver", "start", folder / "models"]
    return running(command, port, name, folder / "log", {"PYTHONPATH": str(HERE)})


CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "{input[name]}" data_type: TYPE_FP32 dims: {inputs} }} ]
output [ {{ name: "{output[name]}" data_type: TYPE_FP32 dims: {outputs} }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""


def tritonserver(folder, installed, bundle, batch):
    """Triton of nvidia-pytriton, with its Python backend, and a bundle's model that takes `batch` images at once."""
    model = folder / "repository" / bundle.name
    (model / "1").mkdir(parents=True)
    shutil.copy(bundle.folder / "model.onnx", model / "1" / "model.onnx")
    shutil.copy(HERE / "triton_onnx.py", model / "1" / "model.py")
    info = bundle.info
    shapes = {"inputs": info["input"]["shape"][1:], "outputs": info["output"]["shape"][1:]}
    text = CONFIG.format(name=bundle.name, batch=batch, input=info["input"], output=info["output"], **shapes)
    (model / "config.pbtxt").write_text(text)
    return triton_of(folder, installed, folder / "repository", bundle.name, installed / "bin")


def triton_of(folder, installed, repository, model, python):
    """Triton of nvidia-pytriton with a repository, waited for until a model is ready.

    Its Python backend uses the packages of the environment whose programs are in the folder `python`.
    """
    packages = next((installed / "lib").glob("python3*/site-packages"))
    triton = packages / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(triton / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    port, metrics = free_ports(2)
    options = {
        "model-repository": repository, "backend-directory": folder / "backends",
        "http-address": "127.0.0.1", "http-port": port, "allow-grpc": "false",
        "metrics-address": "127.0.0.1", "metrics-port": metrics, "exit-timeout-secs": 3,
    }  # fmt: skip
    libraries = [str(packages / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    variables = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    variables["PATH"] = os.pathsep.join([str(python), os.environ["PATH"]])
    command = [triton / "bin" / "tritonserver", *(f"--{name}={value}" for name, value in options.items())]
    return running(command, port, model, folder / "log", variables)
