import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from screening_weights import random_state, save_exam, save_patch
from small_bundle import SMALL, small_bundle

from spicula.bundle import screening
from spicula.errors import SpiculaError, UsageError
from spicula.exams.networks import runner_of
from spicula.exams.runners.shapes import Shape
from spicula.exams.runners.torch import TorchRunner, module_of

if importlib.util.find_spec("openvino") is None:
    pytest.skip("needs the extra exams", allow_module_level=True)
from spicula.exams.runners.openvino import OpenVinoRunner, check_bf16, import_openvino

HAS_BF16 = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16"))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return screening.load(small_bundle(tmp_path_factory.mktemp("networks") / "small"))


def patches(*rows, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(number, 1, 32, 32)).astype(np.float32),) for number in rows]


def views(*rows, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(rng.normal(size=(2, number, 3, 72, 44)).astype(np.float32)) for number in rows]


def onnx_answers(graph, inputs):
    session = onnxruntime.InferenceSession(graph)
    names = [one.name for one in session.get_inputs()]
    return [session.run(None, dict(zip(names, arrays, strict=True)))[0] for arrays in inputs]


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize(("graph", "made"), [("patch", patches), ("image-and-heatmaps.mlo", views)])
def test_answers_are_those_of_the_graph_in_the_order_of_the_inputs(bundle, graph, made, batch):
    inputs = made(1, 3, 2, 1, 7, 1, 1)
    found = list(runner_of(bundle, graph, streams=2, batch=batch)(iter(inputs)))
    expected = onnx_answers(bundle.graphs[graph], inputs)
    assert [one.shape for one in found] == [(len(arrays[0]), 4) for arrays in inputs]
    assert all(one.dtype == np.float32 for one in found)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    assert list(runner_of(bundle, graph)([])) == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_answers_do_not_hang_on_streams_batches_or_neighbours(bundle, precision):
    inputs = patches(*[1] * 23)
    first = np.concatenate(list(runner_of(bundle, "patch", precision=precision, streams=1)(inputs)))
    for streams, batch in ((2, 1), (5, 1), (2, 4), (3, 8)):
        runner = runner_of(bundle, "patch", precision=precision, streams=streams, batch=batch)
        np.testing.assert_array_equal(np.concatenate(list(runner(inputs))), first)
        np.testing.assert_array_equal(np.concatenate(list(runner(reversed(inputs))))[::-1], first)
        np.testing.assert_array_equal(next(runner([tuple(map(np.concatenate, zip(*inputs, strict=True)))])), first)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")
def test_bf16_is_near_and_not_the_same(bundle):
    inputs = patches(50)
    exact, short = (next(runner_of(bundle, "patch", precision=kind)(inputs)) for kind in ("fp32", "bf16"))
    assert 0 < np.abs(exact - short).max() < 0.02


def test_bf16_is_refused_where_the_cpu_has_none():
    check_bf16(["FP32", "BF16"])
    with pytest.raises(UsageError, match="no bf16 arithmetic; use --precision fp32"):
        check_bf16(["FP32", "WINOGRAD"])


def test_inputs_are_taken_as_they_are_wanted(bundle):
    """A hundred thousand patches need the memory of a few: no more are taken than are in flight."""
    taken = 0

    def endless():
        nonlocal taken
        (arrays,) = patches(1)
        while True:
            taken += 1
            yield arrays

    for streams, batch in ((1, 1), (3, 1), (2, 4)):
        taken, answers = 0, runner_of(bundle, "patch", streams=streams, batch=batch)(endless())
        assert taken == 0
        for given in range(1, 40):
            next(answers)
            assert taken - given <= (2 * streams + 1) * batch
        answers.close()
        assert taken < 40 + (2 * streams + 1) * batch


