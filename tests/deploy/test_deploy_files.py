"""The files of compose, Cloud Run, KServe and Kubernetes: against published schemas, and against the service itself."""

import re
import shlex
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="a reader of YAML: pip install 'spicula[peers]'")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

from contained import Dockerfile  # noqa: E402

from spicula import cli  # noqa: E402
from spicula.serving import process  # noqa: E402
from spicula.serving.limits import LIMITS, Limits  # noqa: E402

DEPLOY = Path(__file__).parents[2] / "deploy"
CLOUD_RUN = ["cloud-run/service.yaml", "cloud-run/service-gpu.yaml"]
#: Files with a container of the service, and the Dockerfile of its image.
SERVICES = {
    "kubernetes/spicula.yaml": "cpu.Dockerfile",
    "kserve/spicula.yaml": "cpu.Dockerfile",
    "cloud-run/service.yaml": "cpu.Dockerfile",
    "cloud-run/service-gpu.yaml": "gpu.Dockerfile",
}
DEFAULTS = {one.name: one.default for one in LIMITS}
#: What the service takes besides drain-seconds: to be heard, and to close connections.
GRACE = process._GRACE_SECONDS + process._LAST_SECONDS + process._CLOSING_SECONDS


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def found(name, key):
    """All values of a key, however deep it stands in a file."""

    def walk(value):
        if isinstance(value, dict):
            for one, inner in value.items():
                if one == key:
                    yield inner
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return list(walk(documents(name)))


def container(name):
    return found(name, "containers")[0][0]


def options_of(name):
    """What the service is told in a file: ENTRYPOINT of its image and the arguments, parsed by the service itself."""
    start = Dockerfile(SERVICES[name]).start[1:-1]
    return cli._parser().parse_args([*start, *container(name)["args"]])


def limits_of(options):
    return Limits(options.limit)


def test_compose_has_the_form_that_is_published(checker):
    checker("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose/compose.yaml")


def test_cloud_build_has_the_form_that_is_published(checker):
    checker("check-jsonschema", "--builtin-schema", "vendor.cloudbuild", DEPLOY / "cloud-run/cloudbuild.yaml")


def test_kubernetes_has_the_form_that_is_published(checker):
    checker("kubernetes-validate", "--strict", DEPLOY / "kubernetes/spicula.yaml")


def test_compose_gives_options_that_the_service_knows():
    service = documents("compose/compose.yaml")[0]["services"]["service"]
    command = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["command"])
    options = cli._parser().parse_args([*Dockerfile("cpu.Dockerfile").start[1:-1], *shlex.split(command)])
    assert (options.bundles, options.tokens) == ([Path("/models/bundle")], Path("/run/secrets/tokens"))
    assert limits_of(options)["spooled-bytes"] < 2 * 2**30  # of the tmpfs
    assert float(service["stop_grace_period"][:-1]) > DEFAULTS["drain-seconds"] + GRACE
    inside = documents("compose/compose.yaml")[0]["services"]["nginx"]["networks"]["inside"]
    assert options.proxy == [inside["ipv4_address"]]
    upstream = service["networks"]["inside"]["ipv4_address"]
    assert f"server {upstream}:{options.port};" in (DEPLOY / "compose/nginx.conf").read_text()


def test_every_container_of_compose_is_kept_small():
    for name, service in documents("compose/compose.yaml")[0]["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"] == service["memswap_limit"] and service["pids_limit"] and service["tmpfs"]
        assert re.search(r":[\d.]+(-\w+)?\}?$", service["image"])
        assert ("ports" in service) == (name == "nginx")
    assert documents("compose/compose.yaml")[0]["networks"]["inside"]["internal"]


def test_the_secrets_of_compose_are_where_nginx_looks():
    text = (DEPLOY / "compose/nginx.conf").read_text()
    secrets = documents("compose/compose.yaml")[0]["services"]["nginx"]["secrets"]
    assert set(re.findall(r"/run/secrets/(\w+);", text)) == set(secrets)


@pytest.mark.parametrize("name", SERVICES)
def test_arguments_are_those_of_the_service(name):
    options = options_of(name)
    assert options.host == "0.0.0.0"
    limits = limits_of(options)
    assert limits["held-bytes"] <= limits["spooled-bytes"]
    assert container(name)["ports"][0]["containerPort"] == options.port


@pytest.mark.parametrize("name", SERVICES)
def test_probes_ask_what_there_is(name):
    paths = {"startupProbe": "/readyz", "livenessProbe": "/healthz"}
    for probe, path in paths.items():
        asked = container(name)[probe]["httpGet"]
        assert asked["path"] in (path, path.replace("/healthz", "/v2/health/live"))
        assert asked["port"] in (8000, container(name)["ports"][0]["name"])
    assert (
        container(name)["livenessProbe"]["periodSeconds"] * container(name)["livenessProbe"]["failureThreshold"] >= 60
    )


