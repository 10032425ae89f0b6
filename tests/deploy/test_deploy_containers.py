"""The Dockerfiles: what they say, and their commands as the container runs them."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service needs the extra serve")

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

import bundle_maker
from contained import CONTAINERS, SECONDS, Dockerfile, contained

from spicula import cli

ROOT = Path(__file__).parents[2]
ALL = ["cpu.Dockerfile", "gpu.Dockerfile", "triton.Dockerfile"]
OURS = ALL[:2]
TOKEN = {"SPICULA_TOKENS": f"radiology:{'t' * 43}"}

#: Sends half of an image, waits for a line, and sends the rest.
HALVES = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
content = open("/var/lib/spicula/image.png", "rb").read()
body = b'--edge\\r\\nContent-Disposition: form-data; name="file"; filename="a"\\r\\n\\r\\n' + content
body += b"\\r\\n--edge--\\r\\n"
connection.putrequest("POST", "/v1/predict")
headers = {"Authorization": "Bearer " + "t" * 43, "Content-Type": "multipart/form-data; boundary=edge"}
for name, value in (headers | {"Content-Length": str(len(body))}).items():
    connection.putheader(name, value)
connection.endheaders(body[:50])
print("begun", flush=True)
input()
connection.send(body[50:])
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
#: Tries to write everywhere, and prints where that was possible.
WRITE = """
import os
for folder in ("/", "/opt/spicula", "/usr/local", "/etc", "/dev", "/models/bundle", "/tmp", "/var/lib/spicula"):
    try:
        open(os.path.join(folder, "written"), "x").close()
        os.remove(os.path.join(folder, "written"))
        print(folder)
    except OSError:
        pass
"""
# what lies in /tmp, but for folders that are mounted there, as where this checkout lies in it
LIST = """
import os
mounts = [line.split()[1] + "/" for line in open("/proc/mounts")]
def is_own(path):
    is_here = os.lstat(path).st_dev == os.stat("/tmp").st_dev
    return is_here and not any(mount.startswith(path + "/") for mount in mounts)
found = [os.path.join(at, name) for at, folders, files in os.walk("/tmp") for name in folders + files]
print([path for path in found if is_own(path)], os.getuid(), os.getgid())
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    made = bundle_maker.make(tmp_path_factory.mktemp("contained") / "bundle").folder
    made.chmod(0o755)
    return made


@pytest.fixture
def cpu(bundle, tmp_path):
    with contained(Dockerfile("cpu.Dockerfile"), {"models/bundle": bundle}, tmp_path, environment=TOKEN) as container:
        container.wait_until_ready()
        yield container


def test_it_is_ready_healthy_and_writes_to_its_volume_and_tmp_alone(cpu):
    assert "serving on http://0.0.0.0:8000 " in cpu.log()
    assert cpu.health() == 0
    assert cpu.run("python", "-c", WRITE) == (0, "/tmp\n/var/lib/spicula\n")
    assert cpu.run("python", "-c", LIST) == (0, "[] 10001 10001\n")
    cpu.stop()
    assert cpu.wait() == 0


def test_sigterm_answers_what_was_accepted(cpu, tmp_path):
    bundle_maker.grey(cpu.volume / "image.png", 51)
    client = cpu.begin("python", "-c", HALVES)
    assert client.stdout.readline() == "begun\n"
    wait_until(lambda: "spicula_requests_under_way 2" in metrics(cpu))  # this one, and the one that asks
    cpu.stop()
    wait_until(lambda: cpu.health() == 1)
    written, _ = client.communicate("\n", timeout=SECONDS)
    assert (written[:4], cpu.wait()) == ("200 ", 0)
    assert json.loads(written[4:])["images"][0]["score"] == pytest.approx(0.2)


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until


def metrics(container):
    program = "import urllib.request as r; print(r.urlopen(r.Request('http://127.0.0.1:8000/metrics', headers={"
    program += f"'Authorization': 'Bearer {'t' * 43}'" + "})).read().decode())"
    return container.run("python", "-c", program)[1]


def test_it_does_not_start_without_tokens(bundle, tmp_path):
    with contained(Dockerfile("cpu.Dockerfile"), {"models/bundle": bundle}, tmp_path) as container:
        assert container.wait() == 2
        assert "can be reached by others, and there are no tokens" in container.log()


def test_without_a_gpu_the_gpu_image_says_so(bundle, tmp_path):
    with contained(Dockerfile("gpu.Dockerfile"), {"models/bundle": bundle}, tmp_path, environment=TOKEN) as container:
        assert container.wait() in (1, 2)
        assert re.search(r"--provider cuda(:| needs) onnxruntime", container.log())


@pytest.mark.slow
def test_exams_run_in_it(tmp_path):
    pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
    pytest.importorskip("openvino", reason="the networks need the extra exams")
    from exam_service import NAMES, PHANTOM_SETTINGS, breast, png, small_bundle

    classifier = small_bundle(tmp_path / "classifier", settings=PHANTOM_SETTINGS, heatmap_threshold=0.3)
    classifier.chmod(0o755)
    program = """
import httpx, time
client = httpx.Client(base_url="http://127.0.0.1:8000", timeout=60, headers={"Authorization": "Bearer " + "t" * 43})
names = ["L_CC", "R_CC", "L_MLO", "R_MLO"]
sent = client.post("/v1/exams", files=[("file", (n, open(f"/var/lib/spicula/{n}.png", "rb"))) for n in names]).json()
while (exam := client.get(f"/v1/exams/{sent['id']}").json())["status"] in ("waiting", "running"):
    time.sleep(0.2)
print(exam["status"], exam["reasons"], len(exam["predictions"]))
print(client.get(f"/v1/exams/{sent['id']}/report.html").status_code)
print(client.get(f"/v1/exams/{sent['id']}/views/L-CC/heatmap").status_code)
"""
    with contained(
        Dockerfile("cpu.Dockerfile"), {"models/bundle": classifier}, tmp_path, environment=TOKEN
    ) as container:
        container.wait_until_ready()
        for name in NAMES:
            (container.volume / f"{name}.png").write_bytes(png.encode(breast(5, name, (320, 260))))
        status, written = container.run("python", "-c", program)
        assert (status, written.split()[0], written.split()[-2:]) == (0, "done", ["200", "200"]), written
        assert re.fullmatch(r"\['/tmp/spicula-serve-\w+'\] 10001 10001\n", container.run("python", "-c", LIST)[1])
        container.stop()
        assert container.wait() == 0


