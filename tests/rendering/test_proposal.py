"""What a proposal network is taught: distributions from weights."""

from __future__ import annotations

import math

import pytest
import torch

from cgsgan.rendering.proposal import proposal_targets
from cgsgan.rendering.robust_sampling import nucleus


def along_a_ray(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, -1, 1, 1)


def plain_targets(weights: list[float], small: float, even: float, blur: float) -> list[float]:
    """One ray, one bin at a time."""
    large = [w if w >= small else 0.0 for w in weights]
    reach = math.ceil(3 * blur)
    taps = {k: math.exp(-((k / blur) ** 2) / 2) for k in range(-reach, reach + 1)}
    total = sum(taps.values())
    blurred = [
        sum(tap / total * large[i + k] for k, tap in taps.items() if 0 <= i + k < len(large)) for i in range(len(large))
    ]
    raised = [b + even / len(large) for b in blurred]
    return [r / sum(raised) for r in raised]


@pytest.mark.parametrize("blur", [0.7, 1.0, 2.0])
def test_targets_are_the_plain_ones(blur: float):
    weights = [0.0005, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0009, 0.0, 0.0, 0.1, 0.0011, 0.0, 0.25]
    ours = proposal_targets(along_a_ray(weights), blur_bins=blur).flatten().tolist()
    assert ours == pytest.approx(plain_targets(weights, 1e-3, 1e-3, blur), rel=1e-12)
    assert sum(ours) == pytest.approx(1)


def test_small_weights_draw_no_samples():
    weights = [0.0009] * 30 + [0.9] + [0.0] * 33
    targets = proposal_targets(along_a_ray(weights), blur_bins=0.0).flatten()
    assert nucleus(targets, 0.98).nonzero().flatten().tolist() == [30]


def test_a_ray_that_hits_nothing_has_the_uniform_distribution_and_there_is_no_jump_to_it():
    assert proposal_targets(along_a_ray([0.0] * 8)).flatten().tolist() == pytest.approx([1 / 8] * 8)
    peaks = []
    for alpha in (1e-3, 1e-2, 1e-1, 1.0):
        weights = [0.0] * 16
        weights[7] = alpha
        peaks.append(float(proposal_targets(along_a_ray(weights), blur_bins=0.0)[0, 0, 7]))
    assert peaks == pytest.approx([(a + 1e-3 / 16) / (a + 1e-3) for a in (1e-3, 1e-2, 1e-1, 1.0)])


def test_rays_are_blurred_each_for_itself():
    weights = torch.zeros(2, 1, 9, 2, 3)
    weights[1, 0, 4, 1, 2] = 1.0
    targets = proposal_targets(weights)
    hit = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    hit[1, 0, 1, 2] = True
    torch.testing.assert_close(targets.movedim(2, -1)[~hit], torch.full((11, 9), 1 / 9))
    assert int(targets[1, 0, :, 1, 2].argmax()) == 4
