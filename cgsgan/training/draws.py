"""Everything random in a training step, as a function of (seed, step): resuming needs no random state.

The draws of a step are made for the whole batch and then dealt out: process r of W takes elements r, r + W, ... So
W processes see together exactly what one process would see, and the minibatch-std groups (elements n, n + B/G,
n + 2B/G... of a batch) hold the same members.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class LabelPool(Protocol):
    """Where camera labels come from: a data set."""

    def sample_labels(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 25"]:
        """``count`` labels at random, independently."""
        ...


@dataclass(frozen=True, kw_only=True)
class FakeDraws:
    """What it takes to make V pictures of each of B fakes.

    Attributes:
        z: latents.
        camera_labels: an independent label for each view: the views of a scene are not correlated.
        backgrounds: uniform random colours in [0, 1].
    """

    z: Float[Tensor, "batch z_dim"]
    camera_labels: Float[Tensor, "batch view 25"]
    backgrounds: Float[Tensor, "batch view 3"]


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A random generator of its own for every (seed, step, stream)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)


def draw_fakes(generator: torch.Generator, labels: LabelPool, *, batch_size: int, views: int, z_dim: int) -> FakeDraws:
    """Draw for a whole batch of ``batch_size`` scenes over all processes."""
    return FakeDraws(
        z=torch.randn(batch_size, z_dim, generator=generator),
        camera_labels=labels.sample_labels(batch_size * views, generator).unflatten(0, (batch_size, views)),
        backgrounds=torch.rand(batch_size, views, 3, generator=generator),
    )


def draw_backgrounds(generator: torch.Generator, *, batch_size: int) -> Float[Tensor, "batch 3"]:
    """Random solid colours for the real images of a batch."""
    return torch.rand(batch_size, 3, generator=generator)


def deal(whole: Tensor, *, rank: int, world_size: int, device: torch.device | str) -> Tensor:
    """The part of a joined batch that belongs to process ``rank``."""
    return whole[rank::world_size].to(device)
