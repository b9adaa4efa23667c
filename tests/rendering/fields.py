"""Tri-planes that hold coordinates, so that a decoder can be any field of space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cgsgan.rendering.plane_sampling import AXES, PlaneAxes
from cgsgan.types import TriPlanes

EMPTY = -40.0
"""A raw density that is none."""

Field = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points [..., 3] in world units to raw densities [..., 1] and colours [..., 3]."""


class FieldDecoder:
    """Reads x, y, z and "inside the box" from sampled features; outside the box nothing is."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.calls = 0

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        raw, colors = self.field(features[..., :3])
        return torch.where(features[..., 3:4] > 0.999, raw, EMPTY), colors


def field_scenes(
    field: Field,
    *,
    batch: int = 1,
    box_size: float = 1.0,
    axes: PlaneAxes = "corrected",
    size: int = 64,
    dtype: torch.dtype = torch.float32,
) -> TriPlanes:
    """Scenes in which the mean of the three planes is (x, y, z, 1) within the box but for half a texel at its faces."""
    ramp = ((torch.arange(size, dtype=dtype) + 0.5) / size - 0.5) * box_size
    planes = torch.zeros(3, 4, size, size, dtype=dtype)
    planes[:, 3] = 1
    written: set[int] = set()
    for plane, (column_axis, row_axis) in zip(planes, AXES[axes]):
        for axis, values in ((column_axis, ramp.expand(size, size)), (row_axis, ramp[:, None].expand(size, size))):
            if axis not in written:
                plane[axis] = 3 * values  # the mean of three
                written.add(axis)
    return TriPlanes(
        planes=planes.expand(batch, -1, -1, -1, -1),
        ws=torch.zeros(batch, 1, 4, dtype=dtype),
        decode=FieldDecoder(field),
    )


def raw_density(density: Tensor) -> Tensor:
    """What softplus(raw - 1) turns into ``density``; nothing for 0."""
    return torch.where(density > 0, 1 + density + torch.log(-torch.expm1(-density.clamp_min(1e-12))), EMPTY)


def ball(center: tuple[float, float, float], radius: float, *, density: float = 400.0) -> Field:
    """A solid white ball."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        inside = (points - points.new_tensor(center)).norm(dim=-1, keepdim=True) < radius
        return raw_density(density * inside.to(points.dtype)), torch.ones_like(points)

    return field
