"""What a proposal network should have said: distributions along rays, from the weights that were found there."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv1d

SMALL_WEIGHT = 1e-3
"""Weights below this count as nothing: a thin fog in front of a surface is no place to look at."""
EVEN_WEIGHT = 1e-3
"""Of a ray in all, spread evenly over its bins. It is lost in what the nucleus drops from a ray that hits something; a
ray that hits nothing has nothing else."""
BLUR_BINS = 1.0
"""Standard deviation."""


def proposal_targets(
    weights: Float[Tensor, "batch view bin height width"],
    *,
    small_weight: float = SMALL_WEIGHT,
    even_weight: float = EVEN_WEIGHT,
    blur_bins: float = BLUR_BINS,
) -> Float[Tensor, "batch view bin height width"]:
    """Distributions over the bins of each ray: weights without the small ones, blurred along the ray, normalised.

    The blur covers that a bin is looked at in one place alone, and that neighbouring pixels of a network's output
    agree. A ray that hits nothing gets the uniform distribution. A distribution has to say something; to say that
    something is nowhere in particular spends the samples evenly, which is what finds a surface that begins to grow
    there, and its set of bins is as wide as can be. Between the two there is no jump: every ray has ``even_weight``
    besides its own, which matters as its coverage vanishes.

    Args:
        weights: >= 0, of the bins; they sum to coverage.
        small_weight: weights below this are left out.
        even_weight: > 0, see :data:`EVEN_WEIGHT`.
        blur_bins: standard deviation of the blur, in bins; 0 for none.
    """
    large = torch.where(weights >= small_weight, weights, 0.0).movedim(2, -1)
    if blur_bins > 0:
        kernel = _blur_kernel(blur_bins).to(large)
        large = conv1d(large.reshape(-1, 1, large.shape[-1]), kernel, padding="same").view_as(large)
    raised = large + even_weight / large.shape[-1]
    return (raised / raised.sum(dim=-1, keepdim=True)).movedim(-1, 2)


def _blur_kernel(blur_bins: float) -> Float[Tensor, "1 1 tap"]:
    """A Gaussian to three standard deviations; its sum is 1."""
    reach = math.ceil(3 * blur_bins)
    taps = torch.exp(-((torch.arange(-reach, reach + 1).double() / blur_bins) ** 2) / 2)
    return (taps / taps.sum())[None, None]
