"""The three-block network: three times convolution, ReLU and max pooling, then one dense layer.

The layout is that of the small networks published for BreakHis and its like. The publications leave the padding open;
here the convolutions keep the size ("same"), so that a 128x128 image ends as a map of 16x16.
"""

from torch import nn

from spicula.errors import UsageError
from spicula.models.classifier import Classifier
from spicula.models.settings import NetworkSettings

WIDTHS = (32, 64, 128)  # channels of the three blocks
DENSE = 128
DROPOUT = 0.5


def build(settings: NetworkSettings, size: tuple[int, int], channels: int, classes: int) -> Classifier:
    """Return the network with Glorot-uniform weights and zero biases, drawn from torch's global generator.

    Args:
        settings: of which only `mean` and `std` matter here.
        size: (rows, columns) of the images in pixels; at least 8 each.
        channels: 1 or 3.
        classes: number of outputs.

    Raises:
        UsageError: the images are too small for three poolings.
    """
    if min(size) < 8:
        raise UsageError(f"the line cnn halves its images three times: {size[0]}x{size[1]} is below 8x8")
    blocks: list[nn.Module] = []
    before = channels
    for width in WIDTHS:
        blocks += [nn.Conv2d(before, width, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        before = width
    features = before * (size[0] // 8) * (size[1] // 8)
    dense = [nn.Flatten(), nn.Linear(features, DENSE), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(DENSE, classes)]
    net = nn.Sequential(*blocks, *dense)
    for module in net:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    mean, std = _normalisation(settings, channels)
    head = [f"{len(net) - 1}.{name}" for name in ("weight", "bias")]
    return Classifier(net, channels=channels, mean=mean, std=std, head=head, layer=net[len(blocks) - 2])


def _normalisation(settings: NetworkSettings, channels: int) -> tuple[list[float], list[float]]:
    """As given; else none, since the published network takes values in 0 to 1 as they are."""
    mean = settings.mean or (0.0, 0.0, 0.0)
    std = settings.std or (1.0, 1.0, 1.0)
    return (list(mean), list(std)) if channels == 3 else ([sum(mean) / 3], [sum(std) / 3])
