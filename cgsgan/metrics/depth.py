"""Depth maps of generated heads against those of real ones, seen by the same cameras.

Nothing says which generated head should be which real one, so this is no error of a reconstruction: it asks whether
the heads have, on average, the right shape, whether they differ as much as real ones, and whether each of them could
be one. All distances are world units; a head is about 0.5 high.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FARTHEST = 0.1
"""World units: a larger difference, and a pixel that only one of two heads covers, counts as this much."""
HALVINGS = 16
"""How often the real heads are split at random to find the floor of the mean map."""

DepthMaps = Float[Tensor, "head view height width"]
OtherMaps = Float[Tensor, "other_head other_view other_height other_width"]


@dataclass(frozen=True, kw_only=True)
class DepthFigures:
    """How generated depth maps compare; the floors say the same of real heads among themselves.

    Attributes:
        mean: mean absolute difference of the two mean maps, where at least half of either set has a surface; this and
            the next and ``spread`` are NaN when there is no such pixel.
        offset: mean of the same differences with their sign; positive where generated heads lie behind real ones.
        mean_floor: ``mean`` between random halves of the real heads; smaller sets, so a little higher than the best
            that a generator can reach.
        spread: standard deviation over the generated heads by that over the real ones, averaged over the same pixels;
            1 is the same variety of shapes.
        nearest: mean :func:`depth_distance` of a generated head to the most similar real one.
        nearest_floor: mean distance of a real head to the most similar other real one.
    """

    mean: float
    offset: float
    mean_floor: float
    spread: float
    nearest: float
    nearest_floor: float


def compare_depths(real: DepthMaps, generated: OtherMaps, *, seed: int = 0) -> DepthFigures:
    """Compare sets of depth maps; NaN where a ray meets nothing.

    Args:
        real: z-depths, at least 4 heads.
        generated: the same views, at least 2 heads.
        seed: of the random halves.

    Raises:
        ValueError: for too few heads, or other views.
    """
    if len(real) < 4 or len(generated) < 2 or real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            "compare_depths: expected at least 4 real and 2 generated heads with the same views, "
            f"got {[*real.shape]} and {[*generated.shape]}"
        )
    real, generated = real.double(), generated.double()
    common = _mostly_covered(real) & _mostly_covered(generated)
    random, floors = torch.Generator().manual_seed(seed), []
    for _ in range(HALVINGS):
        order, half = torch.randperm(len(real), generator=random), len(real) // 2
        halves = real[order[:half]], real[order[half : 2 * half]]
        floors.append(float(mean_map_differences(*halves).abs().mean()))
    differences = mean_map_differences(real, generated)
    return DepthFigures(
        mean=float(differences.abs().mean()),
        offset=float(differences.mean()),
        mean_floor=sum(floors) / len(floors),
        spread=float(_spread(generated)[common].mean() / _spread(real)[common].mean()),
        nearest=float(distances(generated, real).amin(dim=1).mean()),
        nearest_floor=float(distances(real, real).fill_diagonal_(torch.inf).amin(dim=1).mean()),
    )


def mean_map_differences(a: DepthMaps, b: OtherMaps) -> Float[Tensor, " pixel"]:
    """Mean map of ``b`` minus that of ``a``, at the pixels where at least half of either set has a surface."""
    common = _mostly_covered(a) & _mostly_covered(b)
    return (b.nanmean(dim=0) - a.nanmean(dim=0))[common]


def distances(a: DepthMaps, b: OtherMaps) -> Float[Tensor, "head other_head"]:
    """:func:`depth_distance` of every head of ``a`` to every one of ``b``."""
    return torch.stack([depth_distance(one.expand_as(b), b) for one in a])


def depth_distance(a: DepthMaps, b: DepthMaps) -> Float[Tensor, " head"]:
    """How differently two heads are shaped, head by head: 0 to ``FARTHEST``.

    The mean, over the pixels of all views that either covers, of ``min(|a - b|, FARTHEST)``; a pixel that only one
    covers counts as ``FARTHEST``. 0 for two heads without any surface.
    """
    either = ~(a.isnan() & b.isnan())
    difference = (a - b).abs().clamp_max(FARTHEST).nan_to_num(nan=FARTHEST)
    return (difference * either).sum(dim=(1, 2, 3)) / either.sum(dim=(1, 2, 3)).clamp_min(1)


def reduce_depths(depths: DepthMaps, size: int) -> Float[Tensor, "head view size size"]:
    """Mean depth of blocks of pixels, NaN where a pixel of the block has none.

    Raises:
        ValueError: when the maps are not a whole number of times ``size``.
    """
    side = depths.shape[-1]
    if depths.shape[-2] != side or size < 1 or side % size:
        raise ValueError(f"reduce_depths: expected square maps with a multiple of {size} pixels, got {[*depths.shape]}")
    return depths.unflatten(-1, (size, -1)).unflatten(-3, (size, -1)).mean(dim=(-1, -3))


def _mostly_covered(depths: DepthMaps) -> Tensor:
    return (~depths.isnan()).double().mean(dim=0) >= 0.5


def _spread(depths: DepthMaps) -> Tensor:
    """Sample standard deviation over the heads that have a surface there."""
    found = (~depths.isnan()).sum(dim=0)
    return ((depths - depths.nanmean(dim=0)).square().nansum(dim=0) / (found - 1).clamp_min(1)).sqrt()
