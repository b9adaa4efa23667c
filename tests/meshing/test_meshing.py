"""Meshes of scenes whose shapes are known: size, sides, colours, closedness; from density and from views."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import trimesh
from torch import Tensor

from cgsgan.export.mesh import Mesh
from cgsgan.meshing import FusionSettings, SurfaceError, fuse_views, mesh_density, mesh_zero_level, surrounding_views
from cgsgan.meshing.surface import VoxelGrid, extract_mesh
from cgsgan.rendering import (
    RobustConfig,
    RobustRenderer,
    SplattingConfig,
    SplattingRenderer,
    VolumeConfig,
    VolumeRenderer,
)
from cgsgan.types import Gaussians
from tests.rendering.fields import Field, field_scenes
from tests.rendering.sdf_scenes import ball as signed_ball
from tests.rendering.sdf_scenes import sdf_scenes

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
RENDERER = VolumeRenderer(VolumeConfig(samples=24, importance_samples=16), 64)


def balls(*all_balls: tuple[tuple[float, float, float], float, tuple[float, float, float]]) -> Field:
    """Balls of (centre, radius, colour): density grows evenly towards their centres and is 10 at their surfaces."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        depths = torch.stack([r - (points - points.new_tensor(c)).norm(dim=-1) for c, r, _ in all_balls], dim=-1)
        deepest, which = depths.max(dim=-1)
        return 11 + 400 * deepest[..., None], points.new_tensor([color for *_, color in all_balls])[which]

    return field


def opened(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(
        mesh.vertices.numpy(), mesh.faces.numpy(), vertex_colors=(255 * mesh.colors).byte().numpy(), process=False
    )


def assert_sides(mesh: Mesh, *, purity: float) -> None:
    """Red is on the left (-x), blue on the right, green above them and in front: as the scene has them."""
    color, place = mesh.colors, mesh.vertices
    means = [place[(color[:, i] > purity) & (color.sum(dim=1) < 2 - purity)].mean(dim=0) for i in range(3)]
    red, green, blue = means
    assert red[0] < -0.08
    assert blue[0] > 0.08
    assert green[1] > 0.08
    assert green[2] > 0.08


THREE = balls(((-0.15, -0.05, 0.0), 0.08, RED), ((0.0, 0.13, 0.12), 0.07, GREEN), ((0.15, -0.05, 0.0), 0.08, BLUE))


def test_a_ball_has_its_volume_and_no_holes():
    mesh = mesh_density(RENDERER, field_scenes(balls(((0.05, -0.1, 0.02), 0.3, RED))), resolution=32)
    solid = opened(mesh)
    assert solid.is_watertight
    assert mesh.watertight
    assert solid.euler_number == 2
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.01)  # > 0: faces outward
    assert solid.center_mass.tolist() == pytest.approx([0.05, -0.1, 0.02], abs=1e-3)


def test_sides_and_colors_stay_as_they_are():
    mesh = mesh_density(RENDERER, field_scenes(THREE), resolution=40)
    assert opened(mesh).euler_number == 6  # three balls
    assert_sides(mesh, purity=0.99)


def paint(places: Tensor) -> Tensor:
    """Red on the left half, blue on the right, green where it is high and in front."""
    colors = torch.where(places[..., :1] < 0, torch.tensor(RED), torch.tensor(BLUE))
    return torch.where((places[..., 1:2] > 0.08) & (places[..., 2:] > 0.06), torch.tensor(GREEN), colors)


def test_the_zero_level_of_a_ball_has_its_volume_and_its_colors():
    renderer = RobustRenderer(RobustConfig(), 64)
    center = (0.05, -0.1, 0.02)
    mesh = mesh_zero_level(renderer, sdf_scenes(signed_ball(0.3, center)), resolution=32)
    solid = opened(mesh)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.01)  # > 0: faces outward
    assert solid.center_mass.tolist() == pytest.approx(list(center), abs=1e-3)
    torch.testing.assert_close(mesh.colors, 0.5 + mesh.vertices, rtol=0, atol=1e-5)
    nothing = sdf_scenes(lambda p: (torch.full_like(p[..., :1], 0.25), p))
    with pytest.raises(SurfaceError, match=r"no surface; its signed distances are 0.25 to 2, all on one side of 0"):
        mesh_zero_level(renderer, nothing, resolution=8)
    with pytest.raises(ValueError, match="expected one scene, got 2"):
        mesh_zero_level(renderer, sdf_scenes(signed_ball(), batch=2), resolution=8)


