"""Tri-planes of signed distance that hold coordinates, so that a decoder can be any surface in space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cgsgan.rendering.proposal import proposal_targets
from cgsgan.types import SdfPlanes
from tests.rendering.fields import field_scenes

Surface = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points [..., 3] in world units to signed distances [..., 1] and colours [..., 3]."""
FAR_OUTSIDE = 2.0


def sdf_scenes(
    surface: Surface,
    *,
    beta: float = 0.005,
    batch: int = 1,
    size: int = 16,
    dtype: torch.dtype = torch.float32,
    box_size: float = 1.0,
) -> SdfPlanes:
    """Scenes whose proposals for pictures of ``size`` are what the probe found."""
    base = field_scenes(lambda p: (p[..., :1], p), batch=batch, dtype=dtype, box_size=box_size)

    def decode(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        signed, colors = surface(features[..., :3])
        signed = torch.where(features[..., 3:4] > 0.999, signed, FAR_OUTSIDE)
        return signed, torch.full_like(signed, beta), colors

    def propose(images: Tensor, weights: Tensor) -> Tensor:
        large = interpolate(weights, (size, size), mode="bilinear", antialias=True)
        return proposal_targets(large[:, None])[:, 0].log()

    return SdfPlanes(planes=base.planes, ws=base.ws, decode=decode, propose=propose)


def ball(radius: float = 0.25, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Surface:
    """Coloured by where it is."""

    def surface(points: Tensor) -> tuple[Tensor, Tensor]:
        return (points - points.new_tensor(center)).norm(dim=-1, keepdim=True) - radius, 0.5 + points

    return surface
