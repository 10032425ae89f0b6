"""The view-wise classifier of four-view exams: a ResNet-22 for each angle, and heads that read both breasts.

Source: Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer Screening. IEEE
Transactions on Medical Imaging 39(4), 1184-1194, section III-C; and the names and shapes of its published weights.
"""

import torch
from torch import nn

ANGLES = ("cc", "mlo")
#: left_benign, right_benign, left_malignant, right_malignant.
OUTPUTS = 4

_WIDTHS, _STRIDES, _BLOCKS = (16, 32, 64, 128, 256), (1, 2, 2, 2, 2), 2
_HIDDEN = 512


class Block(nn.Module):
    """A residual block that activates before it convolves (He K et al. 2016, "Identity Mappings", figure 4e)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        #: The shortcut of the first block of a group: it starts from the activated input, others from the input itself.
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False)) if first else None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = torch.relu(self.bn1(image))
        shortcut = image if self.downsample is None else self.downsample(active)
        found: torch.Tensor = self.conv2(torch.relu(self.bn2(self.conv1(active)))) + shortcut
        return found


class Tower(nn.Module):
    """ResNet-22: what one view says of a breast.

    Args:
        channels: 1, or 3: image, benign and malignant heatmap.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first_conv = nn.Conv2d(channels, _WIDTHS[0], 7, stride=2, bias=False)
        self.first_pool = nn.MaxPool2d(3, stride=2)
        before = (_WIDTHS[0], *_WIDTHS[:-1])
        self.layer_list = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(narrow if block == 0 else wide, wide, stride if block == 0 else 1, first=block == 0)
                    for block in range(_BLOCKS)
                )
            )
            for narrow, wide, stride in zip(before, _WIDTHS, _STRIDES, strict=True)
        )
        self.final_bn = nn.BatchNorm2d(_WIDTHS[-1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, 256)."""
        maps = self.first_pool(self.first_conv(image))
        for group in self.layer_list:
            maps = group(maps)
        return torch.relu(self.final_bn(maps)).mean(dim=(2, 3))


class _Output(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc_layer = nn.Linear(_HIDDEN, OUTPUTS * 2)


class ViewWise(nn.Module):
    """Both towers and both heads, under the published names. It is run one angle at a time: see `Angle`.

    Args:
        channels: of an image, 1 or 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.four_view_resnet = nn.ModuleDict({angle: Tower(channels) for angle in ANGLES})
        self.fc1_cc = nn.Linear(2 * _WIDTHS[-1], _HIDDEN)
        self.fc1_mlo = nn.Linear(2 * _WIDTHS[-1], _HIDDEN)
        self.output_layer_cc = _Output()
        self.output_layer_mlo = _Output()


class Angle(nn.Module):
    """What the views of one angle say of both breasts.

    Args:
        network: with the weights.
        angle: "cc" or "mlo".
    """

    def __init__(self, network: ViewWise, angle: str) -> None:
        super().__init__()
        self.tower = network.four_view_resnet[angle]
        self.hidden: nn.Module = getattr(network, f"fc1_{angle}")
        self.output: nn.Module = getattr(network, f"output_layer_{angle}").fc_layer

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Map both views (N, C, H, W) to (N, 4): left_benign, right_benign, left_malignant, right_malignant."""
        both = torch.cat([self.tower(left), self.tower(right)], dim=1)
        logits: torch.Tensor = self.output(torch.relu(self.hidden(both)))
        return logits.reshape(-1, OUTPUTS, 2).softmax(dim=2)[:, :, 1]
