"""Frechet distances between sets of features, and the random-feature distance (FRD) built on them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cgsgan.metrics.checks import finite_features
from cgsgan.metrics.features import random_features

REAL_VARIANCE = 100.0
"""The unit of FRD: the summed variance of the real features counts as this much."""


def frechet_distance(
    features_a: Float[Tensor, "sample_a feature_a"], features_b: Float[Tensor, "sample_b feature_b"]
) -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians fitted to two sets (Dowson & Landau 1982).

    With Inception features this is FID (Heusel et al. 2017, equation 6).
    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` in float64. The trace of the root is taken from the
    eigenvalues of the symmetric ``C_a^(1/2) C_b C_a^(1/2)``, which stays real where covariances are singular.

    Args:
        features_a: one row per sample, at least 2.
        features_b: the other set; need not be as many.

    Returns:
        The distance, >= 0, in squared units of the features.

    Raises:
        ValueError: for fewer than 2 samples, different numbers of features, or NaN and Inf.
    """
    mean_a, covariance_a = _moments(features_a)
    mean_b, covariance_b = _moments(features_b)
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"frechet_distance: expected equally many features, got {len(mean_a)} and {len(mean_b)}")
    eigenvalues, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(eigenvalues.clip(0))) @ vectors.T
    # Rounding may push eigenvalues of a semi-definite matrix below zero.
    trace_of_root = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root
    return max(float(((mean_a - mean_b) ** 2).sum() + spread), 0.0)


def relative_frechet_distance(
    real_features: Float[Tensor, "sample_a feature_a"], fake_features: Float[Tensor, "sample_b feature_b"]
) -> float:
    """Frechet distance in units in which the summed variance of the real features is 100.

    Raises:
        ValueError: as :func:`frechet_distance`, and when the real features do not vary at all.
    """
    variance = float(np.trace(_moments(real_features)[1]))
    if variance <= 0:
        raise ValueError("relative_frechet_distance: the real features do not vary, expected different samples")
    return REAL_VARIANCE / variance * frechet_distance(real_features, fake_features)


def random_feature_frechet_distance(
    real_images: Float[Tensor, "sample_a 3 height width"],
    fake_images: Float[Tensor, "sample_b 3 fake_height fake_width"],
) -> float:
    """FRD: the Frechet distance of :func:`cgsgan.metrics.features.random_features`, real variance = 100.

    Comparable only between runs on the same real pictures, equally many of them, on one background.
    What the figures mean, 2,048 heads at 32 px on white against 2,048 others:

    =====================================  =====
    other real pictures (the floor)          1.1
    blurred 2x (box down, bilinear up)      12.5
    half contrast around the mean picture   40.1
    blurred 4x                              44.1
    the mean picture                       134.9
    grey noise, normal(0.5, 0.15)          370.8
    =====================================  =====

    Args:
        real_images: RGB in [0, 1], square, the side a multiple of 32 (box-reduced to 32).
        fake_images: the same for the other set; may have another multiple of 32 as side.

    Raises:
        ValueError: as :func:`relative_frechet_distance` and ``random_features``.
    """
    return relative_frechet_distance(random_features(real_images), random_features(fake_images))


def _moments(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    values = finite_features("frechet_distance", features)
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))
