"""From signed distance to density: the cumulative Laplace distribution of VolSDF (Yariv et al. 2021, eq. 2 and 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FARTHEST = 80.0
"""In multiples of beta: e^-80 is nothing, and its gradients are still numbers."""


def laplace_density(distances: Float[Tensor, "*batch"], betas: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Density per world unit: sigma = F(-s) / beta, F the cumulative distribution of a Laplace variable of scale beta.

    It rises from 0 outside over 1 / (2 beta) at the surface to 1 / beta inside; as beta goes to 0 the fog becomes a
    solid.

    Args:
        distances: signed, s, world units, < 0 inside.
        betas: scale > 0 of the surface, world units.

    Raises:
        ValueError: for a beta that is not > 0.
    """
    if not bool((betas > 0).all()):
        raise ValueError(f"laplace_density: expected betas > 0, got {float(betas.min())}")
    farthest = FARTHEST * betas.detach()
    scaled = distances.clamp(-farthest, farthest) / betas  # before the division, which could overflow
    # Each branch sees its own side alone, so that neither overflows; at the surface both have the same slope.
    outside = torch.exp(-scaled.clamp_min(0)) / 2
    inside = 1 - torch.exp(scaled.clamp_max(0)) / 2
    return torch.where(scaled > 0, outside, inside) / betas
