"""Depth and normals as pictures, against surfaces whose normals are known."""

from __future__ import annotations

import pytest
import torch

from cgsgan.cameras import orbit
from cgsgan.rendering.inspection import DEPTH_COLORS, depth_colors, depth_normals, turn_to_camera
from cgsgan.rendering.rays import picture_rays

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
