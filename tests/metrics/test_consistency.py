from __future__ import annotations

import math

import pytest
import torch

from cgsgan.cameras import Cameras, orbit
from cgsgan.metrics.consistency import lift, project, reprojection_errors
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians, RenderOutput

RADIUS = 0.25


def paint(points: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.4 * torch.sin(8 * points)


def sphere(cameras: Cameras, size: int, radius: float = RADIUS) -> RenderOutput:
    """A painted sphere, ray by ray: the truth at every pixel centre."""
    flat = cameras.map(lambda t: t.flatten(0, 1))
    origin = flat.cam_to_world[:, None, None, :3, 3]
    direction = (
        lift(torch.ones(len(flat.viewmats), size, size, dtype=torch.float64), flat) - origin
    )  # advances z-depth by 1
    a, b = (direction**2).sum(-1), (direction * origin).sum(-1)
    root = b**2 - a * ((origin**2).sum(-1) - radius**2)
    hit = root > 0
    depth = torch.where(hit, (-b - root.clamp_min(0).sqrt()) / a, 0.0)
    color = torch.where(hit[..., None], paint(origin + depth[..., None] * direction), 1.0)
    shape = cameras.viewmats.shape[:2]
    return RenderOutput(
        images=color.movedim(-1, 1).unflatten(0, shape),
        alphas=hit.double()[..., None].unflatten(0, shape),
        depths=depth[..., None].unflatten(0, shape),
    )


def pair(degrees: float) -> Cameras:
    yaw = torch.tensor([[0.0, math.radians(degrees)], [math.radians(-degrees), 0.0]])
    return orbit(yaw.double(), torch.tensor([[0.0, 0.1], [0.0, 0.0]], dtype=torch.float64)).map(torch.Tensor.double)


def test_lifting_and_projecting_are_inverse():
    cameras = pair(20).map(lambda t: t[:, 1])
    depth = 2 + torch.rand(2, 9, 9, dtype=torch.float64)
    pixels, z = project(lift(depth, cameras), cameras, 9)
    torch.testing.assert_close(z, depth, rtol=1e-7, atol=0)  # the intrinsics were made in float32
    torch.testing.assert_close(pixels[0, 3, 5], torch.tensor([5.5, 3.5], dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_true_surface_has_only_the_error_of_sampling():
    errors = [reprojection_errors(sphere(pair(20), size), pair(20)) for size in (64, 256)]
    assert errors[1].depth.max() < 3e-4  # observed 1.6e-4, most of it at the rim, where depth is steepest
    assert errors[1].color.max() < 4e-4  # observed 2e-4
    assert errors[1].depth.max() < errors[0].depth.max() / 2
    assert bool(((errors[1].visible > 0.6) & (errors[1].visible < 0.95)).all())  # the sphere turns a part away


def test_a_shift_in_depth_is_reported_in_world_units():
    cameras = orbit(torch.zeros(1, 2), torch.zeros(1, 2)).map(torch.Tensor.double)
    views = sphere(cameras, 128)
    assert views.depths is not None
    offset = torch.tensor([0.0, 0.01])[None, :, None, None, None] * (views.depths > 0)
    moved = RenderOutput(images=views.images, alphas=views.alphas, depths=views.depths + offset)
    found = reprojection_errors(moved, cameras)
    assert found.depth.item() == pytest.approx(0.01, rel=1e-3)
    assert found.color.item() == pytest.approx(0, abs=1e-4)


def test_paint_that_follows_the_camera_is_seen_in_the_colour():
    cameras = pair(20)
    views = sphere(cameras, 128)
    painted = views.images.clone()
    painted[:, 1] = (painted[:, 1] + 0.1) * views.alphas[:, 1].movedim(-1, 1)
    cheat = RenderOutput(images=painted, alphas=views.alphas, depths=views.depths)
    assert reprojection_errors(cheat, cameras).color.mean().item() == pytest.approx(0.1, abs=0.01)


def test_another_shape_per_view_is_seen_in_the_depth():
    cameras = pair(20)
    one, other = sphere(cameras, 128), sphere(cameras, 128, radius=RADIUS * 0.93)
    assert one.depths is not None
    assert other.depths is not None

    def mixed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([a[:, 0], b[:, 1]], dim=1)

    cheat = RenderOutput(
        images=mixed(one.images, other.images), alphas=mixed(one.alphas, other.alphas),
        depths=mixed(one.depths, other.depths),
    )  # fmt: skip
    assert reprojection_errors(cheat, cameras).depth.min() > 0.01  # about 0.07 * 0.25


def test_rasterized_shell():
    """A dense shell of small opaque Gaussians through the real renderer: the centre of depth is nearly a surface."""
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(6000, 3, generator=generator), dim=-1) * RADIUS
    quats = torch.tensor([1.0, 0, 0, 0]).expand(6000, 4)
    scene = Gaussians(
        means=means, quats=quats, scales=torch.full((6000, 3), 0.008), opacities=torch.full((6000,), 0.99),
        colors=paint(means),
    ).map(lambda t: t[None].expand(2, *t.shape).contiguous())  # fmt: skip
    renderer = SplattingRenderer(SplattingConfig(), training_size=128)
    cameras = pair(20).map(torch.Tensor.float)
    views = renderer(scene, cameras, size=128, backgrounds=torch.ones(2, 2, 3), depth=True)
    found = reprojection_errors(views, cameras)
    assert found.depth.max() < 0.01
    assert found.color.max() < 0.05
    assert found.visible.min() > 0.6


def test_nothing_visible_is_nan_and_misuse_is_refused():
    cameras = pair(20)
    views = sphere(cameras, 16)
    empty = RenderOutput(images=views.images, alphas=views.alphas * 0, depths=views.depths)
    assert bool(reprojection_errors(empty, cameras).depth.isnan().all())
    with pytest.raises(ValueError, match="2 views with depths"):
        reprojection_errors(RenderOutput(images=views.images, alphas=views.alphas), cameras)
