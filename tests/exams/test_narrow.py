"""Towers on windows without most of their background: the answers must be those of the whole windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the towers come from torch: pip install 'spicula[train]'")
pytest.importorskip("openvino", reason="needs openvino: pip install 'spicula[exams]'")

from spicula.bundle.screening import ScreeningSettings, graphs  # noqa: E402
from spicula.exams.runners import narrow  # noqa: E402
from spicula.exams.runners.openvino import OpenVinoRunner, import_openvino  # noqa: E402
from spicula.exams.runners.shapes import Shape  # noqa: E402
from spicula.models.screening.view_wise import Angle, Tower, ViewWise  # noqa: E402

GROUND = np.float32(-0.4)


def window(height, width, rows, columns, *, channels=1, seed=0):
    """An even window with noise in some of its rows and columns."""
    found = np.full((1, channels, height, width), GROUND, np.float32)
    noise = np.random.default_rng(seed).normal(size=(channels, rows[1] - rows[0], columns[1] - columns[0]))
    found[0, :, rows[0] : rows[1], columns[0] : columns[1]] = noise
    return found


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = ViewWise(1).eval()
    with torch.no_grad():  # means and deviations that are not those of an untrained network
        for name, buffer in made.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("running_var") else 0))
    return made


@pytest.fixture(scope="module")
def graph(network):
    return graphs.convert("image-only", network, ScreeningSettings())["image-only.cc"]


def parts_of(tower):
    """The layers of a tower up to the first boundary, between the boundaries, and the rest."""
    groups, (first, second) = tower.layer_list, narrow.GROUPS
    return (
        torch.nn.Sequential(tower.first_conv, tower.first_pool, *groups[:first]),
        torch.nn.Sequential(*groups[first:second]),
        torch.nn.Sequential(*groups[second:], tower.final_bn, torch.nn.ReLU()),
    )


@pytest.mark.parametrize("place", [0, 1])
def test_a_column_depends_on_the_inputs_that_its_boundary_says(place):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*parts_of(Tower(1).double().eval())[: place + 1])
    boundary, width = narrow.BOUNDARIES[place], 1200
    image = torch.rand(1, 1, 80, width, dtype=torch.float64, requires_grad=True)
    maps = layers(image)
    assert maps.shape[3] == boundary.length(width)
    for column in (0, 3, maps.shape[3] // 2, maps.shape[3] - 1):
        (gradient,) = torch.autograd.grad(maps[..., column].sum(), image, retain_graph=True)
        touched = np.flatnonzero(gradient[0, 0].abs().sum(dim=0).numpy())
        first, last = boundary.stride * column - boundary.before, boundary.stride * column + boundary.after
        assert max(0, first) <= touched[0]
        assert touched[-1] <= min(width - 1, last)
        if column == maps.shape[3] // 2:  # no border cuts it off
            assert (touched[0], touched[-1]) == (first, last)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_left_out_and_repeated_gives_the_maps_of_the_whole_window(data):
    tower = Tower(1).double().eval()
    width = data.draw(st.integers(75, 1500), "width")
    noise = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2), "columns"))
    image = window(75, width, (0, 75), noise, seed=width).astype(np.float64)
    axis = narrow.plan(narrow.runs(image[0], 2), width)
    with torch.inference_mode():
        whole = torch.from_numpy(image)
        maps = torch.from_numpy(np.concatenate([image[..., kept] for kept in axis.kept], axis=3))
        for number, part in enumerate(parts_of(tower)):
            whole, maps = part(whole), part(maps)
            if number < len(axis.indices):
                maps = maps[..., torch.from_numpy(axis.indices[number])]
        np.testing.assert_allclose(maps.numpy(), whole.numpy(), atol=1e-9)


def test_runs_are_found_to_the_column():
    assert narrow.runs(window(300, 500, (70, 130), (0, 201))[0], 1) == [(0, 70), (130, 300)]
    assert narrow.runs(window(300, 500, (70, 130), (0, 201))[0], 2) == [(201, 500)]
    assert narrow.runs(window(300, 500, (0, 0), (0, 0))[0], 2) == [(0, 500)]
    assert narrow.runs(window(300, 500, (0, 300), (0, 500))[0], 2) == []
    almost = window(300, 500, (70, 130), (0, 201), channels=3)
    almost[0, 2, 299, 450] = np.nextafter(GROUND, np.float32(0))  # one bit, in one channel
    assert narrow.runs(almost[0], 2) == [(451, 500)]


def test_less_than_half_is_left_of_a_breast_in_the_corner():
    image = window(2400, 1800, (300, 1500), (0, 700))
    rows, columns = (narrow.plan(narrow.runs(image[0], axis), image.shape[axis + 1]) for axis in (1, 2))
    left = narrow.shortened(image, rows, columns)
    assert left.size < image.size / 2
    for axis in (rows, columns):
        kept = np.concatenate([np.arange(one.start, one.stop) for one in axis.kept])
        assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(left.max(), image.max())


@pytest.mark.parametrize("rows", [(0, 700), (200, 420), (0, 0)])
def test_scores_are_those_of_the_whole_windows(network, graph, rows):
    shape = Shape(("left", "right"), (1, 700, 1000), 4)
    pairs = [
        (window(700, 1000, rows, (0, 300), seed=1), window(700, 1000, (10, 600), (0, 1000), seed=2)),
        (window(700, 1000, (0, 500), (600, 1000), seed=3), window(700, 1000, rows, (0, 350), seed=4)),
    ]
    found = np.concatenate(list(OpenVinoRunner(graph, shape, "a test", streams=2)(pairs)))
    with torch.inference_mode():
        expected = [Angle(network, "cc").eval()(*map(torch.from_numpy, pair)).numpy() for pair in pairs]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    assert np.ptp(expected) > 1e-3  # it matters what stands in the windows


def test_a_network_with_other_layers_stays_as_it_is(graph):
    core = import_openvino().Core()
    inputs = ("left", "right")
    model = core.read_model(graph, b"")
    assert narrow.prepare(core.read_model(graph, b""), inputs) is not None
    convolution = next(one for one in model.get_ordered_ops() if one.get_type_name() == "Convolution")
    convolution.set_attribute("strides", [1, 1])
    model.validate_nodes_and_infer_types()
    assert narrow.prepare(model, inputs) is None
    assert [one.get_any_name() for one in model.inputs] == ["left", "right"]
