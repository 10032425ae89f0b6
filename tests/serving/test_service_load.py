"""The service under load and among hostile clients, for some seconds each; `benchmarks/serve_faults.py` takes minutes.

No times are asserted: that no answer is wrong, nothing is lost, and nobody is named.
"""

import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("deltalake", reason="exams need the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from predict_app import colour_bundle, noise, with_golden

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import serve_faults

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    bundle = with_golden(colour_bundle(folder / "bundle", size=(64, 64)))
    images = [noise(folder / f"{seed}.png", seed, (224, 224)) for seed in range(4)]
    options = Namespace(images=images, parts=serve_faults.PARTS, seconds=3.0, soak=3.0, around=3.0, rate=30.0)
    return serve_faults.measure(folder, bundle.folder, options)


@pytest.mark.parametrize("part", ["capacity", "malformed", "overload", "soak", "end"])
def test_every_error_is_one_that_can_be_tried_again_or_is_the_clients_own(seen, part):
    assert seen[part]["faults"] == {}
    assert sum(seen[part]["statuses"].values()) > 10


def test_hostile_requests_are_refused(seen):
    statuses = seen["malformed"]["statuses"]
    assert seen["malformed"]["requests"] >= 200
    assert {"400", "404", "413", "415", "422", "431"} <= statuses.keys()


@pytest.mark.parametrize("part", ["slow", "malformed"])
def test_healthy_clients_are_answered_beside_hostile_ones(seen, part):
    for clients in seen[part]["healthy clients"].values():
        assert clients["faults"] == {}
        assert clients["statuses"].keys() <= {"200", "503"}  # a busy machine may have too much to do
        assert clients["statuses"]["200"] > 0


def test_too_many_are_told_to_come_again(seen):
    assert seen["overload"]["statuses"].keys() <= {"200", "503"}
    assert seen["overload"]["statuses"]["200"] > 0
    assert seen["overload"]["healthz faults"] == {}


def test_slow_clients_hold_their_connections(seen):
    assert seen["slow"]["connections opened"] >= 400


def test_no_patient_is_named_anywhere(seen):
    assert seen["canaries"]["canaries"] > 30
    assert seen["canaries"]["places searched"] > 50
    assert seen["canaries"]["found"] == []


def test_nothing_is_left_of_uploads(seen):
    assert [part for part, one in seen.items() if one.get("uploads left") or one.get("files left")] == []


def test_the_end_loses_no_accepted_request(seen):
    assert seen["end"]["exit status"] == 0
    assert seen["end"]["accepted requests without an answer"] == 0
    assert seen["end"]["errors in the log"] == 0
