"""Coarse-to-fine anchors: token features to Gaussians, level by level (CGS-GAN, after GSGAN).

Inside, tensors are ``[row, channel, token]``: ``token`` runs over batch x points, ``row`` over the children
of a point. A parent is then broadcast over its children without being copied, and every operation works on
long contiguous runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import TINY
from cgsgan.models.levels import CHANNELS, LIMIT, SECTIONS, UNIT, XYZ_UNIT, Heads, Level, pack
from cgsgan.types import SH_C0, Gaussians

QUATERNION_EPSILON = 0.001


@dataclass(frozen=True, kw_only=True)
class AnchorConfig:
    """The levels.

    Attributes:
        split_factors: children per parent, level by level; the first is 1 (level 0 has one Gaussian per
            point). None: 1, 4, 4, 4, then 2 per level, log2(resolution) - 3 levels, as published.
        feature_widths: channels of a row's features, level by level. None: width, width / 2, ... but at least
            16.
        first_offset: level-0 positions are this times the head.
        first_position: ``head``, positions are the offset alone, as published; ``points``, point plus offset.
        start_log_scale: log standard deviation that level 0 starts from, before ``max_log_scale`` bends it.
        start_opacity: opacity that level 0 starts from, in (0, 1).
        scale_bias: initial bias of the scale heads; children have softplus(-bias) less log scale than their
            parent.
        max_log_scale: upper bound of level-0 log scales. None: log(0.5 / sqrt(points)).
        shrink: whether parents larger than half a pixel pass on a log scale reduced by a fixed amount, such
            that it falls from ``max_log_scale`` to half a pixel over the levels.
        bound: how positions are kept in [-0.5, 0.5]: ``clamp`` (published; no gradient outside) or ``tanh``,
            the smooth 0.5 tanh(2 x).
        dead_heads: whether the last level carries the unused, frozen anchor heads of the published networks.
    """

    split_factors: tuple[int, ...] | None = None
    feature_widths: tuple[int, ...] | None = None
    first_offset: float = 0.2
    first_position: Literal["head", "points"] = "head"
    start_log_scale: float = -5.0
    start_opacity: float = 0.1
    scale_bias: float = -1.0
    max_log_scale: float | None = None
    shrink: bool = True
    bound: Literal["clamp", "tanh"] = "clamp"
    dead_heads: bool = False

    def __post_init__(self) -> None:
        factors, widths = self.split_factors, self.feature_widths
        if factors is not None and (len(factors) < 2 or factors[0] != 1 or min(factors) < 1):
            raise ValueError(f"anchors: split_factors need >= 2 entries >= 1, the first of them 1, got {factors}")
        if widths is not None and min(widths, default=0) < 1:
            raise ValueError(f"anchors: feature_widths must be >= 1, got {widths}")
        if not 0 < self.start_opacity < 1:
            raise ValueError(f"anchors: start_opacity must be inside (0, 1), got {self.start_opacity}")

    def resolve_split_factors(self, resolution: int) -> tuple[int, ...]:
        """Children per parent of every level of a generator for images of ``resolution``."""
        if self.split_factors is not None:
            return self.split_factors
        levels = resolution.bit_length() - 4
        return (1, 4, 4, 4)[:levels] + (2,) * max(levels - 4, 0)

    def resolve_feature_widths(self, resolution: int, width: int) -> tuple[int, ...]:
        """Feature channels of every level.

        Raises:
            ValueError: when ``feature_widths`` and the levels differ in number.
        """
        levels = len(self.resolve_split_factors(resolution))
        widths = self.feature_widths or tuple(max(16, width >> level) for level in range(levels))
        if len(widths) != levels:
            raise ValueError(f"anchors: expected {levels} feature_widths, one per level, got {widths}")
        return widths


class Rows(NamedTuple):
    """Gaussians of one level; attributes v other than the position are held as gates, sigmoid(v / 10)."""

    xyz: Float[Tensor, "*row 3 token"]
    log_scale: Float[Tensor, "*row 3 token"]
    rest: Float[Tensor, "*row 8 token"]

    def sets(self) -> list[Rows]:
        """The sets of ``[parent, child, set, channel, token]``, parent and child merged."""
        return [Rows(*parts) for parts in zip(*(tensor.flatten(0, 1).unbind(1) for tensor in self))]


class AnchorDecoder(nn.Module):
    """All levels: token features to Gaussians and anchors.

    Every attribute v but the position is limited to 20 tanh(v / 20) = 40 sigmoid(v / 10) - 20. It is kept as
    the "gate" sigmoid(v / 10), because sigmoid is the cheaper function on a CPU and because all factors and
    offsets then fold into the heads' weights: their outputs are v / 10, and -v / 10 for log scales, which
    enter as -softplus(-v). Position heads come doubled, for tanh(v) = 2 sigmoid(2 v) - 1.

    Args:
        config: the levels.
        resolution: image edge length that the levels are made for, pixels.
        width: channels of a token.
        points: points per scene.
    """

    start: Tensor
    rotation_terms: Tensor
    identity: Tensor

    def __init__(self, config: AnchorConfig, *, resolution: int, width: int, points: int) -> None:
        super().__init__()
        self.config = config
        self.split_factors = config.resolve_split_factors(resolution)
        cap = config.max_log_scale
        self.max_log_scale = math.log(0.5 / math.sqrt(points)) if cap is None else cap
        self.pixel_log_scale = math.log(0.5 / resolution)
        self.log_shrink = (self.max_log_scale - self.pixel_log_scale) / (len(self.split_factors) - 1)
        rows, levels, last = 1, [], len(self.split_factors) - 1
        widths = config.resolve_feature_widths(resolution, width)
        for index, (factor, features) in enumerate(zip(self.split_factors, widths)):
            rows *= factor
            levels.append(
                Level(
                    width,
                    features,
                    rows=rows,
                    sets=1 if index == last else 2,
                    scale_bias=config.scale_bias,
                    dead_heads=config.dead_heads and index == last,
                )
            )
        self.levels = nn.ModuleList(levels)
        self.level_sizes = tuple(points * level.rows for level in levels)
        opacity_logit = math.log(config.start_opacity / (1 - config.start_opacity))
        start = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, opacity_logit]) * UNIT
        self.register_buffer("start", start[:, None], persistent=False)
        self.register_buffer("rotation_terms", _rotation_terms(), persistent=False)
        self.register_buffer("identity", torch.eye(3).view(1, 9, 1), persistent=False)

    def forward(
        self, tokens: list[Float[Tensor, "batch point width"]], positions: Float[Tensor, "point 3"]
    ) -> tuple[Gaussians, tuple[Gaussians, ...]]:
        """Gaussians of all levels, coarse to fine, children of a point adjacent; and the anchors per level."""
        batch = tokens[0].shape[0]
        heads = [level(features.flatten(0, 1)) for level, features in zip(self.levels, tokens)]
        first, second = heads[0].unflatten(1, (2, 1, CHANNELS)).unbind(1)
        parents = self._place_first(first[:, 0], positions, batch)
        anchors, gaussians = [parents], self._place_children(second[:, None], parents).sets()
        for level, factor, head in list(zip(self.levels, self.split_factors, heads))[1:]:
            split = head.unflatten(1, (level.sets, CHANNELS)).unflatten(0, (-1, factor))
            *next_anchors, children = self._place_children(split, parents).sets()
            gaussians.append(children)
            anchors += next_anchors
            parents = anchors[-1]
        return self._finish(gaussians, anchors, batch)

    def position_head_parameters(self) -> list[nn.Parameter]:
        """Weights and biases of all live position heads."""
        heads = [module for level in self.levels for module in level.children() if isinstance(module, Heads)]
        return [p for h in heads for p in (h.xyz_weight, h.xyz_bias) if p.requires_grad]

    def _place_first(self, head: Float[Tensor, "1 14 token"], positions: Float[Tensor, "point 3"], batch: int) -> Rows:
        """Level-0 anchors: free positions, log scales bent below ``max_log_scale``."""
        offset, scale, rest = head.split(SECTIONS, dim=1)
        xyz = offset * (self.config.first_offset / XYZ_UNIT)
        if self.config.first_position == "points":
            xyz = xyz + positions.t().repeat(1, batch)
        room = scale + (self.max_log_scale - self.config.start_log_scale) * UNIT
        bent = self.max_log_scale * UNIT - functional.softplus(room, beta=1 / UNIT)
        return Rows(xyz, bent.sigmoid(), torch.sigmoid(rest + self.start))

    def _place_children(self, head: Float[Tensor, "parent child set 14 token"], parents: Rows) -> Rows:
        """Children inside the parents' ellipsoids, their other attributes relative to the parents'."""
        offset, scale, rest = head.split(SECTIONS, dim=3)
        log_scale = affine(parents.log_scale, 2 * LIMIT, -LIMIT)
        axes = self._ellipsoid_axes(parents.rest[:, :4], log_scale)
        # The corner plus twice the gates spans the ellipsoid's box: tanh(v) = 2 sigmoid(2 v) - 1.
        xyz = (parents.xyz - axes.sum(dim=1))[:, None, None]
        for axis, gate in zip((2 * axes).unbind(1), offset.sigmoid().unbind(3)):
            xyz = torch.addcmul(xyz, axis[:, None, None], gate[:, :, :, None])
        base = (self._inherit(log_scale) * UNIT)[:, None, None]
        inherited = affine(parents.rest, 2 * LIMIT * UNIT, -LIMIT * UNIT)[:, None, None]
        return Rows(
            xyz,
            torch.sigmoid(base - functional.softplus(scale, beta=1 / UNIT)),
            torch.sigmoid(rest + inherited),
        )

    def _ellipsoid_axes(
        self, gates: Float[Tensor, "parent 4 token"], log_scale: Float[Tensor, "parent 3 token"]
    ) -> Float[Tensor, "parent axis 3 token"]:
        """The axes of the parents' ellipsoids: the columns of R(q) times the standard deviations.

        q is divided by |q| + 0.001 and not normalised further, so R is slightly less than a rotation, as
        published.
        """
        quats = affine(gates, 2 * LIMIT, -LIMIT)
        norm = (quats.square().sum(dim=1, keepdim=True) + TINY).sqrt()
        quats = quats / (norm + QUATERNION_EPSILON)
        products = (quats[:, :, None] * quats[:, None]).flatten(1, 2)
        columns = torch.baddbmm(self.identity, self.rotation_terms.expand(len(quats), -1, -1), products)
        return columns.unflatten(1, (3, 3)) * log_scale.exp()[:, :, None]

    def _inherit(self, log_scale: Float[Tensor, "parent 3 token"]) -> Float[Tensor, "parent 3 token"]:
        """The log scale that children start from: reduced where the parent is larger than half a pixel."""
        if not self.config.shrink:
            return log_scale
        large = log_scale.detach().amax(dim=1, keepdim=True) > self.pixel_log_scale
        return torch.where(large, (log_scale - self.log_shrink).clamp(-100, 0), log_scale)

    def _finish(
        self, gaussians: list[Rows], anchors: list[Rows], batch: int
    ) -> tuple[Gaussians, tuple[Gaussians, ...]]:
        """Activate all levels at once, then go from the inner layout to ``[batch, gaussian, channel]``."""
        rows = [len(level.xyz) for level in (*gaussians, *anchors)]
        xyz, log_scale, rest = (torch.cat(tensors) for tensors in zip(*gaussians, *anchors))
        quats, colors, opacities = rest.split([4, 3, 1], dim=1)
        activated = {
            "means": xyz,
            "quats": affine(quats, 2 * LIMIT, -LIMIT),
            "scales": affine(log_scale, 2 * LIMIT, -LIMIT).exp(),
            "opacities": affine(opacities, 2 * LIMIT, -LIMIT).sigmoid(),
            "colors": affine(colors, 2 * LIMIT * SH_C0, 0.5 - LIMIT * SH_C0).clamp_min(0),
        }
        packed = {name: pack(tensor, rows, len(gaussians), batch) for name, tensor in activated.items()}
        packed["opacities"] = tuple(tensor.squeeze(-1) for tensor in packed["opacities"])
        scene, *carried = (Gaussians(**dict(zip(packed, parts))) for parts in zip(*packed.values()))
        return replace(scene, means=self._bound(scene.means)), tuple(carried)

    def _bound(self, means: Float[Tensor, "batch gaussian 3"]) -> Float[Tensor, "batch gaussian 3"]:
        return means.clamp(-0.5, 0.5) if self.config.bound == "clamp" else 0.5 * (2 * means).tanh()


def affine(x: Float[Tensor, "*shape"], scale: float, shift: float) -> Float[Tensor, "*shape"]:
    """Scale and shift in one kernel."""
    return torch.rsub(x, shift, alpha=-scale)


def _rotation_terms() -> Float[Tensor, "9 16"]:
    """Coefficients of the products q_i q_j (w, x, y, z) in R(q) - identity; row 3 j + i is entry i of column j."""
    w, x, y, z = range(4)
    entries = {
        (0, 0): {(y, y): -2, (z, z): -2},
        (0, 1): {(x, y): 2, (w, z): -2},
        (0, 2): {(x, z): 2, (w, y): 2},
        (1, 0): {(x, y): 2, (w, z): 2},
        (1, 1): {(x, x): -2, (z, z): -2},
        (1, 2): {(y, z): 2, (w, x): -2},
        (2, 0): {(x, z): 2, (w, y): -2},
        (2, 1): {(y, z): 2, (w, x): 2},
        (2, 2): {(x, x): -2, (y, y): -2},
    }
    terms = torch.zeros(9, 16)
    for (row, column), products in entries.items():
        for (first, second), coefficient in products.items():
            terms[3 * column + row, 4 * first + second] = coefficient
    return terms
