"""What every network line returns: a module with its own normalisation inside, that knows its head and its layers."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn


class Classifier(nn.Module):
    """A network of one or three input channels, with the normalisation of its inputs inside.

    Attributes:
        net: the architecture, which takes normalised images.
        head: names of the parameters of `net` that make its last layer.
        layer: the module of `net` whose output is the last feature map, or None where it has no such map.
        notes: what a person should know about how it was made, such as which tensors were not loaded.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        head: Iterable[str] = (),
        layer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.head = frozenset(head)
        self.notes: list[str] = []
        self.freezes_statistics = False
        self._layer = [layer]  # in a list, so that the module is not registered a second time
        self.register_buffer("mean", _per_channel(mean, channels))
        self.register_buffer("std", _per_channel(std, channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Args:
            images: (N, C, H, W) in 0 to 1. One channel is repeated where the architecture takes three.

        Returns:
            (N, classes), of which softmax makes probabilities.
        """
        logits: torch.Tensor = self.net((images - self.mean) / self.std)
        return logits

    def gradcam_layer(self) -> nn.Module | None:
        """Return the module whose output (N, channels, h, w) is the last feature map; None where there is none."""
        return self._layer[0]

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the head and those of the backbone, without the frozen ones."""
        named = [(name in self.head, p) for name, p in self.net.named_parameters() if p.requires_grad]
        return [p for is_head, p in named if is_head], [p for is_head, p in named if not is_head]

    def train(self, mode: bool = True) -> "Classifier":
        """Switch to training. Frozen batch normalisation keeps its statistics and uses them."""
        super().train(mode)
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and self._is_frozen(module):
                module.eval()
        return self

    def _is_frozen(self, module: nn.modules.batchnorm._BatchNorm) -> bool:
        return self.freezes_statistics or (module.weight is not None and not module.weight.requires_grad)


def _per_channel(values: Sequence[float], channels: int) -> torch.Tensor:
    """(1, C, 1, 1): three values for one input channel make three channels, by broadcasting."""
    if channels == 3 and len(values) == 1:
        values = [*values] * 3
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
