"""The numbers on the page about engines, and the manifest for Kubernetes."""

import re
import shlex
from pathlib import Path

import pytest

from spicula import cli
from spicula.exams import schedule
from spicula.exams.engines import local, pooled, pools, ray, sizes
from spicula.exams.stages import STAGES
from spicula.imaging import worker_process

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy" / "kuberay" / "exams.yaml"


@pytest.fixture(scope="module")
def page() -> str:
    return " ".join((ROOT / "docs" / "exam-engines.md").read_text(encoding="utf-8").split())


def test_the_numbers_are_those_of_the_code(page):
    seconds = {
        pool: {s.resources.seconds for s in STAGES.values() if s.resources.pool == pool} for pool in sizes.HELD_MB
    }
    assert {len(one) for one in seconds.values()} == {1}
    for text in (
        f"takes {pools.DEPTH} tasks for each worker",
        f"counts {sizes.DRIVER_MB} MB for the driver, {sizes.needed_mb('cpu')} MB for a CPU worker and "
        f"{sizes.needed_mb('model')} MB for a model worker",
        f"than its stage may ({seconds['cpu'].pop()} s; stages with a network {seconds['model'].pop()} s)",
        f"a CPU worker wants over {worker_process.MEMORY_BYTES // 2**30} GiB",
        f"over {local.MEMORY_SHARE:.0%} of the machine's memory".replace("%", " %"),
        f"{schedule.MOST_ATTEMPTS} attempts; then it is listed as failed",
        f"is not ready {pools.START_SECONDS:.0f} s after its start",
        f"{pools.MOST_STARTS} in a row die or are ended before they are ready",
        f"nothing to do for {pools.IDLE_SECONDS:.0f} seconds",
        f"after {ray.PATIENCE_SECONDS:.0f} seconds without any",
    ):
        assert text in page, text
    assert pooled.TURN_SECONDS == 0.5, "twice a second"


def test_every_stage_stands_in_its_pool(page):
    for pool in ("cpu", "model"):
        names = ", ".join(f"`{stage.name}`" for stage in STAGES.values() if stage.resources.pool == pool)
        assert f"| `{pool}` | {names} |" in page


# The manifest


@pytest.fixture(scope="module")
def job() -> dict:
    yaml = pytest.importorskip("yaml", reason="reads the manifest")
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def groups(job) -> dict:
    return {one["groupName"]: one for one in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


def pods(job) -> dict:
    cluster = job["spec"]["rayClusterSpec"]
    workers = {one["groupName"]: one["template"]["spec"] for one in cluster["workerGroupSpecs"]}
    head = cluster["headGroupSpec"]["template"]["spec"]
    return {"submitter": job["spec"]["submitterPodTemplate"]["spec"], "head": head, **workers}


#: Fields of KubeRay's types (ray.io/v1) that the manifest may have.
FIELDS = {
    "RayJob": {
        *("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submitterPodTemplate"),
        "rayClusterSpec",
    },
    "RayCluster": {
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
        "workerGroupSpecs",
    },
    "autoscaler": {"idleTimeoutSeconds", "securityContext", "env", "volumeMounts", "resources"},
    "head": {"serviceType", "rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def test_the_manifest_has_only_fields_that_kuberay_knows(job):
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= FIELDS["RayJob"]
    assert set(cluster) <= FIELDS["RayCluster"]
    assert set(cluster["autoscalerOptions"]) <= FIELDS["autoscaler"]
    assert set(cluster["headGroupSpec"]) <= FIELDS["head"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == FIELDS["worker"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_manifests_command_parses(job):
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[0] == "spicula"
    options = cli._parser().parse_args(words[1:])
    assert (options.engine, options.device, options.workspace[:5]) == ("ray", "cuda", "s3://")


def test_its_ray_is_the_tested_one(job):
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert version == pinned[1]
    assert f"ray[default]=={version}" in (MANIFEST.parent / "README.md").read_text(encoding="utf-8")


def test_nobody_is_root_and_only_tmp_can_be_written(job):
    for name, pod in pods(job).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 0
        assert name == "head" or pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        assert writable == ["/tmp"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_cpu_and_gpu_workers_scale_apart_from_nothing(job, groups):
    options = cli._parser().parse_args(shlex.split(job["spec"]["entrypoint"])[1:])
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert {name: group["minReplicas"] for name, group in groups.items()} == {"cpu": 0, "gpu": 0}
    (cpu,), (gpu,) = (groups[name]["template"]["spec"]["containers"] for name in ("cpu", "gpu"))
    cores = int(cpu["resources"]["limits"]["cpu"])
    assert groups["cpu"]["maxReplicas"] * cores == options.cpu_workers
    assert groups["gpu"]["maxReplicas"] * int(gpu["resources"]["limits"]["nvidia.com/gpu"]) == options.model_workers
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]
    # what the workers of a pod declare, and Ray's own store, fit into it
    assert cores * sizes.needed_mb("cpu") + 1024 <= int(cpu["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    assert sizes.needed_mb("model") + 1024 <= int(gpu["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
