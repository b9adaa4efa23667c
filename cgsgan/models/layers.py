"""Layers with an equalised learning rate (Karras et al. 2018, section 4.1): weights are stored with unit
variance and scaled at run time, so that one learning rate suits every layer.

Gains (equalisation, sqrt(2) of the activation, sqrt(1/2) of a residual sum) are folded into the weights: they
are far smaller than the activations, and the leaky ReLU is positively homogeneous.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LEAKY_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)
"""Leaky ReLU and GELU outputs are multiplied by this to keep the variance."""

TINY = 1e-30
"""Added under square roots, which have no gradient at 0; its own root vanishes beside the epsilons in use."""

Activation = Literal["linear", "leaky_relu"]


class EqualizedLinear(nn.Module):
    """A fully connected layer, ``y = activation(x (W m / sqrt(in))^T + b m)`` with learning-rate multiplier
    m.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        activation: ``leaky_relu`` has slope 0.2 and gain sqrt(2).
        lr_multiplier: m; stored weights have standard deviation ``weight_gain / m``.
        weight_gain: standard deviation of the effective weights before 1 / sqrt(in); 0 makes the layer start
            at its bias.
        bias_init: stored bias; its effect is ``bias_init * m``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        weight_gain: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * (weight_gain / lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_scale = lr_multiplier / math.sqrt(in_features)
        self.bias_scale = lr_multiplier

    def scaled(self, gain: float = 1.0) -> tuple[Float[Tensor, "out in"], Float[Tensor, " out"]]:
        """Effective weight and bias, times ``gain`` (of whatever follows the layer)."""
        bias_gain = self.bias_scale * gain
        bias = self.bias if bias_gain == 1.0 else self.bias * bias_gain
        return self.weight * (self.weight_scale * gain), bias

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Apply the layer to the last axis."""
        if self.activation == "linear":
            return functional.linear(x, *self.scaled())
        return functional.leaky_relu(functional.linear(x, *self.scaled(ACTIVATION_GAIN)), LEAKY_SLOPE)


class EqualizedConv2d(nn.Module):
    """A square convolution, ``activation(conv(x, W / sqrt(in k^2)) + b)``, zero-padded to keep the size at
    stride 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: odd edge length k.
        activation: ``leaky_relu`` has slope 0.2 and gain sqrt(2).
        bias: whether there is one.
        clamp: outputs are clamped to +-(clamp * gain); needed only in half precision. None: no clamp.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        activation: Activation = "linear",
        bias: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        weight = torch.randn(out_channels, in_channels, kernel, kernel)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_scale = 1.0 / math.sqrt(in_channels * kernel**2)
        self.clamp = clamp

    def forward(
        self,
        x: Float[Tensor, "batch in height width"],
        *,
        gain: float = 1.0,
        stride: int = 1,
        padding: int | None = None,
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """Convolve in the dtype of ``x``; ``gain`` multiplies the output and the clamp."""
        total = gain * (ACTIVATION_GAIN if self.activation == "leaky_relu" else 1.0)
        weight = (self.weight * (self.weight_scale * total)).to(x.dtype)
        bias = self.bias
        if bias is not None:
            bias = (bias if math.isclose(total, 1.0) else bias * total).to(x.dtype)
        padding = self.weight.shape[-1] // 2 if padding is None else padding
        y = functional.conv2d(x, weight, bias, stride=stride, padding=padding)
        if self.activation == "leaky_relu":
            y = functional.leaky_relu_(y, LEAKY_SLOPE)
        return y if self.clamp is None else y.clamp(-self.clamp * gain, self.clamp * gain)


def at_least_float32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision raised to float32; float32 and float64 as they are."""
    return x.float() if x.element_size() < 4 else x


def normalize_second_moment(x: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch channel"]:
    """Scale every row to a mean square of 1: ``x * rsqrt(mean(x^2) + 1e-8)``."""
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()
