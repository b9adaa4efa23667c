"""Losses of surfaces: against plain formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch

from cgsgan.losses.surface import eikonal, mean_beta, tightness


def test_mean_beta_counts_pixels_by_coverage() -> None:
    alphas = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2, 1)
    betas = torch.tensor([0.02, 0.08, 0.5, 0.5], dtype=torch.float64).view(1, 1, 2, 2, 1)
    assert float(mean_beta(betas * alphas, alphas)) == pytest.approx((0.02 + 0.04) / 1.5, rel=1e-12)
    assert math.isfinite(float(mean_beta(betas * 0, alphas * 0)))


def test_tightness_drives_to_the_target() -> None:
    for mean in (0.001, 0.05):
        value = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
        loss = tightness(value, 0.01)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(math.log(mean / 0.01) ** 2, rel=1e-12)
        assert value.grad is not None
        assert math.copysign(1, float(value.grad)) == math.copysign(1, mean - 0.01)
    assert float(tightness(torch.tensor(0.01), 0.01)) == 0


def test_eikonal_of_distances_and_of_what_is_none() -> None:
    points = torch.randn(2, 50, 3, dtype=torch.float64)
    sphere = eikonal(lambda p: p.norm(dim=-1, keepdim=True) - 0.3, points, 1e-4)
    assert float(sphere) < 1e-9  # observed 1e-15
    slope = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    plane = eikonal(lambda p: p @ slope[:, None], points, 0.01)
    assert float(plane) == pytest.approx((math.sqrt(0.25 + 1 + 4) - 1) ** 2, rel=1e-9)
    flat = torch.ones(2, 50, 3, dtype=torch.float64, requires_grad=True)
    loss = eikonal(lambda p: p[..., :1] * 0 + flat.mean(), points, 0.01)
    loss.backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())
