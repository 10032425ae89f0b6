"""Pipeline specifications for Pachyderm: their form by its own client, and their commands in the layout it mounts."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_workspace import BLACK, DONE, INCOMPLETE, finished_workspace
from small_bundle import SMALL

from spicula.cli import main
from spicula.errors import UsageError
from spicula.exams.export import pachyderm
from spicula.exams.outputs.detail import detail_of

IMAGE = "example.org/spicula:0.1.0"
DEPLOY = Path(__file__).parent.parent.parent / "deploy" / "pachyderm"

# Run with the client's own types: prints what is left of a specification after they read it and wrote it again.
READ_BY_CLIENT = """
import json, sys
import betterproto
from pachyderm_sdk.api import pps

found = {}
for name, spec in json.load(sys.stdin).items():
    request = pps.CreatePipelineRequest().from_dict(spec)
    assert pps.CreatePipelineRequest().parse(bytes(request)) == request
    found[name] = request.to_dict(casing=betterproto.Casing.SNAKE)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A Python with pachyderm-sdk, whose grpcio is not ours: an environment of its own."""
    folder = tmp_path_factory.mktemp("client")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "pachyderm-sdk>=2.12,<3"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pachyderm-sdk cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "python"


def read_by(client, specs):
    done = subprocess.run(
        [client, "-c", READ_BY_CLIENT], input=json.dumps(specs), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def as_protobuf_writes(value):
    """JSON as protobuf writes it: whole numbers of 64 bits as text, durations with milliseconds."""
    if isinstance(value, dict):
        return {key: as_protobuf_writes(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_protobuf_writes(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"\d+s", value):
        return f"{value[:-1]}.000s"
    return value


@pytest.mark.slow
def test_the_clients_own_types_know_every_field_and_value(client):
    for device in ("cpu", "cuda"):
        specs = pachyderm.specifications(IMAGE, settings=SMALL, device=device)
        assert read_by(client, specs) == as_protobuf_writes(specs)


@pytest.mark.slow
def test_that_check_would_find_a_field_that_is_not_known(client):
    specs = pachyderm.specifications(IMAGE)
    specs["crop"]["parallelism"] = 4
    specs["crop"]["transform"]["command"] = ["x"]
    found = read_by(client, specs)["crop"]
    assert "parallelism" not in found and "command" not in found["transform"]


def inputs(spec):
    """The pfs inputs of a specification, by repository."""
    found = {}

    def walk(value):
        for kind, one in value.items():
            if kind == "pfs":
                found[one["repo"]] = one
            else:
                for part in one:
                    walk(part)

    walk(spec["input"])
    return found


def test_each_stage_reads_one_exam_at_a_time_and_networks_all_models():
    specs = pachyderm.specifications(IMAGE)
    assert list(specs) == ["crop", "centers", "heatmaps", "visualize", "classify"]
    assert specs["crop"]["input"] == {"pfs": {"repo": "exams", "glob": "/*"}}
    assert specs["centers"]["input"] == {"pfs": {"repo": "crop", "glob": "/*"}}
    models = {"pfs": {"repo": "models", "glob": "/"}}
    assert specs["heatmaps"]["input"] == {"cross": [{"pfs": {"repo": "crop", "glob": "/*"}}, models]}

    def joined(*names):
        return {"join": [{"pfs": {"repo": name, "glob": "/(*)", "join_on": "$1"}} for name in names]}

    assert specs["visualize"]["input"] == joined("crop", "heatmaps")
    assert specs["classify"]["input"] == {"cross": [joined("crop", "centers", "heatmaps"), models]}


def test_resources_are_those_of_the_published_deployment():
    specs = pachyderm.specifications(IMAGE)
    assert {name for name, spec in specs.items() if "resource_limits" in spec} == {"heatmaps", "classify"}
    for name in ("heatmaps", "classify"):
        assert specs[name]["resource_limits"] == {"gpu": {"type": "nvidia.com/gpu", "number": 1}}
        assert specs[name]["resource_requests"] == {"memory": "4G", "cpu": 1.0}
    assert {name: spec["parallelism_spec"]["constant"] for name, spec in specs.items()} == {
        "crop": 1, "centers": 1, "heatmaps": 1, "visualize": 4, "classify": 1,
    }  # fmt: skip
    assert all(spec["autoscaling"] for spec in specs.values())


def test_a_poison_exam_is_tried_three_times_and_holds_up_nobody():
    for spec in pachyderm.specifications(IMAGE).values():
        assert spec["datum_tries"] == 3
        assert subprocess.run(spec["transform"]["err_cmd"], check=False).returncode == 0


def test_without_a_gpu_none_is_asked_for():
    specs = pachyderm.specifications(IMAGE, device="cpu")
    assert not [name for name, spec in specs.items() if "resource_limits" in spec]
    command = specs["classify"]["transform"]["cmd"]
    assert command[command.index("--device") + 1] == "cpu"


def test_only_settings_that_are_not_the_published_ones_are_told():
    assert "--settings" not in pachyderm.specifications(IMAGE)["crop"]["transform"]["cmd"]
    command = pachyderm.specifications(IMAGE, settings=SMALL)["crop"]["transform"]["cmd"]
    assert json.loads(command[command.index("--settings") + 1]) == SMALL.model_dump(mode="json")


@pytest.mark.parametrize("image", ["", "two words", "line\n"])
def test_a_name_of_an_image_that_is_none(image):
    with pytest.raises(UsageError, match="expected the name of a container image"):
        pachyderm.specifications(image)


def test_the_example_in_deploy_is_what_the_generator_writes(tmp_path):
    assert main(["exams", "export", "pachyderm", "--image", IMAGE, "--to", str(tmp_path)]) == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in DEPLOY.glob("*.json")}
    assert sorted(written) == [
        "1-crop.json", "2-centers.json", "3-heatmaps.json", "4-visualize.json", "5-classify.json",
    ]  # fmt: skip


def data(spec, repositories):
    """The datums of a pipeline: for each exam, what Pachyderm mounts of each repository."""
    read = inputs(spec)
    exams = [
        {folder.name for folder in repositories[name].iterdir() if fnmatch.fnmatch(folder.name, "*")}
        for name, one in read.items()
        if one["glob"] != "/"
    ]
    for exam in sorted(set.intersection(*exams)):
        yield (
            exam,
            {
                name: repositories[name] if one["glob"] == "/" else repositories[name] / exam
                for name, one in read.items()
            },
        )


def run_pipeline(spec, repositories, folder, prefix):
    """Run a pipeline's command on each of its datums, alone, as a worker would; return its output repository."""
    output = folder / spec["pipeline"]["name"]
    for exam, mounted in data(spec, repositories):
        shutil.rmtree(prefix, ignore_errors=True)
        (prefix / "out").mkdir(parents=True)
        for name, path in mounted.items():
            to = prefix / name if path == repositories[name] else prefix / name / exam
            shutil.copytree(path, to)
        program, *arguments = spec["transform"]["cmd"]
        assert program == "spicula"
        assert main(arguments) == 0
        shutil.copytree(prefix / "out", output, dirs_exist_ok=True)
    return output


