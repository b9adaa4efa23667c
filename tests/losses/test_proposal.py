"""Cross entropy of proposals: the plain sum, its least value, whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch

from cgsgan.losses.proposal import proposal_cross_entropy

GENERATOR = torch.Generator().manual_seed(4)
LOGITS = torch.randn(2, 3, 7, 4, 5, generator=GENERATOR, dtype=torch.float64) * 3
TARGETS = torch.randn(2, 3, 7, 4, 5, generator=GENERATOR, dtype=torch.float64).softmax(dim=2)


def test_it_is_the_plain_sum():
    total = 0.0
    for logits, targets in zip(LOGITS.movedim(2, -1).reshape(-1, 7), TARGETS.movedim(2, -1).reshape(-1, 7)):
        partition = sum(math.exp(value) for value in logits.tolist())
        total -= sum(t * math.log(math.exp(v) / partition) for v, t in zip(logits.tolist(), targets.tolist()))
    assert float(proposal_cross_entropy(LOGITS, TARGETS)) == pytest.approx(total / (2 * 3 * 4 * 5), rel=1e-12)


def test_it_is_least_at_the_targets_and_there_it_is_their_entropy():
    best = proposal_cross_entropy(TARGETS.log(), TARGETS)
    entropy = -(TARGETS * TARGETS.log()).sum(dim=2).mean()
    torch.testing.assert_close(best, entropy)
    assert best < proposal_cross_entropy(TARGETS.log() + 0.01 * LOGITS, TARGETS)
    logits = TARGETS.log().requires_grad_()
    (slope,) = torch.autograd.grad(proposal_cross_entropy(logits, TARGETS), logits)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-15)


def test_targets_are_not_taught():
    targets = TARGETS.clone().requires_grad_()
    loss = proposal_cross_entropy(LOGITS.clone().requires_grad_(), targets)
    assert torch.autograd.grad(loss, targets, allow_unused=True) == (None,)
