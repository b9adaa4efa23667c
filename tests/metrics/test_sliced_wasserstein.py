from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from cgsgan.metrics import sliced_wasserstein_distance
from cgsgan.metrics.sliced_wasserstein import laplacian_level, wasserstein_distance_1d


def smooth_pictures(count: int, seed: int, size: int = 32) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    total = torch.full((count, 3, size, size), 0.5)
    for side in (2, 4, 8, 16, 32):
        noise = torch.randn(count, 3, side, side, generator=g)
        total += 0.06 * torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
    return total.clamp(0, 1)


def blurred(images: torch.Tensor, factor: int) -> torch.Tensor:
    reduced = torch.nn.functional.avg_pool2d(images, factor)
    return torch.nn.functional.interpolate(reduced, scale_factor=factor, mode="bilinear", align_corners=False)


def test_one_dimension_equals_scipy() -> None:
    g = np.random.default_rng(0)
    a, b = g.standard_normal((5, 300)), g.gamma(2.0, size=(5, 300))
    expected = [scipy.stats.wasserstein_distance(x, y) for x, y in zip(a, b)]
    np.testing.assert_allclose(wasserstein_distance_1d(a, b), expected, rtol=1e-12)  # worst observed 2e-16


def test_pyramid_adds_up_to_the_picture() -> None:
    images = smooth_pictures(2, 0, 64)
    total = laplacian_level(images, 2)
    assert total.shape[-1] == 16
    for level in (1, 0):
        enlarged = torch.nn.functional.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
        total = laplacian_level(images, level) + enlarged
        assert total.shape[-1] == 64 >> level
    torch.testing.assert_close(total, images, atol=1e-6, rtol=0)  # worst observed 0


def test_levels_end_at_16_pixels() -> None:
    for size, sides in ((16, [16]), (32, [32, 16]), (64, [64, 32, 16])):
        images = smooth_pictures(8, 0, size)
        assert list(sliced_wasserstein_distance(images, images)) == sides


def test_identity_and_repeatability() -> None:
    real, other = smooth_pictures(64, 0), smooth_pictures(64, 1)
    assert set(sliced_wasserstein_distance(real, real).values()) == {0.0}
    first = sliced_wasserstein_distance(real, other)
    torch.manual_seed(9)
    assert sliced_wasserstein_distance(real, other) == first


def test_order_of_pictures_matters_little_and_brightness_of_both_not_at_all() -> None:
    real, other = smooth_pictures(256, 0), smooth_pictures(256, 1)
    fake = blurred(other, 2)
    distance = sliced_wasserstein_distance(real, fake)
    shuffled = sliced_wasserstein_distance(real, fake.flip(0))
    brighter = sliced_wasserstein_distance(0.5 * real + 0.2, 0.5 * fake + 0.2)
    for side in (32, 16):
        assert shuffled[side] == pytest.approx(distance[side], abs=1)  # worst observed 0.1
        assert brighter[side] == pytest.approx(distance[side], rel=1e-4)  # worst observed 8e-8


def test_contrast_of_the_fakes_counts() -> None:
    real, other = smooth_pictures(128, 0), smooth_pictures(128, 1)
    figures = [sliced_wasserstein_distance(real, 0.5 + k * (other - 0.5)) for k in (1.0, 0.75, 0.5, 0.25)]
    for side in (32, 16):
        column = [figure[side] for figure in figures]
        assert column == sorted(column)


def test_grows_with_blur_and_first_at_the_fine_level() -> None:
    real, other = smooth_pictures(128, 0), smooth_pictures(128, 1)
    figures = [sliced_wasserstein_distance(real, blurred(other, k)) for k in (1, 2, 4, 8)]
    for side in (32, 16):
        column = [figure[side] for figure in figures]
        assert column == sorted(column)
    assert figures[1][32] > 3 * figures[1][16]


def test_matches_a_direct_computation_of_gaussian_noise() -> None:
    """White noise against white noise of twice the size: every projection is normal with a known width.

    Real patches have unit variance after standardising; a direction of length 1/7 gives a deviation of 1/7 for the
    real and 2/7 for the fake side, whose distance is the mean of |x| times the difference: sqrt(2/pi) / 7.
    """
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 3, 16, 16, generator=g)
    other = 2 * torch.randn(400, 3, 16, 16, generator=g)
    expected = 1000 * np.sqrt(2 / np.pi) / 7
    got = sliced_wasserstein_distance(noise, other)[16]
    assert got == pytest.approx(expected, rel=0.03)  # worst observed 0.65 %


def test_a_constant_real_set_is_no_division_by_zero() -> None:
    flat = torch.full((4, 3, 16, 16), 0.5)
    assert np.isfinite(sliced_wasserstein_distance(flat, smooth_pictures(4, 0, 16))[16])


def test_refuses_unequal_sets_and_odd_sizes() -> None:
    with pytest.raises(ValueError, match="equally many"):
        sliced_wasserstein_distance(torch.zeros(2, 3, 32, 32), torch.zeros(3, 3, 32, 32))
    for shape in ((2, 3, 48, 48), (2, 3, 32, 64), (2, 3, 8, 8)):
        with pytest.raises(ValueError, match="16, 32, 64"):
            sliced_wasserstein_distance(torch.zeros(shape), torch.zeros(shape))
