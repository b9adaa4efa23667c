"""Cases whose answers are known: shifted, scaled, cut and rendered heads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cgsgan.cameras import Cameras, orbit
from cgsgan.metrics.consistency import OPAQUE, lift
from cgsgan.metrics.depth import (
    FARTHEST,
    compare_depths,
    depth_distance,
    distances,
    reduce_depths,
)
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians

NAN = torch.nan


def heads(count: int = 12, views: int = 3, size: int = 8, spread: float = 0.01) -> torch.Tensor:
    """Bumps in a square hole, each head as a whole nearer or farther."""
    generator = torch.Generator().manual_seed(1)
    maps = 2.5 + 0.05 * torch.rand(1, views, size, size, generator=generator).double()
    maps = maps + spread * torch.randn(count, 1, 1, 1, generator=generator)
    maps[..., :2, :] = NAN
    return maps


def test_the_same_heads():
    real = heads()
    found = compare_depths(real, real)
    assert found.mean == pytest.approx(0, abs=1e-15)
    assert found.spread == pytest.approx(1)
    assert found.nearest == 0
    assert found.mean_floor > 0
    assert found.nearest_floor > 0


def test_a_shift_is_the_difference_of_the_means_and_its_sign():
    real = heads()
    found = compare_depths(real, real - 0.03)
    assert found.mean == pytest.approx(0.03)
    assert found.offset == pytest.approx(-0.03)
    assert found.spread == pytest.approx(1)


def test_twice_the_differences_are_twice_the_spread():
    real = heads()
    mean = real.mean(dim=0, keepdim=True)
    found = compare_depths(real, mean + 2 * (real - mean))
    assert found.spread == pytest.approx(2)
    assert found.mean == pytest.approx(0, abs=1e-12)
    one_head = mean.expand(12, -1, -1, -1)
    assert compare_depths(real, one_head).spread == pytest.approx(0, abs=1e-6)


def test_the_nearest_head_by_numpy():
    real, generated = heads(), heads(count=5) + 0.004
    generated[1, 0, 5, 5] = NAN
    generated[2, 1, 0, 0] = 2.5
    found = compare_depths(real, generated)
    expected = []
    for one in generated.numpy():
        to_all = []
        for other in real.numpy():
            terms = []
            for a, b in zip(one.ravel(), other.ravel(), strict=True):
                if np.isnan(a) and np.isnan(b):
                    continue
                terms.append(FARTHEST if np.isnan(a) or np.isnan(b) else min(abs(a - b), FARTHEST))
            to_all.append(np.mean(terms))
        expected.append(min(to_all))
    assert found.nearest == pytest.approx(np.mean(expected), rel=1e-12)
    others = distances(real, real)
    others[torch.eye(12, dtype=torch.bool)] = torch.inf
    assert found.nearest_floor == pytest.approx(float(others.amin(dim=1).mean()))
    torch.testing.assert_close(others, others.T)


def test_what_only_one_covers_counts_in_full():
    a = torch.full((1, 1, 4, 4), 2.5)
    b = a.clone()
    b[..., :2] = NAN
    assert float(depth_distance(a, b)) == pytest.approx(FARTHEST / 2)
    assert float(depth_distance(a, a + 5)) == pytest.approx(FARTHEST)
    nothing = torch.full_like(a, NAN)
    assert float(depth_distance(nothing, nothing)) == 0


def test_the_floor_is_that_of_the_halves():
    """Shifts of standard deviation s: the means of two halves of 16 differ by s sqrt(2/16) sqrt(2/pi) on average."""
    real = heads(count=32, views=1, size=4)
    found = [compare_depths(real, real[:2], seed=seed).mean_floor for seed in range(12)]
    shift = float((real[:, 0, 3, 3]).std())
    expected = shift * (2 / 16) ** 0.5 * (2 / torch.pi) ** 0.5
    assert np.mean(found) == pytest.approx(expected, rel=0.15)


def test_reduction_keeps_only_whole_blocks():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    maps[0, 0, 0, 0] = NAN
    reduced = reduce_depths(maps, 2)[0, 0]
    assert bool(reduced[0, 0].isnan())
    assert reduced[0, 1] == (2 + 3 + 6 + 7) / 4
    assert reduced[1, 0] == (8 + 9 + 12 + 13) / 4
    assert torch.equal(reduce_depths(maps[..., 1:, 1:], 3), maps[..., 1:, 1:])
    with pytest.raises(ValueError, match="multiple of 3"):
        reduce_depths(maps, 3)


def sphere_depths(cameras: Cameras, size: int, radius: float) -> torch.Tensor:
    """Where rays through the pixel centres meet a sphere around the origin."""
    origin = cameras.cam_to_world[:, None, None, :3, 3]
    direction = lift(torch.ones(len(cameras.viewmats), size, size), cameras) - origin
    a, b = (direction**2).sum(-1), (direction * origin).sum(-1)
    root = b**2 - a * ((origin**2).sum(-1) - radius**2)
    return torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, NAN)


def test_rendered_shells_meet_the_spheres_they_stand_for():
    """Shells of small opaque Gaussians through the renderer, ideal spheres by geometry: the same cameras align them."""
    radii = (0.2, 0.22, 0.24, 0.26)
    cameras, size = orbit(torch.tensor([0.0, 0.5]), torch.tensor([0.0, -0.2])), 64
    truth = torch.stack([sphere_depths(cameras, size, radius) for radius in radii])
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4, 6000, 3, generator=generator), dim=-1)
    means = directions * torch.tensor(radii)[:, None, None]
    renderer = SplattingRenderer(SplattingConfig(), training_size=size)

    def maps(shift: float) -> torch.Tensor:
        scenes = Gaussians(
            means=means + torch.tensor([0.0, 0.0, shift]), quats=torch.tensor([1.0, 0, 0, 0]).expand(4, 6000, 4),
            scales=torch.full((4, 6000, 3), 0.008), opacities=torch.full((4, 6000), 0.99),
            colors=torch.ones(4, 6000, 3),
        )  # fmt: skip
        views = cameras.map(lambda t: t.expand(4, *t.shape))
        found = renderer(scenes, views, size=size, backgrounds=torch.ones(4, 2, 3), depth=True)
        assert found.depths is not None
        return torch.where(found.alphas > OPAQUE, found.depths, NAN)[..., 0]

    found = compare_depths(truth, maps(0.0))
    assert found.mean < 0.012  # observed 0.0078
    assert -0.01 < found.offset < 0  # observed -0.0067: Gaussians stand out of the surface by most of their size
    assert found.spread == pytest.approx(1, abs=0.1)
    towards_the_cameras = 0.03 * (1 + math.cos(0.5) * math.cos(0.2)) / 2
    moved = compare_depths(truth, maps(0.03))
    assert moved.offset - found.offset == pytest.approx(-towards_the_cameras, abs=0.003)


def test_misuse():
    with pytest.raises(ValueError, match="at least 4 real and 2 generated"):
        compare_depths(heads(count=3), heads())
    with pytest.raises(ValueError, match="at least 4 real and 2 generated"):
        compare_depths(heads(), heads(views=2))


def test_nothing_opaque_is_nan_but_as_far_as_can_be():
    found = compare_depths(heads(), torch.full_like(heads(), NAN))
    assert all(math.isnan(value) for value in (found.mean, found.offset, found.spread))
    assert found.nearest == pytest.approx(FARTHEST)
