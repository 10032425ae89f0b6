import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spicula.errors import SpiculaError, UsageError
from spicula.models import weights
from spicula.models.torchvision_guard import import_torchvision

torchvision = import_torchvision()
import timm  # noqa: E402  torchvision first: the guard lets both imports pass


def random_weights(net):
    """Weights of every kind that differ from their start, so that nothing can be mistaken or left out unseen."""
    generator = torch.Generator().manual_seed(0)
    state = net.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            spread = 1 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.5
            state[name] = noise + 0.5 if name.endswith("running_var") else (2 * noise - 1) * spread + (tensor.ndim == 1)
    net.load_state_dict(state)
    return net.eval()


def head_of(net):
    (prefix,) = [name for name, module in net.named_modules() if module is net.get_classifier()]
    return frozenset({f"{prefix}.weight", f"{prefix}.bias"})


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_100",
        "mnasnet_050",
        "efficientnet_b0",
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
        pytest.param("vgg11", marks=pytest.mark.slow),
    ],
)
def test_torchvisions_weights_make_timms_network_answer_alike(name):
    with torch.device("meta"):  # what is not filled below stays whatever was in memory, and shows
        theirs, ours = torchvision.models.get_model(weights.TORCHVISION_TWINS[name]), timm.create_model(name)
    theirs, ours = random_weights(theirs.to_empty(device="cpu")), ours.to_empty(device="cpu").eval()
    loaded = weights.fit_into(ours, name, head_of(ours), theirs.state_dict(), "the test")
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert (expected - expected.mean()).abs().max() > 0.01  # the answers say something
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert (loaded.fresh, loaded.unused) == ((), ())


@pytest.mark.parametrize("name", sorted(weights.TORCHVISION_TWINS))
def test_twins_have_tensors_of_the_same_size_in_the_same_order(name):
    with torch.device("meta"):
        ours = timm.create_model(name, num_classes=1000).state_dict()
        theirs = torchvision.models.get_model(weights.TORCHVISION_TWINS[name]).state_dict()
    sizes = [[t.numel() for n, t in state.items() if not n.endswith("num_batches_tracked")] for state in (ours, theirs)]
    assert sizes[0] == sizes[1]


@pytest.fixture
def net():
    return timm.create_model("resnet18", num_classes=2)


@pytest.fixture
def published():
    return random_weights(timm.create_model("resnet18", num_classes=1000)).state_dict()


HEAD = frozenset({"fc.weight", "fc.bias"})


def test_a_file_fills_all_but_the_head_and_says_so(net, published, tmp_path):
    before = net.fc.weight.clone()
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in published.items()}
    save_file({**half, "extra.weight": torch.zeros(1)}, tmp_path / "net.safetensors")
    tensors = weights.read_tensors(tmp_path / "net.safetensors")
    loaded = weights.fit_into(net, "resnet18", HEAD, tensors, "net.safetensors")
    counted = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    assert loaded.tensors == len(counted) - 2
    assert loaded.fresh == ("fc.bias", "fc.weight")
    assert loaded.unused == ("extra.weight",)
    assert not loaded.folded
    assert torch.equal(net.conv1.weight, published["conv1.weight"].half().float())
    assert torch.equal(net.fc.weight, before)
    sentence = loaded.sentence("net.safetensors")
    assert "100 tensors from net.safetensors" in sentence
    assert "fc.bias, fc.weight" in sentence
    assert "extra.weight" in sentence


def test_a_head_for_the_same_number_of_classes_is_taken_over(net):
    trained = random_weights(timm.create_model("resnet18", num_classes=2)).state_dict()
    loaded = weights.fit_into(net, "resnet18", HEAD, trained, "the test")
    assert loaded.fresh == ()
    assert torch.equal(net.fc.weight, trained["fc.weight"])


def test_anything_else_that_is_missing_or_of_another_shape_is_an_error_naming_it(net, published):
    del published["layer3.0.conv1.weight"]
    with pytest.raises(SpiculaError, match=r"layer3\.0\.conv1\.weight is missing"):
        weights.fit_into(net, "resnet18", HEAD, published, "the test")
    published["layer3.0.conv1.weight"] = torch.zeros(4, 4)
    with pytest.raises(
        SpiculaError, match=r"layer3\.0\.conv1\.weight is 4x4 and not 256x128x3x3.*torchvision:resnet18"
    ):
        weights.fit_into(net, "resnet18", HEAD, published, "the test")


def test_batch_normalisation_that_was_folded_is_noticed(net, published):
    for name in published:
        if name.endswith("running_mean"):
            published[name] = torch.zeros_like(published[name])
        if name.endswith("running_var"):
            published[name] = torch.ones_like(published[name])
    loaded = weights.fit_into(net, "resnet18", HEAD, published, "the test")
    assert loaded.folded
    assert "folded" in loaded.sentence("the test")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_pth_files_are_read_bare_wrapped_and_from_several_devices(wrapper, tmp_path):
    tensors = {"module.a": torch.arange(3.0), "module.b": torch.ones(1)}
    torch.save(tensors if wrapper is None else {"epoch": 3, wrapper: tensors}, tmp_path / "net.pth")
    found = weights.read_tensors(tmp_path / "net.pth")
    assert set(found) == {"a", "b"}
    assert torch.equal(found["a"], tensors["module.a"])


def test_a_pickle_that_holds_more_than_tensors_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1), "net": nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(SpiculaError, match=r"whole\.pth cannot be read as plain weights"):
        weights.read_tensors(tmp_path / "whole.pth")


def test_files_that_are_not_there_or_not_whole_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no weights file at"):
        weights.read_tensors(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(100)}, tmp_path / "cut.safetensors")
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-50])
    with pytest.raises(SpiculaError, match="not a whole safetensors file"):
        weights.read_tensors(tmp_path / "cut.safetensors")
    (tmp_path / "cut.pth").write_bytes(b"no pickle")
    with pytest.raises(SpiculaError, match=r"cut\.pth cannot be read"):
        weights.read_tensors(tmp_path / "cut.pth")
