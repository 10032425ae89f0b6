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
