import pytest
import torch
from torch import nn

from spicula.errors import UsageError
from spicula.models import registry
from spicula.models.settings import NetworkSettings

CNN = NetworkSettings(line="cnn")


def create(size=(128, 128), channels=3, **values):
    torch.manual_seed(0)
    return registry.create(NetworkSettings(line="cnn", **values), size, channels, 2)


def test_the_layers_are_those_of_the_publication():
    net = create().net
    convolutions = [module for module in net if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (3, 32, (3, 3)),
        (32, 64, (3, 3)),
        (64, 128, (3, 3)),
    ]
    assert [type(module).__name__ for module in net] == ["Conv2d", "ReLU", "MaxPool2d"] * 3 + [
        "Flatten",
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
    ]
    assert (net[10].in_features, net[10].out_features, net[12].p, net[13].out_features) == (128 * 16 * 16, 128, 0.5, 2)
    # 896 + 18,496 + 73,856 of the convolutions, 4,194,432 and 258 of the dense layers
    assert sum(parameter.numel() for parameter in create().parameters()) == 4_287_938


@pytest.mark.parametrize(("size", "channels"), [((64, 48), 1), ((50, 50), 3), ((8, 8), 1)])
def test_it_takes_images_of_any_size_from_8_and_one_or_three_channels(size, channels):
    module = create(size, channels)
    assert module(torch.rand(5, channels, *size)).shape == (5, 2)


def test_images_that_three_poolings_leave_nothing_of_are_refused():
    with pytest.raises(UsageError, match="7x64 is below 8x8"):
        create((7, 64))


def test_the_normalisation_is_inside():
    plain, normalised = create().eval(), create(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)).eval()
    images = torch.rand(2, 3, 128, 128)
    by_hand = (images - torch.tensor([0.5, 0.25, 0.0]).reshape(1, 3, 1, 1)) / torch.tensor([0.5, 0.25, 1]).reshape(
        1, 3, 1, 1
    )
    assert torch.allclose(normalised(images), plain(by_hand), atol=1e-5)


def test_the_layer_for_grad_cam_gives_the_last_map():
    module = create()
    seen = []
    module.gradcam_layer().register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    module(torch.rand(1, 3, 128, 128))
    assert seen == [(1, 128, 32, 32)]


def test_the_same_seed_makes_the_same_network():
    torch.manual_seed(1)
    first = registry.create(CNN, (32, 32), 3, 2).state_dict()
    torch.manual_seed(1)
    second = registry.create(CNN, (32, 32), 3, 2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
