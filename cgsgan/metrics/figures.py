"""From two sets of features to named figures."""

from __future__ import annotations

import itertools
import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from cgsgan.metrics.frechet import frechet_distance, relative_frechet_distance
from cgsgan.metrics.kernel import kernel_distance
from cgsgan.metrics.manifold import precision_recall

MetricName = Literal[
    "fid", "kid", "pr", "swd", "fid3d", "yaw", "consistency", "pose", "similarity", "identity", "depth", "normals"
]
Figures = dict[str, float | None]
YAW_EDGES = (-math.inf, -30.0, -10.0, 10.0, 30.0, math.inf)
"""Degrees; bins of the per-yaw FID."""
FEWEST_IN_BIN = 32
"""A bin with fewer pictures on either side has no figure."""


def compare_sets(
    real: Float[Tensor, "real feature"], fake: Float[Tensor, "fake feature"], metrics: set[str], *, random: bool
) -> Figures:
    """FID, KID (x 1000), precision and recall, as far as asked for.

    Args:
        real: features of real pictures.
        fake: features of generated ones.
        metrics: of ``fid``, ``kid``, ``pr``; others are left alone.
        random: the features are the random network's, whose distance is also given in units of 1 % of the real
            variance (``frd``).
    """
    figures: Figures = {}
    if "fid" in metrics:
        figures["fid"] = frechet_distance(real, fake)
        if random:
            figures["frd"] = relative_frechet_distance(real, fake)
    if "kid" in metrics:
        figures["kid_x1000"] = 1000 * kernel_distance(real, fake).mean
    if "pr" in metrics:
        shares = precision_recall(real, fake)
        figures |= {"precision": shares.precision, "recall": shares.recall}
    return figures


def compare_yaw_bins(
    real: tuple[Float[Tensor, "real feature"], Float[Tensor, " real"]],
    fake: tuple[Float[Tensor, "fake feature"], Float[Tensor, " fake"]],
) -> Figures:
    """FID of the pictures whose cameras lie in one bin of yaw; None where there are too few.

    FID grows as sets shrink, and bins differ in size: compare a bin with the same bin of another generator.

    Args:
        real: features and yaws, radians.
        fake: the same.
    """
    figures: Figures = {}
    for low, high in itertools.pairwise(YAW_EDGES):
        sides = [features[(yaw.rad2deg() >= low) & (yaw.rad2deg() < high)] for features, yaw in (real, fake)]
        enough = min(len(side) for side in sides) >= FEWEST_IN_BIN
        figures[f"fid_yaw_{low:g}_{high:g}"] = frechet_distance(*sides) if enough else None
    return figures
