"""Model repositories of Triton: what is in them, and what writing one leaves alone."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import triton_bundles
from bundle_maker import PREPROCESS

from spicula import RESEARCH_NOTICE, cli
from spicula.bundle import BATCH, golden, load_description
from spicula.errors import SpiculaError, UsageError
from spicula.serving.triton.repository import export

sys.path.append(str(Path(__file__).parent.parent / "exams"))

from small_bundle import small_bundle

TRICKY = ['say "dark"', "tief\\hell ü\ttab"]


@pytest.fixture(scope="module")
def read_config():
    """Reads a config.pbtxt with Triton's own protobuf, which refuses fields that there are not."""
    client = pytest.importorskip("tritonclient", reason="Triton's configuration: pip install 'spicula[peers]'")
    text_format = pytest.importorskip("google.protobuf.text_format", reason="Triton's configuration is protobuf")
    # the package of that module wants grpc, the module itself does not
    where = Path(client.__file__).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda path: text_format.Parse(path.read_text(encoding="utf-8"), module.ModelConfig())


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return triton_bundles.network(tmp_path_factory.mktemp("network") / "bundle")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Of the same name, and of another model."""
    return triton_bundles.network(tmp_path_factory.mktemp("other") / "bundle", model={"left": True})


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return triton_bundles.linear(tmp_path_factory.mktemp("linear") / "bundle")


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    return triton_bundles.explained(tmp_path_factory.mktemp("explained") / "bundle")


@pytest.fixture(scope="module")
def bundles(network, linear, explained):
    return network, linear, explained


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def described(tensors):
    return [(one.name, one.data_type, list(one.dims)) for one in tensors]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_networks_are_configured_as_their_graphs_are(bundles, tmp_path, read_config, device):
    export([bundle.folder for bundle in bundles], tmp_path / "repo", device=device, instances=3)
    for bundle in bundles:
        folder = tmp_path / "repo" / bundle.name
        config = read_config(folder / "config.pbtxt")
        assert config.name == bundle.name
        assert config.backend == "onnxruntime"
        assert config.max_batch_size == BATCH
        assert list(config.version_policy.specific.versions) == [1]
        session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        fp32 = config.input[0].data_type
        assert (
            config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[fp32].name == "TYPE_FP32"
        )
        for tensors, nodes in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert {node.type for node in nodes} == {"tensor(float)"}
            assert described(tensors) == [(node.name, fp32, node.shape[1:]) for node in nodes]
        (group,) = config.instance_group
        assert group.count == 3
        assert group.Kind.Name(group.kind) == f"KIND_{device.upper()}"
        batching = config.dynamic_batching
        assert max(batching.preferred_batch_size) <= BATCH
        assert (batching.max_queue_delay_microseconds > 0) == (device == "gpu")  # on a CPU nobody waits for company
        assert batching.default_queue_policy.max_queue_size == 64


def test_the_model_is_the_bundles_to_the_byte(network, tmp_path):
    export([network.folder], tmp_path / "repo")
    assert (tmp_path / "repo" / "brightness" / "1" / "model.onnx").read_bytes() == network.model


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_it_warms_up_with_the_golden_input(bundles, tmp_path, read_config, device):
    export([bundle.folder for bundle in bundles], tmp_path / "repo", device=device)
    for bundle in bundles:
        folder = tmp_path / "repo" / bundle.name
        config = read_config(folder / "config.pbtxt")
        assert [one.batch_size for one in config.model_warmup] == ([1] if device == "cpu" else [1, BATCH])
        for one in config.model_warmup:
            ((name, tensor),) = one.inputs.items()
            assert (name, tensor.data_type, list(tensor.dims)) == described(config.input)[0]
            raw = np.fromfile(folder / "warmup" / tensor.input_data_file, "<f4").reshape(1, *tensor.dims)
        np.testing.assert_array_equal(raw, bundle.inputs(golden.images(PREPROCESS)[:1]))
        (found,) = bundle.session.run([config.output[0].name], {config.input[0].name: raw})
        np.testing.assert_allclose(found[0], bundle.info["golden"]["probabilities"][0], atol=golden.TOLERANCE)


def test_every_model_says_which_bundle_it_is_of(network, tmp_path, read_config):
    export([network.folder], tmp_path / "repo")
    for name in ("brightness", "brightness_preprocess", "brightness_image"):
        found = read_config(tmp_path / "repo" / name / "config.pbtxt").parameters
        said = {key: value.string_value for key, value in found.items()}
        assert said["bundle_digest"] == network.digest
        assert said["bundle_version"] == "3"
        assert said["notice"] == RESEARCH_NOTICE
        assert said["target"] == "bright"
        assert json.loads(said["classes"]) == ["dark", "bright"]
        assert json.loads(said["thresholds"]) == {"youden": 0.5}


def test_an_image_goes_through_preprocessing_and_network(bundles, tmp_path, read_config):
    export([bundle.folder for bundle in bundles], tmp_path / "repo", instances=2, decoders=5)
    for bundle in bundles:
        before = read_config(tmp_path / "repo" / f"{bundle.name}_preprocess" / "config.pbtxt")
        inside = read_config(tmp_path / "repo" / bundle.name / "config.pbtxt")
        both = read_config(tmp_path / "repo" / f"{bundle.name}_image" / "config.pbtxt")
        assert (before.backend, before.max_batch_size) == ("python", 0)
        assert before.instance_group[0].count == 5
        assert (both.platform, both.max_batch_size) == ("ensemble", 0)
        assert described(before.input) == described(both.input)
        # one image a request: what the network takes, with a batch of one
        assert described(before.output) == [(n, t, [1, *dims]) for n, t, dims in described(inside.input)]
        assert described(both.output) == [(n, t, [1, *dims]) for n, t, dims in described(inside.output[:1])]
        first, second = both.ensemble_scheduling.step
        assert (first.model_name, second.model_name) == (before.name, inside.name)
        assert dict(first.input_map) == {both.input[0].name: both.input[0].name}
        assert first.output_map[before.output[0].name] == second.input_map[inside.input[0].name]
        assert second.output_map[inside.output[0].name] == both.output[0].name
        assert load_description(tmp_path / "repo" / before.name / "1").digest == bundle.digest


def test_any_text_of_a_bundle_can_stand_in_a_configuration(tmp_path, read_config):
    scope = {"modalities": [], "presentation_intents": [], "colour": None, "statement": 'A "quoted"\nline\\.'}
    bundle = triton_bundles.network(tmp_path / "bundle", classes=TRICKY, target=TRICKY[0], scope=scope)
    export([bundle.folder], tmp_path / "repo")
    folder = tmp_path / "repo" / "brightness"
    said = read_config(folder / "config.pbtxt").parameters
    assert said["scope"].string_value == scope["statement"]
    assert json.loads(said["classes"].string_value) == TRICKY
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == ['say "dark"', "tief\\hell ü tab"]


def test_the_same_again_changes_nothing(network, linear, tmp_path):
    first = export([network.folder, linear.folder], tmp_path / "repo")
    before = content(tmp_path / "repo")
    cache = tmp_path / "repo" / "brightness_preprocess" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"")
    assert export([network.folder, linear.folder], tmp_path / "repo") == first
    assert content(tmp_path / "repo") == before
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_other_options_change_the_configuration_alone(network, linear, tmp_path):
    export([network.folder, linear.folder], tmp_path / "repo")
    before = content(tmp_path / "repo")
    export([network.folder], tmp_path / "repo", instances=7)
    after = content(tmp_path / "repo")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"brightness/config.pbtxt", "brightness_preprocess/config.pbtxt"}


def test_models_of_others_stay(network, linear, tmp_path):
    (tmp_path / "repo" / "foreign").mkdir(parents=True)
    (tmp_path / "repo" / "foreign" / "config.pbtxt").write_text('name: "foreign"')
    (tmp_path / "repo" / "linear_image").mkdir()  # empty: nothing to lose
    export([linear.folder], tmp_path / "repo")
    before = content(tmp_path / "repo")
    export([network.folder], tmp_path / "repo")
    after = content(tmp_path / "repo")
    assert before.items() < after.items()


def own_version(folder):
    (folder / "brightness" / "2").mkdir()
    (folder / "brightness" / "2" / "model.onnx").write_bytes(b"")


def no_digest(folder):
    (folder / "brightness_image" / "config.pbtxt").write_text('name: "brightness_image"')


def no_config(folder):
    (folder / "brightness_preprocess" / "config.pbtxt").unlink()


def a_file(folder):
    shutil.rmtree(folder / "brightness_image")
    (folder / "brightness_image").write_text("")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (own_version, "2/model.onnx is not of this command"),
        (no_digest, "brightness_image holds a model that is not of this command"),
        (no_config, "brightness_preprocess holds a model that is not of this command"),
        (a_file, "brightness_image is no folder"),
    ],
)
def test_what_is_not_of_this_command_is_left_alone(network, tmp_path, change, message):
    export([network.folder], tmp_path / "repo")
    change(tmp_path / "repo")
    before = content(tmp_path / "repo")
    with pytest.raises(UsageError, match=message):
        export([network.folder], tmp_path / "repo", instances=4)
    assert content(tmp_path / "repo") == before


def test_another_bundle_of_the_same_name_is_refused(network, other, linear, tmp_path):
    export([network.folder], tmp_path / "repo")
    before = content(tmp_path / "repo")
    with pytest.raises(
        UsageError, match=rf"of another bundle \(digest {network.digest[:12]}\) than .*{other.digest[:12]}"
    ):
        export([linear.folder, other.folder], tmp_path / "repo")
    assert content(tmp_path / "repo") == before
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_two_models_of_one_name_are_refused(network, other, tmp_path):
    with pytest.raises(UsageError, match="both make a model called brightness;"):
        export([network.folder, other.folder], tmp_path / "repo")
    clash = triton_bundles.network(tmp_path / "clash", "brightness_image")
    with pytest.raises(UsageError, match="both make a model called brightness_image;"):
        export([network.folder, clash.folder], tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("name", ["../elsewhere", "a b", ".hidden", ""])
def test_a_name_that_is_no_folders_is_refused(tmp_path, name):
    bundle = triton_bundles.network(tmp_path / "bundle", name)
    with pytest.raises(UsageError, match="cannot be a folder's of a repository"):
        export([bundle.folder], tmp_path / "repo")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "trained.safetensors"}


def test_a_damaged_bundle_leaves_the_repository_as_it_was(network, linear, tmp_path):
    damaged = shutil.copytree(network.folder, tmp_path / "damaged")
    with (damaged / "model.onnx").open("ab") as model:
        model.write(b"0")
    with pytest.raises(SpiculaError, match="is not the file that"):
        export([linear.folder, damaged], tmp_path / "repo")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_exams_are_not_for_triton(tmp_path):
    small_bundle(tmp_path / "screening")
    with pytest.raises(UsageError, match=r"four-view exams.*spicula serve"):
        export([tmp_path / "screening"], tmp_path / "repo")


def test_a_file_in_the_way_is_named(network, tmp_path):
    (tmp_path / "repo").write_text("")
    with pytest.raises(UsageError, match="is a file; a model repository is a folder"):
        export([network.folder], tmp_path / "repo")


def test_the_command(network, linear, tmp_path, capsys):
    arguments = ["bundle", "triton", str(network.folder), str(linear.folder), "--to", str(tmp_path / "repo")]
    assert cli.main([*arguments, "--device", "gpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["digest"] for one in found["exported"]] == [network.digest, linear.digest]
    assert found["exported"][1]["models"] == ["linear", "linear_preprocess", "linear_image"]
    assert cli.main(arguments) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(
        f"brightness, brightness_preprocess, brightness_image, of {network.folder}, digest {network.digest[:12]}"
    )
    assert "linear_image" in second
    assert cli.main(["bundle", "triton", str(tmp_path), "--to", str(tmp_path / "repo")]) == 1
    assert "is not a bundle" in capsys.readouterr().err
