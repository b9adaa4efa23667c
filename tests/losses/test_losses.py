"""Objectives against formulas written out here."""

from __future__ import annotations

import math

import torch

from cgsgan.losses.adversarial import discriminator_loss_fake, discriminator_loss_real, generator_loss
from cgsgan.losses.anchors import center_loss, knn_loss
from cgsgan.losses.gradient_penalty import r1_penalty


def test_non_saturating_losses():
    logits = torch.tensor([[-1.5], [0.0], [2.0]], dtype=torch.float64)
    sigmoid = [1 / (1 + math.exp(-v)) for v in (-1.5, 0.0, 2.0)]
    assert math.isclose(generator_loss(logits).item(), -sum(map(math.log, sigmoid)) / 3)
    assert math.isclose(discriminator_loss_real(logits).item(), -sum(map(math.log, sigmoid)) / 3)
    assert math.isclose(discriminator_loss_fake(logits).item(), -sum(math.log(1 - s) for s in sigmoid) / 3)


def test_r1_of_a_quadratic_is_known():
    images = torch.randn(3, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    logits = (weight * images.square()).sum(dim=(1, 2, 3)).unsqueeze(1)
    penalty = r1_penalty(logits, images)
    torch.testing.assert_close(penalty, (2 * weight * images).square().sum(dim=(1, 2, 3)))
    penalty.sum().backward()
    torch.testing.assert_close(weight.grad, (8 * weight * images.square()).sum(dim=0).detach())


def test_knn_against_a_double_loop():
    means = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    total = 0.0
    for scene in means.detach():
        for i in range(9):
            distances = sorted(((scene[i] - scene[j]).square().sum().item(), j) for j in range(9) if j != i)
            total += sum((scene[i] - scene[j]).square().mean().item() for _, j in distances[:4]) / 4
    assert math.isclose(knn_loss(means, 4).item(), total / 18, rel_tol=1e-12)
    assert torch.autograd.gradcheck(lambda m: knn_loss(m, 4), means)


def test_knn_counts_all_others_when_there_are_few_and_none_for_one():
    means = torch.randn(1, 3, 3)
    torch.testing.assert_close(knn_loss(means, 64), knn_loss(means, 2))
    assert knn_loss(means[:, :1], 64) == 0


def test_center_loss():
    means = torch.tensor([[[0.0, 0.0, 0.3], [0.0, 0.6, 0.3]]])
    assert math.isclose(center_loss(means).item(), (0.3**2 + 0.3**2) / 3, rel_tol=1e-6)
