"""Which pictures are unlike the rest, by what a network sees in them.

A picture's features are compared with those of the whole set: by the Mahalanobis distance to their mean, or by the
distance to the nearest of the others. Covariances are shrunk (Ledoit and Wolf 2004, "A well-conditioned estimator for
large-dimensional covariance matrices"), as a set may have fewer pictures than features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cgsgan.data.dataset import HeadDataset
from cgsgan.data.errors import DatasetError
from cgsgan.data.progress import Progress, ignore_progress

Describe = Callable[[Float[Tensor, "image 3 size size"]], tuple[Tensor, Tensor | None]]
"""RGB pictures in [0, 1] to features ``[image, feature]`` and, where there is a classifier, probabilities."""
TRIMMED = 0.1
"""The share of pictures that do not count as typical: outliers must not describe what an outlier is."""
NEIGHBOURS = 10
REFERENCES = 10_000
"""Neighbours are looked for among so many pictures, evenly spread over the set."""
_BATCH = 32
_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class ModelFilterConfig:
    """What a network must find in a picture for it to stay.

    Attributes:
        model: name of a timm model; None filters by masks and scores only.
        weights: its weight file; None downloads what timm names.
        outliers: how far a picture is from the rest: by mean and covariance of all, or by its nearest neighbours.
        drop_outliers: share of the set to throw out, the farthest.
        reject_class: classes of the model's classifier that a picture must not be of.
        max_probability: that those classes may have together.
    """

    model: str | None = None
    weights: Path | None = None
    outliers: Literal["mahalanobis", "neighbours"] = "mahalanobis"
    drop_outliers: float = 0.02
    reject_class: tuple[int, ...] = ()
    max_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.model is None and (self.weights is not None or self.reject_class):
            raise DatasetError("--weights and --reject-class need a --model")
        if not 0 <= self.drop_outliers < 1:
            raise DatasetError(f"--drop-outliers: expected a share in [0, 1), got {self.drop_outliers:g}")
        if not 0 <= self.max_probability <= 1:
            raise DatasetError(f"--max-probability: expected a number in [0, 1], got {self.max_probability:g}")
        if any(number < 0 for number in self.reject_class):
            raise DatasetError(f"--reject-class: expected 0 or more, got {min(self.reject_class)}")


def model_statistics(
    dataset: HeadDataset, describe: Describe, config: ModelFilterConfig, progress: Progress = ignore_progress
) -> dict[str, Float[np.ndarray, " picture"]]:
    """``outlier`` and, with classes to reject, their ``probability``, for every picture on white, flips left out.

    Raises:
        DatasetError: when a picture is damaged, features are not finite, or the model has no such class.
    """
    count = len(dataset.names)
    parts, chances = [], []
    for start in range(0, count, _BATCH):
        batch = dataset.read(range(start, min(start + _BATCH, count)))
        features, probabilities = describe(batch.composite(torch.ones(len(batch.camera_labels), 3)))
        parts.append(features)
        if config.reject_class:
            chances.append(_chance(probabilities, config))
        progress("looking at pictures", min(start + _BATCH, count), count)
    if dataset.damaged:
        raise DatasetError(
            f"{dataset.location}: {dataset.damaged} pictures are damaged; `cgsgan data check` names them"
        )
    everything = torch.cat(parts).float()
    if not bool(torch.isfinite(everything).all()):
        raise DatasetError(f"--model: {config.model} gives features that are not finite")
    measure = mahalanobis if config.outliers == "mahalanobis" else neighbour_distance
    found = {"outlier": measure(everything).double().numpy()}
    return found | ({"probability": torch.cat(chances).double().numpy()} if chances else {})


def _chance(probabilities: Tensor | None, config: ModelFilterConfig) -> Float[Tensor, " image"]:
    if probabilities is None:
        raise DatasetError(f"--reject-class: {config.model} has no classifier")
    classes = probabilities.shape[1]
    if max(config.reject_class) >= classes:
        raise DatasetError(
            f"--reject-class: {config.model} has classes 0 to {classes - 1}, got {max(config.reject_class)}"
        )
    return probabilities[:, sorted(set(config.reject_class))].sum(dim=1)


def mahalanobis(features: Float[Tensor, "picture feature"]) -> Float[Tensor, " picture"]:
    """Distance of each picture from the mean, in standard deviations of a typical picture.

    Mean and covariance are those of the nearest 90 %, found in a first pass over all. The distance is divided by the
    root of the number of features, so that typical ones are near 1.
    """
    every = features.double()
    kept = every
    distance = _distances(every, every)
    if math.floor(TRIMMED * len(every)) > 0:
        kept = every[distance.argsort()[: len(every) - math.floor(TRIMMED * len(every))]]
        distance = _distances(every, kept)
    return distance.float()


def _distances(every: Tensor, typical: Tensor) -> Tensor:
    mean = typical.mean(dim=0)
    covariance = shrunk_covariance(typical - mean)
    scale = covariance.diagonal().mean().clamp_min(1e-300)
    # All pictures alike: then nobody is far from anybody.
    factor = torch.linalg.cholesky(covariance / scale + 1e-9 * torch.eye(len(covariance), dtype=covariance.dtype))
    white = torch.linalg.solve_triangular(factor, (every - mean).T / scale.sqrt(), upper=False)
    return white.square().mean(dim=0).sqrt()


def shrunk_covariance(centred: Float[Tensor, "picture feature"]) -> Float[Tensor, "feature feature"]:
    """The covariance, pulled towards a multiple of the identity as far as its own uncertainty asks for."""
    count, width = centred.shape
    sample = centred.T @ centred / count
    level = sample.diagonal().mean()
    spread = (sample - level * torch.eye(width, dtype=sample.dtype)).square().sum()
    # Mean squared error of the entries: sum over pictures of |x x^T - S|^2 / count^2, without the outer products.
    norms = centred.square().sum(dim=1)
    error = (norms.square().sum() / count - sample.square().sum()) / count
    share = float((error / spread.clamp_min(1e-300)).clamp(0, 1))
    return (1 - share) * sample + share * level * torch.eye(width, dtype=sample.dtype)


def neighbour_distance(features: Float[Tensor, "picture feature"]) -> Float[Tensor, " picture"]:
    """Mean distance, 1 - cosine of centred features, to the 10 nearest other pictures (of at most 10,000)."""
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    rows = torch.linspace(0, len(unit) - 1, min(len(unit), REFERENCES)).round().long()
    references, count = unit[rows], min(NEIGHBOURS, len(rows) - 1)
    if count < 1:
        return torch.zeros(len(unit))
    found = []
    for start in range(0, len(unit), _BLOCK):
        similar = unit[start : start + _BLOCK] @ references.T
        own = rows[None] == torch.arange(start, start + len(similar))[:, None]
        found.append(1 - similar.masked_fill(own, -math.inf).topk(count, dim=1).values.mean(dim=1))
    return torch.cat(found)


def filter_by_model(
    statistics: dict[str, Float[np.ndarray, " picture"]], config: ModelFilterConfig
) -> dict[str, Bool[np.ndarray, " picture"]]:
    """Which pictures each rule throws out; ``statistics`` are those of :func:`model_statistics`."""
    outlier = statistics["outlier"]
    far = np.zeros(len(outlier), dtype=bool)
    far[np.argsort(-outlier, kind="stable")[: math.floor(config.drop_outliers * len(outlier))]] = True
    thrown = {"unlike the rest": far}
    if "probability" in statistics:
        thrown["of a rejected class"] = np.asarray(statistics["probability"] > config.max_probability)
    return thrown
