"""FID of normal maps: maps of a sphere, generators against what was made of them and against something else."""

from __future__ import annotations

from dataclasses import replace

import torch
from accelerate import Accelerator

from cgsgan.cameras import orbit
from cgsgan.data.depth_truth import DepthTruth
from cgsgan.evaluation import GeneratorScenes
from cgsgan.evaluation.normals import normal_figures, true_normal_maps
from cgsgan.evaluation.studio import Studio
from cgsgan.evaluation.views import surface_depths
from cgsgan.generators import TrainedGenerator, build_generator
from cgsgan.metrics.extractors import open_extractor
from cgsgan.rendering.rays import picture_rays
from tests.tiny_experiment import randomize, tiny_surface

CAMERAS = orbit(torch.tensor([0.0, 0.5]), torch.zeros(2))


def sphere_depths(size: int, radius: float) -> torch.Tensor:
    """Z-depths of a sphere around the origin, [view, size, size]; NaN beside it."""
    rays = picture_rays(CAMERAS.map(lambda t: t[None]), size)
    origins, directions = rays.origins[0, :, None], rays.directions[0]
    along = -(origins * directions).sum(-1)
    missing = (origins.norm(dim=-1).square() - along.square()).clamp_min(0)
    depths = (along - (radius**2 - missing).clamp_min(0).sqrt()) * rays.z_per_distance[0]
    return torch.where(missing < radius**2, depths, torch.nan).unflatten(1, (size, size))


def test_maps_of_a_sphere_look_at_the_camera_in_its_middle() -> None:
    truth = DepthTruth(CAMERAS, sphere_depths(32, 0.25).expand(2, -1, -1, -1))
    maps = true_normal_maps(truth, 32)
    assert maps.shape == (2, 2, 3, 32, 32)
    middle = maps[:, :, :, 16, 16]
    # observed worst error 0.04: the pixel lies beside the middle
    assert float((middle - torch.tensor([0.5, 0.5, 1.0])).abs().max()) < 0.06
    assert bool((maps[:, :, :, 0, 0] == 1).all()), "white where there is nothing"
    assert float(maps[0, 0, 0, 16, 24]) > 0.75, "the right side faces right: red"
    assert float(maps[0, 0, 1, 8, 16]) > 0.75, "the upper side faces up: green"
    # The camera is part of the map: from all sides a sphere is the same.
    torch.testing.assert_close(maps[:, 0], maps[:, 1], atol=2e-3, rtol=0)


def test_a_generator_is_nearer_to_its_own_shapes_than_to_a_sphere() -> None:
    config = tiny_surface()
    config = replace(config, rendering=replace(config.rendering, inference_samples=16, inference_wide_samples=16))
    torch.manual_seed(0)
    network = build_generator(config.generator)
    randomize(network, 0.05)
    source = GeneratorScenes(TrainedGenerator(network.eval().requires_grad_(False), config))
    studio, extractor = Studio(source, Accelerator(cpu=True), batch_size=8), open_extractor("random")
    z = torch.randn(24, source.z_dim, generator=torch.Generator().manual_seed(1))
    own = DepthTruth(CAMERAS, surface_depths(studio, z[12:], CAMERAS, 32))
    other = DepthTruth(CAMERAS, sphere_depths(32, 0.12).expand(12, -1, -1, -1))
    near, far = (normal_figures(studio, extractor, truth, z[:12], "test") for truth in (own, other))
    assert near.keys() == {"normals_fid", "normals_frd"}
    # observed 0.6 and 14.7
    assert near["normals_fid"] < 0.5 * far["normals_fid"]  # type: ignore[operator]
