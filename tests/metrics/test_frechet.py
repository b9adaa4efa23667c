from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from cgsgan.metrics import frechet_distance, random_feature_frechet_distance, relative_frechet_distance


def correlated(count: int, size: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=g, dtype=torch.float64)
    return torch.randn(count, size, generator=g, dtype=torch.float64) @ mix + torch.randn(
        size, generator=g, dtype=torch.float64
    )


def smooth_pictures(count: int, seed: int, size: int = 32) -> torch.Tensor:
    """Pictures with structure at several scales: noise of many sizes, enlarged and added."""
    g = torch.Generator().manual_seed(seed)
    total = torch.full((count, 3, size, size), 0.5)
    for side in (2, 4, 8, 16, 32):
        noise = torch.randn(count, 3, side, side, generator=g)
        total += 0.06 * torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
    return total.clamp(0, 1)


def blurred(images: torch.Tensor, factor: int) -> torch.Tensor:
    reduced = torch.nn.functional.avg_pool2d(images, factor)
    return torch.nn.functional.interpolate(reduced, scale_factor=factor, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [1, 3, 20])
def test_matches_scipys_matrix_root(size: int) -> None:
    a, b = correlated(200, size, 0), correlated(300, size, 1)
    covariance_a = np.atleast_2d(np.cov(a.numpy(), rowvar=False))
    covariance_b = np.atleast_2d(np.cov(b.numpy(), rowvar=False))
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    expected += np.trace(covariance_a + covariance_b - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)  # worst observed 2e-14


def test_matches_the_closed_form_of_commuting_covariances() -> None:
    """Corners of a box: exact moments, diagonal covariances, so tr = sum of (sigma_a - sigma_b)^2."""
    corners = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=torch.float64)
    spread_a, spread_b = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.5])
    shift = torch.tensor([0.3, -0.4])
    got = frechet_distance(corners * spread_a, corners * spread_b + shift)
    unbiased = 4 / 3  # the covariance of the four corners divides by n - 1
    assert got == pytest.approx(0.25 + unbiased * (1 + 6.25), rel=1e-7)


def test_identity_symmetry_and_invariance_under_rotation() -> None:
    a, b = correlated(100, 8, 2), correlated(100, 8, 3)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    distance = frechet_distance(a, b)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-9)


def test_singular_covariances_stay_real() -> None:
    a = correlated(10, 3, 5) @ torch.randn(3, 50, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    shifted = a + 1.0
    assert frechet_distance(a, shifted) == pytest.approx(50, rel=1e-5)
    assert frechet_distance(a, torch.zeros(4, 50)) == pytest.approx(
        (a.mean(0) ** 2).sum().item() + a.var(0).sum().item(), rel=1e-6
    )


def test_relative_distance_of_a_point_at_the_mean_is_100() -> None:
    real = correlated(500, 6, 7)
    assert relative_frechet_distance(real, real.mean(0).expand(5, 6)) == pytest.approx(100, rel=1e-6)
    assert relative_frechet_distance(7 * real, 7 * real + 7) == pytest.approx(
        relative_frechet_distance(real, real + 1), rel=1e-6
    )


def test_random_feature_distance_ranks_damage() -> None:
    real, other = smooth_pictures(256, 0), smooth_pictures(256, 1)
    mean = other.mean(0, keepdim=True)
    ladder = [other, blurred(other, 2), blurred(other, 4), blurred(other, 8), mean.expand_as(other)]
    figures = [random_feature_frechet_distance(real, images) for images in ladder]
    assert figures == sorted(figures)
    assert figures[-1] > 100  # the mean picture loses all variance, which is 100, and its mean is off besides
    contrast = [random_feature_frechet_distance(real, mean + k * (other - mean)) for k in (1.0, 0.75, 0.5, 0.25)]
    assert contrast == sorted(contrast)


def test_sizes_may_differ() -> None:
    real = smooth_pictures(64, 0)
    larger = real.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    assert random_feature_frechet_distance(real, larger) == pytest.approx(0, abs=1e-4)


def test_refuses_what_has_no_moments() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="3 and 4"):
        frechet_distance(torch.ones(5, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(torch.full((5, 3), math.nan), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="do not vary"):
        relative_frechet_distance(torch.ones(5, 3), torch.zeros(5, 3))
