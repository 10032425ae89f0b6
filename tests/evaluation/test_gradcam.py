"""Grad-CAM on networks built so that the answer is known, and on the project's own."""

import numpy as np
import pytest
import torch
from report_example import make
from torch import nn

from spicula.errors import SpiculaError
from spicula.evaluation.gradcam import NoFeatureMapError, cam, explain
from spicula.models import registry
from spicula.models.settings import NetworkSettings


class Known(nn.Module):
    """Two feature maps, brightness and darkness; class 1 is for the bright, class 0 for the dark."""

    def __init__(self, stride: int = 1, in_place: bool = False) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, stride, stride)
        self.layer.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1).repeat(1, 1, stride, stride) / stride**2
        self.layer.bias.data = torch.tensor([0.0, 1.0])
        self.act = nn.ReLU(inplace=in_place)
        self.drop = nn.Dropout(0.9)
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])

    def forward(self, images):
        return self.head(self.drop(self.act(self.layer(images)).mean(dim=(2, 3))))

    def gradcam_layer(self):
        return self.layer


def square(rows: slice, columns: slice, size: int = 16) -> np.ndarray:
    image = np.zeros((1, 1, size, size), np.float32)
    image[:, :, rows, columns] = 1
    return image


def test_the_bright_square_speaks_for_the_class_of_the_bright():
    heat = cam(Known(), square(slice(2, 6), slice(8, 14)), class_index=1)
    expected = square(slice(2, 6), slice(8, 14))[:, 0]
    assert heat.shape == (1, 16, 16)
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_the_rest_speaks_for_the_other_class():
    heat = cam(Known(), square(slice(2, 6), slice(8, 14)), class_index=0)
    np.testing.assert_allclose(heat, 1 - square(slice(2, 6), slice(8, 14))[:, 0], atol=1e-6)


def test_what_all_logits_have_in_common_does_not_show():
    image = np.random.default_rng(3).random((1, 1, 8, 8), np.float32)
    shifted = Known()
    shifted.head.weight.data += torch.tensor([5.0, -7.0])  # the same for both classes: no probability changes
    np.testing.assert_allclose(cam(shifted, image, 1), cam(Known(), image, 1), atol=1e-5)


def test_a_coarse_map_is_enlarged_to_the_image():
    heat = cam(Known(stride=4), square(slice(4, 8), slice(8, 12)), class_index=1)[0]
    assert heat.shape == (16, 16)
    assert np.unravel_index(heat.argmax(), heat.shape) in {(r, c) for r in range(4, 8) for c in range(8, 12)}
    assert heat[5:7, 9:11].min() > 0.6
    assert heat[12:].max() == heat[:, :4].max() == 0


def test_each_image_is_scaled_to_its_own_maximum():
    network = Known()
    network.layer.bias.data.zero_()  # nothing is dark
    faint = 0.25 * square(slice(0, 3), slice(0, 3))
    heat = cam(network, np.concatenate([faint, square(slice(0, 3), slice(0, 3))]), class_index=1)
    np.testing.assert_allclose(heat[:, 1, 1], 1.0, atol=1e-6)


def test_nothing_for_the_class_makes_an_empty_map():
    heat = cam(Known(), np.zeros((1, 1, 8, 8), np.float32), class_index=1)
    assert np.isfinite(heat).all()
    assert not heat.any()


def test_images_do_not_influence_each_other():
    images = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
    together, alone = cam(Known(), images, 1), np.concatenate([cam(Known(), image[None], 1) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_frozen_backbone_and_a_layer_in_place_change_nothing():
    image = np.random.default_rng(1).random((2, 1, 8, 8), np.float32)
    plain, frozen = Known(), Known(in_place=True)
    for network in (plain, frozen):
        network.layer.bias.data = torch.tensor([-0.5, 0.8])  # so that the layer has negative outputs, which ReLU cuts
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    np.testing.assert_array_equal(cam(frozen, image, 1), cam(plain, image, 1))


def test_the_network_is_left_as_it_was():
    network = Known().train()
    network.act.eval()
    image = np.ones((1, 1, 8, 8), np.float32)
    with torch.no_grad():
        first, second = cam(network, image, 1), cam(network, image, 1)
    np.testing.assert_array_equal(first, second)  # no dropout
    assert network.training and network.drop.training and not network.act.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.layer._forward_hooks


def test_a_network_without_a_map_of_features_is_refused():
    network = Known()
    network.gradcam_layer = lambda: None
    with pytest.raises(NoFeatureMapError, match="none"):
        cam(network, np.ones((1, 1, 8, 8), np.float32), 1)
    network.gradcam_layer = lambda: network.head
    with pytest.raises(NoFeatureMapError, match=r"\(1, 2\)"):
        cam(network, np.ones((1, 1, 8, 8), np.float32), 1)


def test_the_small_network_of_the_registry_is_explained():
    torch.manual_seed(0)
    network = registry.create(NetworkSettings(line="cnn"), (32, 24), channels=3, classes=2)
    images = np.random.default_rng(2).random((3, 3, 32, 24), np.float32)
    heat = cam(network, images, 1)
    assert heat.shape == (3, 32, 24)
    assert heat.min() >= 0 and heat.max() == pytest.approx(1.0)


def test_each_image_is_explained_by_the_network_that_never_saw_it(tmp_path):
    data = make(tmp_path, folds=3)
    asked = []

    def load(run):
        asked.append(run)
        return Known()

    fold_of = dict(zip(data.index["image_id"].to_pylist(), data.index["fold"].to_pylist(), strict=True))
    wanted = ["image-3-0", "image-0-0", "image-9-1"]
    maps = explain(data.runs["cnn"], data.predictions["cnn"], data.store, wanted, load)
    assert set(maps) == set(wanted)
    assert [fold_of[one] for one in wanted] == [1, 0, 0]
    assert asked == [data.runs["cnn"][0], data.runs["cnn"][1]]
    image = data.store.read(data.store.rows(["image-3-0"])).transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_array_equal(maps["image-3-0"], cam(Known(), image, 1)[0])


def test_an_image_that_was_not_tested_cannot_be_explained(tmp_path):
    data = make(tmp_path)
    with pytest.raises(SpiculaError, match="image-0-0"):
        explain(data.runs["cnn"], data.predictions["cnn"], data.store, ["image-0-0"], lambda _: Known())


def test_an_architecture_without_a_map_explains_nothing(tmp_path):
    data = make(tmp_path)
    network = Known()
    network.gradcam_layer = lambda: None
    assert explain(data.runs["cnn"], data.predictions["cnn"], data.store, ["image-6-0"], lambda _: network) == {}
