"""Density from signed distance: the closed form, its limits, its gradients."""

from __future__ import annotations

import math

import pytest
import torch

from cgsgan.rendering.sdf_density import laplace_density
from tests.rendering import plain_robust

DISTANCES = torch.tensor([-2.0, -0.3, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.3, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("beta", [3.0, 0.1, 0.01])
def test_it_is_the_closed_form(beta: float):
    ours = laplace_density(DISTANCES, torch.full_like(DISTANCES, beta))
    plain = torch.tensor([plain_robust.laplace_density(s, beta) for s in DISTANCES.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ours, plain, rtol=1e-14, atol=1e-33)  # observed 2e-16; beyond 80 beta e^-80 remains


@pytest.mark.parametrize("beta", [10.0, 1e-2, 1e-6, 1e-30])
def test_at_the_surface_it_is_half_of_what_it_is_inside(beta: float):
    surface, inside = laplace_density(torch.tensor([0.0, -100 * beta]), torch.full((2,), beta)).tolist()
    assert surface == pytest.approx(1 / (2 * beta), rel=1e-6)
    assert inside == pytest.approx(1 / beta, rel=1e-6)


def test_as_beta_vanishes_fog_becomes_a_solid():
    """Occupancy beta sigma goes to 1 inside and to 0 outside, as fast as the exponential says."""
    for sign, occupied in ((-1.0, 1.0), (1.0, 0.0)):
        occupancy = [
            float(laplace_density(torch.tensor(0.01 * sign), torch.tensor(beta))) * beta
            for beta in (1.0, 0.1, 0.01, 1e-3)
        ]
        errors = [abs(value - occupied) for value in occupancy]
        assert errors == pytest.approx([math.exp(-0.01 / b) / 2 for b in (1.0, 0.1, 0.01, 1e-3)], rel=1e-5, abs=1e-7)


def test_as_beta_grows_it_is_the_same_everywhere():
    far = laplace_density(torch.tensor([-1.0, 1.0]), torch.tensor([1e4, 1e4]))
    torch.testing.assert_close(far, torch.tensor([0.5e-4, 0.5e-4]), rtol=2e-4, atol=0)


def test_it_decreases_with_the_distance():
    distances = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    steps = laplace_density(distances, torch.full_like(distances, 0.05)).diff()
    assert bool((steps < 0).all())


def test_gradients_are_those_of_the_formula():
    distances = torch.tensor([-0.7, -0.02, 0.03, 0.4], dtype=torch.float64, requires_grad=True)
    betas = torch.tensor([0.1, 0.02, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(laplace_density, (distances, betas))


def test_the_slope_at_the_surface_is_there():
    s, beta = torch.zeros(1, dtype=torch.float64, requires_grad=True), torch.full((1,), 0.2, dtype=torch.float64)
    (slope,) = torch.autograd.grad(laplace_density(s, beta).sum(), s)
    assert float(slope) == pytest.approx(-1 / (2 * 0.2**2))


@pytest.mark.parametrize("s", [-1e30, -1.0, -0.0, 0.0, 1.0, 1e30])
@pytest.mark.parametrize("beta", [1e-12, 1.0, 1e12])
def test_it_and_its_gradients_are_finite_for_any_ratio(s: float, beta: float):
    inputs = torch.tensor([s], requires_grad=True), torch.tensor([beta], requires_grad=True)
    density = laplace_density(*inputs)
    assert bool(density.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(density.sum(), inputs))


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan])
def test_a_beta_that_is_none_is_refused(beta: float):
    with pytest.raises(ValueError, match="expected betas > 0"):
        laplace_density(torch.zeros(2), torch.tensor([0.1, beta]))