def test_a_runner_outlives_inputs_that_fail_and_readers_that_leave(bundle):
    runner = runner_of(bundle, "patch", streams=2)
    inputs = patches(1, 1, 1, 1, 1, 1)
    expected = list(runner(inputs))

    def failing():
        yield from inputs[:4]
        raise OSError("the image ended")

    with pytest.raises(OSError, match="the image ended"):
        list(runner(failing()))
    answers = runner(iter(inputs))
    next(answers)
    answers.close()
    for one, other in zip(runner(inputs), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_of_another_form_are_refused(bundle):
    runner = runner_of(bundle, "patch")
    good = patches(1)[0][0]
    for wrong in (
        (np.repeat(good, 3, axis=1),),
        (good[:, :, :31],),
        (good.astype(np.float64),),
        (good[0],),
        (good, good),
        (good[:0],),
    ):
        with pytest.raises(ValueError, match="the network takes patches as float32"):
            list(runner([wrong]))


def test_what_is_not_there_is_said_in_one_line(bundle, monkeypatch):
    with pytest.raises(UsageError, match=r"has no network image-only; it has .*image-only\.cc"):
        runner_of(bundle, "image-only")
    with pytest.raises(UsageError, match="no device tpu"):
        runner_of(bundle, "patch", device="tpu")
    with pytest.raises(SpiculaError, match="patch is a graph alone, which only --device cpu can run"):
        runner_of(bundle, "patch", device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch finds no CUDA device here"):
            TorchRunner(torch.nn.Identity(), Shape(("x",), (1, 2, 2), 4), device="cuda")

    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name == "openvino":
                raise ImportError("not installed here")

    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    with pytest.raises(UsageError, match=r"needs openvino: pip install 'spicula\[exams\]'"):
        runner_of(bundle, "patch")


def test_a_graph_that_does_not_run_is_one_line(bundle):
    model = onnx.load_from_string(bundle.graphs["patch"])
    model.graph.node[0].op_type = "NoSuchOperator"
    shape = Shape(("patches",), (1, 32, 32), 4)
    for data in (model.SerializeToString(), b"no model"):
        with pytest.raises(SpiculaError, match=r"^some\.onnx cannot be run: ") as caught:
            OpenVinoRunner(data, shape, "some.onnx")
        assert "\n" not in str(caught.value)


def test_running_a_graph_calls_nobody(bundle):
    """The package openvino reports its import over the network, from a process that it forks, where one lets it."""
    code = f"""
import sys
calls = []
sys.addaudithook(lambda event, _: event.split(".")[0] in ("socket", "subprocess") and calls.append(event))
sys.addaudithook(lambda event, _: event in ("os.fork", "os.forkpty", "os.posix_spawn") and calls.append(event))
from pathlib import Path
import numpy as np
from spicula.bundle import screening
from spicula.exams.networks import runner_of
bundle = screening.load(Path({str(bundle.folder)!r}))
next(runner_of(bundle, "patch")([(np.zeros((1, 1, 32, 32), np.float32),)]))
print(calls, [name for name in sys.modules if name.startswith("openvino_telemetry") or name in ("torch", "onnx")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_the_documented_python_runs(bundle, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/exam-models.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "classifier").symlink_to(bundle.folder)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert [one.shape for one in names["answers"]] == [(1, 4)] * 8


# torch, on a CPU: the same code as on a GPU, but for pinned memory


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = torch.nn.Conv2d(3, 8, 5, 3), torch.nn.Linear(16, 4)

    def forward(self, left, right):
        both = [torch.relu(self.conv(image)).mean(dim=(2, 3)) for image in (left, right)]
        return self.out(torch.cat(both, dim=1)).softmax(dim=1)


PAIR = Shape(("left", "right"), (3, 72, 44), 4)


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-6), ("bf16", 0.02)])
def test_torch_answers_in_batches_and_in_order(precision, atol):
    module, inputs = Tiny().eval(), views(1, 3, 2, 1, 7, 1, 1)
    with torch.inference_mode():
        expected = [module(*map(torch.from_numpy, arrays)).numpy() for arrays in inputs]
    for batch in (1, 4, 100):
        found = list(TorchRunner(module, PAIR, device="cpu", precision=precision, batch=batch)(iter(inputs)))
        assert [one.shape for one in found] == [one.shape for one in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=atol)
    difference = np.abs(np.concatenate(found) - np.concatenate(expected)).max()
    assert (difference > 1e-5) == (precision == "bf16")


def test_torch_takes_inputs_as_they_are_wanted_and_outlives_what_fails():
    taken, batch = 0, 4
    runner = TorchRunner(Tiny(), PAIR, device="cpu", batch=batch)

    def endless():
        nonlocal taken
        (arrays,) = views(1)
        while True:
            taken += 1
            yield arrays

    answers = runner(endless())
    for given in range(1, 40):
        next(answers)
        assert taken - given <= 8 * batch
    answers.close()
    stopped = taken

    def failing():
        yield from views(1, 1, 1)
        raise OSError("the image ended")

    with pytest.raises(OSError, match="the image ended"):
        list(runner(failing()))
    assert len(list(runner(views(2, 1)))) == 2
    assert taken == stopped
    with pytest.raises(ValueError, match="the network takes left, right"):
        list(runner(patches(1)))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The published architectures with random weights, converted."""
    from spicula.bundle.screening.importing import import_exam
    from spicula.models.screening import patches as patch_network
    from spicula.models.screening.view_wise import ViewWise

    folder = tmp_path_factory.mktemp("imported")
    return import_exam(
        save_patch(folder / "patch.p", random_state(patch_network.build())),
        None,
        save_exam(folder / "heat.p", random_state(ViewWise(3))),
        folder / "bundle",
        settings=SMALL,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "made"), [("patch", patches), ("image-and-heatmaps.mlo", views)])
def test_openvino_and_torch_answer_alike_for_the_published_architectures(imported, graph, made):
    inputs = made(9, 1)
    ours = np.concatenate(list(runner_of(imported, graph)(inputs)))
    shape = Shape(("x",) * len(inputs[0]), inputs[0][0].shape[1:], 4)
    module = module_of(imported, graph)
    theirs = np.concatenate(list(TorchRunner(module, shape, device="cpu", batch=4)(inputs)))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.ptp(ours, axis=0).max() > 0.01
    short = np.concatenate(list(TorchRunner(module, shape, device="cpu", batch=4, precision="bf16")(inputs)))
    assert 0 < np.abs(short - ours).max() < 0.05
