"""What is served is verified and tested first."""

import asyncio
import re
import subprocess
import sys

import onnxruntime
import pytest
from bundle_maker import brightness_model, content, make
from onnx import load_from_string, numpy_helper
from predict_app import serving, with_golden

from spicula.errors import SpiculaError, UsageError


def started(*bundles, **settings):
    async def main():
        async with serving(*bundles, **settings) as (_, service):
            return {name: served.tested for name, served in service.models.items()}

    return asyncio.run(main())


def test_models_pass_their_self_test_before_the_service_is_ready(tmp_path):
    first = with_golden(make(tmp_path / "a"))
    second = make(tmp_path / "b", name="older")
    tested = started(first, second)
    assert list(tested) == ["brightness", "older"]
    assert tested["brightness"].max_abs_difference < 1e-6
    assert tested["older"].max_abs_difference is None


def test_a_model_that_answers_otherwise_than_where_it_was_made_is_not_served(tmp_path):
    model = with_golden(make(tmp_path / "a"), probabilities=[[0.5, 0.5]] * 4)
    with pytest.raises(SpiculaError, match=r"self-test of brightness failed: its probabilities are up to .* away"):
        started(model)


def test_a_model_that_gives_no_probabilities_is_not_served(tmp_path):
    graph = load_from_string(brightness_model())
    (weights,) = [one for one in graph.graph.initializer if one.name == "one"]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 3, "one"))
    model = make(tmp_path / "a", model=graph.SerializeToString())
    with pytest.raises(SpiculaError, match="self-test of brightness failed: it answers with no probabilities"):
        started(model)


def test_two_models_of_one_name_are_refused(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    with pytest.raises(UsageError, match=r"a and .*b both hold a model called brightness"):
        started(first, second)


def test_a_bundle_that_differs_by_a_bit_is_refused(tmp_path):
    model = make(tmp_path / "a")
    data = bytearray((tmp_path / "a/model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a/model.onnx").write_bytes(data)
    with pytest.raises(SpiculaError, match=r"bundle refused: .*model\.onnx"):
        started(model)


def test_a_graph_that_cannot_be_run_is_refused(tmp_path):
    model = make(tmp_path / "a", input=content()["input"] | {"name": "picture"})
    with pytest.raises((SpiculaError, ValueError), match=re.compile("picture|cannot be run|cannot start")):
        started(model)


@pytest.mark.parametrize(
    ("available", "error", "message"),
    [
        (["CPUExecutionProvider"], UsageError, r"needs onnxruntime for CUDA: .* 'onnxruntime-gpu\[cuda,cudnn\]'"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], SpiculaError, "--provider cuda: onnxruntime finds no CUDA"),
    ],
)
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")
def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(tmp_path, monkeypatch, available, error, message):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is one for GPUs")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    with pytest.raises(error, match=message):
        started(make(tmp_path / "a"), provider="cuda")


def card_of(bundle):
    """What /v1/models says of a bundle."""

    async def main():
        async with serving(bundle) as (client, _):
            return (await client.get("/v1/models")).json()["models"]

    (card,) = asyncio.run(main())
    return card


def test_what_is_told_of_a_model(tmp_path):
    made = with_golden(make(tmp_path / "a"))
    card, info = card_of(made), made.info
    same = ("name", "version", "digest", "classes", "target", "scope", "data", "licence", "created")
    assert {key: card[key] for key in same} == {key: info[key] for key in same}
    assert card["operating_points"] == [{"name": "youden", **info["operating_points"]["youden"]}]
    assert card["training"]["counts"]["train"] == {"images": 300, "patients": 120, "positive": 90}
    assert card["training"]["split_digest"] == info["training"]["split_digest"]
    assert card["probability"]["calibrated"] is False
    assert card["self_test"]["max_abs_difference"] < 1e-6


@pytest.mark.parametrize(
    ("changes", "why"),
    [({}, "made by a version that wrote none"), ({"explanation": None}, "its architecture has no map of features")],
)
def test_why_a_model_has_no_heatmaps(tmp_path, changes, why):
    card = card_of(make(tmp_path / "a", **changes))
    assert why in card["unexplained"]
    assert card["explanations"] == []


@pytest.mark.parametrize("module", ["process", "decode_worker"])
def test_a_start_imports_nothing_that_it_does_not_need(module):
    """Each of these takes a tenth of a second and more, and tens of megabytes in each process."""
    code = f"import sys, spicula.serving.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pyarrow", "pydicom", "scipy", "skimage", "openvino", "torch", "onnxruntime", "highdicom", "deltalake"}
    assert not heavy & set(done.stdout.split())
