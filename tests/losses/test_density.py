"""Density regularisers on fields whose differences are known, and on tri-planes through the renderer."""

from __future__ import annotations

import pytest
import torch

from cgsgan.losses.density import density_decrease, density_smoothness, draw_point_pairs
from cgsgan.rendering import VolumeConfig, VolumeRenderer
from cgsgan.types import TriPlanes


def test_points_fill_their_cube_and_follow_the_generator():
    first = draw_point_pairs(torch.Generator().manual_seed(3), batch_size=2, half_side=0.5)
    again = draw_point_pairs(torch.Generator().manual_seed(3), batch_size=2, half_side=0.5)
    points, offsets = first
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert points.shape == offsets.shape == (2, 1000, 3)
    assert 0.495 < float(points.max()) <= 0.5
    assert -0.5 <= float(points.min()) < -0.495
    assert abs(float(offsets.std()) - 0.004) < 2e-4
    assert not torch.equal(points[0], points[1])


def test_smoothness_is_the_mean_difference():
    slope = torch.tensor([2.0, -1.0, 0.5])
    points, offsets = draw_point_pairs(torch.Generator().manual_seed(0), batch_size=3)
    loss = density_smoothness(lambda p: (p @ slope)[..., None], points, offsets)
    torch.testing.assert_close(loss, (offsets @ slope).abs().mean(), rtol=1e-4, atol=0)  # observed 1e-6
    assert float(density_smoothness(lambda p: torch.ones_like(p[..., :1]), points, offsets)) == 0


@pytest.mark.parametrize("variant", ["monotonic-fixed", "monotonic-detach"])
def test_only_a_decrease_towards_the_back_costs(variant):
    points, _ = draw_point_pairs(torch.Generator().manual_seed(0), batch_size=2)
    growing = density_decrease(lambda p: -3 * p[..., 2:], points, step=0.1, variant=variant)
    sideways = density_decrease(lambda p: p[..., :1] - p[..., 1:2], points, step=0.1, variant=variant)
    hollow = density_decrease(lambda p: 3 * p[..., 2:], points, step=0.1, variant=variant)
    assert float(growing) == 0
    assert float(sideways) == 0
    assert float(hollow) == pytest.approx(0.3, rel=1e-5)


def test_the_detached_variant_leaves_what_is_in_front():
    points, step = torch.tensor([[[0.0, 0.0, 0.2]]]), 0.1
    values = torch.tensor([5.0, 1.0], requires_grad=True)  # in front, behind

    def density(p: torch.Tensor) -> torch.Tensor:
        return torch.where(p[..., 2:] > 0.15, values[0], values[1])

    for variant, expected in (("monotonic-fixed", [1.0, -1.0]), ("monotonic-detach", [0.0, -1.0])):
        (gradient,) = torch.autograd.grad(density_decrease(density, points, step=step, variant=variant), values)
        assert gradient.tolist() == expected


def test_planes_become_smoother_and_monotonic():
    """Gradients reach the planes through the renderer's query, and descending along them does what is promised."""

    def decode(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features.sum(dim=-1, keepdim=True), features

    planes = torch.randn(1, 3, 4, 16, 16).requires_grad_()
    renderer = VolumeRenderer(VolumeConfig(), 8)
    points, offsets = draw_point_pairs(torch.Generator().manual_seed(0), batch_size=1, half_side=0.5, distance=0.05)

    def density(p: torch.Tensor) -> torch.Tensor:
        scenes = TriPlanes(planes=planes, ws=torch.zeros(1, 1, 1), decode=decode)
        return renderer.query(scenes, p)[0]

    for loss in (
        lambda: density_smoothness(density, points, offsets),
        lambda: density_decrease(density, points, step=0.06, variant="monotonic-detach"),
    ):
        before = loss().detach()
        for _ in range(6):
            (gradient,) = torch.autograd.grad(loss(), planes)
            with torch.no_grad():
                planes -= 40 * gradient
        assert loss().detach() < 0.8 * before
