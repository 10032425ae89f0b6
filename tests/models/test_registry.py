from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spicula.errors import SpiculaError, UsageError
from spicula.models import registry
from spicula.models.settings import NetworkSettings

#: Difference of the two logits that torchvision's MobileNetV2 gives with the published weights, a head drawn after
#: torch.manual_seed(0), and an image that brightens evenly.
GOLDEN = -9.188
WEIGHTS = Path("weights") / "mobilenet_v2_imagenet_dequantised.safetensors"


def create(line, size=(64, 64), channels=3, **values):
    return registry.create(NetworkSettings(line=line, **values), size, channels, 2)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    net = create("torchvision:resnet18").net
    net.train()(torch.rand(4, 3, 64, 64))  # batch normalisation as after some training, not as at the start
    save_file({n: t.contiguous() for n, t in net.state_dict().items()} | {"fc.weight": torch.zeros(1000, 512)}, path)
    return path


@pytest.mark.parametrize(
    ("line", "has_map"),
    [
        ("timm:resnet18", True),
        ("timm:mobilenetv2_100", True),
        ("timm:mobilenet_v2", True),  # not in timm, so torchvision's
        ("timm:vit_tiny_patch16_224", False),
        ("torchvision:resnet18", True),
        ("torchvision:squeezenet1_1", True),
        ("torchvision:googlenet", True),
    ],
)
def test_lines_make_classifiers_of_either_library(line, has_map):
    module = create(line).eval()
    assert module(torch.rand(3, 3, 64, 64)).shape == (3, 2)
    assert (module.gradcam_layer() is not None) == has_map
    if has_map:
        seen = []
        module.gradcam_layer().register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        module(torch.rand(1, 3, 64, 64))
        assert seen[0].ndim == 4
    head, backbone = module.parts()
    assert head[0].shape[0] == 2
    assert backbone


def test_the_same_name_in_both_libraries_means_the_one_that_is_named():
    assert type(create("timm:resnet18").net).__module__.startswith("timm")
    assert type(create("torchvision:resnet18").net).__module__.startswith("torchvision")


def test_an_unknown_name_lists_close_ones():
    with pytest.raises(UsageError, match=r"no network timm:mobilenetv2; close: .*mobilenetv2_100"):
        create("timm:mobilenetv2")
    with pytest.raises(UsageError, match=r"no network torchvision:resnet19; close: .*resnet18"):
        create("torchvision:resnet19")
    with pytest.raises(UsageError, match=r"no network timm:resnet18\.nonsense"):
        create("timm:resnet18.nonsense")


def test_a_network_for_another_size_is_refused_with_its_own():
    with pytest.raises(UsageError, match=r"mixer_s32_224 cannot take images of 64x64; its own size is 224x224"):
        create("timm:mixer_s32_224")


def test_grey_images_go_to_all_three_inputs():
    torch.manual_seed(0)
    grey = create("timm:resnet18", channels=1).eval()
    torch.manual_seed(0)
    colour = create("timm:resnet18", channels=3).eval()
    images = torch.rand(2, 1, 64, 64)
    assert torch.allclose(grey(images), colour(images.repeat(1, 3, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("line", ["timm:mobilenetv2_100", "timm:resnet18", "torchvision:mobilenet_v2"])
def test_training_starts_undecided(line):
    module = create(line).train()
    with torch.no_grad():
        probabilities = module(torch.rand(8, 3, 64, 64)).softmax(1)
    assert probabilities == pytest.approx(0.5, abs=0.2)


def test_images_are_normalised_as_given_or_as_the_network_was_published():
    assert create("timm:resnet18").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert create("timm:vit_tiny_patch16_224").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    given = create("timm:resnet18", mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert given.std.flatten().tolist() == [1, 2, 3]


def trained(module):
    return {name.split(".")[0] for name, parameter in module.net.named_parameters() if parameter.requires_grad}


def test_a_frozen_backbone_neither_learns_nor_changes_its_statistics(resnet_file):
    module = create("timm:resnet18", weights=resnet_file, train="head")
    assert trained(module) == {"fc"}
    assert module.parts()[1] == []
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.train()
    module(torch.rand(4, 3, 64, 64)).sum().backward()
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_last_stages_learn_and_keep_their_own_statistics(resnet_file):
    module = create("timm:resnet18", weights=resnet_file, train=2)
    assert trained(module) == {"layer3", "layer4", "fc"}
    module.train()
    assert not module.net.layer2[0].bn1.training
    assert module.net.layer3[0].bn1.training
    every = create("timm:resnet18", weights=resnet_file, train=5)
    assert trained(every) == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}
    with pytest.raises(UsageError, match="has 5 stages besides its head, not 6"):
        create("timm:resnet18", weights=resnet_file, train=6)
    theirs = create("torchvision:resnet18", weights=resnet_file, train=1)
    assert trained(theirs) == {"layer4", "fc"}


def test_batch_norm_can_be_frozen_while_everything_learns(resnet_file):
    frozen = create("timm:resnet18", weights=resnet_file, batch_norm="frozen").train()
    assert not any(module.training for module in frozen.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert create("timm:resnet18", weights=resnet_file).train().net.bn1.training


def test_weights_stay_aside_when_others_are_loaded_next(resnet_file):
    settings = NetworkSettings(line="timm:resnet18", weights=resnet_file)
    torch.manual_seed(5)
    module = registry.create(settings, (64, 64), 3, 2, pretrained=False)
    assert not torch.equal(module.net.conv1.weight, load_file(resnet_file)["conv1.weight"])


def test_checking_finds_what_is_missing_before_training(tmp_path):
    registry.check(NetworkSettings(line="cnn"))
    registry.check(NetworkSettings(line="timm:resnet18"))
    with pytest.raises(UsageError, match="no weights file at"):
        registry.check(NetworkSettings(line="timm:resnet18", weights=tmp_path / "none.pth"))
    with pytest.raises(UsageError, match="no network"):
        registry.check(NetworkSettings(line="timm:resnet1"))


def test_loading_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(SpiculaError, match=r"no readable run\.json"):
        registry.load(tmp_path)


@pytest.mark.parametrize("line", ["timm:mobilenetv2_100", "torchvision:mobilenet_v2"])
def test_the_published_mobilenet_loads_into_either_library_and_both_answer_alike(test_data, line):
    module = create(line, weights=test_data / WEIGHTS, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    (note,) = module.notes
    assert "260 tensors" in note
    assert "folded" in note
    assert not any(m.training for m in module.train().modules() if isinstance(m, torch.nn.BatchNorm2d))
    torch.manual_seed(0)
    head = torch.rand(2, 1280)
    with torch.no_grad():
        module.net.get_submodule("classifier" if line.startswith("timm") else "classifier.1").weight.copy_(head)
        logits = module.eval()(torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))
    assert (logits[0, 0] - logits[0, 1]).item() == pytest.approx(GOLDEN, rel=1e-3)
