"""The levels' layers: token features to head outputs, for every row (child of a token) of a level; and the way back
from the layout ``[row, channel, token]`` to ``[batch, gaussian, channel]``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import LEAKY_SLOPE, EqualizedLinear

LIMIT = 20.0
"""Log scales, orientations, opacity logits and colors v are softly limited: v -> 20 tanh(v / 20)."""
UNIT = 2 / LIMIT
SCALE_UNIT = -UNIT
XYZ_UNIT = 2.0
"""What head outputs are multiplied by, see :class:`cgsgan.models.anchors.AnchorDecoder`."""
ATTRIBUTES = 11
"""Channels after the position: log scale 3, orientation 4, color 3, opacity logit 1."""
CHANNELS = 3 + ATTRIBUTES
SECTIONS = [3, 3, 8]
"""Position, log scale, and the attributes that children take over from their parents."""


class Heads(nn.Module):
    """The linear heads of one or two sets of Gaussians: position, log scale, orientation, color, opacity.

    Args:
        features: input channels.
        sets: 2 for anchors and Gaussians, in this order; 1 for one of them.
        scale_bias: initial bias of the log-scale heads.
    """

    row_gain: Tensor

    def __init__(self, features: int, *, sets: int, scale_bias: float) -> None:
        super().__init__()
        attributes = torch.randn(sets, ATTRIBUTES, features)
        attributes[:, :7] *= 0.1
        bias = torch.zeros(sets, ATTRIBUTES)
        bias[:, :3] = scale_bias
        self.xyz_weight = nn.Parameter(torch.randn(sets, 3, features))
        self.xyz_bias = nn.Parameter(torch.zeros(sets, 3))
        self.attribute_weight = nn.Parameter(attributes)
        self.attribute_bias = nn.Parameter(bias)
        gain = torch.tensor([XYZ_UNIT] * 3 + [SCALE_UNIT] * 3 + [UNIT] * 8)
        self.register_buffer("row_gain", gain, persistent=False)

    def merged(self) -> tuple[Float[Tensor, "channel feature"], Float[Tensor, "channel 1"]]:
        """Effective weight and bias of all heads, in the units of :class:`AnchorDecoder`."""
        weight = torch.cat([self.xyz_weight, self.attribute_weight], dim=1)
        bias = torch.cat([self.xyz_bias, self.attribute_bias], dim=1) * self.row_gain
        weight = weight * (self.row_gain * (1 / math.sqrt(weight.shape[-1])))[:, None]
        return weight.flatten(0, 1), bias.flatten()[:, None]


class Level(nn.Module):
    """Token features to the head outputs of all rows of one level.

    Features of a row are (sqrt(2) lrelu(split(h)) + carry(h)) / sqrt(2) with ``carry`` shared by the rows of
    a token; the heads are linear, so they are applied to both parts apart and the shared part is computed
    once per token.

    Args:
        width: channels of a token.
        features: channels of a row.
        rows: rows per token.
        sets: 2 for anchors and Gaussians, 1 for Gaussians alone.
        scale_bias: initial bias of the log-scale heads.
        dead_heads: adds the unused, frozen anchor heads of the last level of the published networks.
    """

    def __init__(
        self,
        width: int,
        features: int,
        *,
        rows: int,
        sets: int,
        scale_bias: float,
        dead_heads: bool = False,
    ) -> None:
        super().__init__()
        self.rows, self.features, self.sets = rows, features, sets
        self.split = EqualizedLinear(width, features * rows)
        self.carry = None if rows == 1 and features == width else EqualizedLinear(width, features)
        self.heads = Heads(features, sets=sets, scale_bias=scale_bias)
        self.dead_heads = None
        if dead_heads:
            self.dead_heads = Heads(features, sets=1, scale_bias=scale_bias).requires_grad_(False)

    def forward(self, tokens: Float[Tensor, "token width"]) -> Float[Tensor, "row channel token"]:
        """Head outputs in float32; ``channel`` is 14 per set."""
        columns = tokens.t()
        weight, bias = self.split.scaled()
        split = functional.leaky_relu_(torch.addmm(bias[:, None], weight, columns), LEAKY_SLOPE)
        carried = columns
        if self.carry is not None:
            weight, bias = self.carry.scaled()
            carried = torch.addmm(bias[:, None], weight, columns)
        with torch.autocast(tokens.device.type, enabled=False):
            weight, bias = self.heads.merged()
            shared = torch.addmm(bias, weight, carried.to(bias.dtype), alpha=math.sqrt(0.5))
            split = split.to(bias.dtype).unflatten(0, (self.rows, self.features))
            return torch.baddbmm(shared[None], weight.expand(self.rows, -1, -1), split)


class _Pack(torch.autograd.Function):
    """See :func:`pack`. By hand, because autograd would send transposed gradients down slow strided paths."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: list[int], merged: int, batch: int) -> tuple[Tensor, ...]:
        ctx.rows, ctx.channels = rows, x.shape[1]
        parts = [part.flatten(0, 1).t().reshape(batch, -1, x.shape[1]) for part in x.split(rows)]
        return torch.cat(parts[:merged], dim=1), *parts[merged:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first, rest = gradients[0], gradients[1:]
        points = first.shape[1] // sum(ctx.rows[: len(ctx.rows) - len(rest)])
        sizes = [points * rows for rows in ctx.rows[: len(ctx.rows) - len(rest)]]
        parts = [
            gradient.reshape(-1, rows * ctx.channels).t().contiguous().view(rows, ctx.channels, -1)
            for rows, gradient in zip(ctx.rows, (*first.split(sizes, dim=1), *rest))
        ]
        return torch.cat(parts), None, None, None


def pack(
    x: Float[Tensor, "row channel token"], rows: list[int], merged: int, batch: int
) -> tuple[Float[Tensor, "batch _ channel"], ...]:
    """Levels from the inner layout to contiguous ``[batch, gaussian, channel]``, children of a point
    adjacent.

    Args:
        x: all levels, along the rows.
        rows: rows of every level.
        merged: so many levels become one tensor, the first returned; the others follow one by one.
        batch: scenes.
    """
    result = _Pack.apply(x, rows, merged, batch)
    assert isinstance(result, tuple)
    return result
