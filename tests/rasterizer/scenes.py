"""Seeded random scenes and cameras that reach the corners of the image formation.

Everything is drawn in float64, rounded to float32 and given in the dtype asked for: the same seed is the same
scene in every float type. Shapes are those of a flat batch, [B, N, ...] and [B, V, ...].
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SCENE_KINDS = ("normal", "behind", "border", "huge", "tiny", "transparent", "opaque", "degenerate")
CAMERA_DISTANCE = 2.7

Inputs = dict[str, Any]  # of tensors; Any lets them be unpacked into calls that also take numbers


def make_scene(
    kind: str = "normal",
    *,
    batch: int = 1,
    count: int = 60,
    channels: int = 3,
    sh_degree: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """``means``, ``quats`` (not unit), ``scales``, ``opacities``, ``colors`` of one of ``SCENE_KINDS``."""
    random = torch.Generator().manual_seed(1000 * seed + SCENE_KINDS.index(kind))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, count, *shape, generator=random, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, count, *shape, generator=random, dtype=torch.float64)

    scene: Inputs = {
        "means": 0.25 * normal(3),
        "quats": normal(4) * uniform(0.2, 3.0, 1),
        "scales": 0.05 * torch.exp(0.7 * normal(3)),
        "opacities": uniform(0.05, 0.95),
        "colors": uniform(0.0, 1.0, channels) if sh_degree is None else 0.6 * normal((sh_degree + 1) ** 2, 3),
    }
    if kind == "behind":
        scene["means"] = uniform(-4.0, 4.0, 3)
    elif kind == "border":
        scene["means"], scene["scales"] = 1.2 * normal(3), 3 * scene["scales"]
    elif kind == "huge":
        scene["scales"] = torch.exp(normal(3))
        scene["opacities"] = uniform(0.01, 0.3)
    elif kind == "tiny":
        scene["scales"] = 10.0 ** uniform(-6.0, -3.0, 3)
    elif kind == "transparent":
        scene["opacities"] = uniform(0.0, 0.012)
    elif kind == "opaque":
        scene["opacities"], scene["scales"] = uniform(0.9, 1.0), 3 * scene["scales"]
    scene = {name: tensor.float() for name, tensor in scene.items()}
    if kind == "degenerate":
        spoil(scene)
    return {name: tensor.to(dtype) for name, tensor in scene.items()}


def spoil(scene: dict[str, Tensor]) -> None:
    """Write what should never arrive into the first 14 splats of each scene: 9 not finite, 5 only odd."""
    scene["means"][:, 0, 1] = math.nan
    scene["means"][:, 1, 2] = math.inf
    scene["quats"][:, 2] = 0.0
    scene["quats"][:, 3, 0] = math.nan
    scene["scales"][:, 4, 0] = math.inf
    scene["scales"][:, 5, 2] = math.nan
    scene["opacities"][:, 6] = math.nan
    scene["colors"][:, 7, 0] = math.nan
    scene["colors"][:, 8, 0] = -math.inf
    scene["scales"][:, 9] = 0.0
    scene["scales"][:, 10, 1:] = 0.0
    scene["opacities"][:, 11] = 0.0
    scene["scales"][:, 12] = torch.tensor([3.0, 1e-5, 1e-5])
    scene["means"][:, 13] = scene["means"][:, 14]


def look_at(eye: Tensor, target: Tensor, down: Tensor) -> Tensor:
    """World-to-camera matrix [4, 4] in OpenCV axes of a camera at ``eye`` that looks at ``target``."""
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4, dtype=eye.dtype)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
    return viewmat


def make_cameras(
    *,
    batch: int = 1,
    views: int = 2,
    width: int = 53,
    height: int = 37,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """``viewmats`` and ``Ks`` around the scene: fx and fy differ, principal points are off the centre."""
    random = torch.Generator().manual_seed(7919 + seed)
    viewmats, Ks = [], []
    for _ in range(batch * views):
        eye, target, down = torch.randn(3, 3, generator=random, dtype=torch.float64)
        eye = CAMERA_DISTANCE * torch.nn.functional.normalize(eye, dim=0)
        viewmats.append(look_at(eye, 0.05 * target, down))
        a, b, c, d = torch.rand(4, generator=random, dtype=torch.float64).tolist()
        fx, fy = (1.2 + 0.8 * a) * width, (1.4 + 1.2 * b) * height
        cx, cy = (0.4 + 0.2 * c) * width, (0.4 + 0.2 * d) * height
        Ks.append(torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64))
    cameras = {"viewmats": torch.stack(viewmats), "Ks": torch.stack(Ks)}
    return {name: tensor.float().to(dtype).unflatten(0, (batch, views)) for name, tensor in cameras.items()}


def make_backgrounds(
    *, batch: int = 1, views: int = 2, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Random background colours [B, V, C]."""
    random = torch.Generator().manual_seed(104729 + seed)
    return torch.rand(batch, views, channels, generator=random).to(dtype)
