"""Resampling with the low-pass filter [1, 3, 3, 1] (StyleGAN2), without ever inserting zeros."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

UPSAMPLING_GAIN = 4.0
"""Three of four pixels are zeros after an upsampling by two in both directions; the filter makes up for it."""


def make_low_pass(channels: int, like: Tensor) -> Float[Tensor, "channel 1 4 4"]:
    """The 4 x 4 filter of a depthwise convolution after an upsampling by two, its gain included."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=like.dtype, device=like.device) / 8
    return (torch.outer(taps, taps) * UPSAMPLING_GAIN).expand(channels, 1, -1, -1)


def convolve_upsampling(
    x: Float[Tensor, "batch in height width"],
    weight: Float[Tensor, "out in 3 3"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "batch out double_height double_width"]:
    """Twice the size, a 3 x 3 convolution, the low-pass filter, a bias.

    The convolution is a true one (its kernel is flipped beside torch's correlations), written as a transposed
    convolution of stride 2; it gives 2 H + 1 pixels, of which the filter leaves 2 H.
    """
    y = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return functional.conv2d(y, make_low_pass(y.shape[1], y), bias, padding=1, groups=y.shape[1])


def upsample_image(
    images: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch channel double_height double_width"]:
    """Twice the size: a zero after every pixel, the low-pass filter, zeros outside.

    As a transposed convolution. Bilinear interpolation is the same but for the border, and as fast, but its gradient
    takes eight times as long on a CPU.
    """
    kernel = make_low_pass(images.shape[1], images)
    return functional.conv_transpose2d(images, kernel, stride=2, padding=1, groups=images.shape[1])


def resize(images: Float[Tensor, "batch channel height width"], size: int) -> Float[Tensor, "batch channel size size"]:
    """Bilinear with antialiasing, to ``size`` squared; images of that size as they are."""
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
