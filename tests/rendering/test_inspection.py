"""Depth and normals as pictures, against surfaces whose normals are known."""

from __future__ import annotations

import pytest
import torch

from cgsgan.cameras import orbit
from cgsgan.rendering import RobustConfig, RobustRenderer
from cgsgan.rendering.inspection import (
    DEPTH_COLORS,
    depth_colors,
    depth_normals,
    distance_normals,
    surface_normals,
    turn_to_camera,
)
from cgsgan.rendering.rays import picture_rays
from tests.rendering.sdf_scenes import ball, sdf_scenes

CAMERAS = orbit(torch.tensor([[0.0, 0.7, -2.0]]), torch.tensor([[0.0, 0.3, -0.2]]), focal=1.5)
SIZE, RADIUS = 48, 0.6


def sphere_depths() -> tuple[torch.Tensor, torch.Tensor]:
    """Depths of a sphere around the origin, 0 beside it, and its normals."""
    rays = picture_rays(CAMERAS, SIZE)
    along = -(rays.origins[:, :, None] * rays.directions).sum(-1)
    nearest = rays.origins.square().sum(-1)[..., None] - along.square()
    distances = along - (RADIUS**2 - nearest).clamp_min(0).sqrt()
    hit = nearest < RADIUS**2
    depths = torch.where(hit, distances * rays.z_per_distance, 0.0)
    normals = (rays.origins[:, :, None] + rays.directions * distances[..., None]) / RADIUS
    return (t.unflatten(2, (SIZE, SIZE)) for t in (depths[..., None], normals))  # type: ignore[return-value]


def test_normals_of_a_sphere_point_outwards_up_to_its_outline():
    depths, expected = sphere_depths()
    normals = depth_normals(depths, CAMERAS)
    hit = depths[..., 0] > 0
    assert int(hit.sum()) > 1000
    torch.testing.assert_close(normals.norm(dim=-1)[hit], torch.ones(int(hit.sum())))
    degrees = (normals * expected).sum(-1)[hit].clamp(-1, 1).acos().rad2deg()
    assert float(degrees.median()) < 3  # observed 2.3: a step between pixels is a chord of the sphere
    assert float(degrees.max()) < 10  # observed 7.4; taken across the outline it would be 60 and more


def test_normals_of_signed_distance_are_its_gradient():
    size, center = 24, torch.tensor([0.05, -0.03, 0.02])
    renderer = RobustRenderer(RobustConfig(probe_resolution=size, bins=96), size)
    scenes = sdf_scenes(ball(0.25, (0.05, -0.03, 0.02)), beta=0.002, size=size)
    cameras = orbit(torch.tensor([[0.0, 0.9]]), torch.tensor([[0.0, 0.4]]))
    picture = renderer(scenes, cameras, size=size, backgrounds=torch.zeros(1, 2, 3), depth=True)
    assert picture.depths is not None
    normals = surface_normals(renderer, scenes, cameras, picture.depths)
    hit = picture.alphas[..., 0] > 0.5
    assert int(hit.sum()) > 200
    rays = picture_rays(cameras, size)
    distances = (picture.depths.flatten(2) / rays.z_per_distance)[..., None]
    radial = torch.nn.functional.normalize(rays.origins[:, :, None] + distances * rays.directions - center, dim=-1)
    assert float((normals - radial.view_as(normals))[hit].norm(dim=-1).max()) < 2e-3  # observed 5e-4
    from_depth = depth_normals(picture.depths, cameras)[hit]
    assert float((from_depth - normals[hit]).norm(dim=-1).median()) < 0.2  # rougher, and on the same side

    slope = torch.tensor([0.6, -0.48, 0.64])
    plane = sdf_scenes(lambda p: ((p @ slope)[..., None] + 3, p))
    found = distance_normals(renderer, plane, 0.3 * torch.rand(1, 5, 3))
    torch.testing.assert_close(found, slope.expand(1, 5, 3), rtol=0, atol=2e-5)  # observed 2e-6


def test_normal_maps_look_at_the_camera():
    depths, expected = sphere_depths()
    seen = turn_to_camera(expected, CAMERAS)
    assert bool((seen[..., 2][depths[..., 0] > 0] > 0.25).all())
    middle = seen[:, :, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(middle, torch.tensor([0.0, 0.0, 1.0]).expand(1, 3, 3), atol=0.05, rtol=0)
    top, right = seen[:, :, SIZE // 2 - 8, SIZE // 2], seen[:, :, SIZE // 2, SIZE // 2 + 8]
    assert bool((top[..., 1] > 0.3).all() and (right[..., 0] > 0.3).all())


def test_depth_runs_through_the_table_and_is_clamped():
    table = torch.tensor(DEPTH_COLORS) / 255
    depths = torch.tensor([[1.0], [2.0], [2.25], [2.0625], [3.0], [9.0]])
    middle = (table[4] + table[5]) / 2
    expected = torch.stack([table[0], table[0], table[2], (table[0] + table[1]) / 2, table[8], table[8]])
    torch.testing.assert_close(depth_colors(depths, near=2.0, far=3.0), expected)
    torch.testing.assert_close(depth_colors(torch.tensor([[4.5]]), near=0.0, far=8.0), middle[None])
    with pytest.raises(ValueError, match="near < far"):
        depth_colors(depths, near=1.0, far=1.0)
