"""Convolutions modulated by styles (StyleGAN2; Karras et al. 2020, section 2.2), by direct convolutions.

A style scales the input channels of a weight, demodulation its output channels. With one sample both are folded
into the weight; with more, one shared weight is used for all of them, the styles scale its input and demodulation
its output. Activations are kept in channels-last memory: on a CPU all of this is 1.1 to 4 times as fast there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import ACTIVATION_GAIN, LEAKY_SLOPE, EqualizedLinear, at_least_float32
from cgsgan.models.triplane.resampling import convolve_upsampling

Noise = Literal["constant", "none"]
KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings:
    """What all layers of a network share.

    Attributes:
        w_dim: numbers in a style vector.
        image_channels: channels of the skip image.
        noise: whether the fixed noise images are added.
        clamp: bound of activations and images. None: no clamp.
    """

    w_dim: int
    image_channels: int
    noise: Noise
    clamp: float | None


def demodulate(weight: Float[Tensor, "out in k k"], styles: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
    """What brings modulated weights to unit norm per output channel: rsqrt(sum over in, k, k of (W s)^2 + 1e-8)."""
    energy = weight.square().sum(dim=(2, 3))
    return (styles.square() @ energy.t() + 1e-8).rsqrt()


def bound(x: Float[Tensor, "*shape"], clamp: float | None) -> Float[Tensor, "*shape"]:
    """Clamp to +-``clamp``; in place where no gradient is wanted, which spares a large allocation."""
    if clamp is None:
        return x
    return x.clamp(-clamp, clamp) if torch.is_grad_enabled() else x.clamp_(-clamp, clamp)


class StyledConv(nn.Module):
    """A modulated and demodulated 3 x 3 convolution, noise, bias, leaky ReLU (slope 0.2, gain sqrt(2)), clamp.

    Weights are N(0, 1) and not scaled by their fan-in: demodulation takes any scale away.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        size: edge length of the output, pixels.
        settings: shared by all layers.
        up: whether the output is twice as large as the input.
    """

    noise_const: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, *, size: int, settings: SynthesisSettings, up: bool = False
    ) -> None:
        super().__init__()
        self.up, self.clamp, self.noise = up, settings.clamp, settings.noise
        weight = torch.randn(out_channels, in_channels, KERNEL, KERNEL)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = EqualizedLinear(settings.w_dim, in_channels, bias_init=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(()), requires_grad=settings.noise != "none")
        self.register_buffer("noise_const", torch.randn(size, size))

    def forward(
        self, x: Float[Tensor, "batch in height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """Apply the layer."""
        with torch.autocast(x.device.type, enabled=False):
            styles = self.affine(at_least_float32(w))
            gains = demodulate(self.weight, styles) * ACTIVATION_GAIN
            bias = self.bias * ACTIVATION_GAIN
        y = self._convolve_one(x, styles, gains, bias) if len(w) == 1 else self._convolve_many(x, styles, gains, bias)
        return bound(functional.leaky_relu_(y, LEAKY_SLOPE), self.clamp)

    def _convolve_one(self, x: Tensor, styles: Tensor, gains: Tensor, bias: Tensor) -> Tensor:
        weight = self.weight * styles[0][:, None, None] * gains[0][:, None, None, None]
        y = convolve_upsampling(x, weight, bias) if self.up else functional.conv2d(x, weight, bias, padding=1)
        return y if self.noise == "none" else y.add_(self._scale_noise())

    def _convolve_many(self, x: Tensor, styles: Tensor, gains: Tensor, bias: Tensor) -> Tensor:
        x = x * styles[:, :, None, None]
        y = convolve_upsampling(x, self.weight) if self.up else functional.conv2d(x, self.weight, padding=1)
        shift = bias[:, None, None]
        if self.noise != "none":
            # In channels-last memory too, or the sum would leave it.
            shift = (self._scale_noise()[:, :, None] + bias).permute(2, 0, 1)
        return torch.addcmul(shift, y, gains[:, :, None, None])

    def _scale_noise(self) -> Float[Tensor, "height width"]:
        return self.noise_const * (self.noise_strength * ACTIVATION_GAIN)


class ToImage(nn.Module):
    """A modulated 1 x 1 convolution to the skip image: no demodulation (styles are scaled by 1 / sqrt(in)) and no
    activation.

    Args:
        in_channels: channels of the input.
        settings: shared by all layers.
    """

    def __init__(self, in_channels: int, settings: SynthesisSettings) -> None:
        super().__init__()
        self.clamp = settings.clamp
        self.weight = nn.Parameter(torch.randn(settings.image_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(settings.image_channels))
        self.affine = EqualizedLinear(settings.w_dim, in_channels, bias_init=1.0)
        self.style_gain = 1 / math.sqrt(in_channels)

    def forward(
        self, x: Float[Tensor, "batch in height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch image height width"]:
        """Apply the layer; as matrix products with a weight per sample, in channels-last memory."""
        with torch.autocast(x.device.type, enabled=False):
            styles = self.affine(at_least_float32(w)) * self.style_gain
            weight = self.weight.flatten(1) * styles[:, None]
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        y = torch.baddbmm(self.bias, rows, weight.mT).unflatten(1, x.shape[2:])
        return bound(y.permute(0, 3, 1, 2), self.clamp)
