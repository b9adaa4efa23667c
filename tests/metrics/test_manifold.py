from __future__ import annotations

import pytest
import torch

from cgsgan.metrics import precision_recall


def brute_force(real: torch.Tensor, fake: torch.Tensor, neighbors: int) -> tuple[float, float]:
    def share(queries: list[list[float]], samples: list[list[float]]) -> float:
        def distance(p: list[float], q: list[float]) -> float:
            return sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) ** 0.5

        radii = [
            sorted(distance(s, o) for j, o in enumerate(samples) if j != i)[neighbors - 1]
            for i, s in enumerate(samples)
        ]
        inside = [any(distance(q, s) <= r for s, r in zip(samples, radii, strict=True)) for q in queries]
        return sum(inside) / len(inside)

    reals, fakes = real.tolist(), fake.tolist()
    return share(fakes, reals), share(reals, fakes)


@pytest.mark.parametrize("neighbors", [1, 3])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_matches_plain_loops(neighbors: int, chunk: int):
    g = torch.Generator().manual_seed(0)
    real = torch.randn(60, 3, generator=g, dtype=torch.float64)
    fake = torch.randn(41, 3, generator=g, dtype=torch.float64) * 0.7 + 0.4
    ours = precision_recall(real, fake, neighbors=neighbors, chunk=chunk)
    assert (ours.precision, ours.recall) == brute_force(real, fake, neighbors)
    assert 0 < ours.recall < 1


def test_collapse_is_precise_without_recall_and_noise_the_reverse():
    g = torch.Generator().manual_seed(1)
    real = torch.randn(400, 8, generator=g)
    collapsed = real[:1] + 1e-3 * torch.randn(400, 8, generator=g)
    wide = torch.randn(400, 8, generator=g) * 4
    one, two = precision_recall(real, collapsed), precision_recall(real, wide)
    assert one.precision == 1
    assert one.recall < 0.01
    assert two.precision < 0.1
    assert two.recall > 0.9
    same = precision_recall(real, real)
    assert (same.precision, same.recall) == (1, 1)


def test_a_common_shift_changes_nothing():
    g = torch.Generator().manual_seed(2)
    real, fake = torch.randn(2, 100, 5, generator=g, dtype=torch.float64)
    assert precision_recall(real, fake) == precision_recall(real + 1e6, fake + 1e6)


def test_refuses_too_few():
    with pytest.raises(ValueError, match="at least 4 samples, got 3"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="2 and 3"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(ValueError, match="1 neighbour"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), neighbors=0)
