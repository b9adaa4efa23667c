"""Everything random in a training step, as a function of (seed, step): resuming needs no random state.

The draws of a step are made for the whole batch and then dealt out: process r of W takes elements r, r + W, ... So
W processes see together exactly what one process would see, and the minibatch-std groups (elements n, n + B/G,
n + 2B/G... of a batch) hold the same members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.losses.density import draw_point_pairs
from cgsgan.training.planes import PlaneTrainingConfig


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
        z: latents; ``[batch, view, z_dim]`` when each view has one of its own.
        camera_labels: an independent label for each view: the views of a scene are not correlated.
        backgrounds: uniform random colours in [0, 1].
        mixed_z: second latents, for style mixing; None without.
        crossovers: the style row from which on they rule; as many as there are rows: nowhere.
        told_labels: what the mapping network is told of cameras; None for a generator that is not.
        jitter_seeds: of what is random in a volume rendering; None for other renderers.
    """

    z: Float[Tensor, "batch *own z_dim"]
    camera_labels: Float[Tensor, "batch view 25"]
    backgrounds: Float[Tensor, "batch view 3"]
    mixed_z: Float[Tensor, "batch *own z_dim"] | None = None
    crossovers: Int64[Tensor, " batch *own"] | None = None
    told_labels: Float[Tensor, "batch *own 25"] | None = None
    jitter_seeds: Int64[Tensor, "batch view"] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> FakeDraws:
        """The same draws with ``function`` applied to every tensor (indexing, ``to``...)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})

    def scenes(self) -> list[FakeDraws]:
        """Itself; or, when each view has a latent of its own, the draws of every view."""
        if self.z.ndim == 2:
            return [self]
        return [self._view(view) for view in range(self.camera_labels.shape[1])]

    def _view(self, view: int) -> FakeDraws:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        pictures = ("camera_labels", "backgrounds", "jitter_seeds")
        own = {name: value[:, view, None] if name in pictures else value[:, view] for name, value in given.items()}
        return FakeDraws(**own)


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A random generator of its own for every (seed, step, stream)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Style mixing.

    Attributes:
        share: of the scenes that have two latents.
        num_ws: style rows of the generator.
    """

    share: float
    num_ws: int


def draw_fakes(
    generator: torch.Generator,
    labels: LabelPool,
    *,
    batch_size: int,
    views: int,
    z_dim: int,
    own_latents: bool = False,
    mixing: Mixing | None = None,
) -> FakeDraws:
    """Draw for a whole batch of ``batch_size`` scenes over all processes.

    Args:
        generator: of random numbers.
        labels: where cameras come from.
        batch_size: scenes.
        views: cameras of each.
        z_dim: numbers per latent.
        own_latents: one for every view.
        mixing: None is off. It draws last, so that everything else stays the same.
    """
    scenes = (batch_size, views) if own_latents else (batch_size,)
    draws = FakeDraws(
        z=torch.randn(*scenes, z_dim, generator=generator),
        camera_labels=labels.sample_labels(batch_size * views, generator).unflatten(0, (batch_size, views)),
        backgrounds=torch.rand(batch_size, views, 3, generator=generator),
    )
    if mixing is None or mixing.share <= 0:
        return draws
    crossovers = torch.randint(1, max(mixing.num_ws, 2), scenes, generator=generator)
    mixed = torch.rand(scenes, generator=generator) < mixing.share
    return replace(
        draws,
        mixed_z=torch.randn(*scenes, z_dim, generator=generator),
        crossovers=torch.where(mixed, crossovers, mixing.num_ws),
    )


def tell_cameras(generator: torch.Generator, draws: FakeDraws, *, swap: float) -> FakeDraws:
    """The same draws with cameras for the mapping network: that of the (first) view, or, with probability ``swap``,
    that of the batch's previous scene, so that a scene cannot be made for the one camera it is seen from (EG3D's pose
    swapping).
    """
    own = draws.camera_labels if draws.z.ndim == 3 else draws.camera_labels[:, 0]
    swapped = torch.rand(own.shape[:-1], generator=generator) < swap
    return replace(draws, told_labels=torch.where(swapped[..., None], own.roll(1, dims=0), own))


def draw_jitter(generator: torch.Generator, draws: FakeDraws) -> FakeDraws:
    """The same draws with a seed for each picture."""
    shape = draws.camera_labels.shape[:2]
    return replace(draws, jitter_seeds=torch.randint(2**31, shape, generator=generator))


@dataclass(frozen=True, kw_only=True)
class DensityDraws:
    """Pairs of neighbouring points in new scenes, for the regularisation of density.

    Attributes:
        z: latents.
        told_labels: as in :class:`FakeDraws`.
        points: world units.
        offsets: from them to their neighbours.
    """

    z: Float[Tensor, "batch z_dim"]
    told_labels: Float[Tensor, "batch 25"] | None
    points: Float[Tensor, "batch point 3"]
    offsets: Float[Tensor, "batch point 3"]

    def map(self, function: Callable[[Tensor], Tensor]) -> DensityDraws:
        """The same draws with ``function`` applied to every tensor (indexing, ``to``...)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})


def draw_density(
    generator: torch.Generator,
    told_labels: Float[Tensor, "batch 25"] | None,
    *,
    batch_size: int,
    z_dim: int,
    planes: PlaneTrainingConfig,
) -> DensityDraws:
    """Draw for a whole batch.

    Args:
        generator: of random numbers.
        told_labels: of the scenes, for a generator that looks at cameras.
        batch_size: scenes.
        z_dim: numbers per latent.
        planes: number and places of the points.
    """
    z = torch.randn(batch_size, z_dim, generator=generator)
    points, offsets = draw_point_pairs(
        generator,
        batch_size=batch_size,
        points=planes.density_points,
        half_side=planes.density_half_side,
        distance=planes.density_distance,
    )
    return DensityDraws(z=z, told_labels=told_labels, points=points, offsets=offsets)


def draw_backgrounds(generator: torch.Generator, *, batch_size: int) -> Float[Tensor, "batch 3"]:
    """Random solid colours for the real images of a batch."""
    return torch.rand(batch_size, 3, generator=generator)


def deal(whole: Tensor, *, rank: int, world_size: int, device: torch.device | str) -> Tensor:
    """The part of a joined batch that belongs to process ``rank``."""
    return whole[rank::world_size].to(device)