def test_the_five_commands_give_the_scores_of_a_run(tmp_path):
    pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
    pytest.importorskip("openvino", reason="the networks need the extra exams")
    finished = finished_workspace(tmp_path / "run")
    prefix = tmp_path / "pfs"
    specs = pachyderm.specifications(IMAGE, settings=SMALL, device="cpu", prefix=str(prefix))
    repositories = {"exams": finished.source, "models": finished.bundle.parent}
    for name, spec in specs.items():
        repositories[name] = run_pipeline(spec, repositories, tmp_path / "repositories", prefix)

    for exam in DONE:
        found = json.loads((repositories["classify"] / exam / "classify.json").read_text())
        scores = {
            (step["model"], {"L": "left", "R": "right"}[one["side"]], one["target"]): round(one["score"], 7)
            for step in found["steps"].values()
            for one in step["manifest"]["scores"]
        }
        wanted = detail_of(finished.ledger, finished.artefacts, exam)["predictions"]
        assert scores == {(one["model"], one["side"], one["target"]): one["score"] for one in wanted}
        assert len(list((repositories["visualize"] / exam).glob("*.png"))) == 4
    for exam in (BLACK, INCOMPLETE):
        found = json.loads((repositories["classify"] / exam / "classify.json").read_text())
        assert found["status"] == "refused" and found["steps"] == {}
