"""Rays through the centres of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras, full_float32


@dataclass(frozen=True, kw_only=True)
class Rays:
    """The rays of B x V square pictures, one per pixel, rows from the top, columns first.

    Attributes:
        origins: camera centres, world units.
        directions: unit vectors, world axes.
        z_per_distance: z-depth in the camera per distance along the ray, <= 1.
    """

    origins: Float[Tensor, "batch view 3"]
    directions: Float[Tensor, "batch view pixel 3"]
    z_per_distance: Float[Tensor, "batch view pixel"]


def picture_rays(cameras: Cameras, size: int) -> Rays:
    """Rays of cameras ``[batch, view]`` for pictures of ``size`` x ``size`` pixels.

    A pixel centre (u, v) = ((column + 0.5) / size, (row + 0.5) / size) is seen along K^-1 (u, v, 1) in the camera:
    y = (v - cy) / fy, x = (u - cx - skew y) / fx, z = 1.
    """
    Ks, cam_to_world = cameras.Ks_normalized[..., None, :, :], cameras.cam_to_world
    centers = (torch.arange(size, device=Ks.device, dtype=Ks.dtype) + 0.5) / size
    v, u = torch.meshgrid(centers, centers, indexing="ij")
    y = (v.flatten() - Ks[..., 1, 2]) / Ks[..., 1, 1]
    x = (u.flatten() - Ks[..., 0, 2] - Ks[..., 0, 1] * y) / Ks[..., 0, 0]
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    lengths = in_camera.norm(dim=-1)
    with full_float32():
        in_world = in_camera @ cam_to_world[..., :3, :3].mT
    return Rays(
        origins=cam_to_world[..., :3, 3],
        directions=in_world / lengths.unsqueeze(-1),
        z_per_distance=1 / lengths,
    )
