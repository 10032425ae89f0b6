"""The patch classifier: DenseNet-121 whose convolutions and pools pad as TensorFlow's do.

Source: Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer Screening. IEEE
Transactions on Medical Imaging 39(4), 1184-1194, section III-B; and the behaviour of its published implementation.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from spicula.models.torchvision_guard import import_torchvision

#: Outputs; the first two are malignant and benign.
CLASSES = 4


def build() -> nn.Module:
    """Return the network with random weights and torchvision's names.

    It takes float32 (N, 3, H, W), standardised, and returns logits (N, 4).
    """
    torchvision = import_torchvision()
    net: nn.Module = torchvision.models.densenet121(num_classes=CLASSES)
    _replace(net)
    return net


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding "SAME", as the published implementation applies it (`swapped`)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve (N, C, H, W)."""
        padded, padding = _pad(input, _pair(self.kernel_size), _pair(self.stride))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class SameMaxPool2d(nn.MaxPool2d):
    """A maximum pool with TensorFlow's padding "SAME", of zeros, as the published implementation applies it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Pool (N, C, H, W)."""
        kernel, stride = _pair(self.kernel_size), _pair(self.stride)
        padded = functional.pad(input, swapped(input.shape[-2:], kernel, stride))
        return functional.max_pool2d(padded, kernel, stride)


class AsPublished(nn.Module):
    """A patch classifier asked as it was published: the grey values of a patch stand in three equal channels.

    Args:
        network: of `build`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (N, 1, P, P) to probabilities (N, 4)."""
        logits: torch.Tensor = self.network(patches.expand(-1, 3, -1, -1))
        return logits.softmax(dim=1)


class Lean(nn.Module):
    """A patch classifier that answers as `AsPublished` does, but for rounding, with fewer operations.

    - Three equal channels under a kernel are one channel under the sum of the kernel over its channels.
    - Between two blocks, the mean of 2 x 2 places is taken before the 1 x 1 convolution, not after it: the mean of
      weighted sums is the weighted sum of the means, and a quarter of the products is left.
    - The maximum pool follows a ReLU, so that zeros beyond the border change nothing, and none are put there.
    - Features of a block are kept together; each layer's are put behind them.

    Args:
        network: of `build`; its layers are taken, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = dict(network.get_submodule("features").named_children())
        self.first = _of_grey(layers["conv0"])
        self.norm = layers["norm0"]
        self.blocks = nn.ModuleList(layers[f"denseblock{number}"] for number in range(1, 5))
        self.transitions = nn.ModuleList(layers[f"transition{number}"] for number in range(1, 4))
        self.last_norm = layers["norm5"]
        self.classifier = network.get_submodule("classifier")

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (N, 1, P, P), which are square, to probabilities (N, 4)."""
        maps = _pool(self.norm(self.first(patches)).relu())
        for number, block in enumerate(self.blocks):
            for layer in block.children():
                maps = torch.cat([maps, _layer(layer, maps)], dim=1)
            if number < len(self.transitions):
                step: Any = self.transitions[number]
                maps = step.conv(step.pool(step.norm(maps).relu()))
        logits: torch.Tensor = self.classifier(self.last_norm(maps).relu().mean(dim=(2, 3)))
        return logits.softmax(dim=1)


def _of_grey(conv: Any) -> SameConv2d:
    """Return the convolution that does with one channel what another one does with as many equal ones."""
    made = SameConv2d(1, conv.out_channels, conv.kernel_size, conv.stride, bias=False)
    made.weight = nn.Parameter(conv.weight.detach().sum(dim=1, keepdim=True, dtype=torch.float64).float())
    return made


def _pool(maps: torch.Tensor) -> torch.Tensor:
    """Pool square maps of nothing below 0 as `SameMaxPool2d(3, 2)` does: what is beyond the border does not count."""
    before, after = same_padding(int(maps.shape[-1]), 3, 2)
    return functional.max_pool2d(maps, 3, 2, padding=before, ceil_mode=after > before)


def _layer(layer: Any, maps: torch.Tensor) -> torch.Tensor:
    """Return the features that a layer of a dense block adds to those before it."""
    inner = layer.conv1(layer.norm1(maps).relu())
    found: torch.Tensor = layer.conv2(layer.norm2(inner).relu())
    return found


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many zeros stand before and after one axis, so that ceil(size / stride) outputs come out.

    Source: TensorFlow's padding "SAME".

    Args:
        size: of the axis.
        kernel: size of the window.
        stride: of the window.
    """
    total = max(0, kernel - (size % stride or stride))
    return total // 2, total - total // 2


def swapped(size: torch.Size, kernel: tuple[int, int], stride: tuple[int, int]) -> list[int]:
    """Return the padding as `functional.pad` takes it: left, right, top, bottom.

    The published implementation hands over top, bottom, left, right, so that the width is padded as the height should
    be and the other way round. The weights were trained with it; it matters where the two differ.

    Args:
        size: (H, W) of the input.
        kernel: height and width.
        stride: in y and x.
    """
    rows, columns = (same_padding(int(n), k, s) for n, k, s in zip(size, kernel, stride, strict=True))
    return [*rows, *columns]


def _pad(image: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return the image and what the convolution still has to pad itself: where both ends are alike, it does all."""
    left, right, top, bottom = swapped(image.shape[-2:], kernel, stride)
    if left == right and top == bottom:
        return image, (top, left)
    return functional.pad(image, [left, right, top, bottom]), (0, 0)


def _replace(module: nn.Module) -> None:
    """Give every convolution and every maximum pool within a module the other padding; weights and names stay."""
    for name, child in module.named_children():
        made: nn.Module
        if isinstance(child, nn.Conv2d):
            made = SameConv2d(
                child.in_channels,
                child.out_channels,
                _pair(child.kernel_size),
                _pair(child.stride),
                dilation=_pair(child.dilation),
                groups=child.groups,
                bias=child.bias is not None,
            )
            made.weight, made.bias = child.weight, child.bias
        elif isinstance(child, nn.MaxPool2d):
            made = SameMaxPool2d(child.kernel_size, child.stride)
        else:
            _replace(child)
            continue
        setattr(module, name, made)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
