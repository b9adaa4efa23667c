"""Exponential moving average of the generator, the weights that are shown, measured and shipped."""

from __future__ import annotations

import copy

import torch
from torch import nn


def make_ema(generator: nn.Module) -> nn.Module:
    """A frozen copy of ``generator`` in evaluation mode."""
    return copy.deepcopy(generator).eval().requires_grad_(False)


@torch.no_grad()
def update_ema(ema: nn.Module, generator: nn.Module, beta: float) -> None:
    """``ema <- beta * ema + (1 - beta) * generator`` for parameters; buffers are copied."""
    for average, current in zip(ema.parameters(), generator.parameters(), strict=True):
        average.lerp_(current, 1.0 - beta)
    for target, source in zip(ema.buffers(), generator.buffers(), strict=True):
        target.copy_(source)