def test_views_of_planes_give_the_same_ball():
    radius = 0.22

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        return 11 + 20000 * (radius - points.norm(dim=-1, keepdim=True)), paint(points)

    settings = FusionSettings(resolution=32, size=40, truncation=3.0, smoothing=0.5, trusted_degrees=180.0)
    renderer = VolumeRenderer(VolumeConfig(samples=32, importance_samples=24), 64)
    mesh = fuse_views(renderer, field_scenes(field), surrounding_views(8), settings)
    solid = opened(mesh)
    assert solid.is_watertight
    assert solid.euler_number == 2
    assert solid.volume == pytest.approx(
        4 / 3 * math.pi * radius**3, rel=0.15
    )  # 9 % is a third of a grid spacing in radius
    assert_sides(mesh, purity=0.8)


def shell(count: int = 700, radius: float = 0.22) -> Gaussians:
    """Opaque splats on a sphere."""
    number = torch.arange(count) + 0.5
    height = 1 - 2 * number / count
    angle = number * math.pi * (3 - math.sqrt(5))
    ring = (1 - height**2).sqrt()
    places = radius * torch.stack([ring * angle.cos(), height, ring * angle.sin()], dim=1)
    return Gaussians(
        means=places[None],
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        scales=torch.full((1, count, 3), 0.012),
        opacities=torch.full((1, count), 0.99),
        colors=paint(places)[None],
    )


@pytest.mark.parametrize("trusted", [60.0, 180.0])
def test_a_shell_of_gaussians_becomes_a_solid_ball(trusted: float):
    settings = FusionSettings(resolution=32, size=64, truncation=3.0, smoothing=0.5, trusted_degrees=trusted)
    mesh = fuse_views(SplattingRenderer(SplattingConfig(), 64), shell(), surrounding_views(16), settings)
    solid = opened(mesh)
    assert solid.is_watertight
    assert trusted < 180 or solid.euler_number == 2
    # Solid: its inside, which no view sees, is not hollow. Observed: 0.3 % and 2.3 % less.
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.22**3, rel=0.05)
    assert_sides(mesh, purity=0.8)


def test_what_reaches_the_box_is_cut_flat_and_closed():
    mesh = mesh_density(RENDERER, field_scenes(balls(((0.0, -0.45, 0.0), 0.3, RED))), resolution=32)
    assert opened(mesh).is_watertight
    assert float(mesh.vertices[:, 1].min()) >= -0.5


def test_crumbs_are_left_out():
    grid = VoxelGrid(resolution=40, half_side=1.0)
    points = grid.points(0, grid.count, torch.device("cpu"))
    values = torch.maximum(0.6 - (points + 0.2).norm(dim=1), 0.06 - (points - 0.8).norm(dim=1))
    mesh = extract_mesh(values.view(40, 40, 40), grid, level=0.0, colorize=torch.zeros_like)
    assert opened(mesh).euler_number == 2
    assert float(mesh.vertices.max()) < 0.45


def test_scenes_without_a_surface_are_refused():
    scenes = field_scenes(balls(((0.0, 0.0, 0.0), 0.2, RED)))
    with pytest.raises(SurfaceError, match=r"level: expected one between .* got 1e\+03"):
        mesh_density(RENDERER, scenes, resolution=16, level=1000.0)
    with pytest.raises(ValueError, match="density > 0"):
        mesh_density(RENDERER, scenes, level=0.0)
    with pytest.raises(ValueError, match="expected one scene, got 2"):
        mesh_density(RENDERER, field_scenes(THREE, batch=2))
    nothing = shell().map(lambda tensor: tensor)
    nothing = Gaussians(**{**vars(nothing), "opacities": torch.zeros_like(nothing.opacities)})
    settings = FusionSettings(resolution=8, size=16)
    with pytest.raises(SurfaceError, match="2 views show no surface"):
        fuse_views(SplattingRenderer(SplattingConfig(), 96), nothing, surrounding_views(2), settings)
    with pytest.raises(ValueError, match="at least 1 view"):
        surrounding_views(0)
    with pytest.raises(ValueError, match="2 to 1024"):
        VoxelGrid(resolution=1, half_side=1.0)


def test_a_missing_scikit_image_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(ValueError, match=r"scikit-image; install it with: pip install 'cgsgan\[mesh\]'"):
        mesh_density(RENDERER, field_scenes(THREE), resolution=8)
