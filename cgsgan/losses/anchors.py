"""Regularisers of the coarsest anchors (GSGAN; CGS-GAN uses them with weights 20 and 1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def knn_loss(means: Float[Tensor, "batch anchor 3"], neighbors: int = 64) -> Float[Tensor, ""]:
    """Mean squared coordinate difference between each anchor and its nearest others: holds the cloud together.

    Args:
        means: centres of the level-0 anchors, world units.
        neighbors: how many nearest others count; all others when there are fewer.
    """
    count = means.shape[1]
    neighbors = min(neighbors, count - 1)
    if neighbors < 1:
        return means.new_zeros(())
    # Distances choose the neighbours; differences carry the gradient, without the cancellation of |a|^2 - 2ab + |b|^2.
    with torch.no_grad():
        distances = torch.cdist(means.float(), means.float())
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        nearest = distances.topk(neighbors, dim=2, largest=False).indices
    index = nearest.flatten(1).unsqueeze(-1).expand(-1, -1, 3)
    others = means.gather(1, index).unflatten(1, (count, neighbors))
    return (means.unsqueeze(2) - others).square().mean()


def center_loss(means: Float[Tensor, "batch anchor 3"]) -> Float[Tensor, ""]:
    """Squared centre of mass of the level-0 anchors, averaged over batch and axes: keeps heads at the origin."""
    return means.mean(dim=1).square().mean()
