from __future__ import annotations

import math

import pytest
import torch

from cgsgan.metrics import kernel_distance, unbiased_mmd


def normal(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_plain_loops():
    a, b = normal(5, 3, 0), normal(4, 3, 1)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(sum(x[i] * y[i] for i in range(3))) / 3 + 1) ** 3

    within = [
        sum(kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    assert unbiased_mmd(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_is_unbiased_at_any_size():
    """Equal distributions: the mean over many draws is 0 within its own standard error, small sets or large."""
    for size in (4, 16):
        draws = torch.tensor([unbiased_mmd(normal(size, 2, 2 * i), normal(size, 2, 2 * i + 1)) for i in range(2000)])
        assert abs(draws.mean()) < 4 * draws.std() / math.sqrt(len(draws))
        assert draws.min() < 0 < draws.max()


def test_expected_value_of_a_shift():
    """Shift s in one dimension: E[k] = E[(xy + 1)^3] has a closed form; both moments are normal's."""
    shift = 0.5
    a, b = normal(20000, 1, 5), normal(20000, 1, 6) + shift
    # E(xy+1)^3 = m3 m3' + 3 m2 m2' + 3 m1 m1' + 1 for independent x, y with moments m.
    zero, moved = (0.0, 1.0, 0.0), (shift, 1 + shift**2, 3 * shift + shift**3)

    def kernel(x: tuple[float, ...], y: tuple[float, ...]) -> float:
        return x[2] * y[2] + 3 * x[1] * y[1] + 3 * x[0] * y[0] + 1

    expected = kernel(zero, zero) + kernel(moved, moved) - 2 * kernel(zero, moved)
    assert kernel_distance(a, b, subsets=100).mean == pytest.approx(expected, rel=0.05)  # observed 0.013


def test_same_seed_same_figures():
    a, b = normal(300, 4, 0), normal(300, 4, 1) * 1.3
    first = kernel_distance(a, b, subsets=10, subset_size=100, seed=3)
    assert first == kernel_distance(a, b, subsets=10, subset_size=100, seed=3)
    assert first != kernel_distance(a, b, subsets=10, subset_size=100, seed=4)
    assert first.std > 0


def test_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        kernel_distance(normal(1, 2, 0), normal(5, 2, 0))
    with pytest.raises(ValueError, match="2 and 3"):
        kernel_distance(normal(5, 2, 0), normal(5, 3, 0))
    with pytest.raises(ValueError, match="NaN"):
        kernel_distance(torch.full((5, 2), math.inf), normal(5, 2, 0))
    with pytest.raises(ValueError, match="1 subset"):
        kernel_distance(normal(5, 2, 0), normal(5, 2, 0), subsets=0)
