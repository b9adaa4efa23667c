"""Precision and recall of generated samples by nearest-neighbour manifolds (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cgsgan.metrics.checks import finite_features


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Both in [0, 1].

    Attributes:
        precision: share of the fakes that lie on the manifold of the reals: how good they are.
        recall: share of the reals that lie on the manifold of the fakes: how much they cover.
    """

    precision: float
    recall: float


def precision_recall(
    real_features: Float[Tensor, "real feature"],
    fake_features: Float[Tensor, "fake feature_b"],
    *,
    neighbors: int = 3,
    chunk: int = 1024,
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, equations 1 and 2).

    A manifold is the union of balls around the samples of a set; a ball reaches to the ``neighbors``-th nearest other
    sample of the same set. Distances are float64: near duplicates would drown in the rounding of a float32 product.

    Args:
        real_features: one row per sample, more than ``neighbors``; comparable only at equal counts.
        fake_features: the other set.
        neighbors: k of the paper, 3 there.
        chunk: rows per distance matrix; changes memory, not the result.

    Raises:
        ValueError: for too few samples, different numbers of features, or NaN and Inf.
    """
    if neighbors < 1:
        raise ValueError(f"precision_recall: expected at least 1 neighbour, got {neighbors}")
    real, fake = (
        torch.from_numpy(finite_features("precision_recall", features, at_least=neighbors + 1))
        for features in (real_features, fake_features)
    )
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"precision_recall: expected equally many features, got {real.shape[1]} and {fake.shape[1]}")
    # Distances do not see a common shift, but the rounding of |a|^2 - 2ab + |b|^2 does.
    center = real.mean(dim=0)
    real, fake = real - center, fake - center
    precision = inside_manifold(fake, real, ball_radii(real, neighbors, chunk), chunk)
    recall = inside_manifold(real, fake, ball_radii(fake, neighbors, chunk), chunk)
    return PrecisionRecall(precision=float(precision.double().mean()), recall=float(recall.double().mean()))


def ball_radii(samples: Float[Tensor, "sample feature"], neighbors: int, chunk: int = 1024) -> Float[Tensor, " sample"]:
    """Distance of every sample to its ``neighbors``-th nearest other one."""
    # The nearest of all is the sample itself, at distance 0.
    parts = [torch.cdist(part, samples).kthvalue(neighbors + 1, dim=1).values for part in samples.split(chunk)]
    return torch.cat(parts)


def inside_manifold(
    queries: Float[Tensor, "query feature"],
    samples: Float[Tensor, "sample feature"],
    radii: Float[Tensor, " sample"],
    chunk: int = 1024,
) -> Bool[Tensor, " query"]:
    """Whether each query lies in at least one ball."""
    return torch.cat([(torch.cdist(part, samples) <= radii).any(dim=1) for part in queries.split(chunk)])
