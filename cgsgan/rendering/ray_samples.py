"""Where along rays a field is looked at: evenly, then where it was found to matter (Mildenhall et al. 2020, 5.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

WEIGHT_FLOOR = 0.01
"""Added to smoothed weights, so that every place keeps a chance to be looked at."""
WEIGHT_EPSILON = 1e-5
"""Added to every weight before they are normalised."""
SMALLEST_STEP = 1e-5
"""Steps of the cumulative distribution below this count as no step."""


def stratified_distances(
    near: float, far: float, jitter: Float[Tensor, "*batch sample"]
) -> Float[Tensor, "*batch sample"]:
    """One distance in each of ``sample`` strata, world units.

    The strata begin at ``linspace(near, far, sample)`` and are one spacing long, so the last one lies beyond ``far``.

    Args:
        near: where the first stratum begins.
        far: where the last stratum begins.
        jitter: place within the stratum, [0, 1); 0.5 is its middle.
    """
    count = jitter.shape[-1]
    starts = torch.linspace(near, far, count, device=jitter.device, dtype=jitter.dtype)
    return starts + jitter * ((far - near) / (count - 1))


def importance_distances(
    distances: Float[Tensor, "ray sample"],
    weights: Float[Tensor, "ray interval"],
    places: Float[Tensor, "#ray fine"],
) -> Float[Tensor, "ray fine"]:
    """Distances distributed as the smoothed weights of a first pass, by the inverse of their cumulative distribution.

    Smoothing: the maximum of two neighbours, then the mean of two (Barron et al. 2021, mip-NeRF, eq. 18), plus
    :data:`WEIGHT_FLOOR`. The first and the last interval are left out, and interior interval i carries its weight
    between the middles of the intervals i - 1 and i, as EG3D does it.

    Args:
        distances: of the first pass, ascending; at least 4 samples.
        weights: of the intervals between them, >= 0.
        places: in [0, 1], where the cumulative distribution is inverted.
    """
    rounded = max_pool1d(weights.unsqueeze(1), 2, stride=1, padding=1)
    smooth = avg_pool1d(rounded, 2, stride=1).squeeze(1) + WEIGHT_FLOOR
    middles = (distances[:, :-1] + distances[:, 1:]) / 2
    inner = smooth[:, 1:-1] + WEIGHT_EPSILON
    steps = (inner / inner.sum(dim=1, keepdim=True)).cumsum(dim=1)
    cumulative = torch.cat([torch.zeros_like(steps[:, :1]), steps], dim=1)
    places = places.expand(len(distances), -1).contiguous()
    above = torch.searchsorted(cumulative, places, right=True)
    below = (above - 1).clamp_min(0)
    above = above.clamp_max(steps.shape[1])
    start, stop = cumulative.gather(1, below), cumulative.gather(1, above)
    step = stop - start
    step = torch.where(step < SMALLEST_STEP, 1.0, step)
    first, last = middles.gather(1, below), middles.gather(1, above)
    return first + (places - start) / step * (last - first)