@pytest.mark.slow
def test_triton_prepares_images_in_it(tmp_path):
    """NVIDIA's server, of another version than the image's, with the environment of these tests as Spicula's."""
    import triton_bundles
    from model_servers import environment
    from test_triton_server import without_onnx_runtime

    from spicula.serving.triton.repository import export

    packages = next((environment(tmp_path / "triton", "nvidia-pytriton") / "lib").glob("python3*/site-packages"))
    triton = packages / "pytriton" / "tritonserver"
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy(triton / "python_backend_stubs" / stub, triton / "backends" / "python")
    repository = tmp_path / "repository"
    ((network, _, whole),) = [one.models for one in export([triton_bundles.network(tmp_path / "b").folder], repository)]
    without_onnx_runtime(repository, [network])
    mounts = {"opt/tritonserver": triton, "opt/libraries": packages / "nvidia_pytriton.libs", "models": repository}
    libraries = {"LD_LIBRARY_PATH": f"/opt/libraries:{sysconfig.get_config_var('LIBDIR')}"}
    with contained(Dockerfile("triton.Dockerfile"), mounts, tmp_path, environment=libraries) as container:
        wait_until(lambda: container.health() == 0)
        picture = bundle_maker.grey(tmp_path / "image.png", 51).read_bytes()
        given = {"name": "file", "datatype": "UINT8", "shape": [len(picture)], "data": list(picture)}
        program = "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000); "
        program += f"c.request('POST', '/v2/models/{whole}/infer', {json.dumps({'inputs': [given]})!r}); "
        program += "print(c.getresponse().read().decode())"
        answer = json.loads(container.run("python3", "-c", program)[1])
        assert answer["outputs"][0]["data"][1] == pytest.approx(0.2)
        container.stop()
        assert container.wait() == 0


@pytest.mark.parametrize("name", ALL)
def test_nothing_listens_is_unhealthy(name):
    health = Dockerfile(name).health
    enter = ["unshare", "-n", "--map-root-user"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make namespaces")
    done = subprocess.run([*enter, sys.executable, *health[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "OSError" in done.stderr


@pytest.mark.parametrize("name", ALL)
def test_what_all_of_them_have(name):
    file = Dockerfile(name)
    assert file.user == ["10001", "10001"] and file.stop == "SIGTERM"
    tags = dict(re.findall(r"^ARG (PYTHON|TRITON)=(.*)$", file.text, re.M))
    assert re.fullmatch(r"\d+\.\d+\.\d+-slim-\w+", tags["PYTHON"])
    assert re.fullmatch(r"\d+\.\d+-py3", tags.get("TRITON", "25.06-py3"))
    first, last = re.split(r"(?m)^FROM ", file.text)[1:]
    assert first.startswith("python:${PYTHON} AS build") and "PIP_CONSTRAINT=/build/constraints.txt" in first
    assert all("--only-binary :all:" in line for line in first.splitlines() if " install " in line)
    assert not re.search(r"apt-get|curl|pip install|ADD ", last)
    minor = tags["PYTHON"].rpartition(".")[0]
    assert set(re.findall(r"python(3\.\d+)/", file.text)) <= {minor}
    assert "8000" in re.search(r"EXPOSE (.*)", last)[1].split() and "8000" in " ".join(file.health)


@pytest.mark.parametrize("name", OURS)
def test_the_start_command_is_one_that_spicula_knows(name):
    file = Dockerfile(name)
    assert file.start[0] == "spicula"
    options = cli._parser().parse_args(file.start[1:])
    assert (options.host, options.port, options.bundles) == ("0.0.0.0", 8000, [Path("/models/bundle")])
    assert options.workspace.startswith(file.folder) and options.provider == (
        "cuda" if "gpu" in name else "onnxruntime"
    )


def test_pins_and_extras_are_those_of_the_project():
    text = (CONTAINERS / "gpu.Dockerfile").read_text()
    version = re.search(r"onnxruntime-gpu\[cuda,cudnn\]==([\d.]+)", text)[1]
    assert f"onnxruntime=={version}\n" in (ROOT / "constraints.txt").read_text()
    extras = re.search(r"^ARG EXTRAS=(.*)$", text, re.M)[1].split(",")
    assert (
        set(extras) <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    )


@pytest.mark.parametrize("name", ALL)
def test_what_is_copied_into_the_build_is_not_ignored(name):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (CONTAINERS / name).read_text(), re.M)
    words = {word for line in copied for word in line.split()}
    assert words == allowed and all((ROOT / word).exists() for word in words)


@pytest.mark.parametrize("name", ALL)
def test_hadolint_finds_nothing(name, checker):
    checker("hadolint", "--no-color", CONTAINERS / name)
