import subprocess
import sys


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_torchvision_and_timm_import_next_to_any_torch_and_nothing_stays_changed():
    output = run(
        "import torch; before = torch.library.register_fake\n"
        "from spicula.models.torchvision_guard import import_torchvision\n"
        "torchvision = import_torchvision()\n"
        "assert torch.library.register_fake is before\n"
        "assert import_torchvision() is torchvision\n"
        "import timm\n"
        "print(timm.is_model('resnet18'), torchvision.models.list_models()[0])"
    )
    assert output.startswith("True ")


def test_fake_kernels_of_operators_that_exist_are_still_registered():
    output = run(
        "import torch\n"
        "seen = []\n"
        "original = torch.library.register_fake\n"
        "def spy(op, *args, **kwargs):\n"
        "    seen.append(op)\n"
        "    return (lambda function: function) if isinstance(op, str) and op.startswith('torchvision::') else "
        "original(op, *args, **kwargs)\n"
        "torch.library.register_fake = spy\n"
        "from spicula.models import torchvision_guard\n"
        "torchvision_guard._exists = lambda name: True\n"
        "torchvision_guard.import_torchvision()\n"
        "print('torchvision::nms' in seen, torch.library.register_fake is spy)"
    )
    assert output.split() == ["True", "True"]
