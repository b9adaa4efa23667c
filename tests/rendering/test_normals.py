"""Normals of surfaces that are known."""

from __future__ import annotations

import pytest
import torch

from cgsgan.cameras import orbit
from cgsgan.rendering import RobustConfig, RobustRenderer
from cgsgan.rendering.normals import depth_normals, distance_slopes, normal_images, surface_normals, surface_points
from tests.rendering.sdf_scenes import ball, sdf_scenes

SIZE = 24
CENTER = (0.05, -0.03, 0.02)
RENDERER = RobustRenderer(RobustConfig(probe_resolution=SIZE, bins=96), SIZE)
CAMERAS = orbit(torch.tensor([[0.0, 0.9]]), torch.tensor([[0.0, 0.4]]))


def test_a_ball_has_the_normals_of_a_ball_from_all_sides():
    scenes = sdf_scenes(ball(0.25, CENTER), size=SIZE, beta=0.002)
    picture = RENDERER(scenes, CAMERAS, size=SIZE, backgrounds=torch.zeros(1, 2, 3), depth=True)
    radial = torch.nn.functional.normalize(surface_points(picture, CAMERAS) - torch.tensor(CENTER), dim=-1)
    hit = picture.alphas[..., 0] >= 0.5
    assert 0.2 < float(hit.float().mean()) < 0.6
    normals = surface_normals(RENDERER, scenes, CAMERAS, size=SIZE)
    assert float((normals - radial)[hit].norm(dim=-1).max()) < 2e-3  # observed 5e-4
    from_depth = depth_normals(picture, CAMERAS)
    errors = (from_depth - radial)[torch.nn.functional.max_pool2d(1 - hit.float(), 5, stride=1, padding=2) == 0]
    assert float(errors.norm(dim=-1).median()) < 0.01  # observed 0.003
    assert float(errors.norm(dim=-1).max()) < 0.3  # observed 0.18, where the ball curves away between pixels
    for found in (normals, from_depth):
        assert not found[~hit].any()
        torch.testing.assert_close(found[hit].norm(dim=-1), torch.ones(int(hit.sum())))


def test_the_front_of_a_face_is_blue_and_its_side_red():
    """World axes: +z to the viewer of the front, the subject's left +x."""
    images = normal_images(surface_normals(RENDERER, sdf_scenes(ball(), size=SIZE), CAMERAS, size=SIZE))
    middle = images[0, 0, :, SIZE // 2, SIZE // 2]
    assert middle[2] > 0.98
    right = images[0, 0, :, SIZE // 2].masked_select(images[0, 0, 2, SIZE // 2] < 0.75)
    assert right.numel() > 0
    assert images[0, 0, 0, SIZE // 2, SIZE - 8] > 0.6  # to the right of the picture, as the camera looks at the face
    assert images[0, 0, 1, 7, SIZE // 2] > 0.6  # up
    assert images[0, 0, :, 0, 0].tolist() == [0.5, 0.5, 0.5]


def test_slopes_of_a_plane_are_its_normal():
    slope = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    points = torch.rand(2, 5, 3, dtype=torch.float64)
    found = distance_slopes(lambda p: (p @ slope)[..., None] + 3, points, step=0.01)
    torch.testing.assert_close(found, slope.expand(2, 5, 3), rtol=0, atol=1e-13)


def test_depths_are_needed():
    picture = RENDERER(sdf_scenes(ball(), size=SIZE), CAMERAS, size=SIZE, backgrounds=torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="depth=True"):
        depth_normals(picture, CAMERAS)
