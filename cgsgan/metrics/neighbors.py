"""How far heads are from other heads, backgrounds left out: to see whether a generator repeats its data."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

GREY = 0.5
"""What a head is compared with where the other picture shows none."""


def head_distances(
    a: Float[Tensor, "picture 4 height width"], b: Float[Tensor, "other 4 height width"]
) -> Float[Tensor, "picture other"]:
    """Root mean square difference of colour over the pixels that either head covers, in [0, 1].

    Both lie on mid grey; the pixels that neither covers do not count. For masks in between, a pixel counts by
    ``1 - (1 - alpha_a)(1 - alpha_b)``. In float32, copies come out below 0.001.

    Args:
        a: premultiplied RGB and alpha, in [0, 1].
        b: the same.
    """
    colors = [(pictures[:, :3] - GREY * pictures[:, 3:]).flatten(1) for pictures in (a, b)]
    covers = [pictures[:, 3].flatten(1) for pictures in (a, b)]
    squares = [color.square().sum(dim=1) for color in colors]
    difference = squares[0][:, None] + squares[1][None] - 2 * colors[0] @ colors[1].T
    union = covers[0].sum(dim=1)[:, None] + covers[1].sum(dim=1)[None] - covers[0] @ covers[1].T
    return (difference.clamp_min(0) / (3 * union.clamp_min(1e-9))).sqrt()


def share_below(values: Float[Tensor, " value"], reference: Float[Tensor, " reference"], share: float) -> float:
    """Share of ``values`` below the quantile ``share`` of ``reference``: about ``share`` when both are drawn alike."""
    return float((values < torch.quantile(reference, share)).double().mean())
