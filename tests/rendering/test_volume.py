"""Volume rendering of fields whose pictures are known, and the renderer's promises to its callers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cgsgan.cameras import Cameras, orbit
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.rendering import SplattingConfig, SplattingRenderer, VolumeConfig, VolumeRenderer
from cgsgan.rendering.ray_tracing import chunks
from cgsgan.types import Gaussians, TriPlanes
from tests.models.triplane.test_generator import TINY
from tests.rendering.fields import ball, field_scenes, raw_density

FINE = VolumeConfig(samples=96, importance_samples=96)
SPACING = (FINE.far - FINE.near) / 95


def black(batch: int = 1, views: int = 1) -> torch.Tensor:
    return torch.zeros(batch, views, 3)


def frontal(batch: int = 1, views: int = 1) -> Cameras:
    return orbit(torch.zeros(batch, views), torch.zeros(batch, views))


@pytest.mark.parametrize("density", [0.1, 1.0, 7.0])
def test_fog_has_the_opacity_of_its_thickness(density: float):
    scenes = field_scenes(lambda p: (raw_density(torch.full_like(p[..., :1], density)), 0 * p + 0.25), box_size=9.0)
    renderer = VolumeRenderer(VolumeConfig(box_warp=9.0), 8)
    picture = renderer(scenes, frontal(), size=5, backgrounds=black() + 0.75)
    alpha = 1 - math.exp(-density * (3.3 - 2.25))
    torch.testing.assert_close(picture.alphas, torch.full((1, 1, 5, 5, 1), alpha), rtol=0, atol=2e-6)  # observed 2e-7
    color = 0.25 * alpha + 0.75 * (1 - alpha)
    torch.testing.assert_close(picture.images, torch.full((1, 1, 3, 5, 5), color), rtol=0, atol=2e-6)


def test_a_slab_has_the_opacity_of_its_thickness():
    def slab(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return raw_density(3.0 * (points[..., 2:].abs() < 0.2)), torch.ones_like(points)

    picture = VolumeRenderer(FINE, 8)(field_scenes(slab), frontal(), size=7, backgrounds=black(), depth=True)
    middle = float(picture.alphas[0, 0, 3, 3, 0])
    # The faces are found to one spacing, and half of the interval that holds a face counts as nothing.
    assert 1 - math.exp(-3 * 0.4) - 0.02 < middle < 1 - math.exp(-3 * (0.4 + SPACING))


def test_a_ball_has_its_outline_and_its_depth():
    radius, size = 0.3, 21
    scenes = field_scenes(ball((0.0, 0.0, 0.0), radius))
    cameras = orbit(torch.tensor([[0.7]]), torch.tensor([[0.3]]))
    picture = VolumeRenderer(FINE, 64)(scenes, cameras, size=size, backgrounds=black(), depth=True)
    assert picture.depths is not None
    place = ((torch.arange(size) + 0.5) / size - 0.5) / 4.2647
    y, x = torch.meshgrid(place, place, indexing="ij")
    length = torch.sqrt(x**2 + y**2 + 1)
    beside = 2.7 * (1 - 1 / length**2).sqrt()  # nearest distance of a ray to the centre
    alphas, depths = picture.alphas[0, 0, ..., 0], picture.depths[0, 0, ..., 0]
    assert float(alphas[beside > radius + 0.01].max()) < 1e-3
    assert float(alphas[beside < radius - 0.02].min()) > 0.95
    deep = beside < 0.25
    expected = (2.7 / length - (radius**2 - beside**2).clamp_min(0).sqrt()) / length
    assert float((depths - expected)[deep].abs().max()) < SPACING  # observed 0.006
    assert float(depths[beside > radius + 0.01].max()) == 0


def test_a_ball_lands_where_the_camera_projects_it_and_where_a_gaussian_lands():
    center, size = (0.11, 0.17, -0.06), 41
    turned = orbit(torch.tensor([[0.4]]), torch.tensor([[-0.25]]))
    Ks = torch.tensor([[[[3.4, 0.0, 0.44], [0.0, 4.1, 0.53], [0.0, 0.0, 1.0]]]])
    cameras = Cameras(viewmats=turned.viewmats, Ks_normalized=Ks)
    seen = cameras.viewmats[0, 0] @ torch.tensor([*center, 1.0])
    u, v, w = (cameras.Ks(size, size)[0, 0] @ seen[:3]).tolist()
    volume = VolumeRenderer(FINE, size)(
        field_scenes(ball(center, 0.05)), cameras, size=size, backgrounds=black(), depth=True
    )
    gaussian = Gaussians(
        means=torch.tensor([[center]]),
        quats=torch.tensor([[[1.0, 0, 0, 0]]]),
        scales=torch.full((1, 1, 3), 0.02),
        opacities=torch.tensor([[0.99]]),
        colors=torch.ones(1, 1, 3),
    )
    splat = SplattingRenderer(SplattingConfig(), size)(gaussian, cameras, size=size, backgrounds=black(), depth=True)
    places = torch.arange(size) + 0.5
    for picture in (volume, splat):
        weights = picture.images[0, 0, 0] / picture.images[0, 0, 0].sum()
        assert abs(float((weights.sum(dim=0) * places).sum()) - u / w) < 0.1  # observed 0.03
        assert abs(float((weights.sum(dim=1) * places).sum()) - v / w) < 0.1
    assert volume.depths is not None
    assert splat.depths is not None
    row, column = int(v / w), int(u / w)
    difference = splat.depths[0, 0, row, column, 0] - volume.depths[0, 0, row, column, 0]
    assert 0.03 < float(difference) < 0.06  # the centre of the Gaussian, the front of the ball


def test_skew_moves_pixels_as_the_intrinsics_say():
    center, size = (0.1, 0.2, 0.0), 41
    Ks = torch.tensor([[[[4.2, 0.6, 0.5], [0.0, 4.2, 0.5], [0.0, 0.0, 1.0]]]])
    cameras = Cameras(viewmats=frontal().viewmats, Ks_normalized=Ks)
    u, v, w = (cameras.Ks(size, size)[0, 0] @ (cameras.viewmats[0, 0] @ torch.tensor([*center, 1.0]))[:3]).tolist()
    picture = VolumeRenderer(FINE, size)(field_scenes(ball(center, 0.05)), cameras, size=size, backgrounds=black())
    weights = picture.alphas[0, 0, ..., 0] / picture.alphas.sum()
    places = torch.arange(size) + 0.5
    assert abs(float((weights.sum(dim=0) * places).sum()) - u / w) < 0.1
    assert abs(float((weights.sum(dim=1) * places).sum()) - v / w) < 0.1


class Enlarge:
    """A super-resolution that only enlarges, and keeps what it was given."""

    def __call__(self, raw_images: torch.Tensor, features: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
        self.seen = raw_images, features, ws
        return raw_images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def refined_scenes(batch: int = 1) -> tuple[TriPlanes, Enlarge]:
    plain, refine = field_scenes(ball((0.0, 0.0, 0.0), 0.2), batch=batch), Enlarge()
    ws = torch.arange(batch * 4.0).view(batch, 1, 4)
    return TriPlanes(planes=plain.planes, ws=ws, decode=plain.decode, refine=refine), refine


def test_scenes_with_a_super_resolution_are_rendered_at_the_neural_resolution():
    scenes, refine = refined_scenes(batch=2)
    config = VolumeConfig(neural_resolution=16)
    colors = torch.full((2, 3, 3), 0.5)
    picture = VolumeRenderer(config, 64)(scenes, frontal(2, 3), size=64, backgrounds=colors, depth=True)
    raw_images, features, ws = refine.seen
    assert raw_images.shape == (6, 3, 16, 16)
    assert torch.equal(ws[:, 0, 0], torch.tensor([0.0, 0, 0, 4, 4, 4]))  # a scene's styles for each of its views
    assert torch.equal(features[:, :3], raw_images)
    assert picture.raw_images is not None
    assert float(raw_images.min()) == -1  # nothing is black, whatever the background is
    assert abs(float(picture.raw_images.max()) - 1) < 1e-5
    assert picture.images.shape == (2, 3, 3, 64, 64)
    torch.testing.assert_close(picture.images[..., ::4, ::4], picture.raw_images)
    assert picture.alphas.shape == (2, 3, 64, 64, 1)
    assert picture.depths is not None
    near = picture.depths[picture.depths > 0]
    assert 2.45 < float(near.min()) < float(near.max()) < 2.75  # zeros beside the ball do not pull depths to the front


def test_white_backs_and_backgrounds_behind_refined_pictures():
    scenes, _ = refined_scenes()
    for config, expected in (
        (VolumeConfig(neural_resolution=16, white_back=True), 1.0),
        (VolumeConfig(neural_resolution=16, backgrounds_behind_refined=True), 0.25),
        (VolumeConfig(neural_resolution=16), 0.0),
    ):
        picture = VolumeRenderer(config, 64)(scenes, frontal(), size=64, backgrounds=black() + 0.25)
        assert picture.raw_images is not None
        for image in (picture.images, picture.raw_images):
            assert float(image[0, 0, 0, 0, 0]) == pytest.approx(expected)
            assert float(image[0, 0, 0, 8, 8]) == pytest.approx(expected) or image is picture.raw_images
        assert float(picture.images[0, 0, 0, 32, 32]) == pytest.approx(1.0, abs=1e-4)


def test_a_super_resolution_cannot_tint_the_background_that_is_laid_behind():
    scenes, refine = refined_scenes()
    tinted = replace(scenes, refine=lambda raw, features, ws: refine(raw, features, ws) - 0.5)
    config = VolumeConfig(neural_resolution=16, backgrounds_behind_refined=True)
    plain, other = (
        VolumeRenderer(config, 64)(part, frontal(), size=64, backgrounds=black() + 0.25) for part in (scenes, tinted)
    )
    empty = (plain.alphas == 0).movedim(-1, -3).expand_as(plain.images)
    assert empty.any()
    assert torch.equal(other.images[empty], plain.images[empty])
    full = (plain.alphas > 0.9999).movedim(-1, -3).expand_as(plain.images)
    assert full.any()
    torch.testing.assert_close(other.images[full], plain.images[full] - 0.25, rtol=0, atol=1e-3)


def test_refined_pictures_are_resized_to_what_is_asked_for():
    scenes, _ = refined_scenes()
    renderer = VolumeRenderer(VolumeConfig(neural_resolution=16), 64)
    small = renderer(scenes, frontal(), size=32, backgrounds=black(), depth=True)
    assert small.images.shape == (1, 1, 3, 32, 32)
    assert small.alphas.shape == (1, 1, 32, 32, 1)


def test_views_of_a_scene_ask_nothing_of_the_network_that_made_it():
    generator = TriPlaneGenerator(TINY).eval().requires_grad_(False)
    calls: list[str] = []
    for name in ("mapping", "backbone", "decoder"):
        getattr(generator, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        scenes = generator(torch.randn(1, generator.z_dim), camera_labels=frontal(1, 1).to_labels()[:, 0]).scenes
        assert set(calls) == {"mapping", "backbone"}
        calls.clear()
        renderer = VolumeRenderer(VolumeConfig(samples=8, importance_samples=8, neural_resolution=8), TINY.resolution)
        angles = torch.linspace(-0.6, 0.6, 5)[None]
        size = TINY.resolution
        together = renderer(scenes, orbit(angles, 0 * angles), size=size, backgrounds=black(1, 5)).images
        for view in range(5):
            camera = orbit(angles[:, view : view + 1], torch.zeros(1, 1))
            alone = renderer(scenes, camera, size=size, backgrounds=black()).images
            torch.testing.assert_close(alone[:, 0], together[:, view], rtol=0, atol=1e-5)
    assert set(calls) == {"decoder"}


@pytest.mark.parametrize(("scenes", "rays", "at_once"), [(3, 5, 0), (3, 5, 2), (4, 5, 8), (2, 3, 100), (1, 7, 3)])
def test_chunks_cover_every_ray_once_and_stay_small(scenes: int, rays: int, at_once: int):
    seen = torch.zeros(scenes, rays, dtype=torch.long)
    for chosen in chunks(scenes, rays, at_once):
        assert seen[chosen].numel() <= max(1, at_once)
        seen[chosen] += 1
    assert bool((seen == 1).all())


def test_training_pictures_depend_on_their_seeds_alone():
    scenes = field_scenes(lambda p: (40 * torch.sin(9 * p).sum(-1, keepdim=True), (9 * p).sin() / 2 + 0.5), batch=3)
    angles = torch.tensor([[0.0, 0.3], [0.1, -0.4], [0.5, 0.2]])
    cameras, seeds = orbit(angles, angles / 2), torch.tensor([[11, 12], [13, 14], [15, 16]])
    config = VolumeConfig(samples=12, importance_samples=10)

    def render(scene: slice, view: slice, seeds: torch.Tensor, points: int = 1 << 20) -> torch.Tensor:
        renderer = VolumeRenderer(replace(config, points_at_once=points), 3)
        chosen = scenes.map(lambda t: t[scene])
        seen = cameras.map(lambda t: t[scene, view])
        trained = renderer.for_training(3, seeds[scene, view])
        return trained(chosen, seen, size=3, backgrounds=black(*seen.viewmats.shape[:2])).images

    everything = slice(None)
    together = render(everything, everything, seeds)
    assert torch.equal(together, render(everything, everything, seeds))
    for points in (22 * 2, 22 * 3 * 5):  # a ray of two scenes, five rays of all scenes
        parts = render(everything, everything, seeds, points)
        torch.testing.assert_close(parts, together, rtol=0, atol=2e-6)  # observed 0
    alone = render(slice(1, 2), slice(1, 2), seeds)
    torch.testing.assert_close(alone[0, 0], together[1, 1], rtol=0, atol=2e-6)  # observed 0
    other = render(everything, everything, seeds + 100)
    assert float((other - together).abs().mean()) > 0.01  # random, and not by rounding
    deterministic = VolumeRenderer(config, 3)(scenes, cameras, size=3, backgrounds=black(3, 2)).images
    assert float((deterministic - together).abs().mean()) > 0.01


def test_inference_has_sample_counts_of_its_own():
    config = VolumeConfig(samples=8, importance_samples=8, inference_samples=40, inference_importance_samples=30)
    assert config.sample_counts(training=True) == (8, 8)
    scenes = field_scenes(ball((0.0, 0.0, 0.0), 0.2))
    seen: list[int] = []
    scenes.decode.field = lambda p, inner=scenes.decode.field: (seen.append(p.shape[1]), inner(p))[1]  # type: ignore
    renderer = VolumeRenderer(config, 3)
    renderer(scenes, frontal(), size=3, backgrounds=black())
    renderer.with_samples(10, 0)(scenes, frontal(), size=3, backgrounds=black())
    renderer.for_training(3, torch.tensor([[1]]))(scenes, frontal(), size=3, backgrounds=black())
    assert seen == [9 * 40, 9 * 30, 9 * 10, 9 * 8, 9 * 8]


def test_what_does_not_fit_is_refused():
    scenes, renderer = field_scenes(ball((0.0, 0.0, 0.0), 0.2)), VolumeRenderer(VolumeConfig(), 8)
    splats = Gaussians(
        means=torch.zeros(1, 1, 3),
        quats=torch.ones(1, 1, 4),
        scales=torch.ones(1, 1, 3),
        opacities=torch.ones(1, 1),
        colors=torch.ones(1, 1, 3),
    )
    with pytest.raises(ValueError, match="expected scenes of tri-planes or of implicit fields, got Gaussians"):
        renderer(splats, frontal(), size=8, backgrounds=black())
    with pytest.raises(ValueError, match="expected scenes of Gaussians, got TriPlanes"):
        SplattingRenderer(SplattingConfig(), 8)(scenes, frontal(), size=8, backgrounds=black())
    with pytest.raises(ValueError, match="1 scenes but cameras for 2"):
        renderer(scenes, frontal(2), size=8, backgrounds=black(2))
    with pytest.raises(ValueError, match=r"expected jitter_seeds \[1, 1\].* got \[1, 2\]"):
        renderer.for_training(8, torch.tensor([[1, 2]]))(scenes, frontal(), size=8, backgrounds=black())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near": 3.0, "far": 2.0}, "near < far"),
        ({"box_warp": 0.0}, "box_warp"),
        ({"samples": 3}, "samples: expected at least 4"),
        ({"inference_samples": 2}, "inference_samples"),
        ({"importance_samples": -1}, "importance_samples"),
        ({"points_at_once": 0}, "points_at_once"),
        ({"white_back": True, "backgrounds_behind_refined": True}, "at most one"),
    ],
)
def test_settings_that_cannot_be_rendered_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VolumeConfig(**settings)
