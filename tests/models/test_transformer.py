"""The modulated norm alone; blocks and attention are compared whole in test_gaussian_generator."""

from __future__ import annotations

import torch

from cgsgan.models.transformer import TransformerConfig, modulated_norm


def test_norm_runs_over_tokens() -> None:
    x = torch.randn(2, 50, 3) * 4 + 7
    gamma, beta = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    y = modulated_norm(x, gamma, beta)
    # observed worst error 2e-7
    torch.testing.assert_close(y.mean(dim=1), beta[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=1, correction=0), gamma[:, 0].abs(), atol=1e-5, rtol=0)


def test_norm_of_a_constant_channel() -> None:
    x = torch.zeros(1, 8, 2, requires_grad=True)
    y = modulated_norm(x, torch.ones(1, 1, 2), torch.full((1, 1, 2), 3.0))
    assert (y == 3).all()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_norm_keeps_single_precision_in_half_precision_surroundings() -> None:
    x = torch.randn(1, 512, 4)
    gamma, beta = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = modulated_norm(x, gamma, beta)
    assert y.dtype == torch.float32
    assert torch.equal(y, modulated_norm(x, gamma, beta))
    assert modulated_norm(x.bfloat16(), gamma, beta).dtype == torch.float32


def test_block_count() -> None:
    assert TransformerConfig().block_count(6) == 11
    assert TransformerConfig(first_blocks=1, blocks_per_level=3).block_count(3) == 7
