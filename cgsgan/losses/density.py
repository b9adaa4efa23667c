"""Regularisers of a density field, from its values at pairs of neighbouring points.

Smoothness is EG3D's (Chan et al. 2022, supplement): the mean absolute difference. The monotonic variants are defined
here from what they are for, a head without floaters in front of it and without a hollow behind its face: on the way
from the front into the head, along -z, density does not decrease. They are the mean of what it decreases by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

Density = Callable[[Float[Tensor, "batch point 3"]], Float[Tensor, "batch point 1"]]
"""Points of each scene, world units, to densities (raw ones: the activated ones have no gradient in empty space)."""
Monotonic = Literal["monotonic-fixed", "monotonic-detach"]


def draw_point_pairs(
    generator: torch.Generator, *, batch_size: int, points: int = 1000, half_side: float = 1.0, distance: float = 0.004
) -> tuple[Float[Tensor, "batch point 3"], Float[Tensor, "batch point 3"]]:
    """Points, and offsets to their neighbours, for :func:`density_smoothness`; on the CPU.

    Args:
        generator: of random numbers.
        batch_size: scenes.
        points: pairs per scene.
        half_side: points are uniform in [-half_side, half_side]^3, world units. The planes of a box of side 1 cover
            half_side = 0.5; beyond them the field is constant, and pairs there are 0.
        distance: standard deviation of the offsets along each axis, in the same unit.
    """
    centers = (torch.rand(batch_size, points, 3, generator=generator) * 2 - 1) * half_side
    return centers, torch.randn(batch_size, points, 3, generator=generator) * distance


def density_smoothness(
    density: Density, points: Float[Tensor, "batch point 3"], offsets: Float[Tensor, "batch point 3"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of the densities at points and their neighbours.

    Args:
        density: of the scenes.
        points: world units.
        offsets: from the points to their neighbours.
    """
    here, there = _pair(density, points, points + offsets)
    return (here - there).abs().mean()


def density_decrease(
    density: Density, points: Float[Tensor, "batch point 3"], *, step: float, variant: Monotonic = "monotonic-fixed"
) -> Float[Tensor, ""]:
    """Mean of max(0, density(p) - density(p - step z)): how much density is lost on the way from the front to the back.

    A field that does not decrease along -z at any pair has the loss 0. Faces look along +z.

    Args:
        density: of the scenes.
        points: world units.
        step: > 0, world units; about a texel of the planes.
        variant: ``monotonic-fixed`` moves both points of a pair; ``monotonic-detach`` takes the density in front as
            given and only fills what is behind it, so that it cannot shave a face off to please the loss.
    """
    in_front, behind = _pair(density, points, points - points.new_tensor([0.0, 0.0, step]))
    if variant == "monotonic-detach":
        in_front = in_front.detach()
    return relu(in_front - behind).mean()


def _pair(density: Density, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one call: the planes are laid out once."""
    here, there = density(torch.cat([first, second], dim=1)).chunk(2, dim=1)
    return here, there
