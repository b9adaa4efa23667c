"""What a renderer knows besides colour, as pictures: depth and normals."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from cgsgan.cameras import Cameras
from cgsgan.rendering.rays import picture_rays
from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.rendering.splatting import SplattingRenderer
from cgsgan.types import Scenes, SdfPlanes

DEPTH_COLORS = (
    (253, 231, 37), (170, 220, 50), (92, 200, 99), (39, 173, 129), (33, 144, 141),
    (44, 113, 142), (59, 81, 139), (71, 44, 122), (68, 1, 84),
)  # fmt: skip
"""Near to far, sRGB: yellow, green, blue, violet; nine equidistant colours of viridis (van der Walt & Smith 2015, CC0),
reversed, in which equal steps of depth look equal and stay apart without colour vision."""


def depth_colors(depths: Float[Tensor, "*batch 1"], *, near: float, far: float) -> Float[Tensor, "*batch 3"]:
    """Depths as colours on a fixed scale, so that frames of a film can be compared.

    Args:
        depths: z-depth, world units.
        near: what is this near, or nearer, is yellow.
        far: what is this far, or farther, is violet.

    Raises:
        ValueError: unless near < far.
    """
    if not near < far:
        raise ValueError(f"depth_colors: expected near < far, got {near} and {far}")
    table = torch.tensor(DEPTH_COLORS, dtype=depths.dtype, device=depths.device) / 255
    place = ((depths[..., 0] - near) / (far - near)).clamp(0, 1) * (len(table) - 1)
    first = place.floor().long().clamp_max(len(table) - 2)
    return table[first].lerp(table[first + 1], (place - first).unsqueeze(-1))


def surface_normals(
    renderer: Renderer,
    scenes: Scenes,
    cameras: Cameras,
    depths: Float[Tensor, "batch view size size 1"],
) -> Float[Tensor, "batch view size size 3"]:
    """Unit normals, world axes. Gaussians have their own, their shortest axes; signed distance has its gradient where
    depth says the surface is; of other scenes they are those of the surface that depth describes (which of splats is
    far rougher: depths of overlapping ones jump).

    Args:
        renderer: draws the scenes.
        scenes: ``[B, ...]``.
        cameras: ``[B, V]``.
        depths: what the renderer found for them.
    """
    if isinstance(renderer, SplattingRenderer):
        return renderer.normals(scenes, cameras, size=depths.shape[2])
    if isinstance(renderer, RobustRenderer) and isinstance(scenes, SdfPlanes):
        points = _surface_points(depths, cameras)
        return distance_normals(renderer, scenes, points.flatten(1, 3)).view_as(points)
    return depth_normals(depths, cameras)


def distance_normals(
    renderer: RobustRenderer, scenes: SdfPlanes, points: Float[Tensor, "batch point 3"]
) -> Float[Tensor, "batch point 3"]:
    """Unit directions in which signed distance grows, world axes: out of the surface.

    By differences over one texel of the planes to both sides: between texels planes are bilinear, and their own
    derivative jumps from one to the next.

    Args:
        renderer: knows the axes and the box of the planes.
        scenes: ``[B, ...]``.
        points: world units.
    """
    step = renderer.config.box_warp / scenes.planes.shape[-1]
    offsets = step * torch.eye(3, device=points.device, dtype=points.dtype)
    sides = [[renderer.query(scenes, points + sign * offset)[0] for offset in offsets] for sign in (1, -1)]
    ahead, behind = (torch.cat(side, dim=-1) for side in sides)
    return normalize(ahead - behind, dim=-1, eps=1e-20)


def depth_normals(
    depths: Float[Tensor, "batch view size size 1"], cameras: Cameras
) -> Float[Tensor, "batch view size size 3"]:
    """Unit normals, world axes, of the surface that depth maps describe; they look towards the camera.

    Of the neighbours on either side of a pixel, the one that is nearer in depth takes part, so that an outline does not
    bend the surface in front of it. Pixels of depth 0 show nothing; normals there mean nothing.

    Args:
        depths: z-depth, world units; at least 2 x 2 pixels.
        cameras: ``[batch, view]``.
    """
    points = _surface_points(depths, cameras)
    down, right = (_nearer_difference(points, depths, dim) for dim in (2, 3))
    normals = normalize(torch.cross(down, right, dim=-1), dim=-1, eps=1e-20)
    directions = picture_rays(cameras, depths.shape[2]).directions.view_as(points)
    towards = (normals * directions).sum(dim=-1, keepdim=True)
    return torch.where(towards > 0, -normals, normals)


def turn_to_camera(
    normals: Float[Tensor, "batch view height width 3"], cameras: Cameras
) -> Float[Tensor, "batch view height width 3"]:
    """World axes to those of normal maps: x right, y up, z towards the camera."""
    flips = normals.new_tensor([1.0, -1.0, -1.0])
    return torch.einsum("bvij,bvhwj->bvhwi", cameras.viewmats[..., :3, :3], normals) * flips


def normal_colors(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Directions as colours, as normal maps hold them: -1..1 of x, y, z is 0..1 of red, green, blue."""
    return (normals + 1) / 2


def _surface_points(depths: Tensor, cameras: Cameras) -> Float[Tensor, "batch view size size 3"]:
    """World coordinates of what every pixel shows; of the camera where the depth is 0."""
    rays = picture_rays(cameras, depths.shape[2])
    distances = depths.flatten(2) / rays.z_per_distance
    points = rays.origins.unsqueeze(2) + rays.directions * distances.unsqueeze(-1)
    return points.unflatten(2, depths.shape[2:4])


def _nearer_difference(points: Tensor, depths: Tensor, dim: int) -> Tensor:
    """From each pixel to the next along ``dim``, or from the previous one where its depth is closer; [..., 3]."""
    size = points.shape[dim]
    steps, jumps = points.diff(dim=dim), depths.diff(dim=dim).abs()
    last, first = (steps.narrow(dim, i, 1) for i in (size - 2, 0))
    last_jump, first_jump = (jumps.narrow(dim, i, 1) for i in (size - 2, 0))
    after, jump_after = torch.cat([steps, last], dim), torch.cat([jumps, last_jump], dim)
    before, jump_before = torch.cat([first, steps], dim), torch.cat([first_jump, jumps], dim)
    return torch.where(jump_after <= jump_before, after, before)
