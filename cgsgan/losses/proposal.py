"""How a proposal network learns where rays meet something (WYSIWYG; Trevithick et al. 2024, 4.2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def proposal_cross_entropy(
    logits: Float[Tensor, "*batch bin height width"], targets: Float[Tensor, "*batch bin height width"]
) -> Float[Tensor, ""]:
    """Mean over the rays of -sum over the bins of target log softmax(logits), in nats.

    It is least, the mean entropy of the targets, where the network gives the targets; the difference is their
    Kullback-Leibler divergence. Gradients reach the logits alone: what was found along the rays is given.

    Args:
        logits: of the bins of each ray.
        targets: distributions over the same bins, see :func:`~cgsgan.rendering.proposal.proposal_targets`.
    """
    per_ray = -(targets.detach() * logits.log_softmax(dim=-3)).sum(dim=-3)
    return per_ray.mean()
