"""Augmentations of the discriminator's pictures (ADA, Karras et al. 2020), differentiable twice.

Of ADA's transforms those are here that leave a camera's label true: no mirror images (the data set has them, with
mirrored cameras), no rotations. All are per-picture linear maps, so R1 can be taken through them; ``grid_sample`` has
no second derivative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SCALE_STD = 0.2
"""Of log2 of the zoom."""
LARGEST_SHIFT = 0.125
"""Picture sizes."""
BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5
"""Of log2 of the contrast."""
SATURATION_STD = 1.0
"""Of log2 of the saturation."""


@dataclass(frozen=True, kw_only=True)
class AugmentationDraws:
    """What is done to each picture of a batch.

    Attributes:
        zoom: in [0.5, 2]; 1 leaves the picture.
        shift: right and down, picture sizes, rounded to whole pixels.
        color: an affine map of RGB in [-1, 1]: a 3x3 matrix and an offset.
    """

    zoom: Float[Tensor, " batch"]
    shift: Float[Tensor, "batch 2"]
    color: Float[Tensor, "batch 3 4"]


def draw_augmentations(generator: torch.Generator, *, batch_size: int, p: float) -> AugmentationDraws:
    """Draw every transform of every picture independently with probability ``p``.

    The same numbers are taken from ``generator`` whatever ``p`` is.

    Args:
        generator: on the CPU.
        batch_size: pictures.
        p: in [0, 1]; 0 gives the identity.
    """
    gates = torch.rand(batch_size, 7, generator=generator) < p
    normal = torch.randn(batch_size, 4, generator=generator)
    uniform = torch.rand(batch_size, 4, generator=generator) * 2 - 1
    zoom = torch.where(gates[:, 0], torch.exp2(normal[:, 0] * SCALE_STD).clamp(0.5, 2), 1.0)
    shift = torch.where(gates[:, 1:2], uniform[:, :2] * LARGEST_SHIFT, 0.0)
    brightness = torch.where(gates[:, 2], normal[:, 1] * BRIGHTNESS_STD, 0.0)
    contrast = torch.where(gates[:, 3], torch.exp2(normal[:, 2] * CONTRAST_STD), 1.0)
    reflect = gates[:, 4] & (uniform[:, 3] < 0)  # a fair coin follows the gate
    hue = torch.where(gates[:, 5], uniform[:, 2] * math.pi, 0.0)
    saturation = torch.where(gates[:, 6], torch.exp2(normal[:, 3] * SATURATION_STD), 1.0)
    matrix = _color_matrix(contrast, reflect, hue, saturation)
    offset = (brightness * contrast * torch.where(reflect, -1.0, 1.0))[:, None, None].expand(-1, 3, 1)
    return AugmentationDraws(zoom=zoom, shift=shift, color=torch.cat([matrix, offset], dim=2))


def augment(
    images: Float[Tensor, "batch channel size size"], draws: AugmentationDraws
) -> Float[Tensor, "batch channel size size"]:
    """Zoom about the middle, shift, and change colours; pictures in [-1, 1], reflected at their borders.

    Several pictures of one thing, three channels each, are changed alike.
    """
    size = images.shape[-1]
    shift = (draws.shift * size).round()
    down = _resampling(draws.zoom, shift[:, 1], size).to(images.dtype)
    across = _resampling(draws.zoom, shift[:, 0], size).to(images.dtype)
    moved = down.unsqueeze(1) @ images @ across.unsqueeze(1).mT
    matrix = draws.color.to(images.dtype)
    colored = [
        torch.einsum("bij,bjhw->bihw", matrix[:, :, :3], picture) + matrix[:, :, 3, None, None]
        for picture in moved.split(3, dim=1)
    ]
    return colored[0] if len(colored) == 1 else torch.cat(colored, dim=1)


def _color_matrix(contrast: Tensor, reflect: Tensor, hue: Tensor, saturation: Tensor) -> Float[Tensor, "batch 3 3"]:
    """Contrast, reflection of the luma axis, rotation about it and distance from it.

    Brightness comes before all of them; along the luma axis only contrast and reflection change it.
    """
    identity = torch.eye(3)
    along = torch.full((3, 3), 1 / 3)  # projects onto (1, 1, 1)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)

    def column(values: Tensor) -> Tensor:
        return values[:, None, None].float()

    mirror = identity - 2 * along * column(reflect)
    # Rodrigues' formula; sin and 1 - cos vanish exactly at 0.
    rotation = identity + column(hue.sin()) * cross + column(1 - hue.cos()) * (along - identity)
    saturate = identity + column(saturation - 1) * (identity - along)
    return (saturate @ rotation @ mirror) * column(contrast)


def _resampling(zoom: Tensor, shift: Tensor, size: int) -> Float[Tensor, "batch size size"]:
    """Rows of weights: linear interpolation where enlarged, a triangle as wide as a pixel where reduced."""
    middle = (size - 1) / 2
    place = torch.arange(size, device=zoom.device)
    wanted = (place - middle - shift[:, None]) / zoom[:, None] + middle
    source = torch.arange(-size, 2 * size, device=zoom.device)
    width = (1 / zoom).clamp_min(1)[:, None, None]
    weights = (1 - (wanted[:, :, None] - source).abs() / width).clamp_min(0)
    weights = weights / weights.sum(dim=2, keepdim=True)
    before, inside, after = weights.split(size, dim=2)
    return inside + before.flip(2) + after.flip(2)
