"""Kernel distance between sets of features: KID when the features are Inception's (Binkowski et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cgsgan.metrics.checks import finite_features


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """Squared maximum mean discrepancy, averaged over random subsets.

    Attributes:
        mean: over the subsets; unbiased, so it may be slightly negative for equal distributions.
        std: standard deviation over the subsets, of one subset, not of the mean.
    """

    mean: float
    std: float


def kernel_distance(
    features_a: Float[Tensor, "sample_a feature"],
    features_b: Float[Tensor, "sample_b feature_b"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """KID: the mean of :func:`unbiased_mmd` over random subsets of both sets (Binkowski et al. 2018, section 4).

    Unlike a Frechet distance its expectation does not depend on the number of samples.

    Args:
        features_a: one row per sample.
        features_b: the other set; need not be as many.
        subsets: how many are drawn, each without replacement.
        subset_size: rows per subset; no more than the smaller set has.
        seed: of the draws.

    Raises:
        ValueError: for too few samples, different numbers of features, or NaN and Inf.
    """
    values_a = finite_features("kernel_distance", features_a)
    values_b = finite_features("kernel_distance", features_b)
    size = min(subset_size, len(values_a), len(values_b))
    if subsets < 1 or size < 2:
        raise ValueError(f"kernel_distance: expected at least 1 subset of at least 2 samples, got {subsets} of {size}")
    random = np.random.Generator(np.random.PCG64(seed))
    distances = [
        _unbiased_mmd(
            values_a[random.choice(len(values_a), size, replace=False)],
            values_b[random.choice(len(values_b), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(mean=float(np.mean(distances)), std=float(np.std(distances)))


def unbiased_mmd(
    features_a: Float[Tensor, "sample_a feature"], features_b: Float[Tensor, "sample_b feature_b"]
) -> float:
    """Unbiased estimate of the squared MMD under the kernel ``(x.y / features + 1)^3`` (Gretton et al. 2012, eq. 3).

    ``mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j)`` in float64.

    Raises:
        ValueError: as :func:`kernel_distance`.
    """
    return _unbiased_mmd(finite_features("unbiased_mmd", features_a), finite_features("unbiased_mmd", features_b))


def _unbiased_mmd(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"kernel_distance: expected equally many features, got {a.shape[1]} and {b.shape[1]}")
    return _mean_of_pairs(a) + _mean_of_pairs(b) - 2 * float(_kernel(a, b).mean())


def _mean_of_pairs(values: np.ndarray) -> float:
    """Mean kernel value of two different members of one set."""
    kernel, count = _kernel(values, values), len(values)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3
