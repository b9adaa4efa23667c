"""Reading feature planes at points: bilinear, zero outside, the mean of the three planes.

On a GPU this is ``grid_sample``. On a CPU the planes are laid out as a table with one row per texel, and a point is a
weighted sum of 12 rows, which ``embedding_bag`` does in one pass. Measured on one core of an AVX-512 machine for 64 x
64 rays x 96 samples and 32 channels: 0.06 s against 0.20 s forward, 0.3 s against 1.5 s with the backward pass.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample, pad

PlaneAxes = Literal["corrected", "official"]
AXES: dict[PlaneAxes, tuple[tuple[int, int], ...]] = {
    "corrected": ((0, 1), (0, 2), (2, 1)),
    "official": ((0, 1), (0, 2), (2, 0)),
}
"""World axes along the columns and rows of each plane.

Official EG3D weights have (z, x) as the third plane: the second one again, transposed, and no plane with y and z.
Corrected it is (z, y), not (y, z): rows of the side view are then heights, as they are in the front view, and the
convolutions that make both planes at the same place of one image see the same feature of a head in the same row.
"""
TAPS = 4
ROWS_AT_ONCE = 1 << 14
"""Points whose gradients are spread over the table together: their rows stay in the cache."""


class PlaneSampler:
    """The features of B scenes at any points.

    Args:
        planes: ``[B, 3, C, H, W]``.
        axes: which world axes the planes have, see :data:`AXES`.
        box_size: side of the cube around the origin that the planes cover, world units.
    """

    def __init__(
        self, planes: Float[Tensor, "batch 3 channel height width"], *, axes: PlaneAxes, box_size: float
    ) -> None:
        self.axes, self.box_size = AXES[axes], box_size
        self.batch, _, self.channels, self.height, self.width = planes.shape
        self.on_cpu = planes.device.type == "cpu"
        self.planes = _texel_table(planes) if self.on_cpu else planes.flatten(0, 1)

    def __call__(
        self, points: Float[Tensor, "scene point 3"], first_scene: int = 0
    ) -> Float[Tensor, "scene point channel"]:
        """Mean features of the three planes.

        Args:
            points: world units, for the scenes from ``first_scene`` on.
            first_scene: index in the batch.
        """
        inside = points * (2 / self.box_size)
        places = torch.stack([inside[..., pair] for pair in self.axes], dim=1)  # scene, plane, point, 2
        if self.on_cpu:
            return self._gather(places, first_scene)
        chosen = slice(3 * first_scene, 3 * (first_scene + len(points)))
        features = grid_sample(self.planes[chosen], places.flatten(0, 1).unsqueeze(2), align_corners=False)
        return features.squeeze(-1).unflatten(0, (-1, 3)).mean(dim=1).mT

    def _gather(self, places: Tensor, first_scene: int) -> Tensor:
        """Rows and weights of the four texels around each place. The ring of zeros makes every row exist."""
        size = places.new_tensor([self.width, self.height])
        # A place of 0 is the centre of the first texel. Beyond the ring everything is 0, as it is on the ring.
        texels = torch.minimum((((places + 1) * size - 1) / 2).clamp_min(-1), size)
        corners = torch.minimum(texels.floor(), size - 1)
        right, down = (texels - corners).unbind(-1)
        stride = self.width + 2
        scene_planes = torch.arange(3 * len(places), device=places.device) + 3 * first_scene
        starts = (scene_planes * ((self.height + 2) * stride)).view(len(places), 3, 1)
        columns, rows = (corners + 1).long().unbind(-1)
        first = starts + rows * stride + columns
        neighbors = torch.stack([first, first + 1, first + stride, first + stride + 1], dim=-1)
        left, up = 1 - right, (1 - down) / 3  # a third: the mean of three planes
        down = down / 3
        weights = torch.stack([left * up, right * up, left * down, right * down], dim=-1)
        neighbors, weights = (t.transpose(1, 2).reshape(-1, 3 * TAPS) for t in (neighbors, weights))
        gathered = _WeightedRows.apply(self.planes, neighbors.to(torch.int32), weights)
        assert isinstance(gathered, Tensor)
        return gathered.unflatten(0, (len(places), -1))


def _texel_table(planes: Tensor) -> Float[Tensor, "row channel"]:
    """One row per texel, with a ring of zero texels around every plane."""
    return pad(planes.permute(0, 1, 3, 4, 2), (0, 0, 1, 1, 1, 1)).flatten(0, 3)


class _WeightedRows(torch.autograd.Function):
    """Weighted sums of table rows. ``embedding_bag`` has a gradient of its own, at twice the time of this one."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_sums: Tensor) -> tuple[Tensor | None, None, Tensor | None]:  # type: ignore[override]
        table, rows, weights = ctx.saved_tensors
        wants_table, _, wants_weights = ctx.needs_input_grad
        v_table = torch.zeros_like(table) if wants_table else None
        v_weights = torch.empty_like(weights) if wants_weights else None
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            index, v_sum = rows[part].long(), v_sums[part]
            if v_table is not None:
                spread = (v_sum.unsqueeze(1) * weights[part].unsqueeze(2)).flatten(0, 1)
                v_table.scatter_add_(0, index.view(-1, 1).expand_as(spread), spread)
            if v_weights is not None:
                v_weights[part] = torch.einsum("pc,ptc->pt", v_sum, table[index])
        return v_table, None, v_weights
