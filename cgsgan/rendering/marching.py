"""The volume rendering integral along rays, as a sum over the intervals between samples (Max 1995; EG3D's form)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, softplus

DENSITY_SHIFT = -1.0
"""Added to raw densities before softplus: a fresh network makes thin fog."""
TRANSMITTANCE_FLOOR = 1e-10
"""Added to what an interval lets through, so that gradients pass behind opaque ones."""


DensityActivation = Literal["shifted_softplus", "relu"]


def activate_density(
    raw: Float[Tensor, "*batch"], activation: DensityActivation = "shifted_softplus"
) -> Float[Tensor, "*batch"]:
    """Raw densities to densities per world unit: softplus(raw - 1) (EG3D), or max(raw, 0) (NeRF, pi-GAN)."""
    return raw.relu() if activation == "relu" else softplus(raw + DENSITY_SHIFT)


def interval_weights(
    raw_densities: Float[Tensor, "*batch sample"],
    distances: Float[Tensor, "*batch sample"],
    activation: DensityActivation = "shifted_softplus",
) -> Float[Tensor, "*batch interval"]:
    """How much each interval between neighbouring samples contributes to its ray.

    An interval has the activated mean of the raw densities at its ends; opacity 1 - exp(-density length).

    Args:
        raw_densities: before activation.
        distances: ascending along the last axis, world units.
        activation: what makes densities of them.
    """
    density = activate_density((raw_densities[..., :-1] + raw_densities[..., 1:]) / 2, activation)
    return density_weights(density, distances.diff(dim=-1))


def density_weights(
    densities: Float[Tensor, "*batch interval"], lengths: Float[Tensor, "*batch interval"]
) -> Float[Tensor, "*batch interval"]:
    """How much each of several intervals, one behind the other, contributes to its ray.

    Their sum is the coverage, 1 - transmittance: nothing is made opaque at the end, so that what stands behind shows.

    Args:
        densities: within each interval, per world unit, >= 0.
        lengths: of the intervals, world units.
    """
    # Not expm1: in float32 this is exactly 0 where next to nothing is, and whether a ray hits anything depends on it.
    opacities = 1 - torch.exp(-densities * lengths)
    passed = pad(1 - opacities + TRANSMITTANCE_FLOOR, (1, -1), value=1.0)
    return opacities * passed.cumprod(dim=-1)


def close_end(weights: Float[Tensor, "*batch interval"]) -> Float[Tensor, "*batch interval"]:
    """The last interval takes what is left: the end of every ray is opaque, and nothing shows behind (pi-GAN)."""
    rest = 1 - weights.sum(dim=-1, keepdim=True)
    return torch.cat([weights[..., :-1], weights[..., -1:] + rest], dim=-1)


def sample_weights(weights: Float[Tensor, "*batch interval"]) -> Float[Tensor, "*batch sample"]:
    """Weights of the samples, such that their sum of values is the intervals' sum of mean values at both ends."""
    return (pad(weights, (1, 0)) + pad(weights, (0, 1))) / 2


def expected_distance(
    weights: Float[Tensor, "*batch interval"], distances: Float[Tensor, "*batch sample"]
) -> Float[Tensor, "*batch 1"]:
    """Mean distance of the middles of the intervals; infinite where the weights are all 0."""
    middles = (distances[..., :-1] + distances[..., 1:]) / 2
    total = weights.sum(dim=-1, keepdim=True)
    hit = total > 0
    mean = (weights * middles).sum(dim=-1, keepdim=True) / torch.where(hit, total, 1.0)
    return torch.where(hit, mean, torch.inf)
