"""What is asked of scenes beside deceiving the discriminator."""

from __future__ import annotations

from torch import Tensor

from cgsgan.losses.anchors import center_loss, knn_loss
from cgsgan.training.settings import LossConfig
from cgsgan.types import GeneratorOutput, SceneOutput


def regularize_anchors(output: SceneOutput, loss: LossConfig) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The weighted sum of the regularisers of the coarsest anchors, and each of them; fields have no anchors.

    Returns:
        None in place of the sum when none has a weight.
    """
    total: Tensor | None = None
    stats: dict[str, Tensor] = {}
    if not isinstance(output, GeneratorOutput):
        return total, stats
    means = output.anchors[0].means
    if loss.knn_weight > 0:
        stats["knn"] = knn_loss(means, loss.knn_neighbors)
        total = loss.knn_weight * stats["knn"]
    if loss.center_weight > 0:
        stats["center"] = center_loss(means)
        term = loss.center_weight * stats["center"]
        total = term if total is None else total + term
    return total, {name: value.detach() for name, value in stats.items()}
