import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from screening_weights import random_state
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spicula.models.screening import patches
from spicula.models.torchvision_guard import import_torchvision


@given(size=st.integers(1, 600), kernel=st.integers(1, 11), stride=st.integers(1, 7))
def test_same_padding_gives_one_output_a_stride_with_the_odd_zero_behind(size, kernel, stride):
    before, after = patches.same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    if size + before + after >= kernel:
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


def test_height_and_width_paddings_are_swapped_as_in_the_published_implementation():
    # height 10, kernel 7, stride 2: 7 - 2 = 5 zeros, 2 and 3; width 9: 7 - 9 % 2 = 6 zeros, 3 and 3
    assert patches.swapped(torch.Size((10, 9)), (7, 7), (2, 2)) == [2, 3, 3, 3]
    assert patches.swapped(torch.Size((256, 256)), (7, 7), (2, 2)) == [2, 3, 2, 3]
    assert patches.swapped(torch.Size((128, 128)), (3, 3), (2, 2)) == [0, 1, 0, 1]


def test_a_convolution_pads_so_whether_or_not_both_ends_are_alike():
    image = torch.randn(2, 3, 10, 9)
    for kernel, stride, padding in ((7, 2, [2, 3, 3, 3]), (3, 1, [1, 1, 1, 1]), (5, 2, [1, 2, 2, 2]), (1, 1, [0] * 4)):
        conv = patches.SameConv2d(3, 4, kernel, stride, bias=False)
        expected = functional.conv2d(functional.pad(image, padding), conv.weight, stride=stride)
        torch.testing.assert_close(conv(image), expected)


def test_a_pool_pads_with_zeros():
    pool = patches.SameMaxPool2d(3, 2)
    found = pool(torch.full((1, 1, 5, 6), -1.0))
    # height 5: one zero before, one after; width 6: one after; swapped: the width gets 1 and 1, the height 0 and 1
    padded = functional.pad(torch.full((1, 1, 5, 6), -1.0), [1, 1, 0, 1])
    torch.testing.assert_close(found, functional.max_pool2d(padded, 3, 2))
    assert found[0, 0, 0, 0] == 0


def test_every_convolution_and_pool_is_replaced_and_names_are_torchvisions():
    net = patches.build()
    kinds = [type(module) for module in net.modules()]
    assert nn.Conv2d not in kinds
    assert nn.MaxPool2d not in kinds
    assert (kinds.count(patches.SameConv2d), kinds.count(patches.SameMaxPool2d)) == (120, 1)
    with torch.device("meta"):
        plain = import_torchvision().models.densenet121(num_classes=4)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_weights_make_the_answer_and_the_padding_matters():
    torch.manual_seed(0)
    net, plain = patches.build().eval(), import_torchvision().models.densenet121(num_classes=4).eval()
    plain.load_state_dict(net.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs = net(image), plain(image)
    assert ours.shape == (2, 4)
    assert not np.allclose(ours, theirs, atol=1e-5)
    # where no axis needs more zeros on one side than on the other, both networks are the same: 3 x 3, stride 1
    feature = torch.randn(1, 128, 8, 8)
    one, other = (m.features.denseblock1.denselayer1.conv2 for m in (net, plain))
    torch.testing.assert_close(one(feature), other(feature))


@pytest.fixture(scope="module")
def published():
    net = patches.build()
    net.load_state_dict(random_state(net))
    return net.eval()


def test_a_grey_patch_is_asked_in_three_equal_channels(published):
    grey = torch.randn(3, 1, 40, 40)
    with torch.inference_mode():
        expected = published(torch.cat([grey, grey, grey], dim=1)).softmax(dim=1)
        torch.testing.assert_close(patches.AsPublished(published)(grey), expected)


@pytest.mark.parametrize("side", [32, 33, 34, 35, 37, 38, 66, 71])
def test_the_lean_form_answers_as_the_published_one(published, side):
    """Sides for which every layer that makes maps smaller has even and odd ones before it."""
    torch.manual_seed(side)
    grey = 3 * torch.randn(3, 1, side, side) + 2 * torch.randn(3, 1, 1, 1)
    with torch.inference_mode():
        expected, found = patches.AsPublished(published)(grey), patches.Lean(published)(grey)
    assert np.ptp(expected.log().numpy(), axis=0).max() > 0.1
    torch.testing.assert_close(found.log(), expected.log(), rtol=1e-4, atol=1e-4)


def test_the_lean_form_multiplies_less(published):
    """By a tenth and more: otherwise there is no reason for it."""
    numbers = []
    for form in (patches.AsPublished(published), patches.Lean(published)):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            form(torch.zeros(1, 1, 64, 64))
        numbers.append(counter.get_total_flops())
    assert numbers[1] < 0.9 * numbers[0]
