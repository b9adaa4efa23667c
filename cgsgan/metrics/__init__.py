"""Figures that say how near generated pictures are to real ones: pure functions of features, and extractors of them."""

from cgsgan.metrics.features import random_features
from cgsgan.metrics.frechet import (
    frechet_distance,
    random_feature_frechet_distance,
    relative_frechet_distance,
)
from cgsgan.metrics.kernel import kernel_distance, unbiased_mmd
from cgsgan.metrics.manifold import precision_recall
from cgsgan.metrics.sliced_wasserstein import sliced_wasserstein_distance

__all__ = [
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
    "random_feature_frechet_distance",
    "random_features",
    "relative_frechet_distance",
    "sliced_wasserstein_distance",
    "unbiased_mmd",
]
