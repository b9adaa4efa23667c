"""What keeps tri-planes of signed distance a surface (WYSIWYG; Trevithick et al. 2024, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_COVERAGE = 1e-3
"""Of a picture: emptier ones say nothing of a surface."""


def mean_beta(
    betas: Float[Tensor, "batch view height width 1"], alphas: Float[Tensor, "batch view height width 1"]
) -> Float[Tensor, ""]:
    """Mean scale of the surfaces that pictures show, world units.

    Args:
        betas: rendered: mean along the ray, times coverage.
        alphas: coverage, [0, 1]; pixels count by it, so that the share of empty space does not matter.
    """
    return betas.mean() / alphas.mean().clamp_min(LEAST_COVERAGE)


def tightness(mean: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """log(mean / target)^2: what drives the rendered mean beta to its target, world units > 0.

    A logarithm, because the target falls over orders of magnitude: ten percent off costs the same at its start and at
    its end.
    """
    return (mean / target).log().square()


def eikonal(
    distance: Callable[[Float[Tensor, "batch point 3"]], Float[Tensor, "batch point 1"]],
    points: Float[Tensor, "batch point 3"],
    step: float,
) -> Float[Tensor, ""]:
    """Mean (|gradient of the signed distance| - 1)^2, by central differences (Gropp et al. 2020, eq. 2).

    Differences, because reading planes has no second derivative; they also look as far as a texel reaches.

    Args:
        distance: points of each scene to signed distances, world units.
        points: world units.
        step: to either side along each axis, > 0, world units.
    """
    offsets = step * torch.eye(3, device=points.device, dtype=points.dtype)
    ends = torch.cat([offsets, -offsets])
    around = (points.unsqueeze(2) + ends).flatten(1, 2)
    ahead, behind = distance(around)[..., 0].unflatten(1, (-1, 2, 3)).unbind(2)
    lengths = ((ahead - behind) / (2 * step)).square().sum(dim=-1).clamp_min(1e-12).sqrt()
    return (lengths - 1).square().mean()
