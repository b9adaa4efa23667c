"""Maps of surface normals: of signed distance from its gradient, of anything else from its depth.

Normals are unit vectors in **world** axes (+y up, the face looks along +z) that point out of the surface, so that a
head that turns keeps its normals; 0 where a picture shows less than half of anything.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from cgsgan.cameras import Cameras
from cgsgan.rendering.rays import picture_rays
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.types import RenderOutput, SdfPlanes

LEAST_COVERAGE = 0.5
"""Of a pixel that has a normal."""

Normals = Float[Tensor, "batch view height width 3"]
SignedDistance = Callable[[Float[Tensor, "batch point 3"]], Float[Tensor, "batch point 1"]]
"""At points of each scene, both in world units."""


@torch.no_grad()
def surface_normals(renderer: RobustRenderer, scenes: SdfPlanes, cameras: Cameras, *, size: int) -> Normals:
    """Directions in which the signed distance grows where each ray meets its surface, at its mean depth.

    Central differences over one texel of the planes on both sides: between texels planes are bilinear, and their own
    derivative jumps from one to the next.

    Args:
        renderer: of the scenes.
        scenes: ``[B, ...]``.
        cameras: ``[B, V]``.
        size: width and height in pixels.
    """
    batch, views = cameras.viewmats.shape[:2]
    black = scenes.planes.new_zeros(batch, views, 3)
    picture = renderer(scenes, cameras, size=size, backgrounds=black, depth=True)
    points = surface_points(picture, cameras)
    step = renderer.config.box_warp / scenes.planes.shape[-1]
    slopes = distance_slopes(lambda p: renderer.query(scenes, p)[0], points.flatten(1, 3), step=step)
    return _covered(slopes.view_as(points), picture)


@torch.no_grad()
def depth_normals(picture: RenderOutput, cameras: Cameras) -> Normals:
    """Normals of the surface that a picture's depths describe, for scenes of any kind.

    From the neighbouring pixels on both sides; where one of them shows less than half of anything, from the other
    side. At the outline of what stands in front of something else they describe the step between the two.

    Args:
        picture: rendered with its depths.
        cameras: it was rendered from.

    Raises:
        ValueError: for a picture without depths.
    """
    points = surface_points(picture, cameras)
    hit = picture.alphas >= LEAST_COVERAGE
    down, right = (_differences(points, hit, axis) for axis in (2, 3))
    # Rows go down: down x right points to the camera, as x to the right, y down and z away from it are right-handed.
    return _covered(torch.linalg.cross(down, right, dim=-1), picture)


def surface_points(picture: RenderOutput, cameras: Cameras) -> Float[Tensor, "batch view height width 3"]:
    """World coordinates at the mean depth of every pixel; without a meaning where nothing is hit.

    Raises:
        ValueError: for a picture without depths.
    """
    if picture.depths is None:
        raise ValueError("normals: the picture has no depths; render it with depth=True")
    size = picture.depths.shape[2]
    rays = picture_rays(cameras.map(lambda t: t.to(picture.depths)), size)
    distances = picture.depths.flatten(2, 3) / rays.z_per_distance.unsqueeze(-1)
    points = rays.origins.unsqueeze(2) + distances * rays.directions
    return points.unflatten(2, (size, size))


def distance_slopes(
    signed_distance: SignedDistance, points: Float[Tensor, "batch point 3"], *, step: float
) -> Float[Tensor, "batch point 3"]:
    """The gradient of signed distance by central differences of ``step`` world units to both sides."""
    steps = step * torch.eye(3, device=points.device, dtype=points.dtype)
    slopes = [signed_distance(points + offset) - signed_distance(points - offset) for offset in steps]
    return torch.cat(slopes, dim=-1) / (2 * step)


def normal_images(normals: Normals) -> Float[Tensor, "batch view 3 height width"]:
    """Pictures of normals: x, y, z from -1 to 1 as red, green, blue from 0 to 1; grey where there is none."""
    return ((normals + 1) / 2).movedim(-1, 2)


def _differences(points: Tensor, hit: Tensor, axis: int) -> Tensor:
    """From one neighbour to the other; from the pixel itself where a neighbour is missing; 0 without any."""
    count = points.shape[axis]
    sides = []
    for shift in (1, -1):
        margin = [0, 0] * (points.ndim - 1 - axis) + ([0, 1] if shift == 1 else [1, 0])
        start = 1 if shift == 1 else 0
        beside = pad(points, margin).narrow(axis, start, count)
        seen = pad(hit, margin, value=False).narrow(axis, start, count)
        sides.append(torch.where(seen, beside, points))
    return sides[0] - sides[1]


def _covered(vectors: Tensor, picture: RenderOutput) -> Normals:
    return torch.where(picture.alphas >= LEAST_COVERAGE, normalize(vectors, dim=-1, eps=1e-30), 0.0)
