"""The decoder: what was sampled from the planes, to density and colour (EG3D; Chan et al. 2022, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import EqualizedLinear

OVERSHOOT = 0.001
"""Colours reach so far beyond [0, 1], so that 0 and 1 have gradients."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The decoder; defaults are the published one.

    Attributes:
        width: units of the one hidden layer.
        features: colour features per sample; the first three are RGB.
        lr_multiplier: equalised learning-rate multiplier of both layers.
        density_bias: of raw densities at the start; below 0 it begins with clear air instead of fog, which pictures
            of cut-out heads on random colours need.
    """

    width: int = 64
    features: int = 32
    lr_multiplier: float = 1.0
    density_bias: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.features < 3:
            raise ValueError(f"decoder: expected width >= 1 and features >= 3, got {self}")


class Decoder(nn.Module):
    """One hidden layer with softplus; density raw, colours by a sigmoid.

    Args:
        config: sizes.
        channels: channels of a plane.
    """

    def __init__(self, config: DecoderConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.hidden = EqualizedLinear(channels, config.width, lr_multiplier=config.lr_multiplier)
        self.out = EqualizedLinear(config.width, 1 + config.features, lr_multiplier=config.lr_multiplier)
        with torch.no_grad():
            self.out.bias[0] = config.density_bias / config.lr_multiplier

    def forward(
        self, features: Float[Tensor, "*batch channel"]
    ) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch feature"]]:
        """Mean features of the three planes, to densities before any activation and colour features in
        [-0.001, 1.001].
        """
        hidden = functional.softplus(self.hidden(features))
        weight, bias = self.out.scaled()
        densities = functional.linear(hidden, weight[:1], bias[:1])
        colors = torch.sigmoid(functional.linear(hidden, weight[1:], bias[1:]))
        return densities, torch.rsub(colors, -OVERSHOOT, alpha=-(1 + 2 * OVERSHOOT))
