"""Changes of training images, for a whole batch at once, on the device that holds it."""

import math

import torch
from torch.nn import functional

from spicula.models.settings import AugmentSettings

#: How many images `rotate_flip` makes of one.
VARIANTS = 3


def rotate_flip(images: torch.Tensor, variants: torch.Tensor) -> torch.Tensor:
    """Make the images of the threefold training set, the published augmentation of the line cnn.

    Args:
        images: (N, C, S, S), square.
        variants: (N,) 0: as it is; 1: rotated by 90 degrees counter-clockwise, then flipped left-right; 2: rotated by
            180 degrees, then flipped left-right.

    Returns:
        (N, C, S, S).
    """
    which = variants.reshape(-1, 1, 1, 1).to(images.device)
    quarter = torch.rot90(images, 1, dims=(2, 3)).flip(3)
    half = torch.rot90(images, 2, dims=(2, 3)).flip(3)
    return torch.where(which == 1, quarter, torch.where(which == 2, half, images))


def augment(images: torch.Tensor, settings: AugmentSettings, generator: torch.Generator) -> torch.Tensor:
    """Change each image at random, on its own.

    In this order: flips; a turn and a change of scale around the middle (bilinear; what comes in from beyond the edge
    is the image mirrored at it, since a black corner would tell the network that the image was turned); contrast
    around mid-grey and brightness, cut off at 0 and 1.

    Args:
        images: (N, C, H, W) in 0 to 1.
        settings: probabilities and ranges.
        generator: of the processor, so that a seed gives the same changes on every device.

    Returns:
        (N, C, H, W) in 0 to 1.
    """
    count = len(images)
    # always six numbers an image: what one setting draws must not move what another draws
    draws = torch.rand((6, count), generator=generator).to(images.device)
    images = _flip(images, draws[0] < settings.flip_horizontal, axis=3)
    images = _flip(images, draws[1] < settings.flip_vertical, axis=2)
    signed = 2 * draws[2:] - 1
    if settings.rotate or settings.scale:
        images = _turn(images, signed[0] * math.radians(settings.rotate), 1 + signed[1] * settings.scale)
    if settings.intensity:
        contrast = (1 + signed[2] * settings.intensity).reshape(-1, 1, 1, 1)
        brightness = (signed[3] * settings.intensity / 2).reshape(-1, 1, 1, 1)
        images = ((images - 0.5) * contrast + 0.5 + brightness).clamp_(0, 1)
    return images


def _flip(images: torch.Tensor, which: torch.Tensor, axis: int) -> torch.Tensor:
    if not which.any():
        return images
    return torch.where(which.reshape(-1, 1, 1, 1), images.flip(axis), images)


def _turn(images: torch.Tensor, angle: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Rotate by (N,) angles in radians and enlarge by (N,) factors."""
    aspect = images.shape[2] / images.shape[3]  # the grid spans -1 to 1 along both axes, whatever their lengths
    cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
    zero = torch.zeros_like(angle)
    rows = [torch.stack([cosine, -sine * aspect, zero], 1), torch.stack([sine / aspect, cosine, zero], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
