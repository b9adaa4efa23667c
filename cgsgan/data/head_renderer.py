"""Procedural heads to pictures: cones marched per block of pixels, then rays, 2 x 2 a pixel."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.data.active_points import ActivePoints
from cgsgan.data.head_people import People
from cgsgan.data.head_shading import shade
from cgsgan.data.head_shapes import Points, distances, nearest, normalize

_SAMPLES = 2
_BLOCK = 4
HEAD_SCALE = 1.07
"""World units per unit of the shape formulas; makes the head as large in the picture as in common data."""
_NEAR, _FAR = 1.9, 3.15
_STEP = 0.92
"""Distances are bounds up to a few per cent; stepping by less keeps thin parts from being jumped over."""
_CONE_ROUNDS, _CONE_STEPS, _CONE_STUCK = 5, 4, 2e-3
_RAY_STEPS = 40
_HIT = 0.4
"""A ray has hit when it is nearer than so many sample widths; the last step then lands far closer."""
_OFFSET = 1.2e-3
_SECANT_RANGE, _MAX_STEP = 0.02, 3.0


@torch.inference_mode()
def render_people(who: People, cameras: Cameras, resolution: int) -> Float[Tensor, "person 4 resolution resolution"]:
    """Straight-alpha sRGB pictures in [0, 1] of each person from its own camera.

    Args:
        who: the persons.
        cameras: one camera per person, about 2.7 from the origin.
        resolution: size of the pictures; even.
    """
    size = resolution * _SAMPLES
    origins = cameras.cam_to_world[:, :3, 3] / HEAD_SCALE
    blocks = _directions(cameras, size // _BLOCK)
    spread = 0.5 * 2**0.5 * _BLOCK / (size * float(cameras.Ks_normalized[0, 0, 0]))
    start, alive = _march(origins, blocks, who, spread)
    start = _to_samples(start, size)
    rays = _directions(cameras, size)
    sample = 2.7 / (size * float(cameras.Ks_normalized[0, 0, 0]))
    depth, hit = _trace(origins, rays, who, depth=start, alive=_to_samples(alive, size), reach=_HIT * sample)
    colors = _shade_hits(origins, rays, depth, hit, who)
    return _average(colors, hit, resolution)


def _directions(cameras: Cameras, size: int) -> Float[Tensor, "person 3 ray"]:
    """Unit world-space directions through the centres of a ``size`` x ``size`` grid, row by row."""
    centers = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(centers, centers, indexing="ij")
    K = cameras.Ks_normalized[:, :, :, None]
    x = (u.reshape(1, -1) - K[:, 0, 2]) / K[:, 0, 0]
    y = (v.reshape(1, -1) - K[:, 1, 2]) / K[:, 1, 1]
    rays = cameras.cam_to_world[:, :3, :3] @ torch.stack([x, y, torch.ones_like(x)], dim=1)
    return normalize(rays)


def _points(origins: Tensor, directions: Tensor, depth: Tensor) -> Points:
    positions = [origins[:, i : i + 1] + directions[:, i] * depth for i in range(3)]
    return Points(*positions)


def _march(origins: Tensor, directions: Tensor, who: People, spread: float) -> tuple[Tensor, Tensor]:
    """March one cone per block until a surface may be inside it; blocks that meet none are not alive."""
    depth = torch.full((len(directions), directions.shape[2]), _NEAR)
    free = torch.ones_like(depth, dtype=torch.bool)
    for _ in range(_CONE_ROUNDS):
        active = ActivePoints(free)
        cones, t = active.take(directions), active.take(depth)
        advance = t
        for _ in range(_CONE_STEPS):
            advance = (nearest(_points(origins, cones, t), who) * _STEP).sub_(spread * t)
            t = t + advance.clamp_(min=0)
        active.put(depth, t)
        active.put(free, (advance > _CONE_STUCK) & (t < _FAR))
    return depth, depth < _FAR


def _to_samples(blocks: Tensor, size: int) -> Tensor:
    count = size // _BLOCK
    grid = blocks.reshape(-1, count, 1, count, 1).expand(-1, -1, _BLOCK, -1, _BLOCK)
    return grid.reshape(len(blocks), -1)


def _trace(
    origins: Tensor, directions: Tensor, who: People, *, depth: Tensor, alive: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    depth, alive = depth.clone(), alive.clone()
    hit = torch.zeros_like(alive)
    last = torch.full_like(depth, _FAR)
    step = torch.zeros_like(depth)
    for _ in range(_RAY_STEPS):
        active = ActivePoints(alive)
        if active.empty:
            break
        t, before = active.take(depth), active.take(last)
        distance = nearest(_points(origins, active.take(directions), t), who)
        # Secant: lands on a plane met at a slant; the factor is bounded for the sake of thin parts.
        factor = (active.take(step) / (before - distance)).clamp(_STEP, _MAX_STEP)
        approaching = (distance < _SECANT_RANGE) & (distance < before)
        advance = distance * torch.where(approaching, factor, _STEP)
        active.put(depth, t + advance)
        active.put(step, advance)
        active.put(last, distance)
        close = last.abs() < reach
        hit |= close
        alive &= ~close & (depth < _FAR)
    return depth, hit


def _shade_hits(origins: Tensor, directions: Tensor, depth: Tensor, hit: Tensor, who: People) -> Tensor:
    active = ActivePoints(hit)
    rays = active.take(directions)
    p = _points(origins, rays, active.take(depth))
    surfaces = distances(p, who)
    colors = torch.zeros(len(hit), 3, hit.shape[1])
    active.put(colors, shade(p, surfaces, normals=_normals(p, surfaces, who), rays=rays, who=who))
    return colors


def _normals(
    p: Points, surfaces: tuple[Tensor, Tensor, Tensor, Tensor], who: People
) -> Float[Tensor, "person 3 point"]:
    """Normalised gradient of the distance, from forward differences."""
    here = torch.stack(surfaces).amin(0)
    moved = (p._replace(x=p.x + _OFFSET), p._replace(y=p.y + _OFFSET), p._replace(z=p.z + _OFFSET))
    return normalize(torch.stack([nearest(point, who) - here for point in moved], dim=1))


def _average(colors: Tensor, hit: Tensor, resolution: int) -> Tensor:
    shape = (len(hit), resolution, _SAMPLES, resolution, _SAMPLES)
    alpha = hit.float().reshape(shape).mean((2, 4))
    total = (colors * hit[:, None]).reshape(len(hit), 3, *shape[1:]).mean((3, 5))
    straight = total / alpha.clamp(min=1e-6)[:, None]
    return torch.cat([straight, alpha[:, None]], dim=1).clamp(0, 1)