@pytest.mark.parametrize("name", ["kubernetes/spicula.yaml", "kserve/spicula.yaml"])
def test_pods_are_given_the_time_to_answer_what_they_accepted(name):
    (seconds,) = found(name, "terminationGracePeriodSeconds")
    pause = sum(one["seconds"] for one in found(name, "sleep"))
    assert seconds > pause + limits_of(options_of(name))["drain-seconds"] + GRACE


@pytest.mark.parametrize("name", ["kubernetes/spicula.yaml", "kserve/spicula.yaml"])
def test_pods_keep_to_the_restricted_profile(name):
    pod, inner = found(name, "securityContext")
    assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [str(pod["runAsUser"]), str(pod["runAsGroup"])] == Dockerfile(SERVICES[name]).user
    assert inner["readOnlyRootFilesystem"] and not inner["allowPrivilegeEscalation"]
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert found(name, "automountServiceAccountToken") == [False]
    assert found(name, "secret")[0]["defaultMode"] & 0o027 == 0  # else the service refuses the tokens
    written = {one["mountPath"] for one in container(name)["volumeMounts"] if not one.get("readOnly")}
    assert written == {"/tmp", "/var/lib/spicula"}
    assert int(options_of(name).workers) == int(container(name)["resources"]["limits"]["cpu"])


def test_objects_of_kubernetes_mean_the_same_pods():
    labels = {"app.kubernetes.io/name": "spicula"}
    byname = {one["kind"]: one for one in documents("kubernetes/spicula.yaml")}
    assert byname["Deployment"]["spec"]["template"]["metadata"]["labels"] == labels
    assert byname["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert byname[kind]["spec"]["selector"]["matchLabels"] == labels
    assert byname["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert (
        byname["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == byname["Deployment"]["metadata"]["name"]
    )
    (monitor,) = documents("kubernetes/monitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"] == byname["Service"]["metadata"]["labels"]
    assert monitor["spec"]["endpoints"][0]["port"] == byname["Service"]["spec"]["ports"][0]["name"]


@pytest.mark.parametrize("name", CLOUD_RUN)
def test_cloud_run_fits_what_it_runs(name):
    (service,) = documents(name)
    spec, limits = service["spec"]["template"]["spec"], limits_of(options_of(name))
    memory = int(container(name)["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
    assert limits["held-bytes"] + limits["spooled-bytes"] < memory / 2  # files are memory there
    assert limits["body-bytes"] == 32 * 2**20 and limits["drain-seconds"] + 1 < 10
    assert spec["containerConcurrency"] * 2 <= limits["queue"]
    assert limits["answer-seconds"] < spec["timeoutSeconds"]
    assert [one["name"] for one in container(name)["env"]] == ["SPICULA_TOKENS"]
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == "0"
    gpu = "nvidia.com/gpu" in container(name)["resources"]["limits"]
    assert gpu == ("gpu" in name) == ("nodeSelector" in spec)
    assert annotations["run.googleapis.com/cpu-throttling"] == ("false" if gpu else "true")
    if not gpu:
        assert str(options_of(name).workers) == container(name)["resources"]["limits"]["cpu"]


def names_of(text):
    """Values in capitals, which are to be filled in."""
    return set(re.findall(r"(?<=: )[A-Z][A-Z_]+\b", text.replace("name: SPICULA_TOKENS", "")))


def test_cloud_build_fills_in_every_name():
    (build,) = documents("cloud-run/cloudbuild.yaml")
    steps = {one["id"]: one for one in build["steps"]}
    program = steps["fill-in"]["args"][1]
    for name in CLOUD_RUN:
        text = (DEPLOY / name).read_text()
        assert names_of(text) == {"IMAGE", "MODELS_BUCKET", "SERVICE_ACCOUNT"}
        for before, after in re.findall(r"s\|(\w+)\|([^|]+)\|", program):
            text = text.replace(before, after)
        assert names_of(text) == set() and "image: ${_IMAGE}" in text
    used = set(re.findall(r"\$\{(_\w+)\}", str(build["steps"])))
    assert used <= build["substitutions"].keys()
    flavours = [f"{build['substitutions']['_FLAVOUR']}.Dockerfile", "gpu.Dockerfile"]
    assert all((DEPLOY / "containers" / one).exists() for one in flavours)


def test_triton_is_started_in_the_same_way_everywhere():
    start = Dockerfile("triton.Dockerfile").start
    (runtime, service) = documents("kserve/triton.yaml")
    args = runtime["spec"]["containers"][0]["args"]
    assert runtime["spec"]["containers"][0]["command"] == start[:1]
    assert {"--allow-grpc=false", "--exit-timeout-secs=30"} <= set(args) & set(start)
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > 30
