"""From sums over a pixel's splats to averages."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def divide_by_alphas(
    sums: Float[Tensor, "*image feature"], alphas: Float[Tensor, "*image 1"]
) -> Float[Tensor, "*image feature"]:
    """Sums of weight times feature divided by the sum of weights, which alpha is; 0 where nothing is hit."""
    covered = alphas > 0
    # The inner selection keeps the gradient of uncovered pixels from becoming 0 * inf.
    return torch.where(covered, sums / torch.where(covered, alphas, 1.0), 0.0)
