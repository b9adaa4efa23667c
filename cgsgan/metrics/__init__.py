"""Figures that say how near generated pictures are to real ones, without pretrained weights."""

from cgsgan.metrics.features import random_features
from cgsgan.metrics.frechet import (
    frechet_distance,
    random_feature_frechet_distance,
    relative_frechet_distance,
)
from cgsgan.metrics.sliced_wasserstein import sliced_wasserstein_distance

__all__ = [
    "frechet_distance",
    "random_feature_frechet_distance",
    "random_features",
    "relative_frechet_distance",
    "sliced_wasserstein_distance",
]
