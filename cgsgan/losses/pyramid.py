"""Distance of pictures at all scales at once: coarse ones lead, fine ones finish."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

COARSEST = 4
"""Edge length of the coarsest level, pixels."""


def pyramid_loss(
    images: Float[Tensor, "*batch channel height width"], targets: Float[Tensor, "*batch channel height width"]
) -> Float[Tensor, ""]:
    """Mean absolute difference, averaged over the levels of a box pyramid down to 4 px.

    A shift by a pixel costs little at coarse levels, so the loss still points the right way when edges do not meet.

    Args:
        images: any range.
        targets: the same shape and range.
    """
    difference = (images - targets).flatten(0, -4) if images.ndim > 3 else (images - targets)[None]
    total, levels = difference.abs().mean(), 1
    while min(difference.shape[-2:]) >= 2 * COARSEST:
        difference = functional.avg_pool2d(difference, 2)
        total = total + difference.abs().mean()
        levels += 1
    return total / levels


def peak_signal_to_noise(
    images: Float[Tensor, "*batch channel height width"], targets: Float[Tensor, "*batch channel height width"]
) -> Float[Tensor, "*batch"]:
    """PSNR of every picture in decibels, for values in [0, 1]; those outside are cut off first."""
    error = (images.clamp(0, 1) - targets.clamp(0, 1)).square().mean(dim=(-3, -2, -1))
    return -10 * torch.log10(error.clamp_min(1e-12))
