import os

import pytest
import torch
from safetensors.torch import save_file
from screening_weights import random_state, save_exam, save_patch

from spicula.errors import SpiculaError, UsageError
from spicula.models.screening import patches, published
from spicula.models.screening.view_wise import ViewWise

FIRST = "four_view_resnet.cc.first_conv.weight"
ROLES = ("patch", "image-only", "image-and-heatmaps")


@pytest.fixture(scope="module")
def states():
    nets = {"patch": patches.build(), "image-only": ViewWise(1), "image-and-heatmaps": ViewWise(3)}
    return {role: random_state(net) for role, net in nets.items()}


@pytest.fixture(scope="module")
def folder(states, tmp_path_factory):
    made = tmp_path_factory.mktemp("published")
    for role, state in states.items():
        (save_patch if role == "patch" else save_exam)(made / f"{role}.p", state)
    return made


@pytest.mark.parametrize("role", ROLES)
def test_a_published_file_fills_the_network(folder, states, role):
    net = published.read(folder / f"{role}.p", role)
    assert not net.training
    found = net.state_dict()
    assert set(found) == set(states[role])
    assert all(torch.equal(found[name], value) for name, value in states[role].items())


def test_other_forms_of_the_same_numbers_are_taken(states, tmp_path):
    state = states["patch"]
    old = {name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value for name, value in state.items()}
    assert set(old) != set(state)
    forms = {
        "plain.pth": state,
        "wrapped.pth": {"state_dict": state},
        "parallel.pth": {f"module.{name}": value for name, value in state.items()},
        "old.pth": {name: value for name, value in old.items() if "num_batches" not in name},
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / name)
    torch.save(state, tmp_path / "legacy.p", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.safetensors")
    for path in sorted(tmp_path.iterdir()):
        found = published.read(path, "patch").state_dict()
        assert all(torch.equal(found[name], value) for name, value in state.items()), path


@pytest.mark.parametrize(
    ("given", "role", "message"),
    [
        ("patch", "image-only", "is a patch classifier: give it with --patch, not with --image$"),
        ("patch", "image-and-heatmaps", "is a patch classifier: give it with --patch, not with --image-heatmaps"),
        ("image-only", "patch", "of images alone: give it with --image, not with --patch"),
        ("image-only", "image-and-heatmaps", "of images alone: give it with --image, not with --image-heatmaps"),
        ("image-and-heatmaps", "image-only", "of images and heatmaps: give it with --image-heatmaps, not with --image"),
    ],
)
def test_a_file_of_another_role_is_told_where_it_belongs(folder, given, role, message):
    with pytest.raises(UsageError, match=message) as caught:
        published.read(folder / f"{given}.p", role)
    assert str(folder / f"{given}.p") in str(caught.value)


def refused(tmp_path, state, role="image-only", wrap=True):
    path = tmp_path / "weights.p"
    torch.save({"model": state} if wrap else state, path)
    with pytest.raises(SpiculaError) as caught:
        published.read(path, role)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_parameters_that_do_not_fit_are_named(states, tmp_path):
    for role, name in (("image-only", FIRST), ("image-and-heatmaps", FIRST), ("patch", "classifier.bias")):
        state = states[role]
        without = {key: value for key, value in state.items() if key != name}
        assert f"{name} is missing" in refused(tmp_path, without, role)
    bare = states["image-only"]
    assert "fc2.weight is unexpected" in refused(tmp_path, bare | {"fc2.weight": torch.zeros(2)})
    shape = refused(tmp_path, bare | {"fc1_cc.weight": torch.zeros(512, 256)})
    assert "fc1_cc.weight is 512x256 and not 512x512" in shape
    five = refused(tmp_path, bare | {FIRST: torch.zeros(16, 5, 7, 7)})
    assert f"{FIRST} is 16x5x7x7 and not 16x1x7x7" in five
    thousand = states["patch"] | {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    assert "classifier.weight is 1000x1024 and not 4x1024" in refused(tmp_path, thousand, "patch", wrap=False)


def test_values_that_are_no_numbers_are_named(states, tmp_path):
    for value in (float("nan"), float("inf")):
        bad = states["image-only"]["fc1_mlo.bias"].clone()
        bad[3] = value
        assert "fc1_mlo.bias holds values that are no finite numbers" in refused(
            tmp_path, states["image-only"] | {"fc1_mlo.bias": bad}
        )


def test_shared_towers_must_be_the_same_under_every_name(states, tmp_path):
    state = states["image-only"]
    alias = "four_view_resnet.r_cc.layer_list.2.1.conv1.weight"
    changed = state[alias.replace("r_cc", "cc")].clone()
    changed[0, 0, 0, 0] += 1e-6
    assert f"{alias} differs from {alias.replace('r_cc', 'cc')}" in refused(tmp_path, state | {alias: changed})
    stranger = "four_view_resnet.l_cc.layer_list.9.0.conv1.weight"
    assert f"{stranger} is unexpected" in refused(tmp_path, state | {stranger: changed})


def test_something_else_is_refused(tmp_path):
    assert "no network of the four-view classifier" in refused(tmp_path, {"layer1.weight": torch.zeros(3)})
    path = tmp_path / "text.p"
    path.write_text("weights")
    with pytest.raises(SpiculaError, match=r"text\.p cannot be read as plain weights"):
        published.read(path, "patch")
    with pytest.raises(UsageError, match="no weights file at"):
        published.read(tmp_path / "none.p", "patch")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(states, tmp_path, new):
    path, hit = tmp_path / "bomb.p", tmp_path / "hit"
    content = {"model": states["image-only"], "extra": Bomb(hit)}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(SpiculaError, match="cannot be read as plain weights") as caught:
        published.read(path, "image-only")
    assert not hit.exists()
    assert "\n" not in str(caught.value)
    torch.load(path, weights_only=False)  # the bomb would have gone off
    assert hit.exists()
