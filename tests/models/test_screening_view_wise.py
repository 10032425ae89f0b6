import re

import pytest
import torch
from screening_weights import random_state, reference
from torch.nn import functional

from spicula.models.screening.view_wise import ANGLES, Angle, ViewWise


def page_tower(state, name, image):
    """The tower as the page that describes it says, step by step."""

    def at(*parts):
        return state[".".join((f"four_view_resnet.{name}", *map(str, parts)))]

    def activated(maps, *parts):
        mean, var, weight, bias = (at(*parts, key) for key in ("running_mean", "running_var", "weight", "bias"))
        scaled = (maps - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None]
        return torch.relu(scaled * weight[:, None, None] + bias[:, None, None])

    maps = functional.max_pool2d(functional.conv2d(image, at("first_conv", "weight"), stride=2), 3, 2)
    for group, stride in enumerate((1, 2, 2, 2, 2)):
        for block in range(2):
            where = ("layer_list", group, block)
            active = activated(maps, *where, "bn1")
            step = stride if block == 0 else 1
            shortcut = functional.conv2d(active, at(*where, "downsample", 0, "weight"), stride=step)
            inner = functional.conv2d(active, at(*where, "conv1", "weight"), stride=step, padding=1)
            inner = functional.conv2d(activated(inner, *where, "bn2"), at(*where, "conv2", "weight"), padding=1)
            maps = inner + (shortcut if block == 0 else maps)
    return activated(maps, "final_bn").mean(dim=(2, 3))


class Missing(dict):
    """The second block of a group has no convolution in its shortcut; the value is not used."""

    def __missing__(self, key):
        assert ".1.downsample.0.weight" in key
        width = self[key.replace("downsample.0", "conv1")].shape[0]
        return torch.zeros(width, width, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_angle_computes_what_the_page_describes(channels):
    net = ViewWise(channels).eval()
    state = Missing(random_state(net, seed=channels))
    net.load_state_dict(dict(state))
    left, right = torch.randn(2, 3, channels, 90, 76)
    for name in ANGLES:
        both = torch.cat([page_tower(state, name, left), page_tower(state, name, right)], dim=1)
        hidden = torch.relu(both @ state[f"fc1_{name}.weight"].T + state[f"fc1_{name}.bias"])
        out = f"output_layer_{name}.fc_layer"
        logits = (hidden @ state[f"{out}.weight"].T + state[f"{out}.bias"]).reshape(-1, 4, 2)
        expected = torch.exp(torch.log_softmax(logits, dim=-1))[:, :, 1]
        with torch.inference_mode():
            found = Angle(net, name)(left, right)
            swapped = Angle(net, name)(right, left)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found, swapped, atol=1e-3)


def test_parameters_have_the_published_names_and_shapes(test_data):
    lines = (reference(test_data) / "exam-model-parameters.txt").read_text().splitlines()
    listed = dict(re.fullmatch(r"(\S+) \((.*)\)", line).groups() for line in lines if not line.startswith("#"))
    published = {name: tuple(int(n) for n in shape.split(",") if n.strip()) for name, shape in listed.items()}
    for channels in (1, 3):
        for angle in ANGLES:
            published[f"four_view_resnet.{angle}.first_conv.weight"] = (16, channels, 7, 7)
        assert {k: tuple(v.shape) for k, v in ViewWise(channels).state_dict().items()} == published
