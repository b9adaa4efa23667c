"""Published sizes, counted on the meta device, and the small nets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from cgsgan.models.discriminator import Discriminator
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.presets import (
    PRESETS,
    published_discriminator,
    published_dual_discriminator,
    published_generator,
    published_triplane_generator,
    quickstart_discriminator,
    quickstart_generator,
    quickstart_triplane_generator,
)
from cgsgan.models.triplane.generator import TriPlaneGenerator


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("resolution", "millions", "gaussians", "shrink", "num_ws"),
    [
        (256, 54.77, 109_056, 1.83401, 10),
        (512, 61.61, 240_128, 1.86607, 11),
        (1024, 70.55, 502_272, 1.88775, 12),
        (2048, 79.48, 1_026_560, 1.90339, 13),
    ],
)
def test_published_generators(resolution: int, millions: float, gaussians: int, shrink: float, num_ws: int) -> None:
    with torch.device("meta"):
        official = GaussianGenerator(published_generator(resolution, official=True))
        corrected = GaussianGenerator(published_generator(resolution))
    assert round(count(official) / 1e6, 2) == millions
    assert sum(official.decoder.level_sizes) == sum(corrected.decoder.level_sizes) == gaussians
    assert official.num_ws == num_ws
    assert math.exp(official.decoder.log_shrink) == pytest.approx(shrink, abs=5e-6)
    assert official.decoder.max_log_scale == pytest.approx(-3.81231, abs=5e-6)
    last: Any = official.decoder.levels[-1]
    last_features = last.features
    dead = 14 * (last_features + 1)
    pose_input = 512 * 25 + 512 + 512 * 512
    assert count(official) - count(corrected) == dead + pose_input
    assert last_features == {256: 32, 512: 16, 1024: 16, 2048: 8}[resolution]


@pytest.mark.parametrize(("resolution", "parameters"), [(256, 36_222_592), (512, 36_341_312)])
def test_published_discriminators(resolution: int, parameters: int) -> None:
    with torch.device("meta"):
        official = Discriminator(published_discriminator(resolution, official=True))
        corrected = Discriminator(published_discriminator(resolution))
    assert count(official) == parameters
    assert count(official) - count(corrected) == 4_981_760


def test_published_triplanes() -> None:
    with torch.device("meta"):
        generators = {size: TriPlaneGenerator(published_triplane_generator(size)) for size in (128, 256, 512)}
        discriminator = Discriminator(published_dual_discriminator(512))
    assert round(count(generators[512]) / 1e6, 2) == 30.66
    assert round(count(discriminator) / 1e6, 2) == 31.36
    # The 512 px super-resolution is twice as wide; those of 256 and 128 px have the same weights.
    assert count(generators[128]) == count(generators[256]) < count(generators[512])
    assert all(generator.num_ws == 14 for generator in generators.values())
    assert discriminator.from_rgb.weight.shape == (64, 6, 1, 1)
    assert sum(p.numel() for p in discriminator.parameters() if not p.requires_grad) == 0


def test_channels_of_published_discriminators() -> None:
    assert published_discriminator(2048).resolve_channels() == (16, 32, 64, 128, 256, 512, 512, 512, 512, 512)


@pytest.mark.parametrize("resolution", [32, 64])
def test_quickstart(resolution: int) -> None:
    generator = GaussianGenerator(quickstart_generator(resolution))
    discriminator = Discriminator(quickstart_discriminator(resolution))
    assert generator.decoder.level_sizes == (64, 256, 2048 if resolution == 64 else 1024)
    assert 450_000 < count(generator) < 550_000
    assert 500_000 < count(discriminator) < 600_000
    gaussians = generator(torch.randn(4, 64)).gaussians
    assert gaussians.means.norm(dim=-1).max() < 0.75
    assert gaussians.means.std(dim=(0, 1)).min() > 0.05
    logits = discriminator(torch.rand(4, 3, resolution, resolution), torch.randn(4, 25))
    assert logits.shape == (4, 1)


def test_quickstart_triplanes() -> None:
    generator = TriPlaneGenerator(quickstart_triplane_generator())
    assert 500_000 < count(generator) < 650_000
    scenes = generator(torch.randn(2, 64), camera_labels=torch.randn(2, 25)).scenes
    assert scenes.planes.shape == (2, 3, 12, 64, 64)
    assert scenes.refine is None
    # The decoder is given features of order one, whatever the size.
    assert 0.5 < scenes.planes.std() < 5


def test_presets_by_name() -> None:
    assert set(PRESETS) == {"quickstart", "cgsgan-256", "cgsgan-512", "cgsgan-1024", "cgsgan-2048"}
    for generator, discriminator in PRESETS.values():
        assert generator.resolution == discriminator.resolution


def test_other_resolutions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"published for .* got 128"):
        published_generator(128)
    with pytest.raises(ValueError, match=r"EG3D is published for \(128, 256, 512\) px, got 1024"):
        published_triplane_generator(1024)
    with pytest.raises(ValueError, match=r"EG3D is published for \(128, 256, 512\) px, got 64"):
        published_dual_discriminator(64)
