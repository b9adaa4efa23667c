"""Renders procedural heads: cone marching over blocks of pixels, sphere tracing per sample, 2 x 2 samples a pixel."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.data.head_people import People
from cgsgan.data.head_shading import shade
from cgsgan.data.head_shapes import Points, nearest

_SAMPLES = 2
_BLOCK = 4
_NEAR, _FAR = 2.05, 3.35
_STEP = 0.92
"""Distances are bounds up to a few per cent; stepping by less keeps thin parts from being jumped over."""
_CONE_STEPS, _RAY_STEPS = 22, 26
_HIT = 4e-4


@torch.inference_mode()
def render_people(
    who: People, cameras: Cameras, resolution: int
) -> Float[Tensor, "person 4 resolution resolution"]:
    """Straight-alpha sRGB pictures in [0, 1] of each person from its own camera.

    Args:
        who: the persons.
        cameras: one camera per person, about 2.7 from the origin.
        resolution: size of the pictures; even.
    """
    size = resolution * _SAMPLES
    origins = cameras.cam_to_world[:, :3, 3]
    blocks = _directions(cameras, size // _BLOCK)
    spread = 0.5 * 2**0.5 * _BLOCK / (size * float(cameras.Ks_normalized[0, 0, 0]))
    start, alive = _march(origins, blocks, who, spread)
    start = _to_samples(start, size)
    rays = _directions(cameras, size)
    sample = 2.7 / (size * float(cameras.Ks_normalized[0, 0, 0]))
    depth, hit = _trace(
        origins, rays, who, depth=start, alive=_to_samples(alive, size), reach=0.5 * sample
    )
    colors = _shade_hits(origins, rays, depth, hit, who)
    return _average(colors, hit, resolution)


def _directions(cameras: Cameras, size: int) -> Float[Tensor, "person ray 3"]:
    """Unit world-space directions through the centres of a ``size`` x ``size`` grid, row by row."""
    centers = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(centers, centers, indexing="ij")
    K = cameras.Ks_normalized[:, :, :, None]
    x = (u.reshape(1, -1) - K[:, 0, 2]) / K[:, 0, 0]
    y = (v.reshape(1, -1) - K[:, 1, 2]) / K[:, 1, 1]
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ cameras.cam_to_world[:, :3, :3].mT
    return torch.nn.functional.normalize(rays, dim=-1)


def _points(origins: Tensor, directions: Tensor, depth: Tensor) -> Points:
    positions = [origins[:, i : i + 1] + directions[..., i] * depth for i in range(3)]
    return Points(*positions)


def _march(origins: Tensor, directions: Tensor, who: People, spread: float) -> tuple[Tensor, Tensor]:
    """March one cone per block until a surface may be inside it; blocks that meet none are not alive."""
    depth = torch.full(directions.shape[:2], _NEAR)
    for _ in range(_CONE_STEPS):
        distance = nearest(_points(origins, directions, depth), who) * _STEP
        depth = depth + (distance - spread * depth).clamp_(min=0)
    return depth, depth < _FAR


def _to_samples(blocks: Tensor, size: int) -> Tensor:
    count = size // _BLOCK
    grid = blocks.reshape(-1, count, 1, count, 1).expand(-1, -1, _BLOCK, -1, _BLOCK)
    return grid.reshape(len(blocks), -1)


class _Active:
    """The active rays of each person, moved together and padded to the person with most of them."""

    def __init__(self, mask: Tensor) -> None:
        self.rows, self.columns = mask.nonzero(as_tuple=True)
        self.slots = (mask.cumsum(1) - 1)[self.rows, self.columns]
        width = max(int(mask.sum(1).max()), 1)
        # Padding repeats ray 0; its results are never written back.
        self.index = torch.zeros(len(mask), width, dtype=torch.long)
        self.index[self.rows, self.slots] = self.columns

    def take(self, values: Tensor) -> Tensor:
        if values.ndim == 3:
            return torch.gather(values, 1, self.index[..., None].expand(-1, -1, values.shape[-1]))
        return torch.gather(values, 1, self.index)

    def put(self, target: Tensor, values: Tensor) -> None:
        target[self.rows, self.columns] = values[self.rows, self.slots]


def _trace(
    origins: Tensor, directions: Tensor, who: People, *, depth: Tensor, alive: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    depth, alive = depth.clone(), alive.clone()
    hit = torch.zeros_like(alive)
    for _ in range(_RAY_STEPS // 2):
        active = _Active(alive)
        if len(active.rows) == 0:
            break
        rays, t = active.take(directions), active.take(depth)
        for _ in range(2):
            distance = nearest(_points(origins, rays, t), who)
            t = t + distance * _STEP
        active.put(depth, t)
        last = torch.full_like(depth, _FAR)
        active.put(last, distance)
        hit |= last < _HIT
        alive &= (last >= _HIT) & (depth < _FAR)
    # Rays that graze a silhouette approach it without end: within half a sample they count as hits.
    return depth, hit | (alive & (last < reach))


def _shade_hits(origins: Tensor, directions: Tensor, depth: Tensor, hit: Tensor, who: People) -> Tensor:
    active = _Active(hit)
    rays = active.take(directions)
    p = _points(origins, rays, active.take(depth))
    colors = torch.zeros(*hit.shape, 3)
    active.put(colors, shade(p, _normals(p, who), rays, who))
    return colors


def _normals(p: Points, who: People) -> Float[Tensor, "person point 3"]:
    """Normalised gradient of the distance, from four evaluations at the corners of a tetrahedron."""
    offset = 0.0012
    total = torch.zeros(*p.x.shape, 3)
    for x, y, z in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        distance = nearest(Points(p.x + x * offset, p.y + y * offset, p.z + z * offset), who)
        total += distance[..., None] * torch.tensor([x, y, z], dtype=torch.float32)
    return torch.nn.functional.normalize(total, dim=-1)


def _average(colors: Tensor, hit: Tensor, resolution: int) -> Tensor:
    shape = (len(hit), resolution, _SAMPLES, resolution, _SAMPLES)
    alpha = hit.float().reshape(shape).mean((2, 4))
    total = (colors * hit[..., None]).reshape(*shape, 3).mean((2, 4))
    straight = total / alpha.clamp(min=1e-6)[..., None]
    return torch.cat([straight, alpha[..., None]], dim=-1).permute(0, 3, 1, 2).clamp(0, 1)
