from __future__ import annotations

import pytest
import torch
from scipy.stats import mannwhitneyu

from cgsgan.metrics.likeness import compare_likeness


def pairs(noise: float, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    scene = torch.randn(count, 16, generator=generator)
    first, second = (scene + noise * torch.randn(count, 16, generator=generator) for _ in range(2))
    return first, second


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_equals_scipy_and_torch(noise: float):
    first, second = pairs(noise)
    cosines = torch.nn.functional.cosine_similarity(first.double()[:, None], second.double()[None], dim=2)
    of_one, of_two = cosines.diagonal(), cosines[~torch.eye(len(first), dtype=torch.bool)]
    found = compare_likeness(first, second)
    assert found.same == pytest.approx(float(of_one.mean()), rel=1e-12)
    assert found.other == pytest.approx(float(of_two.mean()), rel=1e-12)
    area = mannwhitneyu(of_one.numpy(), of_two.numpy()).statistic / (len(of_one) * len(of_two))
    assert found.told_apart == pytest.approx(area, rel=1e-12)


def test_views_of_one_scene_that_are_alike_tell_it_apart_and_strangers_do_not():
    first, second = pairs(0.1)
    close = compare_likeness(first, second)
    assert close.told_apart > 0.999
    assert close.same > 0.9
    assert abs(close.other) < 0.1
    strangers = compare_likeness(first, second.roll(7, dims=0))
    assert strangers.told_apart == pytest.approx(0.5, abs=0.1)  # observed 0.50
    everything_alike = compare_likeness(torch.ones(5, 3), torch.ones(5, 3))
    assert everything_alike.told_apart == 0.5
    assert everything_alike.same == pytest.approx(1)


def test_lengths_do_not_count():
    first, second = pairs(0.5)
    a, b = compare_likeness(first, second), compare_likeness(first * torch.rand(40, 1) + 1e-3 * first, 7 * second)
    assert b.same == pytest.approx(a.same, rel=1e-5)
    assert b.told_apart == pytest.approx(a.told_apart, rel=1e-5)


def test_misuse():
    with pytest.raises(ValueError, match="equal shapes"):
        compare_likeness(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="at least 2 samples"):
        compare_likeness(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="no direction"):
        compare_likeness(torch.zeros(3, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="NaN"):
        compare_likeness(torch.full((3, 2), torch.nan), torch.ones(3, 2))
